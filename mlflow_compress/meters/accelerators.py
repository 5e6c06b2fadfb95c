"""Find the accelerator that torch would use here, and wait for it: CUDA, MPS (Apple silicon) or XPU (Intel).

Covers: what the system shows without importing torch, and what torch itself can use; the end of all queued work.
Does not cover: several accelerators of different kinds in one machine, because torch is built for one kind.
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import NamedTuple

from mlflow_compress.meters import gpu, processor
from mlflow_compress.torch_devices import CPU, LABELS
from mlflow_compress.version import installed

_INTEL = "0x8086"  # vendor id of PCI
_NEEDS = {"mps": "MPS needs a Mac with Apple silicon"}


class Accelerator(NamedTuple):
    """An accelerator that the system shows.

    Attributes:
        device: Torch's name of its kind.
        name: Name of the hardware, as in `gpu_model`.
        memory_mib: Its memory; 0 if it is unknown, or shared with the CPU.
    """

    device: str
    name: str
    memory_mib: int = 0


def visible(root: Path = Path("/")) -> list[Accelerator]:
    """Return the accelerators of the kind that the installed torch is built for, without importing it.

    Args:
        root: Folder with `sys`; another one in tests.
    """
    if sys.platform == "darwin":
        return [Accelerator("mps", named(processor.name(), "mps"))] if platform.machine() == "arm64" else []
    if installed_kind() == "xpu":
        return [Accelerator("xpu", named(name, "xpu")) for name in _intel_gpus(root)]
    return [Accelerator("cuda", name, memory) for name, memory in gpu.models()]


def installed_kind() -> str:
    """Return the suffix of torch's version, which says what it is built for: `xpu`, `cu130`, `cpu`; empty if none."""
    return (installed("torch") or "").partition("+")[2]


def named(hardware: str, device: str) -> str:
    """Return the name of an accelerator, with its kind where people know the same hardware as a processor."""
    return hardware if device == "cuda" else f"{hardware} ({LABELS[device]})"


def is_available(device: str) -> bool:
    """Return whether torch can use a device."""
    import torch

    if device == CPU:
        return True
    if device == "cuda":
        return torch.cuda.is_available()
    current = torch.accelerator.current_accelerator(check_available=True)
    return current is not None and current.type == device


def lack(device: str) -> str:
    """Return why torch can't use a device; empty if it can."""
    if is_available(device):
        return ""
    reason = _NEEDS.get(device, "")
    if device == "xpu" and installed_kind() != "xpu":
        reason = f"torch {installed('torch')} is built without XPU"
    sentence = f"this machine has no {LABELS[device]} device that torch can use"
    return f"{sentence}: {reason}" if reason else sentence


def synchronise(device: str) -> None:
    """Wait until a device has finished all queued work."""
    import torch

    if device != CPU:
        torch.accelerator.synchronize()


def _intel_gpus(root: Path) -> list[str]:
    """Return Intel's GPUs by their PCI ids, or one without an id on a system that does not list them."""
    if sys.platform != "linux":
        return ["Intel GPU"]
    vendors = sorted((root / "sys/class/drm").glob("card[0-9]*/device/vendor"))
    cards = [path.parent for path in vendors if "-" not in path.parts[-3]]  # card0-DP-1 is a connector
    ids = [((card / "vendor").read_text().strip(), (card / "device").read_text().strip()) for card in cards]
    return [f"Intel GPU {product}" for vendor, product in ids if vendor == _INTEL]
