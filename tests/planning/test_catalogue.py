"""The catalogue as data, as text, and as a Markdown table."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlflow_compress import registry
from mlflow_compress.planning import catalogue


@pytest.fixture(scope="module")
def methods() -> list[dict[str, object]]:
    own = registry.own("methods")
    return [row for row in catalogue.rows("methods") if row["name"] in own]


def test_a_method_states_changes_needs_and_exclusions(methods: list[dict[str, object]]) -> None:
    rows = {row["name"]: row for row in methods}
    assert rows["int8_dynamic"] == {
        "name": "int8_dynamic",
        "about": registry.about("methods", "int8_dynamic"),
        "options": {"per_channel": ["bool", True]},
        "changes": "architecture",
        "devices": ["cpu"],
        "needs": [],
        "extra": "",
        "excludes": {"yolo": registry.find("methods", "int8_dynamic").excludes["yolo"]},
    }


def test_every_family_that_is_excluded_exists_and_has_a_reason(methods: list[dict[str, object]]) -> None:
    for row in methods:
        excludes = registry.find("methods", str(row["name"])).excludes
        assert set(excludes) <= set(registry.names("families"))
        assert all(len(reason) > 10 for reason in excludes.values())


def test_every_extra_is_declared(methods: list[dict[str, object]]) -> None:
    from importlib.metadata import metadata

    declared = set(metadata("mlflow-compress").get_all("Provides-Extra") or ())
    assert {row["extra"] for row in methods} - {""} <= declared


def test_the_text_contains_all_methods(methods: list[dict[str, object]]) -> None:
    text = "\n".join(catalogue.text(methods))
    assert all(str(row["name"]) in text for row in methods)
    assert "not for yolo: its detectors have no linear layer" in text
    assert "per_channel=False  (bool)" in text
    models = "\n".join(catalogue.text(catalogue.rows("models")))
    assert "openai/whisper-small" in models


def test_the_markdown_table_has_a_row_for_each_method(methods: list[dict[str, object]]) -> None:
    """`compress-bench list methods --markdown` prints it."""
    lines = list(catalogue.markdown(methods))
    names = [line.split("|")[1].strip(" `") for line in lines if line.startswith("| `")]
    assert names == [row["name"] for row in methods]
    (row,) = (line for line in lines if line.startswith("| `int8_dynamic` "))
    cells = [cell.strip() for cell in row.strip("| ").split("|")]
    assert cells[2:] == ["architecture", "CPU", "", "yolo", "`per_channel=True`"]


def test_a_metric_states_missing_facts(plugin_path: Path) -> None:
    rows = {row["name"]: row for row in catalogue.rows("metrics")}
    assert rows["half_right"]["lacks"] == ["label", "scale"]
    lines = "\n".join(catalogue.text([rows["wer"], rows["half_right"]]))
    assert lines.count("does not state its") == 1
    assert "does not state its label, scale: its numbers can't be compared fully" in lines
