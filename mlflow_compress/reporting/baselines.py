"""Says which rows are compared with something else than the original of their own model: what `--baseline` asks for."""

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

SHORT_ID = 8  # characters of a run's id that tell it from the others
_PACKED = "compress.packed"


@dataclass(frozen=True)
class Baseline:
    """One `--baseline`: whose rows it is about, and what these are compared with.

    Attributes:
        name: the model whose original is meant, or the id of the run that is.
        lines: the originals of that model, those of the newest runs first, or the one run.
        is_run: whether a run was named, and not a model.
        rows_of: the model whose rows are meant, or a pattern. Empty: the rows of models whose original is quantised
            already, and where a run was named, those of its model too.
    """

    name: str
    lines: tuple[Line, ...]
    is_run: bool = False
    rows_of: str = ""

    def takes(self, line: Line, original: Line | None) -> bool:
        """Return whether a row is compared with this, and not with the original of its own model.

        What was copied from a table is compared with a row of that table only.

        Args:
            line: the row's.
            original: of its own model; None where there is none.
        """
        beside = [each for each in self.lines if _source(each.key) == _source(line.key)]
        if not beside:
            return False
        is_own = line.key.model == beside[0].key.model
        if is_own and not self.is_run:
            return False  # it is compared with that original anyway
        if self.rows_of == line.key.model:
            return True
        if not _may_be_alike(_family(line), _family(beside[0])):
            return False
        if self.rows_of:
            return fnmatch.fnmatchcase(line.key.model, self.rows_of)
        return is_own or _is_packed(line) or (original is not None and _is_packed(original))

    def line_of(self, key: Key) -> Line | None:
        """Return what a row is compared with; None where nothing was measured at its batch size.

        That of its team comes first, then one at its setting, then one without any. What another setting changes in a
        call is told by the circumstances.
        """

        def rank(line: Line) -> tuple[bool, ...]:
            own, other = key, line.key
            return other.team != own.team, other.setting != own.setting, other.setting != "", other.method != ORIGINAL

        fitting = [each for each in self.lines if _source(each.key) == _source(key) and each.key.batch == key.batch]
        return min(fitting, key=rank, default=None)

    def is_in(self, line: Line) -> bool:
        """Return whether a row holds the very run that was named."""
        return self.is_run and self.name in {run.run_id for run in line.runs.values()}

    def note(self, line: Line | None) -> Note:
        """Say what a row is compared with, or why it is not.

        Args:
            line: as `line_of` returns it for the row.
        """
        said = self.name[:SHORT_ID] if self.is_run else self.name
        if line is None:
            return Note("no_baseline", said)
        if self.is_run:
            return Note("baseline_run", f"{said} ({line.key.team}, {line.key.model}, {line.key.label()})")
        return Note("baseline", f"{said} ({line.precision})" if line.precision else said)


def read(texts: Sequence[str], runs: Iterable[Run], devices: Sequence[str] = ()) -> tuple[Baseline, ...]:
    """Read what `--baseline` was given: a model or a run, or `MODEL=` (or a pattern, `*=`) before it.

    Args:
        texts: as they were given.
        runs: all of the experiments.
        devices: what was measured on others does not count; empty: on whatever.

    Raises:
        StoreError: there is no such model or run, or it holds no numbers. It says what could be named.
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
        rows_of, name = _parted(text, models)
        if not _fits_any(rows_of, models):
            raise StoreError(
                f"No row is of the model that --baseline {text} is for. {UnknownName('model', rows_of, models)}"
            )
    originals = tuple(line for line in lines if line.key.is_original and line.key.model == name)
    if originals:
        return Baseline(name, originals, rows_of=rows_of)
    if name in models:
        known = ", ".join(sorted({line.key.model for line in lines if line.key.is_original}, key=natural))
        raise StoreError(
            f"--baseline {text}: the original of {name!r} was not measured here. Measure it (compress-bench run "
            f"{name}), give the id of a run, or name a model that has an original here: {known or 'there is none'}."
        )
    return Baseline(*_run(name, text, models, runs, by_run), is_run=True, rows_of=rows_of)


def _parted(text: str, models: Collection[str]) -> tuple[str, str]:
    """Part `OTHER=NAME`, where either may have a `=` in it: so that both are known, else at the last one."""
    places = [at for at, letter in enumerate(text) if letter == "="]
    parts = [(text[:at], text[at + 1 :]) for at in places]
    return next((part for part in parts if part[1] in models and _fits_any(part[0], models)), parts[-1])


def _fits_any(pattern: str, models: Iterable[str]) -> bool:
    return any(model == pattern or fnmatch.fnmatchcase(model, pattern) for model in models)


def _run(
    name: str, text: str, models: Iterable[str], runs: Sequence[Run], by_run: Sequence[Line]
) -> tuple[str, tuple[Line]]:
    """Return the id of the run that a name means, and its numbers."""
    fitting = [run for run in runs if run.run_id == name or (len(name) >= SHORT_ID and run.run_id.startswith(name))]
    if not fitting:
        raise StoreError(
            f"No such baseline. {UnknownName('model', name, models)} Or give the id of a run, or its first {SHORT_ID} "
            "characters."
        )
    if len(fitting) > 1:
        told = "; ".join(f"{run.run_id}, {run.said('model')} {run.said('method')}" for run in fitting)
        raise StoreError(f"--baseline {text} fits several runs: {told}. Give more of the id.")
    (run,) = fitting
    measured = [line for line in by_run if line.key.run_id == run.run_id]
    if not measured:
        why = run.tags.get("compress.reason") or run.tags.get("status") or "it has no result"
        raise StoreError(f"--baseline {text}: this run holds no numbers to compare with ({why}). Name another one.")
    return run.run_id, (measured[0],)


def idle(baselines: Iterable[Baseline], rows: Iterable[Row]) -> Iterator[str]:
    """Yield a sentence for each baseline that no row of a comparison is compared with.

    Args:
        baselines: what was asked for.
        rows: of the comparison.
    """
    used = {row.baseline for row in rows}
    for each in baselines:
        if each.name not in used:
            why = (
                f"no row here is of {each.rows_of} and may be compared with it"
                if each.rows_of
                else "it is for models whose checkpoint was quantised already, and none of its family is here"
            )
            yield (
                f"--baseline {each.name} changes nothing: {why}. To compare the rows of whatever other model with it: "
                f"--baseline OTHER={each.name}"
            )


def _source(key: Key) -> tuple[bool, str]:
    return key.by_hand, key.table


def _family(line: Line) -> str:
    said = (run.tags.get("compress.family") or run.said("family") for run in line.runs.values())
    return next(filter(None, said), "")


def _may_be_alike(one: str, other: str) -> bool:
    """Return whether two models may be of one family, where earlier versions did not note it."""
    return one == other or not (one and other)


def _is_packed(line: Line) -> bool:
    """Return whether a model's checkpoint was quantised before it was measured."""
    return any(run.tags.get(_PACKED) for run in line.runs.values())


def given(
    lines: Mapping[Key, Line], original_of: Mapping[Key, Line | None], baselines: Sequence[Baseline]
) -> dict[Key, Baseline]:
    """Return the baseline of each row that has one: the first that takes it.

    Args:
        lines: of the table.
        original_of: of each the original of its own model.
        baselines: what was asked for, in order.
    """
    found = {
        key: next((each for each in baselines if each.takes(line, original_of[key])), None)
        for key, line in lines.items()
    }
    return {key: baseline for key, baseline in found.items() if baseline is not None}
