"""All claims of a table are judged together, and a claim agrees with its interval."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_compress.records import Row
from mlflow_compress.reporting import claims

P50, WER = "cpu/latency_p50_ms", "quality/wer_difference"
_TABLES = 200  # simulated tables


def test_holms_corrected_p_values() -> None:
    """Computed by hand: sorted 0.01, 0.02, 0.03, 0.04, times 4, 3, 2, 1; the results must not decrease."""
    assert claims.holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert claims.holm([0.9, 0.5]) == pytest.approx([1.0, 1.0])
    assert claims.holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_correction_never_helps_and_keeps_the_order(p_values: list[float]) -> None:
    corrected = claims.holm(p_values)
    assert all(own <= judged <= 1 for own, judged in zip(p_values, corrected, strict=True))
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    assert [corrected[index] for index in order] == sorted(corrected)


@given(st.floats(0.2, 5), st.floats(0.001, 1), st.floats(0.001, 1), st.sampled_from([2.0, 4.0, math.inf]))
def test_a_single_ratio_is_a_claim_where_its_interval_excludes_1(
    ratio: float, below: float, above: float, degrees: float
) -> None:
    ends = ratio * math.exp(-below), ratio * math.exp(above)
    p_value = claims.of_ratio(ratio, ends, degrees)
    if min(abs(math.log(end)) for end in ends) > 1e-6:
        assert (p_value >= 0.05) == (ends[0] <= 1 <= ends[1])


def test_p_values_are_those_of_the_tables() -> None:
    width = math.log(1.1)
    # 5 % at the end of the interval; at twice the distance 2 * (1 - Phi(3.92)), or t = 8.605 with 2 degrees of freedom
    assert claims.of_ratio(1.1, (1.0, 1.21)) == pytest.approx(0.05)
    assert claims.of_ratio(1.21, (1.21 * math.exp(-width), 9.0)) == pytest.approx(8.856e-5, rel=1e-3)
    assert claims.of_ratio(1.21, (1.21 * math.exp(-width), 9.0), 2.0) == pytest.approx(0.013238, rel=1e-3)
    assert claims.of_difference(-0.02, (-0.5, -0.01)) == pytest.approx(8.856e-5, rel=1e-3)
    assert claims.of_difference(0.0, (0.0, 0.0)) == 1
    assert claims.of_difference(-1.0, (-1.0, -1.0)) == 0, "all of the samples changed, whichever are drawn"


def test_an_interval_that_touches_nothing_claims_nothing() -> None:
    """A change in one of twenty samples may be missing in a resample: the end is 0 itself."""
    assert claims.of_difference(-0.05, (-0.15, 0.0)) >= 0.05
    assert claims.of_difference(0.05, (0.0, 0.15)) >= 0.05
    assert claims.of_ratio(1.1, (1.0, 1.3)) >= 0.05
    assert claims.of_ratio(0.9, (0.8, 1.0), 2.0) >= 0.05


@pytest.mark.parametrize(("low", "high"), [(0.2, 0.3), (-0.3, 0.05), (0.3, -0.1), (math.nan, 0.2), (0.0, math.nan)])
def test_a_difference_outside_of_its_own_interval_claims_nothing(low: float, high: float) -> None:
    row = Row("a", "m", "x", values={WER: 0.1, f"{WER}_low": low, f"{WER}_high": high})
    assert claims.difference_ends(row.values, WER) is None
    assert claims.corrected([row])[0].told_apart == {}


@pytest.mark.parametrize(
    ("difference", "samples", "is_told_apart"),
    [(-0.25, 20.0, False), (-0.3, 20.0, True), (-1.0, 5.0, False), (-0.013, 1000.0, True)],
)
def test_a_share_is_a_claim_where_enough_samples_changed(
    difference: float, samples: float, is_told_apart: bool
) -> None:
    """Computed by hand: 2 / 2^5 is 6 %, 2 / 2^6 is 3 %, whatever an interval of an earlier version is."""
    name = "quality/accuracy_difference"
    ends = {f"{name}_low": 1.5 * difference, f"{name}_high": 0.1 * difference}
    row = Row("a", "m", "x", values={name: difference, **ends, "quality/samples": samples})
    assert claims.corrected([row])[0].told_apart == {name: is_told_apart}


def test_ratios_of_times_and_differences_of_scores_are_one_family() -> None:
    p_005 = math.exp(2.5758293 / 1.959964 * 0.1)  # 1 % two-sided, for an interval of 0.1 on each side
    ends = (p_005 / math.exp(0.1), p_005 * math.exp(0.1))
    time = Row("a", "m", "x", ratios={P50: p_005, "size/weights_mib": 0.5}, ratio_intervals={P50: ends})
    score = Row("a", "m", "y", values={WER: 0.1, f"{WER}_low": -0.1, f"{WER}_high": 0.3, "quality/wer": 0.2})
    unknown = Row("a", "m", "z", values={WER: 0.1}, ratios={P50: 2.0})

    def told(count: int) -> tuple[bool, ...]:
        return tuple(row.told_apart[P50] for row in claims.corrected([time, *[score] * count, unknown])[:1])

    assert claims.corrected([time, unknown])[0].told_apart == {P50: True}
    assert claims.corrected([time, unknown])[1].told_apart == {}, "of what has no noise nothing is claimed"
    assert claims.corrected([score])[0].told_apart == {WER: False}
    assert (told(3), told(4)) == ((True,), (False,))  # 4 times 1 % is below 5 %, 5 times is not


def test_no_more_than_a_twentieth_of_tables_of_equal_models_claims_anything() -> None:
    """Simulate 14 variants and an original, with 5 launches each, all equal with 2 % noise between launches."""
    import numpy as np

    from mlflow_compress.percentiles import error_of_launches, ratio_error

    draws = np.random.default_rng(0).normal(0, 0.02, (400, 15, 5))
    false_alarms = 0
    for means, spreads in zip(draws.mean(axis=2), draws.std(axis=2, ddof=1), strict=True):
        errors = [error_of_launches(float(spread), 5) for spread in spreads]
        rows = []
        for mean, error in zip(means[1:], errors[1:], strict=True):
            ratio, joint = math.exp(mean - means[0]), ratio_error(error, errors[0])
            interval = {P50: joint.interval(ratio)}
            rows.append(
                Row("a", "m", "x", ratios={P50: ratio}, ratio_intervals=interval, ratio_degrees={P50: joint.degrees})
            )
        false_alarms += any(row.told_apart[P50] for row in claims.corrected(rows))
    assert false_alarms / 400 < 0.07


@pytest.mark.parametrize(("launches", "of_original"), [(3, 3), (3, 5), (5, 3), (5, 5)])
@pytest.mark.parametrize(("spread", "of_calmer"), [(0.03, 0.003), (0.03, 0.03), (0.003, 0.03)])
def test_launches_that_spread_unlike_the_originals_make_no_more_claims(
    launches: int, of_original: int, spread: float, of_calmer: float
) -> None:
    """Simulate 20 equal variants of one original. With Satterthwaite's degrees up to 20 % of tables had a claim."""
    import numpy as np

    from mlflow_compress.percentiles import error_of_launches, ratio_error

    generator = np.random.default_rng(0)
    own = generator.normal(0, spread, (_TABLES, 20, launches))
    base = generator.normal(0, of_calmer, (_TABLES, of_original))
    distances = np.abs(own.mean(axis=2) - base.mean(axis=1)[:, None])
    spreads = own.std(axis=2, ddof=1), base.std(axis=1, ddof=1)
    alarms = 0
    for table in range(_TABLES):
        of_base = error_of_launches(float(spreads[1][table]), of_original)
        errors = (ratio_error(error_of_launches(float(spread), launches), of_base) for spread in spreads[0][table])
        p_values = [error.p_value(math.exp(distance)) for error, distance in zip(errors, distances[table], strict=True)]
        alarms += min(claims.holm(p_values)) < claims.LEVEL
    assert alarms / _TABLES <= 0.07
