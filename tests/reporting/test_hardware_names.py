from __future__ import annotations

import pytest

from mlflow_compress.reporting.hardware_names import short


@pytest.mark.parametrize(
    ("full_name", "expected"),
    [
        ("Intel(R) Core(TM) i7-8550U CPU @ 1.80GHz, 4 threads", "Core i7-8550U, 4 threads"),
        ("AMD EPYC 7B12, 2 threads; Tesla T4", "EPYC 7B12, 2 threads; Tesla T4"),
        ("AMD Ryzen Threadripper 3970X 32-Core Processor", "Ryzen Threadripper 3970X"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("Intel(R) Xeon(R) Processor", "Xeon"),
        ("Apple M2 Pro", "Apple M2 Pro"),
        ("CPU", "CPU"),
        ("", ""),
    ],
)
def test_short(full_name: str, expected: str) -> None:
    assert short(full_name) == expected


def test_threads_are_shown_in_russian_too() -> None:
    full_name = "AMD EPYC 7B12, 2 threads; Tesla T4, of 4 threads of hope"
    assert short(full_name, "ru") == "EPYC 7B12, потоков: 2; Tesla T4, of 4 threads of hope"
