"""Asks a machine of a Ray cluster what it is, and judges whether it can measure."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import Any

from mlflow_compress.errors import RecipeError
from mlflow_compress.sweeping import ray_cluster, ray_node
from mlflow_compress.sweeping.placement import Node
from mlflow_compress.sweeping.ray_cluster import Cluster, Seen
from mlflow_compress.version import __version__

_NICE = (
    "{}: what is measured there comes after other programs. Start Ray with RAY_worker_niceness=0 to have true latencies"
)
_UNREACHABLE = (
    "{}: the tracking server answers here, but not there. Nothing is lost by that: results go home through this command"
)
_NOT_IMPORTED = ("failed to import", "mlflow_compress", "ModuleNotFoundError", "ImportError")  # what Ray says of it


class GoneError(RecipeError):
    """A machine was lost before it could say what it is."""


def describe(tracking_uri: str, parcels: Sequence[Mapping[str, Any]], has_gpus: bool) -> dict[str, Any]:
    """Describe a machine, on it: as `ray_node.describe` does, and the version of Ray."""
    return {**ray_node.describe(tracking_uri, parcels, has_gpus), "ray": ray_cluster.version()}


def read(cluster: Cluster, seen: Seen, answer: Any, seconds: float) -> tuple[Node, list[str]]:
    """Wait for a machine's answer, and judge it.

    Args:
        cluster: its cluster.
        seen: the machine.
        answer: the reference of what `describe` returns there.
        seconds: how long to wait.

    Returns:
        The machine, and what people must know of it: sentences with `{}` for its name.

    Raises:
        GoneError: it is gone.
        RecipeError: it can't measure, and why.
    """
    said = _answer(cluster, seen, answer, seconds)
    _require_same_versions(seen, said)
    remarks = {_NICE: said["niceness"] > 0, _UNREACHABLE: bool(said["unreachable"])}
    node = Node(seen.id, seen.hostname, said["machine"], seen.cpus, seen.gpus, dict(said["parcels"]))
    return node, [remark for remark, applies in remarks.items() if applies]


def _answer(cluster: Cluster, seen: Seen, answer: Any, seconds: float) -> dict[str, Any]:
    try:
        said: dict[str, Any] = cluster.answer(answer, seconds)
    except cluster.errors.GetTimeoutError:
        raise RecipeError(f"The machine {seen.where} did not answer within {seconds:.0f} s.") from None
    except cluster.errors.RayError as error:
        if cluster.is_machine_lost(error):
            raise GoneError(f"The machine {seen.where} is gone.") from None
        reason = ray_cluster.reason(error)
        if any(word in reason for word in _NOT_IMPORTED):
            raise RecipeError(
                f"The machine {seen.where} can't import mlflow-compress {__version__}: install it there, in the "
                f"environment that Ray was started in: {ray_cluster.EXTRA}"
            ) from None
        raise RecipeError(f"The machine {seen.where} can't be asked what it is: {reason}") from None
    return said


def _require_same_versions(seen: Seen, said: Mapping[str, Any]) -> None:
    """Raise for a machine whose versions differ from those here: what is sent would not be understood."""
    machine = said["machine"]
    own = {
        "Ray": ray_cluster.version(),
        "Python": _minor(platform.python_version()),
        "mlflow-compress": __version__,
    }
    its = {"Ray": said["ray"], "Python": _minor(machine["python"]), "mlflow-compress": machine["version"]}
    apart = [f"{what} {its[what]} where this machine has {own[what]}" for what in own if own[what] != its[what]]
    if apart:
        raise RecipeError(f"The machine {seen.where} has {', '.join(apart)}: install the same versions on both.")


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])
