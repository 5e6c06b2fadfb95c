"""The order of variants, and which of them fit into the time."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_compress.planning.order import Queue, most_informative_first, originals_first
from mlflow_compress.records import Step, Variant


def variant(model: str, method: str, batch_size: int = 1) -> Variant:
    return Variant(model, method, "none", "python", "x.py", chain=(Step(method),), batch_size=batch_size)


plans = st.lists(
    st.builds(variant, st.sampled_from("ABC"), st.sampled_from(["original", "x", "y", "z"]), st.integers(1, 3)),
    unique_by=lambda planned: (planned.model, planned.method, planned.batch_size),
    max_size=30,
)


def names(variants: list[Variant]) -> str:
    return " ".join(f"{planned.model}{planned.method[0]}" for planned in variants)


def same(left: list[Variant], right: list[Variant]) -> bool:
    return Counter(map(id, left)) == Counter(map(id, right))


@given(plans)
def test_originals_come_before_their_variants_and_nothing_else_moves(plan: list[Variant]) -> None:
    ordered = originals_first(plan)
    assert same(ordered, plan)
    seen_originals: set[tuple[str, int]] = set()
    with_original = {(planned.model, planned.batch_size) for planned in plan if planned.is_original}
    for planned in ordered:
        if planned.is_original:
            seen_originals.add((planned.model, planned.batch_size))
        assert (planned.model, planned.batch_size) in seen_originals or (
            planned.model,
            planned.batch_size,
        ) not in with_original
    compressed_ids = [id(planned) for planned in plan if not planned.is_original]
    assert [id(planned) for planned in ordered if not planned.is_original] == compressed_ids
    assert list(map(id, originals_first(ordered))) == list(map(id, ordered))


def test_an_original_moves_only_before_its_first_variant() -> None:
    plan = [variant("A", "x"), variant("B", "x"), variant("A", "y"), variant("A", "original"), variant("B", "original")]
    assert names(originals_first(plan)) == "Ao Ax Bo Bx Ay"
    variants = [replace(variant("A", "x"), requires={"gpu": "any"}), variant("A", "original")]
    assert names(originals_first(variants)) == "Ao Ax"


@given(plans)
def test_the_most_informative_come_first(plan: list[Variant]) -> None:
    ordered = most_informative_first(plan)
    assert same(ordered, plan)
    assert list(map(id, most_informative_first(plan))) == list(map(id, ordered))
    originals = sum(planned.is_original for planned in plan)
    assert all(planned.is_original for planned in ordered[:originals])
    compressed = ordered[originals:]
    methods = len({planned.method for planned in compressed})
    assert len({planned.method for planned in compressed[:methods]}) == methods
    models = len({planned.model for planned in plan if planned.is_original})
    assert len({planned.model for planned in ordered[:models]}) == models


def test_each_method_begins_with_another_model() -> None:
    plan = [variant(model, method) for model in "AB" for method in ("original", "x", "y", "z")]
    assert names(most_informative_first(plan)) == "Ao Bo Ax By Az Bx Ay Bz"


def test_without_a_limit_all_are_taken_in_their_order() -> None:
    plan = [variant("A", method) for method in ("original", "x", "y")]
    queue = Queue(plan, lambda candidate: 1e9)
    assert [queue.take() for _ in range(4)] == [*plan, None]
    assert queue.waiting == ()


def test_the_first_variant_is_always_started_and_later_ones_only_if_they_fit() -> None:
    now = 100.0
    long, short, quick = plan = [variant("A", method) for method in ("long", "short", "quick")]
    queue = Queue(plan, lambda candidate: {"long": 99.0, "short": 8.0, "quick": 2.0}[candidate.method], 10, lambda: now)
    assert queue.take() is long
    now = 105.0
    assert queue.take() is quick  # short would end at 113
    assert queue.take() is None
    assert queue.waiting == (short,)


def test_estimates_may_change_meanwhile() -> None:
    estimates = {"x": 1.0, "y": 99.0}
    plan = [variant("A", "x"), variant("A", "y")]
    queue = Queue(plan, lambda candidate: estimates[candidate.method], 10, lambda: 0.0)
    assert queue.take() is plan[0]
    assert queue.take() is None
    estimates["y"] = 10.0
    assert queue.take() is plan[1]


def test_a_machine_takes_suitable_variants_and_returns_lost_ones() -> None:
    plan = [variant(model, "x") for model in "ABA"]
    queue = Queue(plan)
    assert queue.take(lambda candidate: candidate.model == "B") is plan[1]
    assert queue.take(lambda candidate: candidate.model == "B") is None
    queue.put_back(plan[1])
    assert queue.waiting == (plan[1], plan[0], plan[2])


@pytest.mark.parametrize(("measured", "left"), [("", "Ay"), ("A", "Ay"), ("B", "Ay Bx By")])
def test_variants_of_a_failing_model_are_left_out_unless_one_was_measured(measured: str, left: str) -> None:
    queue = Queue([variant("A", "y"), variant("B", "x"), variant("B", "y")])
    queue.leave_out(variant("B", "z"), [variant(model, "original") for model in measured])
    assert names(list(queue.waiting)) == left


@given(plans, st.floats(0, 50), st.lists(st.floats(0, 20), min_size=1, max_size=5))
def test_nothing_is_lost_and_the_limit_holds(plan: list[Variant], limit: float, lengths: list[float]) -> None:
    now, started = 0.0, []
    seconds = {id(planned): lengths[index % len(lengths)] for index, planned in enumerate(plan)}
    queue = Queue(plan, lambda planned: seconds[id(planned)], limit, lambda: now)
    while (planned := queue.take()) is not None:
        started.append(planned)
        now += seconds[id(planned)]
    assert same([*started, *queue.waiting], plan)
    assert now <= max(limit, seconds[id(started[0])] if started else 0)
