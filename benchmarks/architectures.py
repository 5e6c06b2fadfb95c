"""Every transformers architecture that a family claims, as a tiny model with random weights, through the whole tool.

A family claims all architectures of its transformers auto class. Each one is made as small as possible
(`tiny_transformers`), written to a folder like `save_pretrained` does, and then loaded, run, generated with, saved,
restored, compared and predicted with, in its own process; then again under `int8_dynamic`.

An architecture that is not supported must be rejected with a message of this package. Any other error is a failure.
Speed and memory are not measured, so other programs may run meanwhile. Each outcome is stored at once, and an
architecture that works or is rejected is tried again only by name (`--only-type`): a stopped run continues.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from benchmarks.finding import RESULTS, Cell, Finding, table
from mlflow_compress import registry

KEPT = RESULTS / "architectures.jsonl"
PAGE = Path(__file__).parent.parent / "docs" / "reference" / "architectures.md"
FAMILIES: Mapping[str, Mapping[str, int]] = {  # with options that shorten the timed call
    "causal_lm": {"prompt_tokens": 12, "new_tokens": 4},
    "seq2seq": {"source_tokens": 12, "new_tokens": 4, "most_tokens": 6},
    "asr": {"new_tokens": 4},
    "asr_ctc": {"seconds": 1, "window_seconds": 2},
    "text_classification": {"tokens": 16},
    "token_classification": {"tokens": 16},
    "image_classification": {},
}
_METHOD = "int8_dynamic"
_SECONDS, _BYTES = 240, 6 * 2**30  # limits of one process
_SECONDS_ALONE = 900  # limit for a second try alone, after a time-out
_AT_ONCE = 2
_SKIPPED_IN_QUICK = 60
_CLASS = re.compile(r"\b[A-Z]\w*(?:For[A-Z]\w+|LMHeadModel)\b")  # names of transformers classes in messages
_LIBRARY = re.compile(r"requires (?:the )?(\S+) library")

_OWN_WORDS = "can't be measured here"  # in the message for a model that fails on its family's inputs

Outcome = Literal["works", "refused", "failed", "too slow", "not built"]
_OUTCOMES: tuple[Outcome, ...] = ("works", "refused", "failed", "too slow", "not built")
_GOOD: tuple[Outcome, ...] = ("works", "refused")
_TELLING: tuple[Outcome, ...] = ("failed", "refused", "not built")  # if no size works, the first of these is reported


@dataclass(frozen=True)
class Tried:
    """The result for one architecture.

    Attributes:
        family: the family that loaded it.
        architecture: transformers' name of it (`model_type`).
        outcome: `works`; `refused`, with a message; `failed`; `too slow`, if it did not end in time, so that the result
            is unknown; `not built`, if transformers could not build a tiny model.
        said: the reason, if it does not work.
        method: the outcome under `int8_dynamic`: `ok`, `skipped: ...` or `failed: ...`; empty if it was not tried.
        level: the level of its size.
        parameters: number of parameters of the tiny model.
        when: date and time of the trial, UTC.
    """

    family: str
    architecture: str
    outcome: Outcome
    said: str = ""
    method: str = ""
    level: int = 0
    parameters: int = 0
    when: str = ""


def claimed(family: str) -> list[str]:
    """Return the architectures of a family's transformers auto class."""
    import transformers

    mapping = getattr(transformers, registry.find("families", family).auto_class)._model_mapping
    return sorted(mapping._model_mapping)


def find(quick: bool, only: str = "", only_type: str = "") -> Finding:
    """Try all architectures without a good stored outcome, or those that are named; store each outcome at once."""
    earlier = {} if quick else {(past.family, past.architecture): past for past in kept()}
    chosen_types = only_type.split(",") if only_type else []
    cells = [
        (family, architecture)
        for family in FAMILIES
        if only in ("", family)
        for architecture in claimed(family)
        if (architecture in chosen_types if chosen_types else not _is_settled(earlier.get((family, architecture))))
    ][:: _SKIPPED_IN_QUICK if quick else 1]
    cells.sort(key=lambda cell: cell in earlier and earlier[cell].outcome in _GOOD)  # unknown outcomes first
    for outcome in _all(cells):
        trial = dataclasses.replace(outcome, when=time.strftime("%Y-%m-%d %H:%M", time.gmtime()))
        click.echo(f"{trial.family} {trial.architecture}: {trial.outcome} {trial.said} [{trial.method}]", err=True)
        earlier[trial.family, trial.architecture] = trial
        if not quick:
            with KEPT.open("a", encoding="utf-8") as file:
                file.write(_line(trial))
    trials = [earlier[cell] for cell in sorted(earlier) if cell[0] in FAMILIES]
    if not quick:
        KEPT.write_text("".join(map(_line, trials)), encoding="utf-8")
        PAGE.write_text(page(trials), encoding="utf-8")
    failures = [trial for trial in trials if trial.outcome == "failed" or trial.method.startswith("failed")]
    is_all_known = {(family, name) for family in FAMILIES for name in claimed(family)} <= {
        cell for cell, trial in earlier.items() if trial.outcome in (*_GOOD, "failed")
    }
    return Finding(
        name="architectures",
        goal="all architectures that the families claim work, or are rejected with a message.",
        met=False if failures else True if is_all_known else None,
        rows=_summary(trials),
        notes=[
            "each architecture, with its outcome: [reference/architectures.md](../docs/reference/architectures.md)",
            "the time below is that of the last session, without that of outcomes stored earlier",
            *(
                f"{trial.family}, {trial.architecture}: {trial.outcome} {trial.said} {trial.method}"
                for trial in failures
            ),
        ],
    )


def _is_settled(trial: Tried | None) -> bool:
    """Return whether an architecture works and the method works or is skipped, or whether it is rejected."""
    if trial is None or trial.outcome not in _GOOD:
        return False
    return trial.outcome == "refused" or trial.method.startswith(("ok", "skipped"))


def _line(trial: Tried) -> str:
    return json.dumps(dataclasses.asdict(trial)) + "\n"


def kept() -> list[Tried]:
    """Return the stored outcomes."""
    lines = KEPT.read_text(encoding="utf-8").splitlines() if KEPT.exists() else []
    return [Tried(**json.loads(line)) for line in lines]


def _summary(all_trials: Sequence[Tried]) -> list[Mapping[str, Cell]]:
    rows: list[Mapping[str, Cell]] = []
    for family in FAMILIES:
        trials = [trial for trial in all_trials if trial.family == family]
        outcomes: dict[str, Cell] = {name: sum(trial.outcome == name for trial in trials) for name in _OUTCOMES}
        method_counts = {
            name: sum(trial.method.startswith(name) for trial in trials) for name in ("ok", "skipped", "failed")
        }
        methods: dict[str, Cell] = {f"{_METHOD} {name}": count for name, count in method_counts.items()}
        rows.append({"family": family, "architectures": len(trials), **outcomes, **methods})
    return rows


def page(tried: Sequence[Tried]) -> str:
    """Format all outcomes as a page of the documentation."""
    days = sorted(trial.when for trial in tried if trial.when)
    lines = [
        "# Transformers architectures",
        "",
        "Transformers architectures that can be measured, by the family that loads them (`--family NAME` if the family",
        "can't be detected). Written by `python -m benchmarks architectures`: each of them was loaded,",
        "run, saved, restored and compared, and used to generate and predict, as a tiny model with random",
        f"weights, and some of them again under `{_METHOD}`. This shows that they work, not their speed or quality.",
        "",
        *table(_summary(tried)),
        "",
        "* refused: the error message, before anything is measured",
        "* not built: this benchmark or transformers could not build a tiny model here; it may work",
        "* too slow: it did not end in time; it may work",
        f"* {_METHOD}: out of those that work; the others were not tried under it yet",
        *([f"* tried from {days[0]} to {days[-1]} UTC"] if days else []),
    ]
    for family in FAMILIES:
        of_family = [trial for trial in tried if trial.family == family]
        lines += ["", f"## {family}", ""]
        for outcome in _OUTCOMES:
            trials = [trial for trial in of_family if trial.outcome == outcome]
            if outcome == "works":
                lines += [f"Works ({len(trials)}): {_listed(trials)}."]
            elif trials:
                reasons = _reasons(trials, lambda trial: trial.said)
                lines += ["", f"{outcome.capitalize()} ({len(trials)}):", "", *reasons]
        if skipped := [trial for trial in of_family if trial.method not in ("", "ok")]:
            lines += ["", f"Under `{_METHOD}` ({len(skipped)}):", "", *_reasons(skipped, lambda trial: trial.method)]
    return "\n".join(lines) + "\n"


def _listed(trials: Iterable[Tried]) -> str:
    return ", ".join(f"`{trial.architecture}`" for trial in trials) or "none"


def _reasons(trials: Sequence[Tried], reason_of: Callable[[Tried], str]) -> list[str]:
    """Return the lines of a list: each reason, with its architectures."""
    by_reason: dict[str, list[Tried]] = {}
    for trial in trials:
        reason = _CLASS.sub("It", reason_of(trial).replace("\n", " ").replace("<", "&lt;"))
        if library := _LIBRARY.search(reason):
            reason = f"transformers requires {library[1]}, which is not installed here"
        by_reason.setdefault(reason, []).append(trial)
    return [f"* {_listed(same_reason)}: {reason}" for reason, same_reason in by_reason.items()]


def _all(cells: Sequence[tuple[str, str]]) -> Iterator[Tried]:
    """Try each in its own process. Processes are forked, so that libraries are imported only once."""
    import torch

    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    if cells:
        _import_all()
    late: list[tuple[str, str]] = []
    for trial in _some_at_once(cells, _AT_ONCE, _SECONDS):
        if trial.outcome == "too slow":
            late.append((trial.family, trial.architecture))
        else:
            yield trial
    yield from _some_at_once(late, 1, _SECONDS_ALONE)


def _some_at_once(cells: Iterable[tuple[str, str]], limit: int, seconds: int) -> Iterator[Tried]:
    """Try each cell, at most `limit` at once, none for longer than `seconds`."""
    running: dict[int, tuple[tuple[str, str], Path, float]] = {}
    waiting = list(cells)
    with tempfile.TemporaryDirectory() as folder:
        while waiting or running:
            if waiting and len(running) < limit:
                cell = waiting.pop(0)
                path = Path(folder) / "-".join(cell)
                path.mkdir()
                running[_fork(*cell, path)] = cell, path, time.monotonic()
                continue
            yield from _ended(running, seconds)
            time.sleep(0.05)


def _import_all() -> None:
    """Run one model through the whole tool here, so that children inherit all imports."""
    with tempfile.TemporaryDirectory() as folder:
        _try("text_classification", "bert", Path(folder))


def _ended(running: dict[int, tuple[tuple[str, str], Path, float]], seconds: int) -> Iterator[Tried]:
    """Yield the results of processes that have ended; end those that take too long."""
    for process, (cell, path, started) in list(running.items()):
        ended, status = os.waitpid(process, os.WNOHANG)
        is_late = time.monotonic() - started > seconds
        if not ended and is_late:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
        if ended or is_late:
            del running[process]
            result = path / "tried.json"
            if result.exists():
                yield Tried(**json.loads(result.read_text(encoding="utf-8")))
            elif is_late:
                yield Tried(*cell, "too slow", f"it did not end in {seconds} s, on one shared core")
            else:
                yield Tried(*cell, "failed", f"the process ended with {os.waitstatus_to_exitcode(status)}")
            shutil.rmtree(path, ignore_errors=True)


def _fork(family: str, architecture: str, path: Path) -> int:
    """Start a process that tries an architecture and writes the result to `tried.json`."""
    process = os.fork()
    if process:
        return process
    try:
        import resource  # of POSIX, like fork

        resource.setrlimit(resource.RLIMIT_DATA, (_BYTES, _BYTES))
        if not os.environ.get("COMPRESS_SHOW"):
            silent = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silent, 1)
            os.dup2(silent, 2)
        trial = _try(family, architecture, path)
        (path / "part.json").write_text(json.dumps(dataclasses.asdict(trial)), encoding="utf-8")
        (path / "part.json").rename(path / "tried.json")
    finally:
        os._exit(0)


def _try(family: str, architecture: str, path: Path) -> Tried:
    """Try an architecture at each level until it works; if none works, the first reason counts."""
    from benchmarks.tiny_transformers import LEVELS, write

    kind = registry.find("families", family)
    outcomes: list[Tried] = []
    for level in LEVELS:
        source = path / str(level)
        try:
            folder = write(architecture, kind.auto_class, kind.keeps, level, source)
        except Exception as error:
            outcomes.append(Tried(family, architecture, "not built", _named(error), level=level))
            if isinstance(error, ImportError):  # a library is missing
                break
            continue
        outcome, reason = _tried_once(family, str(source), path / f"original-{level}", "original")
        trial = Tried(family, architecture, outcome, reason, level=level, parameters=folder.parameters)
        if outcome == "works":
            of_method, method_reason = _tried_once(family, str(source), path / f"method-{level}", _METHOD)
            status = {"works": "ok", "refused": "skipped: "}.get(of_method, "failed: ")
            return dataclasses.replace(trial, method=f"{status}{method_reason}")
        outcomes.append(trial)
        if outcome == "refused" and _OWN_WORDS not in reason:  # the reason does not depend on the size
            break
    return min(outcomes, key=lambda trial: _TELLING.index(trial.outcome))


def _tried_once(family_name: str, source: str, folder: Path, method: str) -> tuple[Outcome, str]:
    """Run a model through the whole tool, and return the outcome and its reason."""
    from mlflow_compress.errors import CompressError, Unsupported, WorkerError
    from mlflow_compress.measuring.model_trial import ModelError

    folder.mkdir()
    try:
        _go(family_name, source, folder, method)
    except (CompressError, Unsupported) as error:
        inner = error.__cause__ if isinstance(error, ModelError) else None
        cause = inner if isinstance(inner, CompressError) else error
        is_message = cause.__cause__ is None or isinstance(cause.__cause__, ImportError) or _OWN_WORDS in str(cause)
        if is_message and not isinstance(cause, WorkerError):  # a WorkerError: a check found other outputs
            return "refused", str(cause).replace(source, "FOLDER")
        return "failed", _named(cause).replace(source, "FOLDER")
    except Exception as error:
        return "failed", _named(error).replace(source, "FOLDER")
    return "works", ""


def _go(family_name: str, source: str, folder: Path, method: str) -> None:
    """Load, run, compress, generate, save, restore, compare, predict."""
    import torch

    from mlflow_compress.measuring import output_error, worker
    from mlflow_compress.networks import generation_check, model_folder
    from mlflow_compress.planning import chains
    from mlflow_compress.records import Variant

    variant = Variant(
        family_name, method, "tiny", family_name, source, "auto",
        chain=chains.parse_chain(method), options=dict(FAMILIES[family_name]), batch_size=2, folder=source,
    )  # fmt: skip
    worker.prepare(variant, folder, worker.Report(io.StringIO()))
    restored = model_folder.restore(folder / worker.MODEL_FOLDER)
    family, model = restored.family, restored.model
    stages: list[str] = []
    with torch.inference_mode():
        family.run(model, family.batch(model, variant.batch_size, 1), stages.append)
    family.rates(10.0, dict.fromkeys(stages, 1.0), variant.batch_size)
    output_error.compare(family, model, variant, folder / worker.OUTPUTS, "cpu")
    generation_check.compare(family, model, folder / worker.GENERATED, "cpu")
    for call in family.around(model, 1, 0).values():
        call()
    example = family.example(model)
    if len(family.predict(model, [*example, *example])) != 2 * len(example):
        raise AssertionError("the numbers of predictions and inputs differ")


def _named(error: BaseException) -> str:
    import traceback

    if os.environ.get("COMPRESS_SHOW"):
        traceback.print_exception(error, limit=-8)
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
