"""Ratios and differences to the original: only for comparable measurements, with the right interval."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from conftest import MakeRun

from mlflow_compress.records import Run
from mlflow_compress.reporting.against_original import (
    Ratios,
    differences,
    in_turns,
    is_believed,
    ratios_to,
    shown_scores,
    without_own_original,
)

P50 = "cpu/latency_p50_ms"


def scored(
    make_run: MakeRun, wer: float, pairs: Mapping[str, float] | None = None, *, digest: str = "d", samples: float = 10
) -> Run:
    tags: dict[str, str | None] = {"compress.data_digest": digest, "compress.protocol.wer": "corpus level"}
    return make_run(tags=tags, metrics={"quality/wer": wer, "quality/samples": samples, **(pairs or {})})


def test_ratios_leave_out_what_was_measured_apart_and_what_the_original_lacks() -> None:
    values = {P50: 5.0, "size/params": 10.0, "gpu/latency_p50_ms": 1.0, "quality/wer": 0.2}
    base = {P50: 10.0, "size/params": 0.0, "gpu/latency_p50_ms": 4.0}
    assert ratios_to(values, base, {"gpu"}) == {P50: 0.5}


def test_what_was_measured_in_turns_has_its_own_ratio() -> None:
    turns = {"cpu/latency_ratio": 0.5, "cpu/latency_ratio_low": 0.45, "cpu/latency_ratio_high": 0.55}
    assert in_turns({P50: 7.0, **turns, "cpu/pairs": 5.0}) == Ratios({P50: 0.5}, {P50: (0.45, 0.55)}, {P50: 4.0})
    assert in_turns({P50: 7.0}) == Ratios()


@pytest.mark.parametrize("pairs", [0.0, 1.0, 2.0, 2.9, 1e9, float("nan"), None])
def test_pairs_that_support_no_interval_have_none(pairs: float | None) -> None:
    """One pair's rounds, or turns of an earlier version, do not show the noise between launches."""
    turns = {"cpu/latency_ratio": 0.5, "cpu/latency_ratio_low": 0.45, "cpu/latency_ratio_high": 0.55}
    assert in_turns(turns if pairs is None else {**turns, "cpu/pairs": pairs}) == Ratios({P50: 0.5})


@pytest.mark.parametrize("ends", [(0.6, 0.7), (0.0, 0.7), (0.5, 0.5), (-1.0, 0.7)])
def test_an_interval_that_can_not_be_the_ratios_is_none(ends: tuple[float, float]) -> None:
    turns = {"latency_ratio": 0.5, "latency_ratio_low": ends[0], "latency_ratio_high": ends[1], "pairs": 5.0}
    turns = {f"cpu/{name}": value for name, value in turns.items()}
    assert in_turns(turns) == Ratios({P50: 0.5})
    assert in_turns({**turns, "cpu/latency_ratio": 0.0}) == Ratios(not_believed=[P50])


def test_no_ratio_of_an_estimate() -> None:
    energy = "cpu/energy_per_item_estimated_j"
    assert ratios_to(
        {energy: 1.0, "cpu/energy_per_item_j": 1.0}, {energy: 2.0, "cpu/energy_per_item_j": 4.0}, set()
    ) == {"cpu/energy_per_item_j": 0.25}


def test_what_no_compression_reaches_is_not_believed() -> None:
    assert [is_believed(ratio) for ratio in (0.0, -1.0, 1e-5, 1e-4, 1.0, 1e4, 1e5)] == [
        False, False, False, True, True, True, False,
    ]  # fmt: skip


def test_what_one_metric_was_measured_apart_in_is_left_out_alone() -> None:
    values = {"gpu/vram_peak_mib": 5.0, "gpu/latency_p50_ms": 1.0}
    base = {"gpu/vram_peak_mib": 50.0, "gpu/latency_p50_ms": 2.0}
    assert ratios_to(values, base, {"gpu/vram_peak_mib"}) == {"gpu/latency_p50_ms": 0.5}


def test_scores_hide_how_far_outputs_moved_on_random_inputs() -> None:
    moved = {"quality/output_error_rel_l2": 0.2, "quality/top1_agreement": 0.25}
    assert shown_scores(moved) == moved
    scored = {"quality/accuracy": 0.85, "quality/samples": 20.0}
    assert shown_scores({**moved, **scored, "quality/accuracy_difference": 0.1}) == scored


def test_answers_to_scored_samples_are_compared_with_the_own_original_only() -> None:
    compared = {"quality/flips": 0.1, "quality/samples_worse": 2.0, "quality/top1_agreement": 0.9}
    scored = {"quality/accuracy": 0.85, "quality/samples": 20.0, **compared}
    assert shown_scores({**scored, "quality/output_error_rel_l2": 0.2}) == scored
    assert without_own_original(scored) == {"quality/accuracy": 0.85, "quality/samples": 20.0}


def test_a_difference_is_of_the_same_samples(make_run: MakeRun) -> None:
    original = scored(make_run, 0.10)
    assert differences(scored(make_run, 0.25), original) == pytest.approx({"quality/wer_difference": 0.15})
    assert differences(scored(make_run, 0.25, digest="other"), original) == {}
    assert differences(scored(make_run, 0.25, samples=9), original) == {}
    assert differences(scored(make_run, 0.25), None) == {}


def test_the_interval_of_the_pairs_belongs_to_their_difference_only(make_run: MakeRun) -> None:
    pairs = {"quality/wer_difference": 0.15, "quality/wer_difference_low": 0.05, "quality/wer_difference_high": 0.25}
    own = scored(make_run, 0.25, pairs)
    to_own_original = differences(own, scored(make_run, 0.10))
    assert (to_own_original["quality/wer_difference_low"], to_own_original["quality/wer_difference_high"]) == (
        0.05,
        0.25,
    )
    to_another = differences(own, scored(make_run, 0.20))
    assert to_another == pytest.approx({"quality/wer_difference": 0.05}), "it was paired with another original"
