"""A result is written to disk, sent to MLflow, and then deleted from disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest

from mlflow_compress import registry
from mlflow_compress.errors import StoreError, UnsentError
from mlflow_compress.measuring.quality import STATISTICS
from mlflow_compress.records import Outcome, Result, Step, Variant
from mlflow_compress.scoring import bootstrap, statistics_file
from mlflow_compress.sweeping.delivery import Delivery
from mlflow_compress.tracking import reading, sending, spool
from mlflow_compress.tracking.connection import Store
from mlflow_compress.tracking.log import Log
from mlflow_compress.tracking.pairing import Originals
from mlflow_compress.tracking.spool import Shipment, Spool

VARIANT = Variant("small", "original", "alpha", "python", "small.py", chain=(Step("original"),))
RESULT = Result(
    VARIANT, "ok", measurements={"size/params": 7.0}, outcomes={"cpu": Outcome("ok")}, started_s=1.0, ended_s=3.0
)


@pytest.fixture(autouse=True)
def _no_uri_is_left_behind() -> Iterator[None]:
    yield
    mlflow.set_tracking_uri("")


@pytest.fixture
def delivery(store: Store, tmp_path: Path, request: pytest.FixtureRequest) -> Delivery:
    name = f"delivery {request.node.name}"
    return Delivery(Spool(tmp_path / "spool"), lambda: Log(store, {}, name, ["small"], with_model=False), print)


def deliver(delivery: Delivery, messages: list[str]) -> Result:
    with delivery.entry(messages.append) as entry:
        return delivery.deliver(Shipment(entry, RESULT, delivery.log.address("digest"), messages.append))


def lifecycles(delivery: Delivery) -> list[str]:
    return [run.lifecycle for run in reading.runs(delivery.log.store, {delivery.log.experiment_id: ""})]


def test_what_mlflow_has_leaves_the_disk(delivery: Delivery, tmp_path: Path) -> None:
    messages: list[str] = []
    assert deliver(delivery, messages) == RESULT
    [run] = reading.runs(delivery.log.store, {delivery.log.experiment_id: ""})
    assert messages == [f"ok, 2 s, run {run.run_id}"]
    assert run.lifecycle == "FINISHED"
    assert list((tmp_path / "spool").iterdir()) == []
    delivery.close([RESULT])


def test_what_is_refused_is_kept_and_sent_in_the_end(
    delivery: Delivery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise StoreError("it is tired")

    messages: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(sending, "send", refuse)
        deliver(delivery, messages)
    assert messages == ["not logged: it is tired. The result is kept on disk, and measuring continues"]
    assert len(list((tmp_path / "spool").glob("*/result.json"))) == 1
    delivery.close([RESULT])
    assert lifecycles(delivery) == ["FINISHED"]
    assert list((tmp_path / "spool").glob("*/result.json")) == []


def test_what_is_refused_to_the_end_is_kept_and_reported(
    delivery: Delivery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise StoreError("it is tired")

    _ = delivery.log
    monkeypatch.setattr(sending, "send", refuse)
    monkeypatch.setattr("mlflow_compress.tracking.sync.send", refuse)
    deliver(delivery, [])
    with pytest.raises(UnsentError, match=r"1 of 1 results were measured but not logged.*compress-bench sync"):
        delivery.close([RESULT])
    assert len(list((tmp_path / "spool").glob("*/address.json"))) == 1


def test_what_was_measured_is_not_measured_again(delivery: Delivery) -> None:
    messages: list[str] = []
    assert delivery.earlier(RESULT.variant, "digest", messages.append) is None
    deliver(delivery, messages)
    earlier_result = delivery.earlier(RESULT.variant, "digest", messages.append)
    assert earlier_result is not None
    assert dataclasses.replace(earlier_result, samples={}) == dataclasses.replace(RESULT, samples={})
    assert "already measured" in messages[-1]


@pytest.mark.parametrize(("team", "is_paired"), [("alpha", True), ("beta", False)])
def test_a_variant_is_paired_with_the_original_of_an_earlier_command(
    store: Store, tmp_path: Path, request: pytest.FixtureRequest, team: str, is_paired: bool
) -> None:
    right = [1] * 80 + [0] * 20

    def command(method: str, team: str, answers: list[int]) -> Result:
        name = f"delivery {request.node.name}"
        delivery = Delivery(Spool(tmp_path / "spool"), lambda: Log(store, {}, name, ["small"], with_model=False), print)
        scores = bootstrap.score({"accuracy": registry.build("metrics", "accuracy")}, [1] * 100, answers, seed=0)
        variant = dataclasses.replace(
            VARIANT, team=team, method=method, chain=(Step(method),), data="own", metrics=("accuracy",)
        )
        outcomes, facts = {"cpu": Outcome("ok")}, {"data_name": "own", "data_source": "own", "data_digest": "abc"}
        result = Result(variant, "ok", measurements=scores.numbers(), outcomes=outcomes, facts=facts)
        with delivery.entry(print) as entry:
            statistics_file.write(scores.statistics(), entry.folder / STATISTICS)
            delivered = delivery.deliver(Shipment(entry, result, delivery.log.address("digest"), print))
        delivery.close([delivered])
        return delivered

    command("original", team, right)
    paired = command("fp16", "alpha", [*right[:70], *[0] * 30])
    difference = paired.measurements.get("quality/accuracy_difference")
    assert difference == (pytest.approx(-0.1) if is_paired else None)
    assert (paired.facts.get("significant.accuracy") == "yes") is is_paired


def test_a_folder_without_a_result_goes(delivery: Delivery, tmp_path: Path) -> None:
    with delivery.entry(print) as entry:
        assert entry.folder.is_dir()
    assert not entry.folder.exists()
    assert list((tmp_path / "spool").iterdir()) == []


def test_who_stops_the_pairing_of_scores_loses_no_result(
    delivery: Delivery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args: object) -> Result:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Originals, "pair", stop)
        with pytest.raises(KeyboardInterrupt):
            deliver(delivery, [])
    assert len(list((tmp_path / "spool").glob("*/address.json"))) == 1
    messages: list[str] = []
    assert delivery.earlier(RESULT.variant, "digest", messages.append) is not None
    assert messages[-1].startswith("already measured (kept in ")


def test_ctrl_c_while_a_result_is_kept_waits_until_it_is(
    delivery: Delivery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ctrl_c: Callable[[], None]
) -> None:
    write = spool._write

    def interrupted(path: Path, data: object) -> None:
        if path.name == "result.json":
            ctrl_c()
        write(path, data)

    monkeypatch.setattr(spool, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        deliver(delivery, [])
    assert lifecycles(delivery) == [], "it is stopped before the result is sent"
    assert len(list((tmp_path / "spool").glob("*/address.json"))) == 1
    assert delivery.earlier(RESULT.variant, "digest", print) == RESULT


def test_what_is_kept_and_sent_is_the_paired_result(delivery: Delivery, monkeypatch: pytest.MonkeyPatch) -> None:
    paired = dataclasses.replace(RESULT, measurements={"size/params": 7.0, "quality/accuracy_difference": 0.5})
    monkeypatch.setattr(Originals, "pair", lambda self, result, folder: paired)
    sent_results: list[Result] = []
    keep = Shipment.keep

    def noted(shipment: Shipment) -> Shipment:
        sent_results.append(shipment.result)
        return keep(shipment)

    monkeypatch.setattr(Shipment, "keep", noted)
    assert deliver(delivery, []) == paired
    assert sent_results == [RESULT, paired]
    (run,) = reading.runs(delivery.log.store, {delivery.log.experiment_id: ""})
    assert run.metrics["quality/accuracy_difference"] == 0.5
