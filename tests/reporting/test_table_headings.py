from __future__ import annotations

import pytest

from mlflow_compress import registry
from mlflow_compress.reporting.table_headings import headings, is_comparison, spellings
from mlflow_compress.reporting.table_text import COLUMNS, label
from mlflow_compress.words import LANGUAGES


@pytest.mark.parametrize(
    ("text", "kind", "metric", "unit"),
    [
        ("Модель", "model", "", None),
        ("Model", "model", "", None),
        ("Метод", "method", "", None),
        ("Метод сжатия", "method", "", None),
        ("Team", "team", "", None),
        ("Размер весов", "size", "size/weights_mib", None),
        ("Размер весов (прибл. MB)", "size", "size/weights_mib", "MB"),
        ("Размер весов (МБ)", "size", "size/weights_mib", "МБ"),
        ("Model size on disk (GB)", "size", "size/disk_mib", "GB"),
        ("Время инференса (CPU)", "time", "cpu/latency_p50_ms", None),
        ("Время инференса (CPU, ms)", "time", "cpu/latency_p50_ms", "ms"),
        ("Inference time (CPU, ms)", "time", "cpu/latency_p50_ms", "ms"),
        ("Время инференса (GPU, сек/сэмпл)", "time", "gpu/latency_p50_ms", "сек/сэмпл"),
        ("Время инференса (GPU, seconds/text)", "time", "gpu/latency_p50_ms", "seconds/text"),
        ("Latency, s (GPU)", "time", "gpu/latency_p50_ms", "s"),
        ("Время с прогревом (CPU)", "time", "cpu/latency_p50_ms", None),
        ("Время инференса (GPU,tokens/sec)", "time", "gpu/tokens_per_s", "tokens/sec"),
        ("CPU FPS", "time", "cpu/throughput_per_s", "FPS"),
        ("Использование RAM (MB)", "ram", "cpu/ram_peak_mib", "MB"),
        ("Использование VRAM (МБ)", "vram", "gpu/vram_peak_mib", "МБ"),
        ("Память GPU, ГБ", "vram", "gpu/vram_peak_mib", "ГБ"),
        ("Speedup", "unknown", "", None),
        ("Размер батча", "unknown", "", None),
        ("Время обучения (GPU, s)", "unknown", "", None),
        ("CPU p99, ms", "unknown", "", None),
        ("Inference (ms)", "unknown", "", "ms"),
        ("Время (CPU/GPU, ms)", "unknown", "", "ms"),
        ("ms/token (GPU)", "time", "gpu/tokens_per_s", "ms/token"),
        ("Комментарий", "unknown", "", None),
        ("", "unknown", "", None),
    ],
)
def test_a_header_says_what_its_column_holds(text: str, kind: str, metric: str, unit: str | None) -> None:
    (heading,) = headings([text])
    assert (heading.kind, heading.metric, heading.unit.text if heading.unit else None) == (kind, metric, unit)
    assert bool(heading.reason) == (kind == "unknown")


@pytest.mark.parametrize(
    ("text", "scores"),
    [
        ("Качество", []),
        ("Качество (PPL, BLEU, Accuracy)", ["perplexity", "bleu", "accuracy"]),
        ("Качество (Accuracy)", ["accuracy"]),
        ("Точность", ["accuracy"]),
        ("Точность (1 - WER)", ["-wer"]),
        ("Качество (WER)", ["wer"]),
        ("Качество (NISQA-AVG)", ["nisqa_avg"]),
        ("Качество (Precision, Recall, F1-Score))", ["precision", "recall", "f1"]),
        ("mAP50-95", ["map50_95"]),
        ("Quality (on the test set)", []),
    ],
)
def test_a_header_names_scores(text: str, scores: list[str]) -> None:
    (heading,) = headings([text])
    assert heading.kind == "quality"
    assert [
        ("-" if score.is_rest else "") + score.metric.removeprefix("quality/") for score in heading.scores
    ] == scores


@pytest.mark.parametrize("name", registry.own("metrics"))
def test_each_metric_is_known_by_its_name_and_its_label(name: str) -> None:
    metrics = spellings()
    for language in LANGUAGES:
        for text in (label(f"quality/{name}", language), label(f"quality/{name}", language).upper()):
            match = metrics.pattern.fullmatch(text)
            assert match, text
            assert metrics.score(match).metric == f"quality/{name}"


@pytest.mark.parametrize("language", ["en", "ru"])
def test_our_own_headers_are_known(language: str) -> None:
    columns = headings([column.header[language] for column in COLUMNS])
    assert [heading.metric or heading.kind for heading in columns] == [column.key for column in COLUMNS]
    assert is_comparison(columns)


def test_names_have_one_column_each_and_a_comparison_has_names_and_numbers() -> None:
    first, second, _ = headings(["Model", "Model", "Accuracy"])
    assert (first.kind, second.kind) == ("model", "unknown")
    assert "already" in second.reason
    assert not is_comparison(headings(["Model", "Method", "Notes"]))
    assert not is_comparison(headings(["Epoch", "Accuracy"]))
