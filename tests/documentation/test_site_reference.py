"""The reference pages agree with the code."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mlflow_compress import registry
from mlflow_compress.planning.options import declared
from mlflow_compress.tracking import logged_names
from website import command_pages, reference, repository, run_pages, schema_pages
from website.docstrings import attributes

_TEMPLATE = re.compile(r"(?:\{group\}|\{device\}|size|cpu|gpu|quality)/[a-z]")


@pytest.mark.full
@pytest.mark.parametrize("name", reference.GENERATORS)
def test_every_generated_part_is_on_a_page_and_has_rows(name: str) -> None:
    texts = [(repository.ROOT / path).read_text(encoding="utf-8") for path in repository.paths()]
    assert any(f"<!-- generated: {name} -->" in text for text in texts)
    assert len(reference.GENERATORS[name]().splitlines()) > 5


@pytest.mark.full
def test_making_them_needs_neither_torch_nor_mlflow() -> None:
    code = "from website import reference; [make() for make in reference.GENERATORS.values()]; import sys"
    code += "; print([name for name in ('torch', 'mlflow', 'transformers', 'ultralytics') if name in sys.modules])"
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=repository.ROOT, capture_output=True, text=True, check=True
    )
    assert process.stdout == "[]\n"


def test_a_method_has_its_options_with_their_meaning() -> None:
    text = reference.GENERATORS["methods"]()
    assert "| `group_size` | int ≥ 8 | `128` |" in text
    assert "## gptq\n" in text
    assert "Attributes:" not in text


@pytest.mark.parametrize("kind", ["methods", "families", "metrics"])
def test_every_option_of_a_plugin_has_a_meaning(kind: str) -> None:
    for name in registry.own(kind):
        meanings = attributes(registry.find(kind, name))
        assert set(registry.options_of(kind, name)) <= set(meanings), name


def test_every_command_and_option_is_there() -> None:
    text = command_pages.commands()
    assert all(f"# {name}\n" in text for name, _ in command_pages.every_command())
    assert "`-o, --output FILE`" in text
    rows = command_pages.options()
    assert all(option.name.replace("_", "-") in rows or option.flags[0] in rows for option in declared())


def test_exit_codes_are_those_of_the_help_and_of_the_errors() -> None:
    rows = [line.split(" | ") for line in command_pages.exit_codes().splitlines()[2:]]
    codes = {row[0].strip("| "): row for row in rows}
    assert set(codes) == {"0", "1", "2", "3", "4", "5", "6", "7", "130"}
    assert "`WeightsError`" in codes["3"][-1]
    assert codes["6"][1] == ""


def test_schemas_are_schemas_of_what_is_written() -> None:
    report = json.loads(schema_pages.report_schema().removeprefix("```json").removesuffix("```"))
    assert {"schema", "rows", "failures", "footnotes"} <= set(report["properties"])
    assert "values" in report["$defs"]["Row"]["properties"]


@pytest.mark.full
def test_every_caution_is_listed_once() -> None:
    codes = [kind.code for kind in run_pages.caution_kinds()]
    assert len(codes) > 40
    assert {"drift", "unstable", "random_calibration"} <= set(codes)


@pytest.mark.full
def test_every_metric_that_the_code_writes_is_declared() -> None:
    """Check every `f"{group}/..."` of the measuring code; braces stand for any text."""
    package = repository.ROOT / "mlflow_compress"
    templates = set()
    for folder in ("measuring", "meters", "scoring"):
        for path in (package / folder).rglob("*.py"):
            templates |= {(path.name, name) for name in _templates(path)}
    assert len(templates) > 30
    missing = [(file, name) for file, name in sorted(templates) if not _is_declared(name)]
    assert missing == []


def _templates(path: Path) -> set[str]:
    """Return the keys of dictionaries, as templates of f-strings, that look like names of metrics in final numbers."""
    templates = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        keys = node.keys if isinstance(node, ast.Dict) else []
        for key in keys:
            text = "" if key is None else ast.unparse(key).removeprefix("f").strip("'\"")
            if _TEMPLATE.match(text):
                templates.add(text)
    return templates


def _is_declared(template: str) -> bool:
    """Return whether a template could be a declared name, or belongs to the samples, which are not metrics."""
    name = re.sub(r"\{(group|device)\}", "cpu", template)
    if re.fullmatch(r"cpu/(latency|warmup|latency_events|ram_timeline)_(ms|s|mib)|cpu/.*_sizes|cpu/original_.*", name):
        return True
    if "{" not in name:
        return logged_names.is_metric(name)
    pattern = re.compile(re.sub(r"\\\{.*?\\\}", ".+", re.escape(name)))
    examples = [re.sub(r"\{(\w+)\}", "x", metric.name.replace("{device}", "cpu")) for metric in logged_names.METRICS]
    return any(pattern.fullmatch(example) for example in examples)


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("cpu/latency_p50_ms", True),
        ("gpu/prefill_p50_ms", True),
        ("gpu/other_p50_ms", False),
        ("cpu/ram_peak_warmup_mib", True),
        ("quality/wer_difference_high", True),
        ("quality/nothing", False),
        ("cpu/vram_peak_mib", False),
    ],
)
def test_names_of_metrics(name: str, is_one: bool) -> None:
    assert logged_names.is_metric(name) is is_one


def test_names_of_tags() -> None:
    assert logged_names.is_tag("mlflow.compress.env.torch")
    assert logged_names.is_tag("compress.protocol.wer")
    assert not logged_names.is_tag("compress.protocols.wer")
    shown_tags = {tag.name for tag in logged_names.TAGS if tag.is_shown}
    assert {"team", "compress.cautions", "compress.reason"} <= shown_tags
    assert "compress.work" not in shown_tags
