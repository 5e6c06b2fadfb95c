from __future__ import annotations

import platform
from typing import Any

import pytest

from mlflow_compress.errors import RecipeError
from mlflow_compress.sweeping import ray_interview
from mlflow_compress.sweeping.ray_cluster import Cluster, Seen, version
from mlflow_compress.version import __version__

ray = pytest.importorskip("ray", reason="Ray is not installed")
exceptions = pytest.importorskip("ray.exceptions")

LAB7 = Seen("abc", "lab7", "10.0.0.7", 8.0, 1.0)
MACHINE = {"python": platform.python_version(), "version": __version__, "cpu_model": "Xeon"}
WELL = {"machine": MACHINE, "ray": version(), "niceness": 0, "unreachable": "", "parcels": {"d": "here"}}


def read(answer: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Check an answer, or the error that Ray raises instead."""

    def get(*args: Any, **kwargs: Any) -> Any:
        if isinstance(answer, BaseException):
            raise answer
        return answer

    monkeypatch.setattr(ray, "get", get)
    return ray_interview.read(Cluster(ray), LAB7, None, 1.0)


def test_a_machine_that_can_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    node, remarks = read(WELL, monkeypatch)
    assert (node.id, node.name, node.cpus, node.gpus) == ("abc", "lab7", 8.0, 1.0)
    assert (node.machine, node.parcels, remarks) == (MACHINE, {"d": "here"}, [])


@pytest.mark.parametrize(
    ("change", "text"), [({"niceness": 15}, "RAY_worker_niceness=0"), ({"unreachable": "no route"}, "tracking server")]
)
def test_remarks_for_the_user(change: dict[str, Any], text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, (remark,) = read({**WELL, **change}, monkeypatch)
    assert remark.format("lab7").startswith("lab7: ")
    assert text in remark


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ray": "1.0"}, r"has Ray 1\.0, but this machine has"),
        ({"machine": {**MACHINE, "python": "3.9.1"}}, r"has Python 3\.9, but"),
        ({"machine": {**MACHINE, "version": "0.0"}, "ray": "1.0"}, r"Ray 1\.0, .*; mlflow-compress 0\.0, but"),
    ],
)
def test_other_versions_are_refused(change: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match=rf"lab7 \(10\.0\.0\.7\) .*{message}"):
        read({**WELL, **change}, monkeypatch)


def test_a_machine_without_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    error = exceptions.RaySystemError("The remote function failed to import on the worker.")
    with pytest.raises(RecipeError, match=r"machine lab7 \(10\.0\.0\.7\) can't import mlflow-compress .* pip install"):
        read(error, monkeypatch)


def test_a_machine_that_is_silent_or_gone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match=r"did not answer within 1 s") as silent:
        read(exceptions.GetTimeoutError("later"), monkeypatch)
    assert not isinstance(silent.value, ray_interview.GoneError)
    with pytest.raises(ray_interview.GoneError, match=r"lab7 .* is gone"):
        read(exceptions.TaskUnschedulableError("gone"), monkeypatch)
    with pytest.raises(RecipeError, match=r"can't be described: RaySystemError: System error: broken"):
        read(exceptions.RaySystemError("broken"), monkeypatch)
