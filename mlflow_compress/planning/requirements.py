"""What a machine must have before a variant may be measured on it.

    requires: {gpu: A100, min_vram_gb: 40, min_ram_gb: 64, min_cores: 8, cpu: EPYC, os: linux}

Here GB is 10^9 bytes, as manufacturers count: a machine sold with 64 GB meets `min_ram_gb: 64` although its system
reserves some.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mlflow_compress.errors import RecipeError, UnknownName, WorkerError
from mlflow_compress.meters import accelerators, environment, gpu
from mlflow_compress.records import Scalar
from mlflow_compress.torch_devices import ACCELERATORS

KEYS: Mapping[str, str] = {
    "gpu": "part of the GPU's name; `cuda`, `mps` or `xpu`: its kind; `any`; `none`: a machine without a GPU",
    "min_vram_gb": "memory of the GPU",
    "min_ram_gb": "memory of the machine that may be used",
    "min_cores": "logical cores that may be used",
    "cpu": "part of the processor's name",
    "os": "linux, windows or darwin",
}
_SYSTEMS = ("linux", "windows", "darwin")
_MIB_PER_GB = 1e9 / 2**20


def check(requires: Mapping[str, Any]) -> dict[str, Scalar]:
    """Check requirements, and convert numbers given as text.

    Args:
        requires: requirements by key, see `KEYS`.

    Raises:
        UnknownName: a key or an operating system is unknown.
        RecipeError: a value has the wrong type, or a number is negative.
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
    """Describe the requirements that a machine does not meet.

    Args:
        requires: requirements, as returned by `check`.
        machine: description of the machine, as returned by `here`: text by name.

    Returns:
        What is required and what the machine has; empty if it meets all requirements.
    """
    return "; ".join(filter(None, (_lack(key, required, machine) for key, required in requires.items())))


def here() -> dict[str, str]:
    """Describe this machine and its first GPU, without importing torch.

    The result is that of `environment.machine`, with `gpu_device`, `gpu_model`, `gpu_memory_mib`, and, if the driver
    reports it, `gpu_power_limit_w` of the GPU.
    """
    machine = environment.machine()
    for device, name, memory in accelerators.visible()[:1]:
        machine |= {"gpu_device": device, "gpu_model": name, "gpu_memory_mib": str(memory)}
        if (limit := gpu.first_power_limit_w()) is not None:
            machine["gpu_power_limit_w"] = f"{limit:.0f}"
    return machine


def require_device(device: str) -> None:
    """Check that this machine has the requested device, where that is known without torch: CUDA.

    No other device is measured instead. The worker checks the other accelerators.

    Args:
        device: `cpu`, `cuda`, `mps`, `xpu`, or `auto` for the available devices.

    Raises:
        WorkerError: it does not.
    """
    if device == "cuda" and not gpu.models():
        raise WorkerError(
            "device=cuda was requested, but the driver of this machine shows no NVIDIA GPU (nvidia-smi lists them; "
            "CUDA_VISIBLE_DEVICES can hide them). Nothing was measured. Leave the device out to measure on the CPU, "
            "or use a machine with a GPU."
        )


def text(requires: Mapping[str, Scalar]) -> str:
    """Format requirements on one line, as `--requires` takes them."""
    return ", ".join(f"{key}={value}" for key, value in requires.items())


def _lack(key: str, required: Scalar, machine: Mapping[str, str]) -> str:
    """Describe how a machine fails the requirement of one key; empty if it meets it."""
    if key == "gpu":
        actual = machine.get("gpu_model", "")
        is_met = _has_gpu(str(required), actual, machine.get("gpu_device", ""))
    elif key == "cpu":
        actual = machine.get("cpu_model", "")
        is_met = _within(required, actual)
    elif key == "os":
        actual = machine.get("os", "").partition(" ")[0].lower()
        is_met = required == actual
    else:
        amount, limit = _amount(key, machine), _limit(key, machine)
        actual = f"{amount:.4g}" if amount > 0 else ""
        if limit < amount:
            actual, amount = f"{limit:.4g} of {actual} available (limited by a container or a batch system)", limit
        is_met = amount >= float(str(required))
    missing = "no GPU" if key in ("gpu", "min_vram_gb") else "an unknown one"
    return "" if is_met else f"{key}={required} is required, but the machine has {actual or missing}"


def _amount(key: str, machine: Mapping[str, str]) -> float:
    """Return the machine's number of cores, or its memory in GB; 0 if it is not known."""
    if key == "min_cores":
        cores = machine.get("affinity")
        return float(len(cores.split(","))) if cores else max(_float(machine.get("cores_logical", "")), 0.0)
    memory = {"min_ram_gb": "ram_total_mib", "min_vram_gb": "gpu_memory_mib"}[key]
    return max(_float(machine.get(memory, "")), 0.0) / _MIB_PER_GB


def _limit(key: str, machine: Mapping[str, str]) -> float:
    """Return how much of it a container or a batch system allows; infinity if there is no limit."""
    limit = _float(machine.get({"min_cores": "cores_limit", "min_ram_gb": "ram_limit_mib"}.get(key, ""), ""))
    if limit < 0:
        return math.inf
    return limit / _MIB_PER_GB if key == "min_ram_gb" else limit


def _has_gpu(required: str, name: str, device: str) -> bool:
    """Return whether a GPU, whose name is empty for none, is the required one."""
    if required in ("any", "none"):
        return bool(name) == (required == "any")
    return required == device if required in ACCELERATORS else _within(required, name)


def _within(part: Scalar, name: str) -> bool:
    return str(part).casefold() in name.casefold()


def _number(key: str, value: Any) -> int | float:
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        number = _float(value)
        if number >= 0:
            return int(number) if number.is_integer() else number
    raise RecipeError(f"requires: {key} must be a number of at least 0, not {value!r}.")


def _text(key: str, value: Any) -> str:
    """Read a name; YAML reads `gpu: 4090` as a number, and `none` as text."""
    if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip():
        raise RecipeError(f"requires: {key} must be text ({KEYS[key]}), not {value!r}.")
    text = str(value).strip()
    return text.lower() if key == "os" or text.lower() in ("any", "none", *ACCELERATORS) else text


def _float(text: str | float) -> float:
    """Read a finite number; return -1 if it is not one."""
    try:
        number = float(text)
    except (ValueError, OverflowError):
        return -1.0
    return number if math.isfinite(number) else -1.0
