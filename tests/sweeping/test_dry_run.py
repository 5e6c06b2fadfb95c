"""The plan of a sweep, as text and as data."""

from __future__ import annotations

import json

from mlflow_compress.records import Budget, Result, Step, Variant
from mlflow_compress.sweeping import dry_run
from mlflow_compress.sweeping.forecast import Forecast

BUDGET = Budget(max_seconds=10, warmup_max_seconds=10, energy_seconds=0)


def variant(method: str, **fields: object) -> Variant:
    chain = (Step(method),)
    return Variant("mine", method, "none", "python", "x.py", chain=chain, budget=BUDGET, **fields)  # type: ignore[arg-type]


ORIGINAL, FP16, INT8 = variant("original"), variant("fp16"), variant("int8", requires={"gpu": "A100"}, threads=2)


def known(seconds: float = 20.0) -> Forecast:
    forecast = Forecast()
    forecast.learn(Result(ORIGINAL, "ok", started_s=0, ended_s=seconds))
    return forecast


def test_each_variant_is_listed_with_what_would_happen() -> None:
    planned = dry_run.look(
        [ORIGINAL, FP16, INT8],
        known(),
        is_measured=lambda candidate: candidate is ORIGINAL,
        unmet=lambda candidate: "no A100" if candidate.requires else "",
    )
    assert [planned_variant.state for planned_variant in planned] == ["measured already", "to measure", "skipped"]
    assert list(dry_run.text(planned)) == [
        "   model  method    batch  threads  requires  estimate    from        state",
        "1  mine   original      1     auto                                    measured already",
        "2  mine   fp16          1     auto            about 20 s  this model  to measure",
        "3  mine   int8          1        2  gpu=A100                          skipped: no A100",
    ]
    assert dry_run.summary(planned) == "3 variants, 1 measured already, 1 skipped, about 20 s on one machine"
    data = json.loads(json.dumps(dry_run.data(planned)))
    assert (data["measured"], data["seconds"]) == (1, 20)
    assert data["variants"][2]["requires"] == {"gpu": "A100"}
    assert [entry["number"] for entry in data["variants"]] == [1, 2, 3]


def test_a_bound_is_called_one() -> None:
    planned = dry_run.look([FP16], Forecast())
    assert "at most 1 min 58 s" in list(dry_run.text(planned))[1]
    assert dry_run.summary(planned) == (
        "1 variant, at most about 1 min 58 s on one machine (from the budget, without compressing and scoring)"
    )
    of_other_model = Variant("other", "x", "none", "python", "x.py", budget=BUDGET)
    summary = dry_run.summary(dry_run.look([FP16, of_other_model], known()))
    assert "2 variants, at most about 2 min 18 s on one machine (1 min 58 s of it from the budget" in summary


def test_what_does_not_fit_is_counted() -> None:
    planned = dry_run.look(
        [ORIGINAL, FP16, INT8], known(20), is_measured=lambda candidate: candidate is ORIGINAL, limit=30
    )
    assert [planned_variant.state for planned_variant in planned] == ["measured already", "to measure", "not started"]
    assert dry_run.summary(planned, 30).endswith("about 20 s on one machine; 1 do not fit into 30 s")


def test_names_of_others_steer_no_terminal() -> None:
    hostile = Variant("a\x1b[2Jb\nc", "x | y", "none", "python", "x.py", setting="tokens=64, threads=2", threads=2)
    head, row = dry_run.text(dry_run.look([hostile], known()))
    assert "\x1b" not in row
    assert "a\ufffd[2Jb c" in row
    assert "tokens=64  " in row
    assert "options" in head
