from __future__ import annotations

import contextlib
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_compress.reporting.written_units import Unreadable, is_missing, measure, number, unit


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("96.66", "96.66"),
        ("0,123", "0.123"),
        ("12,5", "12.5"),
        ("1\u00a0234,5", "1234.5"),
        ("1\u2009234\u2009567", "1234567"),
        ("1,234.5", "1234.5"),
        ("1.234,5", "1234.5"),
        ("1,234,567", "1234567"),
        ("1'234", "1234"),
        ("1.234", "1.234"),
        ("2e3", "2000"),
        ("-4", "-4"),
        (".5", "0.5"),
    ],
)
def test_a_number_is_read_with_its_comma_and_its_thousands(text: str, value: str) -> None:
    assert number(text) == Decimal(value)


@pytest.mark.parametrize("text", ["1,234", "1 234", "1 2", "1.2.3", "1,2,3", "12,34.5", "1e99999", "9" * 50, "", "x"])
def test_what_may_be_two_numbers_or_none_is_not_read(text: str) -> None:
    with pytest.raises(Unreadable):
        number(text)


@settings(deadline=None)
@given(st.decimals(min_value=0, max_value=10**9, allow_nan=False, places=3))
def test_what_python_writes_is_read_as_the_same(value: Decimal) -> None:
    assert number(f"{value:f}") == value
    assert number(f"{value:,.3f}") == value


@pytest.mark.parametrize(
    ("text", "kind", "factor"),
    [
        *((text, "size", "1") for text in ("MB", "Mb", "mb", "MiB", "Mib", "МБ", "мб")),
        *((text, "size", "1024") for text in ("GB", "Gb", "ГБ", "GiB")),
        ("KB", "size", str(Decimal(1) / 1024)),
        *((text, "time", "1") for text in ("ms", "мс", "msec", "ms/image")),
        *((text, "time", "1000") for text in ("s", "sec", "сек", "с", "seconds/text", "сек/сэмпл", "sec per sample")),
        ("µs", "time", "0.001"),
        *((text, "tokens", "1") for text in ("tokens/sec", "tok/s", "tokens per second", "токенов/с")),
        *((text, "samples", "1") for text in ("fps", "image/s", "it/s")),
    ],
)
def test_units_as_people_write_them(text: str, kind: str, factor: str) -> None:
    sign = unit(text)
    assert sign is not None
    assert (sign.kind, sign.factor) == (kind, Decimal(factor))


@pytest.mark.parametrize("text", ["ms/step", "s/batch", "сек/датасет", "s per epoch"])
def test_a_time_of_something_else_is_not_that_of_a_sample(text: str) -> None:
    with pytest.raises(Unreadable, match="one sample"):
        unit(text)


@pytest.mark.parametrize("text", ["", "x", "M", "МB", "MB/s", "apples", "5", "ms ms"])
def test_other_words_are_no_units(text: str) -> None:
    assert unit(text) is None


@pytest.mark.parametrize(
    ("text", "value", "sign", "remark", "note"),
    [
        ("1.33Gb", "1.33", "Gb", "", ""),
        ("31.9ms (Tesla T4)", "31.9", "ms", "", "Tesla T4"),
        ("0.42+-0.0005 (tokens/sec)", "0.42", "tokens/sec", "the spread +-0.0005", ""),
        ("12ms ± 0.5ms", "12", "ms", "the spread ± 0.5", ""),
        ("412.35 Mb Mb", "412.35", "Mb", "the unit is written twice", ""),
        ("~500 MB", "500", "MB", "approximate", ""),
        ("≈ 0,5 с", "0.5", "с", "approximate", ""),
        ("96.66", "96.66", None, "", ""),
    ],
)
def test_a_number_with_what_belongs_to_it(text: str, value: str, sign: str | None, remark: str, note: str) -> None:
    measured = measure(text)
    assert measured.value == Decimal(value)
    assert (measured.unit.text if measured.unit else None) == sign
    assert remark in "; ".join(measured.remarks)
    assert bool(remark) == bool(measured.remarks)
    assert measured.notes == ((note,) if note else ())


@pytest.mark.parametrize(
    "text",
    [">5", "< 5 MB", "до 10", "10-12", "10–12 ms", "1.4 / 2.0", "500M", "OOM", "NaN", "inf", "~~1~~ 2", "(5)", "5 MB 6",
     "5 MB GB", "5 (ms) s", "five"],
)  # fmt: skip
def test_bounds_ranges_and_riddles_are_not_read(text: str) -> None:
    with pytest.raises(Unreadable):
        measure(text)


@pytest.mark.parametrize(
    "text",
    ["", " ", "-", "--", "---", "–", "—", "--Mb", "-- MB", "-ms", "N/A", "n/a", "not supported", "Не применимо", "нет"],
)
def test_people_say_in_many_ways_that_there_is_no_number(text: str) -> None:
    assert is_missing(text)


@pytest.mark.parametrize("text", ["0", "-5", "-5 Mb", "Mb", "OOM", "no", "a - b"])
def test_what_says_something_is_not_missing(text: str) -> None:
    assert not is_missing(text)


@settings(deadline=None)
@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(Unreadable):
        assert isinstance(measure(text).value, Decimal)
