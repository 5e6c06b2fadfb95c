from __future__ import annotations

import math

import pytest

from mlflow_compress.reporting.possible import is_possible


@pytest.mark.parametrize(
    ("name", "value", "can_be"),
    [
        ("cpu/latency_p50_ms", 1e-300, False),
        ("cpu/latency_p50_ms", 1e300, False),
        ("cpu/ram_peak_mib", -1.0, False),
        ("cpu/ram_peak_mib", math.nan, False),
        ("cpu/ram_peak_mib", 0.0, False),
        ("size/disk_mib", 0.0, False),
        ("cpu/page_faults", 0.0, True),
        ("cpu/ram_model_mib", -1.0, True),  # minus an empty process
        ("quality/accuracy", 1.0, True),
        ("quality/accuracy", 93.1, False),  # per cent instead of a share
        ("quality/accuracy_high", 1.5, False),
        ("quality/accuracy_difference", -0.5, True),
        ("quality/accuracy_difference", 12.0, False),
        ("quality/accuracy_difference_low", -12.0, False),
        ("quality/f1_macro", 2.0, False),
        ("quality/bleu", 100.00000000000004, True),
        ("quality/bleu", 101.0, False),
        ("quality/bleu_difference", -40.0, True),
        ("quality/wer", 1.7, True),  # more errors than words
        ("quality/perplexity", 16_662.0, True),
        ("quality/perplexity", 0.0, False),
        ("quality/word_perplexity", 0.9, False),
        ("quality/perplexity_difference", -12.0, True),
        ("quality/my_own", 1e6, True),  # an unknown scale
        ("quality/samples", 450.0, True),
    ],
)
def test_what_can_be_a_measurement(name: str, value: float, can_be: bool) -> None:
    assert is_possible(name, value) is can_be
