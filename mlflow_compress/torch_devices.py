"""The devices that a model can be measured on: torch's names, and how people call them."""

from __future__ import annotations

from collections.abc import Mapping

CPU = "cpu"
LABELS: Mapping[str, str] = {CPU: "CPU", "cuda": "CUDA", "mps": "MPS", "xpu": "XPU"}
ACCELERATORS = tuple(name for name in LABELS if name != CPU)  # torch uses one of these kinds in a process
HARDWARE: Mapping[str, str] = {"cuda": "NVIDIA GPU", "mps": "Apple GPU", "xpu": "Intel GPU"}
