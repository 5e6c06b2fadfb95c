"""The tags that MLflow's UI shows; runs are read and found however their tags were stored."""

from __future__ import annotations

import pytest

from mlflow_compress.records import Caution, Outcome, Result, Run, Variant
from mlflow_compress.tracking import reading, run_tags, writing
from mlflow_compress.tracking.connection import Store

RESULT = Result(
    Variant("yolo", "int8", "alpha", "yolo", "yolo11n.pt", devices=("cpu", "cuda")),
    "failed",
    reason="gpu: out of memory",
    cautions=(Caution("busy_machine", "busy", "wait"),),
    environment={"cpu_model": "Xeon", "torch": "2.14.1"},
    outcomes={"cpu": Outcome("ok"), "gpu": Outcome("failed", "out of memory"), "quality": Outcome("ok")},
    facts={"weights": "random", "protocol.wer": "over the corpus", "work": "3f2a91bc: [1, 64] int64"},
)
SHOWN = {
    "team",
    "model",
    "method",
    "status",
    "compress.role",
    "compress.outcome.cpu",
    "compress.outcome.gpu",
    "compress.reason",
    "compress.reason.gpu",
    "compress.cautions",
}


def test_the_ui_shows_what_people_read_and_filter_by(store: Store) -> None:
    run_id = writing.start(store, writing.experiment_id(store, "shown tags"), "run", {"compress.result_id": "a" * 32})
    writing.write_result(store, run_id, RESULT, {}, "a note", {})
    writing.tag(store, run_id, {"compress.logged": "complete", "compress.not_logged": "model: too large"})
    names = store.client.get_run(run_id).data.tags.keys()
    assert {name for name in names if not name.startswith("mlflow.")} == SHOWN | {"compress.not_logged"}
    tags = reading.run(store, run_id).tags
    assert tags.items() >= writing.tags_of(RESULT).items()
    assert (tags["compress.result_id"], tags["compress.logged"]) == ("a" * 32, "complete")


def as_earlier(store: Store, experiment_id: str, name: str, tags: dict[str, str]) -> str:
    """Start a run as earlier versions did: all tags under their own names."""
    return str(store.client.create_run(experiment_id, tags=tags, run_name=name).info.run_id)


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("tags.`compress.env.torch` = '2.14.1'", ["earlier", "today"]),
        ("tags.\"compress.env.torch\" LIKE '2.%' and tags.`compress.role` = 'variant'", ["earlier", "today"]),
        ("tags.compress.logged = 'complete' and tags.team = 'alpha'", ["earlier", "today"]),
        ("tags.`mlflow.compress.env.torch` = '2.14.1'", ["today"]),
        ("tags.`compress.env.torch` IS NULL", ["empty"]),
        ("tags.team = 'alpha'", ["earlier", "today"]),
    ],
)
def test_a_filter_finds_runs_whichever_way_their_tags_were_kept(store: Store, query: str, names: list[str]) -> None:
    number = writing.experiment_id(store, f"filtered {query}")
    tags = {"team": "alpha", "compress.role": "variant", "compress.env.torch": "2.14.1", "compress.logged": "complete"}
    writing.start(store, number, "empty", {"compress.role": "variant"}, start_ms=3)
    as_earlier(store, number, "earlier", tags)
    writing.start(store, number, "today", tags, start_ms=2)
    matches = reading.runs(store, {number: "hw1"}, query)
    assert sorted(run.name for run in matches) == names
    assert matches == sorted(matches, key=lambda run: -run.started_ms)
    assert all(run.tags.items() >= tags.items() for run in matches if run.name != "empty")


def test_a_run_that_an_earlier_version_began_is_read_as_it_was_ended(store: Store) -> None:
    number = writing.experiment_id(store, "begun earlier")
    old_tags = {"compress.result_id": "b" * 32, "compress.env.cpu_model": "of another", "compress.reason": "refused"}
    run_id = as_earlier(store, number, "half", old_tags)
    assert writing.claim(store, number, "b" * 32, "half", {"compress.process": "mine"}) == run_id
    writing.untag(store, run_id, {"compress.reason", "compress.process"})
    writing.write_result(store, run_id, RESULT, {}, "", {})
    tags = reading.run(store, run_id).tags
    assert tags["compress.env.cpu_model"] == "Xeon"
    assert "compress.process" not in tags
    (run_read,) = reading.runs(store, {number: "hw1"}, f"tags.`{run_tags.RESULT_ID}` = '{'b' * 32}'")
    assert isinstance(run_read, Run)
    assert run_read.run_id == run_id
