from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mlflow_compress.planning import requirements
from mlflow_compress.records import Outcome, Result, Step, Variant
from mlflow_compress.sweeping import known, resume
from mlflow_compress.tracking.connection import Store
from mlflow_compress.tracking.log import Log
from mlflow_compress.tracking.sending import send
from mlflow_compress.tracking.spool import Shipment, Spool

HERE = {"cpu_model": "Xeon", "cores_logical": "4"}
THERE = {"cpu_model": "Threadripper", "cores_logical": "64"}
VARIANT = Variant("m", "original", "t", "python", "none.py", chain=(Step("original"),), folder="/nowhere")


@pytest.fixture(autouse=True)
def _on_a_known_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "here", lambda: HERE)


def measured(store: Store, experiment: str, spool: Spool, machine: dict[str, str], seconds: float) -> str:
    """Log a result, and return its experiment's id."""
    log = Log(store, {}, experiment, ["m"], False)
    entry = spool.begin()
    result = Result(VARIANT, "ok", environment=machine, outcomes={"cpu": Outcome("ok")}, ended_s=seconds)
    shipment = Shipment(entry, result, log.address(resume.digest(VARIANT, machine)), lambda text: None)
    send(store, shipment, ending=True)
    entry.remove()
    return log.experiment_id


def test_nothing_is_known_at_first(store: Store, tmp_path: Path) -> None:
    for knowledge in (known.Known(), known.ask(store, "", Spool(tmp_path), again=False, on_cluster=False)):
        assert not knowledge.is_measured(VARIANT)
        assert knowledge.forecast.of(VARIANT).source == "budget"
        assert knowledge.seconds(VARIANT) > 60


def test_what_was_measured_on_this_machine_takes_no_time(store: Store, tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    experiment_id = measured(store, "known here", spool, HERE, 7.0)
    knowledge = known.ask(store, experiment_id, spool, again=False, on_cluster=False)
    assert knowledge.is_measured(VARIANT)
    assert knowledge.seconds(VARIANT) == 0
    with_other_seed = replace(VARIANT, seed=1)
    assert not knowledge.is_measured(with_other_seed)
    assert knowledge.seconds(with_other_seed) == 7  # as long as the same row took before
    to_repeat = known.ask(store, experiment_id, spool, again=True, on_cluster=False)
    assert to_repeat.seconds(VARIANT) == 7


def test_machines_that_measured_before_stand_for_a_clusters(store: Store, tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    experiment_id = measured(store, "known there", spool, THERE, 5.0)
    assert not known.ask(store, experiment_id, spool, again=False, on_cluster=False).is_measured(VARIANT)
    assert known.ask(store, experiment_id, spool, again=False, on_cluster=True).is_measured(VARIANT)
