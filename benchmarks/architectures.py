"""Every transformers architecture that a family claims, as a tiny model with random weights, through the whole way.

A family claims what the transformers class that it loads with knows. Each architecture is made as small as it goes
(`tiny_transformers`), written into a folder as `save_pretrained` does it, and then loaded, run, generated with, saved,
restored in the same state, compared and predicted with, in a process of its own; then once more under `int8_dynamic`.

What can't be served must be refused in a sentence of this package's own. All else that goes wrong is a failure.
Speed and memory are not measured: this may run beside other things. Each outcome is kept as soon as it is known, and
what works or is refused is not tried again but by its name (`--only-type`): a run that was stopped goes on.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import resource
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
FAMILIES: Mapping[str, Mapping[str, int]] = {  # with the options that make the timed call short
    "causal_lm": {"prompt_tokens": 12, "new_tokens": 4},
    "seq2seq": {"source_tokens": 12, "new_tokens": 4, "most_tokens": 6},
    "asr": {"new_tokens": 4},
    "text_classification": {"tokens": 16},
    "token_classification": {"tokens": 16},
    "image_classification": {},
}
_METHOD = "int8_dynamic"
_SECONDS, _BYTES = 240, 6 * 2**30  # of one process
_SECONDS_ALONE = 900  # of what took too long: it is tried once more, with nothing beside it
_AT_ONCE = 2
_SKIPPED_IN_QUICK = 60
_CLASS = re.compile(r"\b[A-Z]\w*(?:For[A-Z]\w+|LMHeadModel)\b")  # of transformers, in a message
_LIBRARY = re.compile(r"requires (?:the )?(\S+) library")

_OWN_WORDS = "can't be measured here"  # of a model that fails on what its family gives it

Outcome = Literal["works", "refused", "failed", "too slow", "not built"]
_OUTCOMES: tuple[Outcome, ...] = ("works", "refused", "failed", "too slow", "not built")
_GOOD: tuple[Outcome, ...] = ("works", "refused")
_TELLING: tuple[Outcome, ...] = ("failed", "refused", "not built")  # of sizes of which none works, the first is told


@dataclass(frozen=True)
class Tried:
    """What became of one architecture.

    Attributes:
        family: the family that loaded it.
        architecture: transformers' name of it (`model_type`).
        outcome: `works`; `refused`, in a sentence; `failed`; `too slow`, where no end was seen, which says nothing of
            right or wrong; `not built`, where transformers made no tiny one.
        said: the reason, where it does not work.
        method: the outcome under `int8_dynamic`: `ok`, `skipped: ...` or `failed: ...`; empty where it was not tried.
        level: how small it was made.
        parameters: how many the tiny model has.
        when: it was tried, date and time of day, UTC.
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
    """Return the architectures that a family's class of transformers knows."""
    import transformers

    mapping = getattr(transformers, registry.find("families", family).auto_class)._model_mapping
    return sorted(mapping._model_mapping)


def find(quick: bool, only: str = "", only_type: str = "") -> Finding:
    """Try all architectures of which nothing good is kept, or those that are named; keep what comes of each at once."""
    tried = {} if quick else {(each.family, each.architecture): each for each in kept()}
    named = only_type.split(",") if only_type else []
    cells = [
        (family, architecture)
        for family in FAMILIES
        if only in ("", family)
        for architecture in claimed(family)
        if (architecture in named if named else not _is_settled(tried.get((family, architecture))))
    ][:: _SKIPPED_IN_QUICK if quick else 1]
    cells.sort(key=lambda cell: cell in tried and tried[cell].outcome in _GOOD)  # what is not known yet comes first
    for outcome in _all(cells):
        found = dataclasses.replace(outcome, when=time.strftime("%Y-%m-%d %H:%M", time.gmtime()))
        click.echo(f"{found.family} {found.architecture}: {found.outcome} {found.said} [{found.method}]", err=True)
        tried[found.family, found.architecture] = found
        if not quick:
            with KEPT.open("a", encoding="utf-8") as file:
                file.write(_line(found))
    known = [tried[cell] for cell in sorted(tried) if cell[0] in FAMILIES]
    if not quick:
        KEPT.write_text("".join(_line(each) for each in known), encoding="utf-8")
        PAGE.write_text(page(known), encoding="utf-8")
    wrong = [each for each in known if each.outcome == "failed" or each.method.startswith("failed")]
    is_all_known = {(family, name) for family in FAMILIES for name in claimed(family)} <= {
        cell for cell, each in tried.items() if each.outcome in (*_GOOD, "failed")
    }
    return Finding(
        name="architectures",
        goal="of the architectures that the families claim all work, or are refused in a sentence.",
        met=False if wrong else True if is_all_known else None,
        rows=_summary(known),
        notes=[
            "each architecture, with its outcome: [reference/architectures.md](../docs/reference/architectures.md)",
            "the time below is that of the last sitting: what was kept before took its own",
            *(f"{each.family}, {each.architecture}: {each.outcome} {each.said} {each.method}" for each in wrong),
        ],
    )


def _is_settled(tried: Tried | None) -> bool:
    """Return whether an architecture works, also under the method or skipped by it, or is refused."""
    if tried is None or tried.outcome not in _GOOD:
        return False
    return tried.outcome == "refused" or tried.method.startswith(("ok", "skipped"))


def _line(tried: Tried) -> str:
    return json.dumps(dataclasses.asdict(tried)) + "\n"


def kept() -> list[Tried]:
    """Return what was found before."""
    lines = KEPT.read_text(encoding="utf-8").splitlines() if KEPT.exists() else []
    return [Tried(**json.loads(line)) for line in lines]


def _summary(tried: Sequence[Tried]) -> list[Mapping[str, Cell]]:
    rows: list[Mapping[str, Cell]] = []
    for family in FAMILIES:
        own = [each for each in tried if each.family == family]
        outcomes: dict[str, Cell] = {name: sum(each.outcome == name for each in own) for name in _OUTCOMES}
        under = {name: sum(each.method.startswith(name) for each in own) for name in ("ok", "skipped", "failed")}
        methods: dict[str, Cell] = {f"{_METHOD} {name}": count for name, count in under.items()}
        rows.append({"family": family, "architectures": len(own), **outcomes, **methods})
    return rows


def page(tried: Sequence[Tried]) -> str:
    """Give all outcomes as the page of the documentation."""
    days = sorted(each.when for each in tried if each.when)
    lines = [
        "# Transformers architectures",
        "",
        "Which architectures of transformers can be measured, by the family that loads them (`--family NAME` where",
        "the model does not tell it). Written by `python -m benchmarks architectures`: each that a family claims was",
        "loaded, run, saved, restored and compared, generated and predicted with, as a tiny model with random weights,",
        f"and some of them once more under `{_METHOD}`. That says that the way is right, nothing of speed or quality.",
        "",
        *table(_summary(tried)),
        "",
        "* refused: the message that a user reads, before anything is measured",
        "* not built: this benchmark or transformers could not make a tiny model of it here; it may work",
        "* too slow: no end was seen; it may work",
        f"* {_METHOD}: of those that work; the others of them were not tried under it yet",
        *([f"* tried from {days[0]} to {days[-1]} UTC"] if days else []),
    ]
    for family in FAMILIES:
        own = [each for each in tried if each.family == family]
        lines += ["", f"## {family}", ""]
        for outcome in _OUTCOMES:
            names = [each for each in own if each.outcome == outcome]
            if outcome == "works":
                lines += [f"Works ({len(names)}): {_listed(names)}."]
            elif names:
                lines += ["", f"{outcome.capitalize()} ({len(names)}):", "", *_reasons(names, lambda each: each.said)]
        if skipped := [each for each in own if each.method not in ("", "ok")]:
            lines += ["", f"Under `{_METHOD}` ({len(skipped)}):", "", *_reasons(skipped, lambda each: each.method)]
    return "\n".join(lines) + "\n"


def _listed(tried: Iterable[Tried]) -> str:
    return ", ".join(f"`{each.architecture}`" for each in tried) or "none"


def _reasons(tried: Sequence[Tried], told: Callable[[Tried], str]) -> list[str]:
    """Give the lines of a list: each reason, with those of which it was said."""
    by_reason: dict[str, list[Tried]] = {}
    for each in tried:
        reason = _CLASS.sub("It", told(each).replace("\n", " ").replace("<", "&lt;"))
        if needed := _LIBRARY.search(reason):
            reason = f"transformers asks for {needed[1]}, which is not installed here"
        by_reason.setdefault(reason, []).append(each)
    return [f"* {_listed(same)}: {reason}" for reason, same in by_reason.items()]


def _all(cells: Sequence[tuple[str, str]]) -> Iterator[Tried]:
    """Try each in a process of its own. They are forked, so that the libraries are imported once."""
    import torch

    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    if cells:
        _import_all()
    late: list[tuple[str, str]] = []
    for found in _some_at_once(cells, _AT_ONCE, _SECONDS):
        if found.outcome == "too slow":
            late.append((found.family, found.architecture))
        else:
            yield found
    yield from _some_at_once(late, 1, _SECONDS_ALONE)


def _some_at_once(cells: Iterable[tuple[str, str]], most: int, seconds: int) -> Iterator[Tried]:
    """Try each, so many at once, none for longer than so many seconds."""
    running: dict[int, tuple[tuple[str, str], Path, float]] = {}
    waiting = list(cells)
    with tempfile.TemporaryDirectory() as folder:
        while waiting or running:
            if waiting and len(running) < most:
                cell = waiting.pop(0)
                path = Path(folder) / "-".join(cell)
                path.mkdir()
                running[_fork(*cell, path)] = cell, path, time.monotonic()
                continue
            yield from _ended(running, seconds)
            time.sleep(0.05)


def _import_all() -> None:
    """Have one model go all the way here, so that what is imported on the way is there in each child."""
    with tempfile.TemporaryDirectory() as folder:
        _try("text_classification", "bert", Path(folder))


def _ended(running: dict[int, tuple[tuple[str, str], Path, float]], seconds: int) -> Iterator[Tried]:
    """Give what processes found that have ended; end those that take too long."""
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
                yield Tried(*cell, "too slow", f"no end was seen in {seconds} s, on one core that others used too")
            else:
                yield Tried(*cell, "failed", f"the process ended with {os.waitstatus_to_exitcode(status)}")
            shutil.rmtree(path, ignore_errors=True)


def _fork(family: str, architecture: str, path: Path) -> int:
    """Start a process that tries an architecture and leaves what it found in `tried.json`."""
    process = os.fork()
    if process:
        return process
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (_BYTES, _BYTES))
        if not os.environ.get("COMPRESS_SHOW"):
            silent = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silent, 1)
            os.dup2(silent, 2)
        found = _try(family, architecture, path)
        (path / "part.json").write_text(json.dumps(dataclasses.asdict(found)), encoding="utf-8")
        (path / "part.json").rename(path / "tried.json")
    finally:
        os._exit(0)


def _try(family: str, architecture: str, path: Path) -> Tried:
    """Try an architecture at each level until it works; what the first said counts where none does."""
    from benchmarks.tiny_transformers import LEVELS, write

    kind = registry.find("families", family)
    outcomes: list[Tried] = []
    for level in LEVELS:
        place = path / str(level)
        try:
            folder = write(architecture, kind.auto_class, kind.keeps, level, place)
        except Exception as error:
            outcomes.append(Tried(family, architecture, "not built", _named(error), level=level))
            if isinstance(error, ImportError):  # of a library that is not there
                break
            continue
        outcome, said = _went(family, str(place), path / f"original-{level}", "original")
        found = Tried(family, architecture, outcome, said, level=level, parameters=folder.parameters)
        if outcome == "works":
            under, why = _went(family, str(place), path / f"method-{level}", _METHOD)
            status = {"works": "ok", "refused": "skipped: "}.get(under, "failed: ")
            return dataclasses.replace(found, method=f"{status}{why}")
        outcomes.append(found)
        if outcome == "refused" and _OWN_WORDS not in said:  # for what it is, whatever its size
            break
    return min(outcomes, key=lambda tried: _TELLING.index(tried.outcome))


def _went(family_name: str, source: str, folder: Path, method: str) -> tuple[Outcome, str]:
    """Take a model all the way, and say how it went."""
    from mlflow_compress.errors import CompressError, Unsupported, WorkerError
    from mlflow_compress.measuring.model_trial import ModelError

    folder.mkdir()
    try:
        _go(family_name, source, folder, method)
    except (CompressError, Unsupported) as error:
        own = error.__cause__ if isinstance(error, ModelError) and isinstance(error.__cause__, CompressError) else error
        is_told = own.__cause__ is None or isinstance(own.__cause__, ImportError) or _OWN_WORDS in str(own)
        if is_told and not isinstance(own, WorkerError):  # which says that a check found other outputs
            return "refused", str(own).replace(source, "FOLDER")
        return "failed", _named(own).replace(source, "FOLDER")
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
        raise AssertionError("there are not as many predictions as inputs")


def _named(error: BaseException) -> str:
    import traceback

    if os.environ.get("COMPRESS_SHOW"):
        traceback.print_exception(error, limit=-8)
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
