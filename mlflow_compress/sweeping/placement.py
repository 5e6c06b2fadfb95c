"""Decide which machine may measure which variant: all variants of one model go to one kind of hardware."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mlflow_compress.planning import requirements
from mlflow_compress.records import Variant
from mlflow_compress.torch_devices import CPU, LABELS

_MIB_PER_STEP = 4096  # resolution of memory sizes: 64 GB of different vendors are not exactly equal

Kind = tuple[str, ...]


@dataclass
class Node:
    """A machine of the cluster.

    Attributes:
        id: Id in the cluster.
        name: Name for people.
        machine: Description by `requirements.here`.
        cpus, gpus: Numbers that the cluster can assign.
        parcels: Places of parcels that are on the machine, by digest.
        failures: Consecutive failed measurements on it.
    """

    id: str
    name: str
    machine: Mapping[str, str]
    cpus: float = 1
    gpus: float = 0
    parcels: dict[str, str] = field(default_factory=dict)
    failures: int = 0

    @property
    def kind(self) -> Kind:
        """Return the kind of hardware: processor, logical cores, GPU, and memory in steps of 4 GiB.

        Cores and memory are those that a container's limits allow.
        """
        facts = self.machine
        memory = min(float(facts.get(name, math.inf)) for name in ("ram_total_mib", "ram_limit_mib"))
        steps = round(memory / _MIB_PER_STEP) if math.isfinite(memory) else 0
        cores = facts.get("cores_logical", "")
        if "cores_limit" in facts:
            cores = f"{facts['cores_limit']} of {cores}"
        gpu = f"{self.gpus:g} x {facts['gpu_model']}" if "gpu_model" in facts else ""
        return facts.get("cpu_model", ""), cores, gpu, f"{steps * 4} GiB"


@dataclass
class Group:
    """Variants that are compared with each other.

    Attributes:
        kind: Hardware that they are measured on; None until it is chosen.
        left: Number of them without a result.
        originals: Number of originals among these.
    """

    kind: Kind | None = None
    left: int = 0
    originals: int = 0


class Placing:
    """Decides where each variant may be measured.

    Args:
        variants: All variants; they are distinguished by object identity.
    """

    def __init__(self, variants: Iterable[Variant]) -> None:
        self._variants = list(variants)
        groups: dict[str, Group] = {}
        self._groups = {id(variant): groups.setdefault(_key(variant), Group()) for variant in self._variants}
        for variant in self._variants:
            self.group(variant).left += 1
            self.group(variant).originals += variant.is_original
        self._all = list(groups.values())
        self._tried: dict[int, list[str]] = {}

    def group(self, variant: Variant) -> Group:
        """Return the variants that this one is compared with."""
        return self._groups[id(variant)]

    def serves(self, node: Node, nodes: Sequence[Node]) -> Callable[[Variant], bool]:
        """Return a function that says whether a variant may be measured on a node now.

        Args:
            node: A free node.
            nodes: All nodes.
        """
        numbers = Counter(candidate.kind for candidate in nodes)
        by_kind = {candidate.kind: candidate for candidate in nodes}

        def work(kind: Kind, group: Group) -> float:
            variants_left = sum(group_of_kind.left for group_of_kind in self._all if group_of_kind.kind == kind)
            return (variants_left + group.left) / numbers[kind]

        def check(variant: Variant) -> bool:
            group, tried_ids = self.group(variant), self._tried.get(id(variant), [])
            if node.id in tried_ids and any(
                candidate.kind == node.kind and candidate.id not in tried_ids for candidate in nodes
            ):
                return False
            if group.kind is not None:
                return group.kind == node.kind
            fitting = [kind for kind, candidate in by_kind.items() if not lack(variant, candidate)]
            return node.kind in fitting and node.kind == min(fitting, key=lambda kind: work(kind, group))

        return check

    def bind(self, variant: Variant, kind: Kind) -> None:
        """Choose the hardware for all variants that are compared with this one."""
        self.group(variant).kind = kind

    def release(self, kind: Kind) -> None:
        """Allow other hardware for the variants of a kind of hardware that is gone."""
        for group in self._all:
            if group.kind == kind:
                group.kind = None

    def failed(self, variant: Variant, node: Node) -> int:
        """Record a failure of a variant on a node, and return its number of failures on all nodes."""
        self._tried.setdefault(id(variant), []).append(node.id)
        return len(self._tried[id(variant)])

    def done(self, variant: Variant) -> None:
        """Record that a variant has a result."""
        group = self.group(variant)
        group.left -= 1
        group.originals -= variant.is_original

    def is_stranded(self, variant: Variant, nodes: Sequence[Node]) -> bool:
        """Return whether a variant waits for a machine that is not among these nodes."""
        kind = self.group(variant).kind
        if kind is None:
            return bool(self.homeless(variant, nodes))
        return kind not in {node.kind for node in nodes}

    def homeless(self, variant: Variant, nodes: Sequence[Node]) -> str:
        """Return why none of the nodes may measure a variant; empty if one may."""
        lacks = [lack(variant, node) for node in nodes]
        if not lacks:
            return "no machine of the cluster is left"
        return "" if not all(lacks) else f"no machine of the cluster can measure it: {min(lacks, key=len)}"


def lack(variant: Variant, node: Node) -> str:
    """Return what a node lacks for a variant; empty if nothing."""
    if variant.devices == ("cuda",) and "gpu_model" not in node.machine:
        return f"{node.name} has no GPU"
    kind = node.machine.get("gpu_device", "")
    if CPU not in variant.devices and kind and kind not in variant.devices:
        return f"{node.name} has no {LABELS[variant.devices[0]]} device, but {LABELS.get(kind, kind)}"
    unmet = requirements.unmet(variant.requires, node.machine)
    return f"{node.name}: {unmet}" if unmet else ""


def _key(variant: Variant) -> str:
    return json.dumps([variant.team, variant.model, dict(variant.requires)], sort_keys=True)
