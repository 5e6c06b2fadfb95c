from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_compress.planning import durations


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("1.5h", 5400), (" 1H 5S ", 3605), ("0h1s", 1)],
)
def test_durations_are_parsed(text: str, seconds: float) -> None:
    assert durations.seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "h", "-5s", "0s", "30m1h", "2d", "1e3s", "٣s", "nan", f"{'9' * 400}h"])
def test_invalid_durations_are_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="1h30m"):
        durations.seconds(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.6, "1 min"),
        (61, "1 min 1 s"),
        (3599.4, "59 min 59 s"),
        (3599.7, "1 h"),
        (3659, "1 h 1 min"),
        (5430, "1 h 30 min"),
    ],
)
def test_durations_are_formatted(seconds: float, text: str) -> None:
    assert durations.words(seconds) == text


@given(st.integers(1, 10**7))
def test_formatted_durations_are_precise_to_one_percent(seconds: int) -> None:
    text = durations.words(seconds).replace("min", "m").replace(",", "")
    assert durations.seconds(text) == pytest.approx(seconds, rel=0.01)
