"""`run_pages`: the contents of a run: metrics, tags and cautions."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import mlflow_compress
from mlflow_compress.records import CautionKind
from mlflow_compress.tracking.logged_names import METRICS, PHASES, STAGES, TAGS
from mlflow_compress.words import CIRCUMSTANCES, DEVICES
from website.tables import code, prose, table

_PACKAGE = Path(mlflow_compress.__file__).parent


def metric_names() -> str:
    """Return the table of metric names with units, by group."""
    parts = [
        table(
            ("metric", "unit", "meaning"),
            [(code(metric.name), metric.unit, prose(metric.meaning)) for metric in METRICS],
        )
    ]
    parts.append(f"`{{device}}` is `cpu` or `gpu`; `{{stage}}`: {_codes(STAGES)}; `{{phase}}`: {_codes(PHASES)}.")
    return "\n\n".join(parts)


def tags() -> str:
    """Return the table of tags."""
    rows = [
        (code(tag.name), "yes" if tag.is_shown else "", ", ".join(_compared(tag.name)), prose(tag.meaning))
        for tag in TAGS
    ]
    return table(("tag", "shown by MLflow", "must agree", "meaning"), rows)


def cautions() -> str:
    """Return the table of all cautions, in both languages."""
    rows = [
        (f'<a id="{kind.code}"></a>{code(kind.code)}', prose(kind.message["en"]), prose(kind.advice["en"]),
         prose(kind.message["ru"]))
        for kind in sorted(caution_kinds(), key=lambda kind: kind.code)
    ]  # fmt: skip
    return table(("caution", "what it says", "what to do", "in Russian"), rows)


def caution_kinds() -> Iterator[CautionKind]:
    """Yield every kind of caution that a module declares at its top level."""
    for path in sorted(_PACKAGE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if " = CautionKind(" not in text:
            continue
        calls = {name: call for name, call in _assigned(text) if ast.unparse(call).startswith("CautionKind(")}
        if "\nimport torch\n" in text:  # importing the module would import torch
            for call in calls.values():
                values = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
                yield CautionKind(*map(ast.literal_eval, call.args), **values)
        else:
            module = ".".join(path.relative_to(_PACKAGE.parent).with_suffix("").parts)
            yield from (getattr(importlib.import_module(module), name) for name in calls)


def _assigned(text: str) -> Iterator[tuple[str, ast.Call]]:
    """Yield the module-level assignments of a call: the name and the call."""
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            yield ast.unparse(node.targets[0]), node.value


def _compared(tag: str) -> Iterator[str]:
    """Yield the devices whose numbers are compared only if a tag agrees."""
    for device, names in CIRCUMSTANCES.items():
        if tag in {"compress.work" if name == "work" else f"compress.env.{name}" for name in names}:
            yield DEVICES[device]


def _codes(names: tuple[str, ...]) -> str:
    return ", ".join(map(code, names))
