"""What a machine must have before a variant may be measured on it.

    requires: {gpu: A100, min_vram_gb: 40, min_ram_gb: 64, min_cores: 8, cpu: EPYC, os: linux}

GB is 10^9 bytes here, as makers count, so that a machine sold with 64 GB has them although its system keeps some.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mlflow_compress.errors import RecipeError, UnknownName, WorkerError
from mlflow_compress.meters import environment, gpu
from mlflow_compress.records import Scalar

KEYS: Mapping[str, str] = {
    "gpu": "part of the GPU's name; `any`; `none`: a machine without a GPU",
    "min_vram_gb": "memory of the GPU",
    "min_ram_gb": "memory of the machine that may be used",
    "min_cores": "logical cores that may be used",
    "cpu": "part of the processor's name",
    "os": "linux, windows or darwin",
}
_SYSTEMS = ("linux", "windows", "darwin")
_MIB_PER_GB = 1e9 / 2**20


def check(requires: Mapping[str, Any]) -> dict[str, Scalar]:
    """Check what is required, and convert numbers given as text.

    Args:
        requires: by key, see `KEYS`.

    Raises:
        UnknownName: no such key or operating system.
        RecipeError: a value of the wrong type, or a number that is negative.
    """
    checked: dict[str, Scalar] = {}
    for key, value in requires.items():
        if key not in KEYS:
            raise UnknownName("requirement", str(key), KEYS)
        checked[key] = _number(key, value) if key.startswith("min_") else _text(key, value)
    system = checked.get("os")
    if system is not None and system not in _SYSTEMS:
        raise UnknownName("operating system", str(system), _SYSTEMS)
    return checked


def unmet(requires: Mapping[str, Scalar], machine: Mapping[str, str]) -> str:
    """Say in a sentence what a machine lacks.

    Args:
        requires: as `check` gives it.
        machine: as `here` gives it: text by name.

    Returns:
        What is required and what the machine has; empty if it serves.
    """
    return "; ".join(filter(None, (_lack(key, wanted, machine) for key, wanted in requires.items())))


def here() -> dict[str, str]:
    """Describe this machine and its first GPU, without importing torch: what `environment.machine` gives, and more.

    Where there is a GPU: `gpu_model`, `gpu_memory_mib`, and `gpu_power_limit_w` where its driver tells that.
    """
    found = environment.machine()
    for name, memory in gpu.models()[:1]:
        found |= {"gpu_model": name, "gpu_memory_mib": str(memory)}
        if (limit := gpu.first_power_limit_w()) is not None:
            found["gpu_power_limit_w"] = f"{limit:.0f}"
    return found


def require_device(device: str) -> None:
    """Raise where a device that was asked for by name is not on this machine: measuring another one is no answer.

    Args:
        device: `cpu`, `cuda`, or `auto`, which takes what there is.

    Raises:
        WorkerError: it is not.
    """
    if device == "cuda" and not gpu.models():
        raise WorkerError(
            "device=cuda was asked for, and this machine has no NVIDIA GPU that its driver shows (nvidia-smi lists "
            "them; CUDA_VISIBLE_DEVICES hides some). Nothing was measured. Leave the device out to measure on the CPU, "
            "or go to a machine with a GPU."
        )


def text(requires: Mapping[str, Scalar]) -> str:
    """Write what is required on one line, as `--requires` takes it."""
    return ", ".join(f"{key}={value}" for key, value in requires.items())


def _lack(key: str, wanted: Scalar, machine: Mapping[str, str]) -> str:
    """Say what of one key a machine lacks; empty if nothing."""
    if key == "gpu":
        has = machine.get("gpu_model", "")
        serves = bool(has) if wanted == "any" else not has if wanted == "none" else _within(wanted, has)
    elif key == "cpu":
        has = machine.get("cpu_model", "")
        serves = _within(wanted, has)
    elif key == "os":
        has = machine.get("os", "").partition(" ")[0].lower()
        serves = wanted == has
    else:
        amount, limit = _amount(key, machine), _limit(key, machine)
        has = f"{amount:.4g}" if amount > 0 else ""
        if limit < amount:
            has, amount = f"{limit:.4g} of its {has} for us (the limit of a container or a batch system)", limit
        serves = amount >= float(str(wanted))
    nothing = "no GPU" if key in ("gpu", "min_vram_gb") else "one that is not known"
    return "" if serves else f"{key}={wanted} is required, and the machine has {has or nothing}"


def _amount(key: str, machine: Mapping[str, str]) -> float:
    """Return how much a machine has of what a number is asked of; 0 where that is not known."""
    if key == "min_cores":
        cores = machine.get("affinity")
        return float(len(cores.split(","))) if cores else max(_float(machine.get("cores_logical", "")), 0.0)
    memory = {"min_ram_gb": "ram_total_mib", "min_vram_gb": "gpu_memory_mib"}[key]
    return max(_float(machine.get(memory, "")), 0.0) / _MIB_PER_GB


def _limit(key: str, machine: Mapping[str, str]) -> float:
    """Return how much of it a container or a batch system lets us use; infinity where there is no limit."""
    limit = _float(machine.get({"min_cores": "cores_limit", "min_ram_gb": "ram_limit_mib"}.get(key, ""), ""))
    if limit < 0:
        return math.inf
    return limit / _MIB_PER_GB if key == "min_ram_gb" else limit


def _within(part: Scalar, name: str) -> bool:
    return str(part).casefold() in name.casefold()


def _number(key: str, value: Any) -> int | float:
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        number = _float(value)
        if number >= 0:
            return int(number) if number.is_integer() else number
    raise RecipeError(f"requires: {key} must be a number from 0, not {value!r}.")


def _text(key: str, value: Any) -> str:
    """Read a name; YAML reads `gpu: 4090` as a number, and `none` as a text."""
    if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip():
        raise RecipeError(f"requires: {key} must be text ({KEYS[key]}), not {value!r}.")
    text = str(value).strip()
    return text.lower() if key == "os" or text.lower() in ("any", "none") else text


def _float(text: str | float) -> float:
    """Read a finite number; less than any where it is none."""
    try:
        number = float(text)
    except (ValueError, OverflowError):
        return -1.0
    return number if math.isfinite(number) else -1.0
