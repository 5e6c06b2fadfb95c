"""List the available models, families, methods, metrics and renderers, for `compress-bench list`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlflow_compress import registry
from mlflow_compress.planning import recipe, sweep_recipe
from mlflow_compress.torch_devices import LABELS


def rows(kind: str) -> list[dict[str, Any]]:
    """Describe everything of one kind, as data.

    Args:
        kind: `models`, `families`, `methods`, `metrics` or `renderers`.
    """
    if kind == "models":
        return [_model(name) for name in recipe.names()]
    return [_plugin(kind, name) for name in registry.names(kind)]


def text(described: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Format rows as lines for a terminal."""
    for row in described:
        if "family" in row:
            yield f"{row['name']:<16} {row['family']:<20} {row['source']}"
            continue
        yield f"{row['name']:<20} {row['about']}"
        if "changes" in row:
            yield f"{'':<22}changes {row['changes']}; runs on {_devices(row)}{_needs(row)}"
        if row.get("lacks"):
            yield f"{'':<22}does not state its {', '.join(row['lacks'])}: its numbers can't be compared fully"
        for family, reason in row.get("excludes", {}).items():
            yield f"{'':<22}not for {family}: {reason}"
        for key, (takes, default) in row["options"].items():
            yield f"{'':<22}{key}={default}  ({takes})"


def markdown(described: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Format the rows of methods as a Markdown table."""
    yield "| method | what it does | changes | runs on | install | not for | options |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for row in described:
        options = ", ".join(f"`{key}={default}`" for key, (_, default) in row["options"].items())
        install = f"`[{row['extra']}]`" if row["extra"] else ", ".join(row["needs"])
        cells = [f"`{row['name']}`", row["about"], row["changes"], _devices(row), install, ", ".join(row["excludes"])]
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in [*cells, options]) + " |"


def _model(name: str) -> dict[str, Any]:
    if (sweep := sweep_recipe.read(name)) is not None:
        return {"name": name, "family": "(sweep)", "source": ", ".join(sweep.models)}
    model = recipe.read(name)
    return {"name": model.name, "family": model.family, "source": model.source}


def _plugin(kind: str, name: str) -> dict[str, Any]:
    plugin, options = registry.find(kind, name), registry.options_of(kind, name)
    row = {
        "name": name,
        "about": registry.about(kind, name),
        "options": {key: list(described) for key, described in options.items()},
    }
    if kind == "methods":
        row |= {
            "changes": plugin.changes,
            "devices": list(plugin.devices),
            "needs": list(plugin.needs),
            "extra": plugin.extra,
            "excludes": dict(plugin.excludes),
        }
    if kind == "metrics":
        row["lacks"] = list(plugin.class_facts().lacks)
    return row


def _devices(row: Mapping[str, Any]) -> str:
    return ", ".join(LABELS[device] for device in row["devices"])


def _needs(row: Mapping[str, Any]) -> str:
    if not row["needs"]:
        return ""
    install = f'; pip install "mlflow-compress[{row["extra"]}]"' if row["extra"] else ""
    return f"; needs {', '.join(row['needs'])}{install}"
