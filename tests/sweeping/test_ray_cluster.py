from __future__ import annotations

import http.server
import sys
import threading
import time

import pytest

from mlflow_compress.errors import RecipeError, one_line
from mlflow_compress.sweeping import ray_cluster

pytest.importorskip("ray", reason="Ray is not installed")


@pytest.mark.parametrize(
    ("address", "message"),
    [("127.0.0.1:1", "There is no Ray cluster"), ("ray://h:10001", "Ray Client"), ("nonsense", "no Ray cluster")],
)
def test_no_cluster_is_said_within_seconds(address: str, message: str) -> None:
    began = time.monotonic()
    with pytest.raises(RecipeError, match=message), ray_cluster.connected(address):
        pass
    assert time.monotonic() - began < 20


def test_what_is_no_ray_cluster_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    server = http.server.HTTPServer(
        ("", 0),  # Ray replaces 127.0.0.1 by the machine's own address
        http.server.BaseHTTPRequestHandler,
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(ray_cluster, "_CONNECT_SECONDS", 2.0)
    try:
        address = f"127.0.0.1:{server.server_port}"
        with pytest.raises(RecipeError, match="is not a Ray cluster"), ray_cluster.connected(address):
            pass
    finally:
        server.shutdown()


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RecipeError, match=r"mlflow-compress\[ray\]"), ray_cluster.connected("auto"):
        pass


def test_only_living_machines_that_hand_out_processors_measure() -> None:
    class Ray:
        exceptions = None

        @staticmethod
        def nodes() -> list[dict[str, object]]:
            return [
                listed("head", CPU=0.0),
                listed("lab1", CPU=8.0, GPU=2.0),
                listed("lab2", alive=False, CPU=8.0),
                listed("lab3", memory=1.0),
                listed("lab4", CPU=4.0),
            ]

    machines = ray_cluster.Cluster(Ray()).machines()
    assert machines == {
        "id of lab1": ray_cluster.Seen("id of lab1", "lab1", "10.0.0.1", 8.0, 2.0),
        "id of lab4": ray_cluster.Seen("id of lab4", "lab4", "10.0.0.1", 4.0, 0),
    }
    assert machines["id of lab1"].where == "lab1 (10.0.0.1)"


def listed(name: str, alive: bool = True, **resources: float) -> dict[str, object]:
    """Return a machine as Ray lists it."""
    fields = {"NodeID": f"id of {name}", "NodeManagerHostname": name, "NodeManagerAddress": "10.0.0.1"}
    return {**fields, "Alive": alive, "Resources": resources}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("one\n  two"), "ValueError: one"),
        (RuntimeError("Traceback (most recent call last):\n  File x\nOSError: the disk is full\n"),
         "RuntimeError: OSError: the disk is full"),
        (OSError(), "OSError: "),
    ],
)  # fmt: skip
def test_a_reason_is_one_line(error: Exception, reason: str) -> None:
    assert ray_cluster.reason(error) == reason
    caused = RuntimeError("a long story")
    caused.cause = error  # type: ignore[attr-defined]  # as Ray's RayTaskError has it
    assert ray_cluster.reason(caused) == f"{type(error).__name__}: {one_line(error)}"
