"""Ask a machine of a Ray cluster for its description, and decide whether it can measure."""

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
    "{}: measured processes have a lower priority than other programs. Start Ray with RAY_worker_niceness=0 to get "
    "true latencies"
)
_UNREACHABLE = (
    "{}: the tracking server can be reached from here, but not from there. Nothing is lost: results are sent through "
    "this command"
)
_NOT_IMPORTED = ("failed to import", "mlflow_compress", "ModuleNotFoundError", "ImportError")  # in Ray's messages


class GoneError(RecipeError):
    """A machine was lost before it answered."""


def describe(tracking_uri: str, parcels: Sequence[Mapping[str, Any]], has_gpus: bool) -> dict[str, Any]:
    """On a machine, return its description (see `ray_node.describe`) and its version of Ray."""
    return {**ray_node.describe(tracking_uri, parcels, has_gpus), "ray": ray_cluster.version()}


def read(cluster: Cluster, seen: Seen, answer: Any, seconds: float) -> tuple[Node, list[str]]:
    """Wait for a machine's answer, and check it.

    Args:
        cluster: The cluster.
        seen: The machine.
        answer: Reference of the return value of `describe` on the machine.
        seconds: How long to wait.

    Returns:
        The machine, and remarks for the user: sentences with `{}` for its name.

    Raises:
        GoneError: The machine is gone.
        RecipeError: The machine can't measure; the message says why.
    """
    description = _answer(cluster, seen, answer, seconds)
    _require_same_versions(seen, description)
    remarks = {_NICE: description["niceness"] > 0, _UNREACHABLE: bool(description["unreachable"])}
    node = Node(seen.id, seen.hostname, description["machine"], seen.cpus, seen.gpus, dict(description["parcels"]))
    return node, [remark for remark, applies in remarks.items() if applies]


def _answer(cluster: Cluster, machine: Seen, answer: Any, seconds: float) -> dict[str, Any]:
    try:
        description: dict[str, Any] = cluster.answer(answer, seconds)
    except cluster.errors.GetTimeoutError:
        raise RecipeError(f"The machine {machine.where} did not answer within {seconds:.0f} s.") from None
    except cluster.errors.RayError as error:
        if cluster.is_machine_lost(error):
            raise GoneError(f"The machine {machine.where} is gone.") from None
        reason = ray_cluster.reason(error)
        if any(word in reason for word in _NOT_IMPORTED):
            raise RecipeError(
                f"The machine {machine.where} can't import mlflow-compress {__version__}. Install it there, in the "
                f"environment that Ray was started in: {ray_cluster.EXTRA}"
            ) from None
        raise RecipeError(f"The machine {machine.where} can't be described: {reason}") from None
    return description


def _require_same_versions(asked_machine: Seen, description: Mapping[str, Any]) -> None:
    """Raise if the machine has other versions than this one: they could not exchange data."""
    machine = description["machine"]
    own_versions = {
        "Ray": ray_cluster.version(),
        "Python": _minor(platform.python_version()),
        "mlflow-compress": __version__,
    }
    versions = {"Ray": description["ray"], "Python": _minor(machine["python"]), "mlflow-compress": machine["version"]}
    differences = [
        f"{name} {versions[name]}, but this machine has {own_versions[name]}"
        for name in own_versions
        if own_versions[name] != versions[name]
    ]
    if differences:
        raise RecipeError(
            f"The machine {asked_machine.where} has {'; '.join(differences)}. Install the same versions on both."
        )


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])
