from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_compress.reporting import markdown_tables
from mlflow_compress.reporting.hand_made_rows import Import, Reading
from mlflow_compress.reporting.import_listing import listing
from mlflow_compress.reporting.import_tables import BEGIN, END, read
from mlflow_compress.reporting.written_scores import scale_of

COURSE = Path(__file__).parents[1] / "course_tables"
NUMBERS = sorted(path.stem.removeprefix("table-") for path in COURSE.glob("*.md"))


def course(number: str, model: str = "") -> Import:
    path = COURSE / f"table-{number}.md"
    return read(path.read_bytes().decode(), team="alpha", source=path.name, model=model)


def reading(header: str, cell: str) -> Reading:
    """Return the reading of one cell, in a row that has a number elsewhere."""
    text = f"| Model | Method | RAM (MB) | {header} |\n|---|---|---|---|\n| m | x | 1 | {cell} |"
    tables = read(text, team="alpha", source="README.md")
    return next(cell for cell in tables.readings if cell.column == 4)


def test_all_tables_are_here() -> None:
    assert len(NUMBERS) == 23


def test_what_is_stored_of_the_course_tables_and_what_can_not_be_read(golden: Callable[[str, bytes], None]) -> None:
    golden("imported.txt", "\n".join(listing(course(number)) for number in NUMBERS).encode())


ZERO_VRAM = "0.00 is impossible: it was not measured, or the device was not used"
BERT, VIT = "dslim/bert-large-NER", "google/vit-base-patch16-224-in21k"
# For each table: rows and numbers that are stored, the models of its originals, and reasons for unread cells or rows.
READ: dict[str, tuple[int, int, list[str], list[str]]] = {
    "01": (1, 7, [VIT], []),
    "03": (3, 21, [], []),  # a model's family in the place of the method
    "05": (2, 11, [BERT], []),
    "07": (3, 15, [f"Teacher ({BERT})", "Student (dslim/bert-base-NER)"], []),
    "09": (2, 10, ["openai/whisper-large-v3"], []),
    "11": (1, 6, [BERT], []),
    "13": (1, 7, ["FishSpeech"], []),
    "15": (4, 16, ["rubert-base-cased"], []),
    "17": (
        1,
        5,
        ["Qwen/Qwen2.5-1.5B-Instruct"],
        [
            "; ".join(
                f"{score} may be quality/bleu on a scale of 1 or 100: add --scale bleu=share or --scale bleu=percent"
                for score in ("0.635248", "0.636546")
            )
        ],
    ),
    "19": (2, 8, ["rubert-base-cased"], []),
    "21": (0, 0, [], ["'your model name' is a placeholder"]),
    "23": (3, 21, [], []),
    "25": (3, 13, [VIT], [ZERO_VRAM, "0.00 is impossible: no model has that size"]),
    "27": (1, 7, [VIT], []),
    "29": (4, 19, ["unnamed"], []),  # no column of methods, and no --model
    "31": (1, 5, ["yolo11l"], []),
    "33": (4, 32, ["efficientvit_b3"], []),
    "35": (1, 7, [], []),
    "37": (2, 8, [VIT], [ZERO_VRAM, ZERO_VRAM]),
    "39": (3, 24, ["efficientvit_b3"], []),
    "41": (1, 8, ["efficientvit_b3"], []),
    "43": (5, 29, [BERT], []),
    "45": (4, 30, ["efficientvit_b3"], []),
}


@pytest.mark.parametrize("number", NUMBERS)
def test_each_course_table_is_read_to_its_last_number(number: str) -> None:
    tables = course(number)
    numbers = sum(len(row.metrics) for row in tables.rows)
    originals = [row.model for row in tables.rows if row.method == "original"]
    why = [cell.reason for cell in tables.unread] + [reason for _, _, reason in tables.ignored]
    assert (len(tables.rows), numbers, originals, why) == READ[number]
    assert {row.tags["compress.table"] for row in tables.rows} == {row.table.digest for row in tables.rows[:1]}


def test_a_bleu_of_a_course_table_is_read_where_somebody_says_its_scale() -> None:
    path = COURSE / "table-17.md"
    (row,) = read(path.read_bytes().decode(), team="a", source=path.name, scales={"bleu": "share"}).rows
    assert (row.metrics["quality/bleu"], row.metrics["quality/bleu_gpu"]) == (63.5248, 63.6546)


@pytest.mark.parametrize("number", NUMBERS)
def test_every_cell_of_the_course_tables_is_accounted_for_once(number: str) -> None:
    assert_accounted((COURSE / f"table-{number}.md").read_bytes().decode(), course(number))


def assert_accounted(text: str, tables: Import) -> None:
    places = {
        (line.number, column): cell.raw
        for table in markdown_tables.read(text).tables
        for line in table.rows
        for column, cell in enumerate(line.cells, 1)
    }
    cells = [
        ((cell.line, cell.column), cell.text) for cell in tables.readings if cell.reason != "the row ends before it"
    ]
    assert len(cells) == len(places)
    assert dict(cells) == places
    for cell in tables.readings:
        assert bool(cell.metrics) == (cell.fate == "read")
        assert cell.reason or cell.fate not in ("unread", "ignored")
    stored = [cell for row in tables.rows for cell in row.readings]
    assert [cell for cell in tables.readings if cell.metrics] == [cell for cell in stored if cell.metrics]
    for row in tables.rows:
        assert len(row.metrics) == sum(len(cell.metrics) for cell in row.readings) > 0  # none is overwritten
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
    tables = read(text, team="alpha", source="README.md", model=model)
    assert_accounted(text, tables)
    listed = listing(tables)
    assert all(cell.reason in listed for cell in (*tables.unread, *tables.doubtful))
    for row in tables.rows:
        assert row.model
        assert row.method
        assert {cell.text for cell in row.readings if cell.text} <= set(row.tags.values())


@pytest.mark.parametrize(
    ("header", "cell", "metrics", "remark"),
    [
        ("Размер весов", "1.33Gb", {"size/weights_mib": 1361.92}, ""),
        ("Размер весов", "**96.66**", {"size/weights_mib": 96.66}, "read as MB"),
        ("Размер весов (GB)", "512 MB", {"size/weights_mib": 512.0}, "the cell's is used"),
        ("Размер весов (GB)", "0,5", {"size/weights_mib": 512.0}, ""),
        ("VRAM (MB)", "1.4Gb", {"gpu/vram_peak_mib": 1433.6}, "the cell's is used"),
        ("Размер весов", "96.66 MB (0.50x)", {"size/weights_mib": 96.66}, ""),
        ("Время (GPU, сек/сэмпл)", "0.9807", {"gpu/latency_p50_ms": 980.7}, ""),
        ("Время (GPU, ms)", "11.46+-0.58 (tokens/sec)", {"gpu/tokens_per_s": 11.46}, "a rate, not a time"),
        ("Время (GPU)", "20 fps", {"gpu/throughput_per_s": 20.0}, "a rate, not a time"),
        ("Время (GPU, ms)", "12 (batch 1)", {"gpu/latency_p50_ms": 12.0}, "“(batch 1)” is kept"),
        ("Размер в .gz (MB)", "85.3", {"size/disk_gzip_mib": 85.3}, ""),
        ("Размер весов (MB)", "85.3 (gz)", {"size/disk_gzip_mib": 85.3}, ""),
        ("Размер файла (MB)", "170", {"size/disk_mib": 170.0}, ""),
        ("VRAM (Perplexity, MB)", "931.01", {"gpu/vram_peak_mib": 931.01}, ""),
        ("VRAM (Perplexity)", "931.01 MB", {"gpu/vram_peak_mib": 931.01}, ""),
        ("Perplexity (VRAM)", "12.5", {"quality/perplexity": 12.5}, ""),
        ("Время (CPU, tokens/sec)", "2.38 (sec/tokens)", {"cpu/tokens_per_s": 1 / 2.38}, "the time per token"),
        ("Время (CPU, ms/token)", "25", {"cpu/tokens_per_s": 40.0}, "the time per token"),
        ("Время на изображение (CPU, ms)", "25", {"cpu/latency_p50_ms": 25.0}, ""),
        ("Время (CPU, ms, среднее по 20 записям)", "25", {"cpu/latency_p50_ms": 25.0}, ""),
        ("WER / CER", "0.1468 / 0.0490", {"quality/wer": 0.1468, "quality/cer": 0.049}, "in the header's order"),
        ("WER / CER", "0.1468 / -", {"quality/wer": 0.1468}, "in the header's order"),
        ("Качество (CER, WER)", "1.34%; 3.83%", {"quality/cer": 0.0134, "quality/wer": 0.0383}, "header's order"),
        ("Качество", "WER / CER: 0.14 / 0.05", {"quality/wer": 0.14, "quality/cer": 0.05}, "in their order"),
        (
            "Качество",
            "ROUGE-1: 0.41</br>ROUGE-2: 0.19</br>ROUGE-L: 0.38</br>BLEU: 27.3</br>chrF: 51<br>METEOR: 0.35<br/>F1 0.8",
            {
                "quality/rouge1": 0.41,
                "quality/rouge2": 0.19,
                "quality/rougeL": 0.38,
                "quality/bleu": 27.3,
                "quality/chrf": 51.0,
                "quality/meteor": 0.35,
                "quality/f1": 0.8,
            },
            "not a score of this tool",
        ),
        ("Качество", "F1 0.8, loss: 0.3", {"quality/f1": 0.8}, "not stored: 'loss:' is not understood"),
        ("Accuracy", "80.00%", {"quality/accuracy": 0.8}, ""),
        ("Accuracy, %", "80", {"quality/accuracy": 0.8}, ""),
        ("Accuracy", "80", {"quality/accuracy": 0.8}, "read as per cent"),
        ("Точность (1 - WER)", "0.9327", {"quality/wer": 0.0673}, "1 minus the error rate"),
        ("Качество", "CER: 1,34%, WER: 3,83%", {"quality/cer": 0.0134, "quality/wer": 0.0383}, ""),
        ("Качество", "0.79 precision 0.71 recall", {"quality/precision": 0.79, "quality/recall": 0.71}, ""),
        ("Качество", "BLEU on CPU: 35.2; BLEU on GPU: 35.1", {"quality/bleu": 35.2, "quality/bleu_gpu": 35.1}, "GPU"),
        ("Качество", "F1=0.8; BLEU 0.6", {"quality/f1": 0.8}, "not stored: 0.6 may be"),
        ("Качество", "mAP50: 0.7, mAP50-95 0.5", {"quality/map50": 0.7, "quality/map50_95": 0.5}, ""),
        ("Accuracy", "CPU: 31%, GPU: 32%", {"quality/accuracy": 0.31, "quality/accuracy_gpu": 0.32}, "two numbers"),
        ("Качество (NISQA-AVG)", "2.25+-0.08", {"quality/nisqa_avg": 2.25}, "not a score of this tool"),
    ],
)
def test_a_cell_is_read_in_our_units(header: str, cell: str, metrics: dict[str, float], remark: str) -> None:
    cell_read = reading(header, cell)
    assert cell_read.metrics == pytest.approx(metrics, rel=1e-15)
    assert remark in cell_read.reason
    assert bool(remark) == bool(cell_read.reason)


@pytest.mark.parametrize(
    ("header", "cell", "reason"),
    [
        ("Размер весов", "0.00Mb", "impossible"),
        ("Размер .7z (MB)", "5", "an archive other than gz"),
        ("Сжатый размер (MB)", "5", "the compressed model"),
        ("VRAM (Perplexity)", "12.5", "also names a score"),
        ("Время (CPU, ms)", "4504 (20 x 30 s)", "“20 x 30 s”: a time for several inputs"),
        ("Время (CPU, ms), 20 x 30 s", "4504", "“20 x 30 s”: a time for several inputs"),
        ("Время (CPU, ms, 100 texts)", "4504", "“100 texts”: a time for several inputs"),
        ("Время (CPU, ms)", "12 (batch 8)", "“batch 8”: a time for several inputs"),
        ("Accuracy", "foo, 0.8", "'foo' is not understood"),
        ("VRAM (MB)", "0.00Mb", "the device was not used"),
        ("Время (CPU, ms)", "0.0ms", "impossible"),
        ("Размер весов", "-5", "impossible"),
        ("Размер весов", "12 ms", "not a unit of this column"),
        ("Размер весов", "1e9999", "too large"),
        ("Время (GPU)", "12", "seconds or milliseconds"),
        ("Время (GPU)", "12 ms/batch", "one sample"),
        ("RAM (MB)", "5", "already read from the column 'RAM (MB)'"),
        ("Качество", "0.635", "without a name"),
        ("Качество (PPL, BLEU, Accuracy)", "0.635", "names several"),
        ("Качество", "BLEU on CPU: 0.635248; BLEU on GPU: 0.636546", "on a scale of 1 or 100"),
        ("Качество", "WER 3.8", "share or in per cent"),
        ("Качество", "0.5 WER 0.4 WER", "two numbers"),
        ("Accuracy", "0.5, 0.4", "two numbers"),
        ("Качество", "0.8 foo", "'foo' is not understood"),
        ("Качество", "120% F1", "impossible"),
        ("Качество", "-0.5 F1", "impossible"),
        ("Качество", "F1 good", "not understood"),
        ("Speedup", "2x", "an unknown column"),
        ("Время инференса (ms)", "5", "neither CPU nor GPU"),
    ],
)
def test_a_cell_that_says_nothing_certain_is_named(header: str, cell: str, reason: str) -> None:
    cell_read = reading(header, cell)
    assert (cell_read.fate, dict(cell_read.metrics)) == ("unread", {})
    assert reason in cell_read.reason


@pytest.mark.parametrize(
    ("cell", "scales", "metrics"),
    [
        ("BLEU 0.63", {"bleu": "share"}, {"quality/bleu": 63.0}),
        ("BLEU 0.63", {"bleu": "percent"}, {"quality/bleu": 0.63}),
        ("BLEU 63", {"bleu": "percent"}, {"quality/bleu": 63.0}),
        ("WER 3.8", {"wer": "percent"}, {"quality/wer": 0.038}),
        ("WER 3.8", {"wer": "share"}, {"quality/wer": 3.8}),
        ("accuracy 0.9", {"accuracy": "percent"}, {"quality/accuracy": 0.009}),
        ("accuracy 90%", {"accuracy": "share"}, {"quality/accuracy": 0.9}),
    ],
)
def test_a_person_says_how_a_score_is_meant(cell: str, scales: dict[str, str], metrics: dict[str, float]) -> None:
    text = f"| Model | Method | Quality |\n|---|---|---|\n| m | x | {cell} |"
    (row,) = read(text, team="alpha", source="README.md", scales=scales).rows
    assert row.metrics == pytest.approx(metrics, rel=1e-15)


@pytest.mark.parametrize("text", ["bleu", "bleu=half", "blue=share", "perplexity=share", "=share"])
def test_a_scale_that_says_nothing_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(text))):
        scale_of(text)


def test_a_scale_names_a_metric() -> None:
    assert scale_of("BLEU=Share") == ("bleu", "share")
    assert scale_of("rougeL = percent") == ("rougeL", "percent")


@pytest.mark.parametrize(
    ("methods", "expected"),
    [
        (["FP32 (Baseline)", "INT8"], ["original", "INT8"]),
        (["Full model", "pruning"], ["original", "pruning"]),
        (["Исходная модель (FP32)", "Квантизация"], ["original", "Квантизация"]),
        (["Baseline FP32", "Baseline (INT8)"], ["original", "Baseline (INT8)"]),
        (["Whisper (original)", "Whisper (int8)"], ["original", "Whisper (int8)"]),
        (["Оригинал", "FP32 (Baseline)"], ["original", "FP32 (Baseline)"]),
        (["FP32", "Pruning (no quantization)", "ONNX (baseline)"],) * 2,
    ],
)
def test_originals_as_people_call_them(methods: list[str], expected: list[str]) -> None:
    lines = "".join(f"| m | {method} | 5 |\n" for method in methods)
    tables = read(f"| Model | Method | RAM (MB) |\n|---|---|---|\n{lines}", team="alpha", source="r")
    assert [row.method for row in tables.rows] == expected


def test_hardware_that_one_cell_names_is_that_of_the_table_unless_it_names_another() -> None:
    head = "| Model | Method | Время (GPU, ms) | Время (CPU, ms) |\n|---|---|---|---|\n"
    rows = read(
        f"{head}| m | original | 5 (Tesla T4) | 7 |\n| m | x | 4 | 6 |\n| m | y | - | 6 |", team="a", source="r"
    ).rows
    assert [row.environment for row in rows] == [{"gpu_model": "Tesla T4"}, {"gpu_model": "Tesla T4"}, {}]
    rows = read(
        f"{head}| m | original | 5 (T4) | 7 |\n| m | x | 4 (A100) | 6 |\n| m | y | 3 | 6 |", team="a", source="r"
    ).rows
    assert [row.environment for row in rows] == [{"gpu_model": "T4"}, {"gpu_model": "A100"}, {}]
    head = head.replace("GPU, ms", "GPU Tesla T4, ms")
    (row,) = read(f"{head}| m | x | 4 | 6 |", team="a", source="r").rows
    assert row.tags["compress.env.gpu_model"] == "Tesla T4"


def test_rows_know_their_table_whatever_else_stands_in_it() -> None:
    table = "| Model | Method | RAM (MB) |\n|---|---|---|\n| m | original | 5 |\n"
    text = f"{table}\n## Pruning\n\n{table}\n{table}| m | x | 4 |\n"

    def names(text: str, source: str = "README.md", team: str = "a") -> list[tuple[str, str]]:
        rows = read(text, team=team, source=source).rows
        return [(row.tags["compress.table.name"], row.tags["compress.table"]) for row in rows]

    tables = names(text)
    assert [name for name, _ in tables] == [
        "README.md", "README.md: Pruning", "README.md: Pruning, table 2", "README.md: Pruning, table 2"
    ]  # fmt: skip
    assert len({digest for _, digest in tables}) == 3
    assert tables[2] == tables[3]
    assert names(f"Before.\n\n{text.replace('| 4 |', '| 3 |')}") == tables  # independent of its place and rows
    assert not {digest for _, digest in tables} & {digest for _, digest in names(text, team="b")}
    assert not {digest for _, digest in tables} & {digest for _, digest in names(text.replace("RAM (MB)", "RAM (GB)"))}


@pytest.mark.parametrize(
    "cell", ["-", "--", "---", "—", "--Mb", "N/A", "*Не применимо*", "not supported", "", "&nbsp;"]
)
def test_a_gap_is_no_number_and_no_riddle(cell: str) -> None:
    cell_read = reading("Размер весов", cell)
    assert (cell_read.fate, cell_read.reason) == ("missing", "")


def test_hardware_in_brackets_is_what_the_device_was() -> None:
    row = course("05").rows[0]
    assert row.tags["compress.env.gpu_model"] == "Tesla T4"
    assert "compress.env.cpu_model" not in row.tags
    assert not reading("Время (GPU, ms)", "12 (p50)").environment


def test_a_table_without_methods_is_doubted_until_the_model_is_named() -> None:
    methods = ["original", "FP16 quantization", "INT8 quantization", "pruning"]  # the first is `full model` there
    assert [(row.model, row.method) for row in course("29").rows] == [("unnamed", method) for method in methods]
    assert all(cell.reason for cell in course("29").readings if cell.fate == "name")
    rows = course("29", model="openai/whisper-small").rows
    assert [(row.model, row.method) for row in rows] == [("openai/whisper-small", method) for method in methods]
    models = read("| Model | RAM (MB) |\n|---|---|\n| a | 5 |\n| b | 6 |", team="alpha", source="r").rows
    assert [(row.model, row.method) for row in models] == [("a", "unnamed"), ("b", "unnamed")]


def test_a_table_in_html_is_ignored_with_what_to_do() -> None:
    html = '<table>\n<tr><td rowspan="2">m</td><td>original</td><td>5</td></tr>\n<tr><td>x</td></tr>\n</table>'
    text = f"# Results\n\n{html}\n\n| Model | Method | RAM (MB) |\n|---|---|---|\n| m | x | 5 |\n"
    tables = read(text, team="alpha", source="README.md")
    assert [row.model for row in tables.rows] == ["m"]
    ((line, part, why),) = tables.ignored
    assert (line, part) == (3, "table")
    assert "Write it in Markdown" in why
    assert "merged cell" in why
    assert not read(f"{BEGIN}\n\n{html}\n\n{END}", team="alpha", source="README.md").ignored


def test_placeholders_repetitions_and_other_tables_are_ignored_by_name() -> None:
    head = "| Model | Method | RAM (MB) |\n|---|---|---|\n"
    text = (
        f"{head}| your model name | original | 5 |\n| m | x | 5 |\n| m | x | 5 |\n| m | x | 6 |\n|  | x | 5 |\n"
        f"| m |  | 5 |\n| m | y | - |\n\n| Epoch | Loss |\n|---|---|\n| 1 | 2 |\n"
        f"\n{BEGIN}\n\n{head}| m | z | 5 |\n\n{END}\n"
        "\n| Model | Method |\n|---|\n"
    )
    tables = read(text, team="alpha", source="README.md")
    assert [(row.line, row.metrics) for row in tables.rows] == [
        (4, {"cpu/ram_peak_mib": 5.0}),
        (6, {"cpu/ram_peak_mib": 6.0}),
    ]
    assert [(cell.line, cell.reason) for cell in tables.doubtful] == [
        (6, "line 4 has this model and method with other cells: a table shows the later row")
    ]
    assert [(line, part) for line, part, _ in tables.ignored] == [
        (3, "row"), (5, "row"), (7, "row"), (8, "row"), (9, "row"), (11, "table"), (17, "table"), (23, "lines")
    ]  # fmt: skip
    reasons = [why for _, _, why in tables.ignored]
    expected = [
        "placeholder",
        "line 4",
        "no model",
        "no method",
        "no number",
        "not a comparison",
        "compress-report",
        "GitHub",
    ]
    assert all(word in why for word, why in zip(expected, reasons, strict=True))


def test_rows_with_too_few_and_too_many_cells() -> None:
    text = "| Model | Method | RAM (MB) | VRAM (MB) |\n|---|---|---|---|\n| m | x | 5 |\n| m | y | 5 | 6 | 7 | - |"
    tables = read(text, team="alpha", source="README.md")
    assert [(cell.line, cell.column, cell.fate, cell.reason) for cell in tables.readings if cell.reason] == [
        (3, 4, "missing", "the row ends before it"),
        (4, 5, "unread", "the table has no such column"),
    ]
    assert tables.rows[1].tags["compress.cell.5"] == "7"


def test_marks_of_footnotes_are_no_part_of_a_method() -> None:
    text = "| Model | Method | RAM (MB) |\n|---|---|---|\n| m | original [1] | 5 |\n| m | x \\[2] [1] [3] | 5 |"
    assert [row.method for row in read(text, team="a", source="r").rows] == ["original", "x [2]"]


def test_a_column_of_teams_says_whose_a_row_is() -> None:
    text = "| Команда | Модель | Метод | RAM (MB) |\n|---|---|---|---|\n| beta | m | baseline | 5 |\n| - | m | x | 5 |"
    assert [(row.team, row.method) for row in read(text, team="alpha", source="r").rows] == [
        ("beta", "original"),
        ("alpha", "x"),
    ]


@pytest.mark.parametrize("count", [20, 80])
def test_each_row_is_compared_with_the_others_once(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    hashed: list[bytes] = []
    sha256 = hashlib.sha256

    def watched(data: bytes) -> Any:
        hashed.append(data)
        return sha256(data)

    monkeypatch.setattr(hashlib, "sha256", watched)
    lines = "".join(f"| m | x | {row % (count // 2) + 1} |\n" for row in range(count))
    tables = read(f"| Model | Method | RAM (MB) |\n|---|---|---|\n{lines}", team="a", source="t.md")
    assert len(tables.rows) == count // 2
    assert len(hashed) <= 2 * count  # once when it is read, once more where a remark was added
