"""Decides which rows are compared with something else than their own model's original: the option `--baseline`."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mlflow_compress.errors import StoreError, UnknownName
from mlflow_compress.records import Row, Run
from mlflow_compress.reporting.footnotes import Note
from mlflow_compress.reporting.table_lines import Key, Line, sorted_out, variants_of
from mlflow_compress.reporting.table_text import natural
from mlflow_compress.words import ORIGINAL

SHORT_ID = 8  # characters that identify a run
_PACKED = "compress.packed"


@dataclass(frozen=True)
class Baseline:
    """One `--baseline`: the rows it applies to, and what they are compared with.

    Attributes:
        name: the model whose original is the baseline, or the id of the run that is.
        lines: the originals of that model, the newest runs first, or the one run.
        is_run: whether a run was named instead of a model.
        rows_of: the model, or a pattern of models, whose rows it applies to. Empty: rows of models whose original is
            already quantised, and for a run also the rows of its own model.
    """

    name: str
    lines: tuple[Line, ...]
    is_run: bool = False
    rows_of: str = ""

    def takes(self, line: Line, original: Line | None) -> bool:
        """Return whether a row is compared with this baseline instead of the original of its own model.

        A row copied from a table is compared only with a row of the same table.

        Args:
            line: the row's line.
            original: the original of the row's own model; None where there is none.
        """
        candidates = [candidate for candidate in self.lines if _source(candidate.key) == _source(line.key)]
        if not candidates:
            return False
        is_own = line.key.model == candidates[0].key.model
        if is_own and not self.is_run:
            return False  # the row is compared with that original anyway
        if self.rows_of == line.key.model:
            return True
        if not _may_be_alike(_family(line), _family(candidates[0])):
            return False
        if self.rows_of:
            return fnmatch.fnmatchcase(line.key.model, self.rows_of)
        return is_own or _is_packed(line) or (original is not None and _is_packed(original))

    def line_of(self, key: Key) -> Line | None:
        """Return the line that a row is compared with; None where nothing was measured at its batch size.

        Prefer the same team, then the same setting, then no setting. The circumstances show what another setting
        changes in a call.
        """

        def rank(line: Line) -> tuple[bool, ...]:
            own, other = key, line.key
            return other.team != own.team, other.setting != own.setting, other.setting != "", other.method != ORIGINAL

        fitting = [line for line in self.lines if _source(line.key) == _source(key) and line.key.batch == key.batch]
        return min(fitting, key=rank, default=None)

    def is_in(self, line: Line) -> bool:
        """Return whether a row contains the named run itself."""
        return self.is_run and self.name in {run.run_id for run in line.runs.values()}

    def note(self, line: Line | None) -> Note:
        """Return the footnote that states what a row is compared with, or that it has no baseline.

        Args:
            line: the result of `line_of` for the row.
        """
        name = self.name[:SHORT_ID] if self.is_run else self.name
        if line is None:
            return Note("no_baseline", name)
        if self.is_run:
            return Note("baseline_run", f"{name} ({line.key.team}, {line.key.model}, {line.key.label()})")
        return Note("baseline", f"{name} ({line.precision})" if line.precision else name)


def read(texts: Sequence[str], runs: Iterable[Run], devices: Sequence[str] = ()) -> tuple[Baseline, ...]:
    """Read the values of `--baseline`: a model or a run, with an optional `MODEL=` or pattern (`*=`) before it.

    Args:
        texts: the values, as given.
        runs: all runs of the experiments.
        devices: measurements on other devices do not count; empty: all devices count.

    Raises:
        StoreError: the model or run does not exist, or has no numbers. The message lists what can be named.
    """
    if not texts:
        return ()
    newest = variants_of(runs, devices)
    lines, by_run = (
        list(sorted_out(newest, "en")[0].values()),
        list(sorted_out(newest, "en", every_run=True)[0].values()),
    )
    return tuple(_read(text, newest, lines, by_run) for text in texts)


def _read(text: str, runs: Sequence[Run], lines: Sequence[Line], by_run: Sequence[Line]) -> Baseline:
    models = {run.said("model") for run in runs}
    rows_of, name = "", text
    if text not in models and "=" in text:
        rows_of, name = _split(text, models)
        if not _fits_any(rows_of, models):
            raise StoreError(
                f"--baseline {text} is for a model that has no rows here. {UnknownName('model', rows_of, models)}"
            )
    originals = tuple(line for line in lines if line.key.is_original and line.key.model == name)
    if originals:
        return Baseline(name, originals, rows_of=rows_of)
    if name in models:
        available = ", ".join(sorted({line.key.model for line in lines if line.key.is_original}, key=natural))
        raise StoreError(
            f"--baseline {text}: the original of {name!r} was not measured here. Measure it (compress-bench run "
            f"{name}), give a run id, or name a model whose original is here: {available or 'there is none'}."
        )
    return Baseline(*_run(name, text, models, runs, by_run), is_run=True, rows_of=rows_of)


def _split(text: str, models: Collection[str]) -> tuple[str, str]:
    """Split `OTHER=NAME`. Either part may contain `=`: prefer a split where both are known, else the last one."""
    places = [index for index, letter in enumerate(text) if letter == "="]
    parts = [(text[:place], text[place + 1 :]) for place in places]
    return next((part for part in parts if part[1] in models and _fits_any(part[0], models)), parts[-1])


def _fits_any(pattern: str, models: Iterable[str]) -> bool:
    return any(model == pattern or fnmatch.fnmatchcase(model, pattern) for model in models)


def _run(
    name: str, text: str, models: Iterable[str], runs: Sequence[Run], by_run: Sequence[Line]
) -> tuple[str, tuple[Line]]:
    """Return the id of the run that a name refers to, and its numbers."""
    fitting = [run for run in runs if run.run_id == name or (len(name) >= SHORT_ID and run.run_id.startswith(name))]
    if not fitting:
        raise StoreError(
            f"Unknown baseline. {UnknownName('model', name, models)} Or give a run id, or its first {SHORT_ID} "
            "characters."
        )
    if len(fitting) > 1:
        matches = "; ".join(f"{run.run_id}, {run.said('model')} {run.said('method')}" for run in fitting)
        raise StoreError(f"--baseline {text} matches several runs: {matches}. Give more characters of the id.")
    (run,) = fitting
    measured = [line for line in by_run if line.key.run_id == run.run_id]
    if not measured:
        why = run.tags.get("compress.reason") or run.tags.get("status") or "it has no result"
        raise StoreError(f"--baseline {text}: this run has no numbers to compare with ({why}). Name another one.")
    return run.run_id, (measured[0],)


def idle(baselines: Iterable[Baseline], rows: Iterable[Row]) -> Iterator[str]:
    """Yield a message for each baseline that no row of a comparison uses.

    Args:
        baselines: all values of `--baseline`.
        rows: the rows of the comparison.
    """
    used = {row.baseline for row in rows}
    for baseline in baselines:
        if baseline.name not in used:
            why = (
                f"no row of {baseline.rows_of} can be compared with it"
                if baseline.rows_of
                else "it applies to models whose checkpoint was already quantised, and none of its family is here"
            )
            yield (
                f"--baseline {baseline.name} has no effect: {why}. To compare the rows of any other model with it: "
                f"--baseline OTHER={baseline.name}"
            )


def _source(key: Key) -> tuple[bool, str]:
    return key.by_hand, key.table


def _family(line: Line) -> str:
    families = (run.tags.get("compress.family") or run.said("family") for run in line.runs.values())
    return next(filter(None, families), "")


def _may_be_alike(one: str, other: str) -> bool:
    """Return whether two models may be of one family; earlier versions did not record the family."""
    return one == other or not (one and other)


def _is_packed(line: Line) -> bool:
    """Return whether a model's checkpoint was quantised before it was measured."""
    return any(run.tags.get(_PACKED) for run in line.runs.values())


def baselines_of(
    lines: Mapping[Key, Line], original_of: Mapping[Key, Line | None], baselines: Sequence[Baseline]
) -> dict[Key, Baseline]:
    """Return the baseline of each row that has one: the first that accepts the row.

    Args:
        lines: the lines of the table.
        original_of: the original of each line's own model.
        baselines: all values of `--baseline`, in order.
    """
    optional_baselines = {
        key: next((baseline for baseline in baselines if baseline.takes(line, original_of[key])), None)
        for key, line in lines.items()
    }
    return {key: baseline for key, baseline in optional_baselines.items() if baseline is not None}
