"""`plugin_pages`: methods, families, metrics, renderers, recipes and data, from the registry."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from typing import Any

from mlflow_compress import registry
from mlflow_compress.data.spec import KEYS, Data
from mlflow_compress.planning import catalogue, recipe
from mlflow_compress.planning import requirements as machine
from mlflow_compress.sockets import Family
from mlflow_compress.torch_devices import LABELS
from mlflow_compress.words import LANGUAGES
from website.docstrings import attributes, description
from website.tables import code, prose, table

_OF_READY_MODELS = ("endpoint", "file", "mlflow_model")  # measured as they are
_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def methods() -> str:
    """Return the table of all methods, and a section for each."""
    rows = _own("methods")
    overview = table(
        ("method", "changes", "runs on", "install", "what it does"),
        [
            (
                f"[`{row['name']}`](#{row['name']})",
                row["changes"],
                ", ".join(LABELS[device] for device in row["devices"]),
                code(f"[{row['extra']}]") if row["extra"] else ", ".join(map(code, row["needs"])),
                prose(row["about"]),
            )
            for row in rows
        ],
    )
    return "\n\n".join([overview, *(_section("methods", row["name"], list(_method_facts(row))) for row in rows)])


def families() -> str:
    """Return the table of all families, and a section for each."""
    names = registry.own("families")
    overview = table(
        ("family", "metrics", "what it serves"),
        [
            (f"[`{name}`](#{name})", _listed(_family(name).metrics), prose(registry.about("families", name)))
            for name in names
        ],
    )
    sections = []
    for name in names:
        facts = [f"**One timed call:** {prose(_family(name).timed)}."] if _family(name).timed else []
        if _family(name).metrics:
            facts.append(f"**Metrics:** {_listed(_family(name).metrics)}.")
        sections.append(_section("families", name, facts))
    return "\n\n".join([overview, *sections])


def matrix() -> str:
    """Return the table of methods by families: what each pair needs, and where there is none."""
    families = [name for name in registry.own("families") if name not in _OF_READY_MODELS]
    rows = [
        [f"[`{row['name']}`](methods.md#{row['name']})", *(_pair(row, family) for family in families)]
        for row in _own("methods")
    ]
    header = [f"[{name.replace('_', '_<br>')}](families.md#{name})" for name in families]
    return table(("method", *header), rows)


def metrics() -> str:
    """Return the table of all quality metrics, and a section for each."""
    overview, sections = [], []
    for name in registry.own("metrics"):
        metric = registry.find("metrics", name)
        facts = metric.class_facts()
        better = {True: "higher", False: "lower"}.get(facts.greater_is_better, "")
        link, labels = f"[`{name}`](#{name.lower()})", [prose(facts.label.get(language, "")) for language in LANGUAGES]
        overview.append((link, *labels, metric.unit, code(facts.scale or ""), better, metric.takes))
        sections.append(_section("metrics", name, [], "###"))
    header = ("metric", "label", "in Russian", "unit", "scale", "better", "compares")
    return "\n\n".join([table(header, overview), *sections])


def renderers() -> str:
    """Return the table of the formats of a comparison."""
    rows = [
        (code(registry.find("renderers", name).suffix), code(name), prose(registry.about("renderers", name)))
        for name in registry.own("renderers")
    ]
    return table(("suffix", "renderer", "what it writes"), rows)


def recipes() -> str:
    """Return the table of the package's recipes."""
    rows = []
    for row in catalogue.rows("models"):
        is_sweep = row["family"] == "(sweep)"
        variants = "" if is_sweep else str(len(recipe.read(row["name"]).variants))
        family = "" if is_sweep else f"[`{row['family']}`](families.md#{row['family']})"
        rows.append((code(row["name"]), family, code(row["source"]), variants))
    return table(("recipe", "family", "source", "variants"), rows)


def data_keys() -> str:
    """Return the table of the keys that may follow a data source."""
    meanings = attributes(Data)
    rows = [(code(key), code(_shown(getattr(Data(""), key))), prose(meanings.get(key, ""))) for key in KEYS]
    return table(("key", "default", "meaning"), rows)


def requirements() -> str:
    """Return the table of the requirements that a recipe may have for a machine."""
    return table(("key", "meaning"), [(code(key), prose(meaning)) for key, meaning in machine.KEYS.items()])


def _own(kind: str) -> list[dict[str, Any]]:
    return [row for row in catalogue.rows(kind) if row["name"] in registry.own(kind)]


def _family(name: str) -> Any:
    return registry.find("families", name)


def _listed(names: Any) -> str:
    return ", ".join(f"[`{name}`](metrics.md#{name.lower()})" for name in names)


def _pair(row: dict[str, Any], family: str) -> str:
    """Return the cell of a method and a family."""
    if family in row["excludes"]:
        return "–"
    if row["name"] == "distill" and _family(family).student is Family.student:
        return "student"
    return "GPU" if row["devices"] == ["cuda"] else "✓"


def _method_facts(row: dict[str, Any]) -> Iterator[str]:
    plugin = registry.find("methods", row["name"])
    yield f"**Takes:** {', '.join(plugin.takes)}. **Leaves:** {plugin.gives or 'what it took'}."
    if row["excludes"]:
        yield "\n".join(f"* Not for `{family}`: {prose(reason)}." for family, reason in row["excludes"].items())


def _section(kind: str, name: str, facts: list[str], heading: str = "##") -> str:
    """Return a heading, the plugin's documentation, facts, and its options."""
    plugin = registry.find(kind, name)
    meanings = attributes(plugin)
    hints = typing.get_type_hints(plugin, include_extras=True)
    rows = [
        (code(field.name), prose(" ".join(_takes(hints[field.name]))), code(_shown(_default(field))),
         prose(meanings.get(field.name, "")))
        for field in dataclasses.fields(plugin)
    ]  # fmt: skip
    options = [table(("option", "values", "default", "meaning"), rows)] if rows else []
    return "\n\n".join([f"{heading} {name}", description(plugin), *facts, *options])


def _takes(hint: Any) -> Iterator[str]:
    """Yield the values that a typed field takes: its type, its choices, its bounds."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        yield from _takes(parts[0])
        bounds = [
            (sign, getattr(bound, name))
            for bound in parts[1:]
            for name, sign in _BOUNDS.items()
            if getattr(bound, name, None) is not None
        ]
        if bounds:
            yield ", ".join(f"{sign} {value}" for sign, value in bounds)
    elif origin is typing.Literal:
        yield ", ".join(code(choice) for choice in parts)
    elif parts and type(None) in parts:
        inner = [part for part in parts if part is not type(None)]
        yield f"{' or '.join(' '.join(_takes(part)) for part in inner)}, or `None`"
    elif origin is not None:
        yield str(getattr(origin, "__name__", origin))
    else:
        yield str(getattr(hint, "__name__", hint))


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default_factory() if callable(field.default_factory) else field.default


def _shown(value: Any) -> str:
    return "" if value is dataclasses.MISSING or value in ("", (), [], {}) else str(value)
