from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_compress.reporting import markdown_tables
from mlflow_compress.reporting.import_tables import BEGIN, END, Import, Reading, listing, read

COURSE = Path(__file__).parents[1] / "course_tables"
NUMBERS = sorted(path.stem.removeprefix("table-") for path in COURSE.glob("*.md"))


def course(number: str, **options: str) -> Import:
    path = COURSE / f"table-{number}.md"
    return read(path.read_bytes().decode(), team="alpha", source=path.name, **options)


def reading(header: str, cell: str) -> Reading:
    """Read one cell of a row that has a number elsewhere."""
    text = f"| Model | Method | RAM (MB) | {header} |\n|---|---|---|---|\n| m | x | 1 | {cell} |"
    found = read(text, team="alpha", source="README.md")
    return next(each for each in found.readings if each.column == 4)


def test_all_tables_are_here() -> None:
    assert len(NUMBERS) == 23


def test_what_is_stored_of_the_course_tables_and_what_can_not_be_read(golden: Callable[[str, bytes], None]) -> None:
    golden("imported.txt", "\n".join(listing(course(number)) for number in NUMBERS).encode())


@pytest.mark.parametrize("number", NUMBERS)
def test_every_cell_of_the_course_tables_is_accounted_for_once(number: str) -> None:
    assert_accounted((COURSE / f"table-{number}.md").read_bytes().decode(), course(number))


def assert_accounted(text: str, found: Import) -> None:
    places = {
        (line.number, column): cell.raw
        for table in markdown_tables.read(text).tables
        for line in table.rows
        for column, cell in enumerate(line.cells, 1)
    }
    seen = [((each.line, each.column), each.text) for each in found.readings if each.reason != "the row ends before it"]
    assert len(seen) == len(places)
    assert dict(seen) == places
    for each in found.readings:
        assert bool(each.metrics) == (each.fate == "read")
        assert each.reason or each.fate not in ("unread", "passed over")
    stored = [each for row in found.rows for each in row.readings]
    assert [each for each in found.readings if each.metrics] == [each for each in stored if each.metrics]
    for row in found.rows:
        assert len(row.metrics) == sum(len(each.metrics) for each in row.readings) > 0  # none is overwritten
        assert all(value >= 0 for value in row.metrics.values())


headers = st.sampled_from(
    ["Модель", "Метод", "Team", "Размер весов", "Размер (GB)", "Время (CPU, ms)", "GPU s", "RAM", "VRAM (MB)",
     "Качество", "Accuracy", "Точность (1 - WER)", "Note", "Model", "Качество (NISQA)", "", "Accuracy (GPU)"]
)  # fmt: skip
contents = st.sampled_from(
    ["", "-", "yolo", "Оригинал", "fp16", "1.33Gb", "31.9ms (Tesla T4)", "0.00Mb", "82.8% F1", "1.34% CER 3.83% WER",
     "Accuracy 31.25% on CPU, 32.81% on GPU", "0.5", "99", "1,234", "a\\|b", "`code`", "your model name", "12 | 13",
     ">5",
     "**0.42+-0.1**", "<b>x</b>", "N/A", "BLEU 0.6", "BLEU: 30; WER: 0.2; 5"]
) | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=6)  # fmt: skip


@settings(deadline=None)
@given(
    header=st.lists(headers, min_size=1, max_size=6),
    rows=st.lists(st.lists(contents, max_size=7), max_size=5),
    model=st.sampled_from(["", "yolo"]),
    marked=st.booleans(),
)
def test_every_cell_of_any_table_is_accounted_for_once(
    header: list[str], rows: list[list[str]], model: str, marked: bool
) -> None:
    table = "\n".join(
        [f"| {' | '.join(header)} |", "|" + "---|" * len(header), *(f"| {' | '.join(row)} |" for row in rows)]
    )
    text = f"{BEGIN}\n\n{table}\n\n{END}" if marked else table
    found = read(text, team="alpha", source="README.md", model=model)
    assert_accounted(text, found)
    listed = listing(found)
    assert all(each.reason in listed for each in (*found.unread, *found.doubtful))
    for row in found.rows:
        assert row.model
        assert row.method
        assert {each.text for each in row.readings if each.text} <= set(row.tags.values())


@pytest.mark.parametrize(
    ("header", "cell", "metrics", "remark"),
    [
        ("Размер весов", "1.33Gb", {"size/weights_mib": 1361.92}, ""),
        ("Размер весов", "**96.66**", {"size/weights_mib": 96.66}, "taken as MB"),
        ("Размер весов (GB)", "512 MB", {"size/weights_mib": 512.0}, "the cell's is taken"),
        ("Размер весов (GB)", "0,5", {"size/weights_mib": 512.0}, ""),
        ("VRAM (MB)", "1.4Gb", {"gpu/vram_peak_mib": 1433.6}, "the cell's is taken"),
        ("Размер весов", "96.66 MB (0.50x)", {"size/weights_mib": 96.66}, ""),
        ("Время (GPU, сек/сэмпл)", "0.9807", {"gpu/latency_p50_ms": 980.7}, ""),
        ("Время (GPU, ms)", "11.46+-0.58 (tokens/sec)", {"gpu/tokens_per_s": 11.46}, "a rate and no time"),
        ("Время (GPU)", "20 fps", {"gpu/throughput_per_s": 20.0}, "a rate and no time"),
        ("Время (GPU, ms)", "12 (batch 1)", {"gpu/latency_p50_ms": 12.0}, "“(batch 1)” is kept"),
        ("Accuracy", "80.00%", {"quality/accuracy": 0.8}, ""),
        ("Accuracy, %", "80", {"quality/accuracy": 0.8}, ""),
        ("Accuracy", "80", {"quality/accuracy": 0.8}, "taken as per cent"),
        ("Точность (1 - WER)", "0.9327", {"quality/wer": 0.0673}, "1 less the error rate"),
        ("Качество", "CER: 1,34%, WER: 3,83%", {"quality/cer": 0.0134, "quality/wer": 0.0383}, ""),
        ("Качество", "0.79 precision 0.71 recall", {"quality/precision": 0.79, "quality/recall": 0.71}, ""),
        ("Качество", "BLEU on CPU: 35.2; BLEU on GPU: 35.1", {"quality/bleu": 35.2, "quality/bleu_gpu": 35.1}, "GPU"),
        ("Качество", "F1=0.8; BLEU 0.6", {"quality/f1": 0.8}, "not stored: 0.6 may be"),
        ("Качество", "mAP50: 0.7, mAP50-95 0.5", {"quality/map50": 0.7, "quality/map50_95": 0.5}, ""),
        ("Accuracy", "CPU: 31%, GPU: 32%", {"quality/accuracy": 0.31, "quality/accuracy_gpu": 0.32}, "two numbers"),
        ("Качество (NISQA-AVG)", "2.25+-0.08", {"quality/nisqa_avg": 2.25}, "no score of this tool"),
    ],
)
def test_a_cell_is_read_in_our_units(header: str, cell: str, metrics: dict[str, float], remark: str) -> None:
    found = reading(header, cell)
    assert found.metrics == pytest.approx(metrics, rel=1e-15)
    assert remark in found.reason
    assert bool(remark) == bool(found.reason)


@pytest.mark.parametrize(
    ("header", "cell", "reason"),
    [
        ("Размер весов", "0.00Mb", "impossible"),
        ("VRAM (MB)", "0.00Mb", "the device was not used"),
        ("Время (CPU, ms)", "0.0ms", "impossible"),
        ("Размер весов", "-5", "impossible"),
        ("Размер весов", "12 ms", "no unit of this column"),
        ("Размер весов", "1e9999", "too large"),
        ("Время (GPU)", "12", "seconds or milliseconds"),
        ("Время (GPU)", "12 ms/token", "one sample"),
        ("RAM (MB)", "5", "read from the column 'RAM (MB)' already"),
        ("Качество", "0.635", "without a name"),
        ("Качество (PPL, BLEU, Accuracy)", "0.635", "names several"),
        ("Качество", "BLEU on CPU: 0.635248; BLEU on GPU: 0.636546", "of 1 or of 100"),
        ("Качество", "WER 3.8", "share or in per cent"),
        ("Качество", "0.5 WER 0.4 WER", "two numbers"),
        ("Accuracy", "0.5, 0.4", "two numbers"),
        ("Качество", "0.8 foo", "'foo' is not understood"),
        ("Качество", "120% F1", "impossible"),
        ("Качество", "-0.5 F1", "impossible"),
        ("Качество", "F1 good", "not understood"),
        ("Speedup", "2x", "not a column that is known"),
        ("Время инференса (ms)", "5", "neither CPU nor GPU"),
    ],
)
def test_a_cell_that_says_nothing_certain_is_named(header: str, cell: str, reason: str) -> None:
    found = reading(header, cell)
    assert (found.fate, dict(found.metrics)) == ("unread", {})
    assert reason in found.reason


@pytest.mark.parametrize(
    "cell", ["-", "--", "---", "—", "--Mb", "N/A", "*Не применимо*", "not supported", "", "&nbsp;"]
)
def test_a_gap_is_no_number_and_no_riddle(cell: str) -> None:
    found = reading("Размер весов", cell)
    assert (found.fate, found.reason) == ("missing", "")


def test_hardware_in_brackets_is_what_the_device_was() -> None:
    row = course("05").rows[0]
    assert row.tags["compress.env.gpu_model"] == "Tesla T4"
    assert "compress.env.cpu_model" not in row.tags
    assert not reading("Время (GPU, ms)", "12 (p50)").environment


def test_a_table_without_methods_is_doubted_until_the_model_is_named() -> None:
    rows = course("29").rows
    assert {(row.model, row.method) for row in rows} >= {("full model", "unnamed"), ("pruning", "unnamed")}
    assert all(each.reason for each in course("29").readings if each.fate == "name")
    named = course("29", model="openai/whisper-small").rows
    assert [(row.model, row.method) for row in named] == [
        ("openai/whisper-small", method)
        for method in ("full model", "FP16 quantization", "INT8 quantization", "pruning")
    ]


def test_placeholders_repetitions_and_other_tables_are_passed_over_by_name() -> None:
    head = "| Model | Method | RAM (MB) |\n|---|---|---|\n"
    text = (
        f"{head}| your model name | original | 5 |\n| m | x | 5 |\n| m | x | 5 |\n| m | x | 6 |\n|  | x | 5 |\n"
        f"| m |  | 5 |\n| m | y | - |\n\n| Epoch | Loss |\n|---|---|\n| 1 | 2 |\n"
        f"\n{BEGIN}\n\n{head}| m | z | 5 |\n\n{END}\n"
        "\n| Model | Method |\n|---|\n"
    )
    found = read(text, team="alpha", source="README.md")
    assert [(row.line, row.metrics) for row in found.rows] == [
        (4, {"cpu/ram_peak_mib": 5.0}),
        (6, {"cpu/ram_peak_mib": 6.0}),
    ]
    assert [(each.line, each.reason) for each in found.doubtful] == [
        (6, "line 4 has this model and method with other cells: a table shows the later")
    ]
    assert [(line, what) for line, what, _ in found.passed_over] == [
        (3, "row"), (5, "row"), (7, "row"), (8, "row"), (9, "row"), (11, "table"), (17, "table"), (23, "lines")
    ]  # fmt: skip
    reasons = [why for _, _, why in found.passed_over]
    expected = [
        "placeholder",
        "line 4",
        "no model",
        "no method",
        "no number",
        "no comparison",
        "compress-report",
        "GitHub",
    ]
    assert all(word in why for word, why in zip(expected, reasons, strict=True))


def test_rows_with_too_few_and_too_many_cells() -> None:
    text = "| Model | Method | RAM (MB) | VRAM (MB) |\n|---|---|---|---|\n| m | x | 5 |\n| m | y | 5 | 6 | 7 | - |"
    found = read(text, team="alpha", source="README.md")
    assert [(each.line, each.column, each.fate, each.reason) for each in found.readings if each.reason] == [
        (3, 4, "missing", "the row ends before it"),
        (4, 5, "unread", "the table has no such column"),
    ]
    assert found.rows[1].tags["compress.cell.5"] == "7"


def test_a_column_of_teams_says_whose_a_row_is() -> None:
    text = "| Команда | Модель | Метод | RAM (MB) |\n|---|---|---|---|\n| beta | m | baseline | 5 |\n| - | m | x | 5 |"
    assert [(row.team, row.method) for row in read(text, team="alpha", source="r").rows] == [
        ("beta", "original"),
        ("alpha", "x"),
    ]


@pytest.mark.parametrize("count", [20, 80])
def test_each_row_is_told_apart_from_the_others_by_one_look(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    hashed: list[bytes] = []
    sha256 = hashlib.sha256

    def watched(data: bytes) -> Any:
        hashed.append(data)
        return sha256(data)

    monkeypatch.setattr(hashlib, "sha256", watched)
    lines = "".join(f"| m | x | {row % (count // 2) + 1} |\n" for row in range(count))
    found = read(f"| Model | Method | RAM (MB) |\n|---|---|---|\n{lines}", team="a", source="t.md")
    assert len(found.rows) == count // 2
    assert len(hashed) <= 2 * count  # once as it is read, once more where a remark was added
