from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_compress.errors import RecipeError
from mlflow_compress.records import Comparison, Failure, Row, Summary
from mlflow_compress.reporting import pairs, ranking, table_text

SIZE, CPU, ACCURACY = "size/weights_mib", "cpu/latency_p50_ms", "quality/accuracy"
DATA = {"cpu": "Xeon, 2 threads", "quality": "abc, 100 samples"}
SURE = {"cpu/launches": 5.0, "cpu/latency_launch_sd": 1e-9}  # the noise between launches is known, and almost 0


def row(method: str, size: float, cpu: float = 1.0, model: str = "yolo", team: str = "alpha", **fields: object) -> Row:
    defaults: dict[str, object] = {"values": {SIZE: size, CPU: cpu, **SURE}, "circumstances": DATA}
    return Row(team, model, method, **{**defaults, **fields})  # type: ignore[arg-type]


def fronts(comparison: Comparison, *objectives: str) -> dict[str, bool | None]:
    return {row.method: row.dominated for row in ranking.marked(comparison, objectives).rows}


def test_the_front() -> None:
    rows = (row("original", 100, 10), row("small", 10, 20), row("worse", 100, 12), row("same", 10, 20))
    assert fronts(Comparison(rows), "size", "cpu") == {"original": False, "small": False, "worse": True, "same": False}


def test_quality_is_better_where_it_is_greater_or_less_as_the_metric_says() -> None:
    def scored(method: str, size: float, name: str, value: float) -> Row:
        ends = {f"quality/{name}_low": value - 0.01, f"quality/{name}_high": value + 0.01}
        return row(method, size, values={SIZE: size, f"quality/{name}": value, **ends})

    assert fronts(
        Comparison((scored("a", 1, "accuracy", 0.9), scored("b", 1, "accuracy", 0.8))), "quality", "size"
    ) == {
        "a": False,
        "b": True,
    }
    assert fronts(Comparison((scored("a", 1, "wer", 0.9), scored("b", 1, "wer", 0.8))), "quality", "size") == {
        "a": True,
        "b": False,
    }


def test_a_row_without_a_number_is_not_ranked() -> None:
    comparison = Comparison((row("a", 1, 1), row("b", 2, values={SIZE: 2.0})))
    assert fronts(comparison, "size", "cpu") == {"a": False, "b": None}
    assert fronts(comparison, "size", "quality") == {"a": None, "b": None}


@pytest.mark.parametrize(
    ("fields", "compared"),
    [
        ({}, True),
        ({"model": "vit"}, False),
        ({"circumstances": {**DATA, "cpu": "EPYC, 2 threads"}}, False),
        ({"circumstances": {**DATA, "quality": "def, 7 samples"}}, True),  # quality is not compared
    ],
)
def test_only_what_may_be_compared_is(fields: dict[str, object], compared: bool) -> None:
    comparison = Comparison((row("a", 1, 1), row("b", 2, 2, **fields)))  # type: ignore[arg-type]
    assert fronts(comparison, "size", "cpu")["b"] is compared


def test_models_scored_on_the_same_data_are_compared() -> None:
    values = [{SIZE: 1.0, ACCURACY: 0.9}, {SIZE: 2.0, ACCURACY: 0.8}]
    first, second = row("a", 1, values=values[0]), row("b", 2, model="vit", team="beta", values=values[1])
    assert fronts(Comparison((first, second)), "size", "quality") == {"a": False, "b": True}
    on_other_data = row("b", 2, model="vit", values=values[1], circumstances={"quality": "def, 7 samples"})
    assert fronts(Comparison((first, on_other_data)), "size", "quality") == {"a": False, "b": False}


@pytest.mark.parametrize("objectives", [("size",), ("size", "size"), ("size", "sise"), ("size", "quality/moved")])
def test_objectives_that_make_no_front(objectives: tuple[str, ...]) -> None:
    with pytest.raises(RecipeError, match=r"two objectives|Did you mean 'size'|direction of 'moved' is unknown"):
        ranking.marked(Comparison((row("a", 1, values={SIZE: 1.0, "quality/moved": 1.0}),)), objectives)


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=12))
def test_a_front_is_what_it_is_by_definition(points: list[tuple[int, int]]) -> None:
    rows = tuple(row(str(number), size, cpu) for number, (size, cpu) in enumerate(points))
    ranked = ranking.marked(Comparison(rows), ["size", "cpu"]).rows
    for (size, cpu), ranked_row in zip(points, ranked, strict=True):
        assert ranked_row.dominated == any(a <= size and b <= cpu and (a, b) != (size, cpu) for a, b in points)
    assert not all(ranked_row.dominated for ranked_row in ranked)


def in_turns(method: str, ratio: float, width: float = 0.02) -> Row:
    ends = {CPU: (ratio * math.exp(-width), ratio * math.exp(width))}
    return row(method, 1, 10 * ratio, ratios={CPU: ratio}, ratio_intervals=ends)


def test_nobody_is_dominated_within_noise() -> None:
    """Computed by hand: two ratios with 2 % on each side differ by 2.8 %; with three pairs at 5 %, by 3.5 %."""
    rows = (in_turns("fast", 0.50), in_turns("equal", 0.51), in_turns("slow", 0.53))
    assert fronts(Comparison(rows), "size", "cpu") == {"fast": False, "equal": False, "slow": True}


def test_nobody_is_dominated_where_the_times_and_their_ratios_contradict_each_other() -> None:
    """In turns with the original the variant was slower, but it took less time than the original's own row."""
    slower = row("bf16", 1, 9, ratios={CPU: 1.11}, ratio_intervals={CPU: (1.10, 1.12)})
    rows = (row("original", 1, 10), slower)
    assert fronts(Comparison(rows), "size", "cpu") == {"original": False, "bf16": False}


def test_times_of_other_batches_are_judged_by_themselves_and_not_by_ratios_to_two_originals() -> None:
    """A batch of one in 9 ms (0.9x) takes less time than one of eight in 40 ms (0.5x)."""
    rows = [
        row("int8", 1, time, ratios={CPU: ratio}, ratio_intervals={CPU: (ratio * 0.99, ratio * 1.01)})
        for time, ratio in ((9.0, 0.9), (40.0, 0.5))
    ]
    work = [{**DATA, "cpu_work": f"abcd: batch {batch}"} for batch in (1, 8)]
    one, eight = (
        dataclasses.replace(row_of_batch, circumstances=circumstances)
        for row_of_batch, circumstances in zip(rows, work, strict=True)
    )
    assert pairs.differ(one, eight, CPU)
    assert not pairs.differ(one, dataclasses.replace(eight, circumstances=work[0]), CPU), "of one original"


def test_nobody_is_dominated_where_scores_and_their_differences_contradict_each_other() -> None:
    moved = f"{ACCURACY}_difference"
    values = {SIZE: 1.0, ACCURACY: 0.92, moved: -0.02, f"{moved}_low": -0.03, f"{moved}_high": -0.01}
    rows = (row("original", 1, values={SIZE: 1.0, ACCURACY: 0.9}), row("bf16", 1, values=values))
    assert fronts(Comparison(rows), "size", "quality") == {"original": False, "bf16": False}


RAM, P90, ENERGY = "cpu/ram_peak_mib", "cpu/latency_p90_ms", "cpu/energy_per_item_j"


@pytest.mark.parametrize("name", [CPU, P90, ENERGY, "cpu/first_call_ms", "cpu/latency_mean_ms"])
def test_a_number_of_unknown_noise_makes_no_row_dominated_nor_the_sole_best(name: str) -> None:
    sizes = {"fast": 1.0, "slow": 1.0, "larger": 2.0}
    costs = {"fast": 1.0, "slow": 100.0, "larger": 100.0}
    rows = tuple(row(method, 1, values={SIZE: size, name: costs[method]}) for method, size in sizes.items())
    directed = dataclasses.replace(Comparison(rows), greater_is_better={name: False})
    assert fronts(directed, "size", name) == {"fast": False, "slow": False, "larger": True}
    best = ranking.best(directed, name)
    assert [row.method for row in best.rows] == ["fast"]
    assert best.footnotes == ("not distinguishable from this row: slow; larger",)


def test_memory_repeats_within_one_percent() -> None:
    rows = tuple(row(name, 1, values={SIZE: 1.0, RAM: ram}) for name, ram in (("a", 100.0), ("b", 100.9), ("c", 102.0)))
    assert fronts(Comparison(rows), "size", RAM) == {"a": False, "b": False, "c": True}


def test_the_best_row_has_a_footnote_on_equals_within_noise() -> None:
    rows = (row("original", 1, 10.0), in_turns("fast", 0.50), in_turns("equal", 0.51), in_turns("slow", 0.60))
    best = ranking.best(Comparison(rows, footnotes=("of others",)), "cpu")
    assert [row.method for row in best.rows] == ["original", "fast"]
    assert [best.footnotes[note] for note in best.rows[1].notes] == ["not distinguishable from this row: equal"]


def test_means_over_models_leave_out_what_failed_and_say_what_is_noise() -> None:
    def of(model: str, ratio: float, source: str = "", width: float = 0.1) -> Row:
        ends = {CPU: (ratio * math.exp(-width), ratio * math.exp(width))}
        return Row("a", model, "fp16", ratios={CPU: ratio}, ratio_intervals=ends, source=source)

    rows = (of("m", 1.02, "hub/m"), of("m_again", 1.02, "hub/m"), of("n", 1.02, "hub/n"), of("gone", 9.0))
    failures = (Failure("a", "gone", "fp16", "failed", "cpu", "killed", "run9"),)
    (summary,) = ranking.summed_up(Comparison(rows, failures)).summaries
    assert (summary.models, summary.rows, summary.counts) == (2, 3, {CPU: 2})
    assert summary.ratios == {CPU: pytest.approx(1.02)}
    assert summary.within_noise == (CPU,)
    assert table_text.summary(summary, "en") == "fp16: ≈1.02x slower (CPU), over 2 models (3 rows)"
    (of_both,) = ranking.summed_up(Comparison((of("m", 1.5), of("n", 1.5)))).summaries
    assert (of_both.within_noise, of_both.noise_unknown) == ((), ())
    of_one_model = Row("a", "o", "fp16", ratios={CPU: 1.5})
    (unknown,) = ranking.summed_up(Comparison((of("m", 1.5), of_one_model))).summaries
    assert table_text.summary(unknown, "en") == "fp16: 1.50x slower (CPU, noise unknown), over 2 models"


def test_no_difference_in_quality_is_not_a_quality_of_0() -> None:
    summary = Summary("x", 2, differences={ACCURACY: -5.6e-17}, within_noise=(ACCURACY,))
    assert table_text.summary(summary, "en") == "x: accuracy ±0, over 2 models"


def test_order() -> None:
    rows = (row("b", 2, 5, team="z"), row("a", 1, 9, team="y"), row("c", 3, values={SIZE: 3.0}, team="y"))

    def order(sorting: str, grouping: str = "") -> str:
        return "".join(row.method for row in ranking.ordered(Comparison(rows), sorting, grouping).rows)

    assert order("") == "bac"
    assert order("cpu") == "bac"
    assert order("-cpu") == "abc"  # a row without a number stays last
    assert order("method") == "abc"
    assert order("-method") == "cba"
    assert order("-size", "team") == "cab"
    with pytest.raises(RecipeError, match="Did you mean 'method'"):
        order("methd")


def test_the_best_of_each_model_stands_beside_its_original() -> None:
    rows = (
        row("original", 9),
        row("a", 3),
        row("b", 2),
        row("original [batch 4]", 9),
        row("c", 5, model="vit"),
        row("d", 5, model="vit"),
        row("e", 1, values={}),
    )
    best = ranking.best(Comparison(rows), "size").rows
    assert [kept_row.method for kept_row in best] == ["original", "b", "original [batch 4]", "c"]


def test_the_best_is_one_of_those_that_may_be_compared() -> None:
    laptop = {**DATA, "cpu": "laptop, 8 threads"}
    batch = {**DATA, "cpu_work": "abcd: batch 4"}
    rows = (
        row("original", 9, 9),
        row("slow", 1, 5),
        row("fast", 1, 4),
        row("slow elsewhere", 1, 2, circumstances=laptop),
        row("fast elsewhere", 1, 1, circumstances=laptop),
        row("fast [batch 4]", 1, 3, circumstances=batch),
    )
    best = ranking.best(Comparison(rows), "cpu").rows
    assert [kept_row.method for kept_row in best] == ["original", "fast", "fast elsewhere", "fast [batch 4]"]
    smallest = ranking.best(Comparison(rows), "size")  # on any hardware
    assert [row.method for row in smallest.rows] == ["original", "slow"]
    (sentence,) = smallest.footnotes
    assert sentence == "not distinguishable from this row: fast; slow elsewhere; fast elsewhere; and 1 more"


def test_a_copied_row_is_the_best_of_its_table_alone_and_of_no_model_that_was_measured() -> None:
    copied = (
        row("a", 3, by_hand=True, table="one"),
        row("b", 2, by_hand=True, table="one"),
        row("c", 1, by_hand=True, table="two"),
    )
    assert [row.method for row in ranking.best(Comparison(copied), "size").rows] == ["b", "c"]
    measured = row("d", 4)
    assert [row.method for row in ranking.best(Comparison((*copied, measured)), "size").rows] == ["d"]
    of_another = row("d", 4, team="beta")
    assert [row.method for row in ranking.best(Comparison((*copied, of_another)), "size").rows] == ["b", "c", "d"]


def test_what_the_best_of_two_models_are_like_is_said_once() -> None:
    rows = tuple(row(method, 1, model=model) for model in ("yolo", "vit") for method in ("a", "b"))
    best = ranking.best(Comparison(rows, footnotes=("of others",)), "size")
    assert best.footnotes == ("of others", "not distinguishable from this row: b")
    assert [row.notes for row in best.rows] == [(1,), (1,)]


def test_means_over_models_are_judged_together() -> None:
    def of(method: str, ratio: float) -> Row:
        ends = {CPU: (ratio / 1.1, ratio * 1.1)}
        return Row("a", "m", method, ratios={CPU: ratio}, ratio_intervals=ends)

    # 2.1 standard errors: a p-value of 0.036, below 5 % if it were the only one
    ratio = math.exp(2.1 * math.log(1.1) / 1.959964)
    (single_claim,) = ranking.summed_up(Comparison((of("x", ratio),))).summaries
    assert single_claim.within_noise == ()
    summaries = ranking.summed_up(Comparison(tuple(of(method, ratio) for method in "xyz"))).summaries
    assert [summary.within_noise for summary in summaries] == [(CPU,)] * 3
    with_one_sure = ranking.summed_up(Comparison((of("sure", 2.0), of("x", ratio)))).summaries
    assert [summary.within_noise for summary in with_one_sure] == [(), ()]  # Holm judges the second of two at 5 %


def test_what_a_method_did_over_all_models() -> None:
    def moved(team: str, model: str, size: float, lost: float | None) -> Row:
        values = {} if lost is None else {ACCURACY: 0.9, f"{ACCURACY}_difference": lost}
        return Row(team, model, "int8", values=values, ratios={SIZE: size, "cpu/x": 3.0})

    rows = (
        Row("a", "yolo", "original", values={SIZE: 1.0}),
        moved("a", "yolo", 0.1, -0.02),
        moved("b", "yolo", 0.4, -0.04),
        moved("a", "vit", 0.8, None),
        Row("a", "vit", "by hand", ratios={SIZE: 0.5}, by_hand=True),
    )
    (summary,) = ranking.summed_up(Comparison(rows)).summaries
    assert (summary.method, summary.models) == ("int8", 2)
    assert summary.ratios == {SIZE: pytest.approx(math.sqrt(0.2 * 0.8))}  # 0.2: the geometric mean of 0.1 and 0.4
    assert summary.differences == {ACCURACY: pytest.approx(-0.03)}
    assert summary.counts == {SIZE: 2, ACCURACY: 1}


def test_directions() -> None:
    values = {SIZE: 1.0, "cpu/throughput_per_s": 1.0, "quality/wer": 0.1, "quality/wer_low": 0.0, "quality/moved": 1.0}
    comparison = ranking.directed(Comparison((row("a", 1, values=values),)))
    assert comparison.greater_is_better == {SIZE: False, "cpu/throughput_per_s": True, "quality/wer": False}
