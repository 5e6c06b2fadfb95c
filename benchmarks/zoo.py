"""Every method on a zoo of small unusual modules: each cell is correct, or skipped with a reason.

The modules are in `tests/zoo/`, each a file as a user would write it, whose docstring says what is unusual. A cell
loads the module, compresses it, saves it, restores it, and compares the outputs, with the worker's code.
"""

from __future__ import annotations

import ast
import contextlib
import io
import itertools
import json
import multiprocessing
import os
import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from benchmarks.finding import RESULTS, Finding, table
from mlflow_compress import registry
from mlflow_compress.errors import MachineLacks, RecipeError, Unsupported, WeightsError, named_line
from mlflow_compress.plain_text import plain
from mlflow_compress.planning import chains
from mlflow_compress.records import Variant

Status = Literal["ok", "skipped", "refused", "not tried here", "failed"]
ZOO = Path(__file__).parents[1] / "tests" / "zoo"
MODULES = tuple(sorted(path.stem for path in ZOO.glob("*.py")))
OPTIONS: Mapping[str, str] = {  # for methods whose defaults are too large for a small module
    "distill": "distill:steps=2,batch_size=2",
    "gptq": "gptq:samples=4",
    "awq": "awq:samples=4",
    "wanda": "wanda:samples=4",
    "int8_static": "int8_static:samples=2",
    "executorch_int8": "executorch_int8:samples=2",
    "onnx_int8": "onnx_int8:samples=2",
    "openvino_int8": "openvino_int8:samples=2",
    "prune_structured": "prune_structured:steps=2,batch_size=1",
    "torch_compile": "torch_compile:backend=eager",
}
PAGE = Path(__file__).parents[1] / "docs" / "reference" / "zoo.md"
_CELLS = RESULTS / "zoo.jsonl"
_MOST_SECONDS = 300  # for one cell
_LONGEST_REASON = 240  # characters
_MEANING: Mapping[Status, str] = {
    "ok": "correct; a number refers to a caution below",
    "skipped": "the method does not support this module; only the number of the reason is shown",
    "refused": "the module itself is not supported, whatever the method",
    "not tried here": "the machine does not have what the method needs: a dash, and the number of the reason",
    "failed": "a defect of this package",
}
_NOT_TRIED = "–"
_NUMBER = re.compile(r"\b\d[\d,.]*\d\b|\b\d\b")
_ALWAYS_TOLD = {"random_calibration", "dense_zeros", "stored_only", "no_kernel", "random_weights"}


class Cell(NamedTuple):
    """The result of one method on one module.

    Attributes:
        status: `refused` if the module itself is not supported; `not tried here` if the machine does not have what the
            method needs; `failed` is a defect of this package, and so is an error that is not a readable message.
        reason: why it was not `ok`, or its cautions.
    """

    status: Status
    reason: str = ""


def oddity(module: str) -> str:
    """Return the description of what is unusual about a module of the zoo."""
    return ast.get_docstring(ast.parse((ZOO / f"{module}.py").read_text(encoding="utf-8"))) or ""


def variant_of(module: str, method: str, folder: Path = ZOO) -> Variant:
    """Return a module of the zoo under a method, with a batch of two."""
    chain = chains.parse_chain(OPTIONS.get(method, method))
    return Variant(
        module, method, "zoo", "python", f"{module}.py", "random", chain=chain, batch_size=2, folder=str(folder)
    )


def tried(variant: Variant, folder: Path) -> Cell:
    """Compress, save, restore and compare a variant, in this process.

    Args:
        variant: the variant.
        folder: an empty folder.
    """
    from mlflow_compress.measuring import output_error, worker
    from mlflow_compress.networks import model_folder

    try:
        registry.build("families", "python").load(variant.source, "random", Path(variant.folder), 0)
    except (RecipeError, Unsupported, WeightsError) as error:
        return _sentence("refused", str(error))
    except Exception as error:
        return Cell("failed", named_line(error))
    try:
        part = worker.prepare(variant, folder, worker.Report(io.StringIO()))
        restored = model_folder.restore(folder / worker.MODEL_FOLDER)
        output_error.compare(restored.family, restored.model, variant, folder / worker.OUTPUTS, "cpu")
    except MachineLacks as reason:
        return _sentence("not tried here", str(reason))
    except Unsupported as reason:
        return _sentence("skipped", str(reason))
    except Exception as error:
        return Cell("failed", named_line(error))
    return Cell("ok", "; ".join(caution.message for caution in part.cautions if caution.code not in _ALWAYS_TOLD))


def _sentence(status: Literal["skipped", "refused", "not tried here"], reason: str) -> Cell:
    """Return a cell with a reason; `failed` if the reason is not a readable message."""
    is_sentence = 0 < len(reason) <= _LONGEST_REASON and plain(reason) == reason and "AttributeError" not in reason
    return Cell(status, reason) if is_sentence else Cell("failed", f"not a message: {plain(reason)}")


class _Child:
    """A separate process that tries cells one after the other, so that a runtime's crash ends only this process."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._start()

    def _start(self) -> None:
        self._connection, child_end = self._context.Pipe()
        self._process = self._context.Process(target=_serve, args=(child_end,), daemon=True)
        self._process.start()
        child_end.close()

    def tried(self, module: str, method: str) -> Cell:
        """Try a cell; replace a process that dies or hangs."""
        self._connection.send((module, method))
        try:
            if self._connection.poll(_MOST_SECONDS):
                return Cell(*self._connection.recv())
            reason = f"it did not end in {_MOST_SECONDS} s"
        except EOFError:
            reason = "the process died"
        self._process.kill()
        self._process.join()
        self._start()
        return Cell("failed", reason)

    def end(self) -> None:
        self._process.kill()
        self._process.join()


def _serve(connection: Any) -> None:
    """Answer cells until the parent ends, without output."""
    warnings.simplefilter("ignore")
    with Path(os.devnull).open("w") as nowhere, contextlib.suppress(EOFError):
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        while True:
            module, method = connection.recv()
            with tempfile.TemporaryDirectory() as folder:
                connection.send(tuple(tried(variant_of(module, method), Path(folder))))


def find(quick: bool, only_method: str = "", only_module: str = "") -> Finding:
    """Try every method on every module, except cells that `results/zoo.jsonl` already has.

    Args:
        quick: whether to try only some cells, and store nothing.
        only_method: the only method to try, even if its cells are stored; empty: all.
        only_module: the only module to try, even if its cells are stored; empty: all.
    """
    methods = [name for name in registry.own("methods") if not quick or name in ("original", "bf16", "int8_dynamic")]
    modules = MODULES[:3] if quick else MODULES
    cells = {} if quick else _kept()
    child = _Child()
    try:
        for method, module in itertools.product(methods, modules):
            is_chosen = only_method in ("", method) and only_module in ("", module)
            cell = cells.get((module, method), Cell("not tried here"))
            if is_chosen and (cell.status == "not tried here" or only_method or only_module):
                cells[module, method] = child.tried(module, method)
                if not quick:
                    _keep(module, method, cells[module, method])
    finally:
        child.end()
    cells = {
        module_and_method: cells[module_and_method]
        for module_and_method in itertools.product(modules, methods)
        if module_and_method in cells
    }
    if not quick:
        _rewrite(cells)
        PAGE.write_text(page(modules, methods, cells), encoding="utf-8")
    return _finding(modules, methods, cells)


def _finding(modules: Sequence[str], methods: Sequence[str], cells: Mapping[tuple[str, str], Cell]) -> Finding:
    """Return the finding: the goal is missed if a cell failed, and unknown if some were not tried."""
    counts = [
        (
            method,
            Counter(cells[module_and_method].status for module_and_method in cells if module_and_method[1] == method),
        )
        for method in methods
    ]
    total = Counter(cell.status for cell in cells.values())
    not_tried = len(modules) * len(methods) - total.total() + total["not tried here"]
    return Finding(
        name="zoo",
        goal="every method supports every module, or is skipped with a reason.",
        met=False if total["failed"] else None if not_tried else True,
        rows=[{"method": method, **{status: count[status] for status in _MEANING}} for method, count in counts],
        notes=[
            f"{len(modules)} modules; each cell, with its reason: [reference/zoo.md](../docs/reference/zoo.md)",
            *([f"cells that were not tried: {not_tried}, mostly because the machine has no GPU"] if not_tried else []),
            "cells are stored: after a change, `--only METHOD` or `--only-type MODULE` tries them again, or delete "
            "results/zoo.jsonl; the time below is that of the last session",
        ],
    )


def page(modules: Sequence[str], methods: Sequence[str], cells: Mapping[tuple[str, str], Cell]) -> str:
    """Return the page that shows each cell: modules by methods, and the reasons below."""
    reasons: dict[str, Counter[str]] = {}
    for (module, _), cell in cells.items():
        if cell.reason:
            reasons.setdefault(_kind(cell.reason, module), Counter())[_shown(cell.reason, module)] += 1
    reasons = dict(sorted(reasons.items(), key=lambda pair: -pair[1].total()))
    numbers = {kind: number for number, kind in enumerate(reasons, 1)}

    def place(module: str, method: str) -> str:
        if (module, method) not in cells:
            return _NOT_TRIED
        cell = cells[module, method]
        number = numbers.get(_kind(cell.reason, module))
        word = {"skipped": "", "failed": "**failed**", "not tried here": _NOT_TRIED}.get(cell.status, cell.status)
        return f"{word} [{number}](#{number})".strip() if number else word

    counts = Counter(cell.status for cell in cells.values())
    lines = [
        "# Every method on unusual modules",
        "",
        f"{len(modules)} small modules, each with one unusual feature ([tests/zoo](../../tests/zoo)), under each of "
        f"{len(methods)} methods:",
        "loaded, compressed, called, saved, restored, and compared with the saved model. A number in a cell refers to",
        "the reasons below the tables; N in a reason is a number that differs between cells.",
        "",
        *table([{"in a cell": word, "what it means": _MEANING[word], "cells": counts[word]} for word in _MEANING]),
    ]
    if missing := len(modules) * len(methods) - len(cells):
        lines += ["", f"A dash without a number means not tried yet ({missing} cells)."]
    with_student = sum("def student(" in (ZOO / f"{module}.py").read_text(encoding="utf-8") for module in modules)
    lines += ["", f"`distill` needs a `student(keep)` in the module's file; {with_student} of these files have one."]
    for title, group in _groups(methods).items():
        rows = [
            {"module": f"[{module}](#{module})", **{method: place(module, method) for method in group}}
            for module in modules
        ]
        lines += ["", f"## {title}", "", *table(rows)]
    lines += ["", "## Reasons", ""]
    lines += [
        f'* <a id="{number}"></a>**{number}** ({_times(reasons[kind].total())}): {_summary(kind, reasons[kind])}'
        for kind, number in numbers.items()
    ]
    lines += ["", "## Modules", ""]
    lines += [f'* <a id="{module}"></a>`{module}`: {oddity(module)}' for module in modules]
    lines += ["", "Written by `python -m benchmarks zoo`: see [benchmarks/README.md](../../benchmarks/README.md).", ""]
    return "\n".join(lines)


def _groups(methods: Sequence[str]) -> dict[str, list[str]]:
    """Group methods by their effect on the weights."""
    groups: dict[str, list[str]] = {"Fewer bits": [], "Fewer or other weights": [], "Other runtimes": []}
    for name in methods:
        state = registry.find("methods", name).gives
        titles = {"runtime": "Other runtimes", None: "Fewer or other weights"}
        groups[titles.get(state, "Fewer bits")].append(name)
    return {title: names for title, names in groups.items() if names}


def _shown(reason: str, module: str) -> str:
    """Return a reason without the module's name."""
    return reason.replace(f"{module}.py", "FILE.py").replace(module, "FILE")


def _kind(reason: str, module: str) -> str:
    """Return a reason without numbers."""
    return _NUMBER.sub("N", _shown(reason, module))


def _summary(kind: str, reasons: Counter[str]) -> str:
    """Return the only reason of a kind, or the common text of all."""
    return _escaped(next(iter(reasons)) if len(reasons) == 1 else kind)


def _escaped(reason: str) -> str:
    return reason.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} cells"


def _kept() -> dict[tuple[str, str], Cell]:
    """Return the stored cells; of several results for one cell, the last."""
    lines = _CELLS.read_text(encoding="utf-8").splitlines() if _CELLS.is_file() else []
    stored_rows = [json.loads(line) for line in lines]
    return {(row["module"], row["method"]): Cell(row["status"], row["reason"]) for row in stored_rows}


def _keep(module: str, method: str, cell: Cell) -> None:
    with _CELLS.open("a", encoding="utf-8") as file:
        file.write(_line(module, method, cell))


def _rewrite(cells: Mapping[tuple[str, str], Cell]) -> None:
    """Store each cell once, in order."""
    lines = [_line(module, method, cell) for (module, method), cell in cells.items()]
    _CELLS.write_text("".join(lines), encoding="utf-8")


def _line(module: str, method: str, cell: Cell) -> str:
    return json.dumps({"module": module, "method": method, **cell._asdict()}, ensure_ascii=False) + "\n"
