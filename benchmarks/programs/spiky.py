"""A custom model for the `python` family, whose calls need much memory for a moment."""

import mmap
import os
import time

import torch
from torch import nn

HELD_SECONDS = 0.002
_PAGE_BYTES = 4096


class Spiky(nn.Module):
    """One linear layer; each call allocates memory, touches it, holds it for 2 ms, and releases it."""

    def __init__(self) -> None:
        """Read the size of the spike."""
        super().__init__()
        self.linear = nn.Linear(64, 64)
        self.spike_bytes = int(os.environ.get("SPIKE_BYTES", "1"))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Spike and compute."""
        with mmap.mmap(-1, self.spike_bytes) as memory:
            memory[::_PAGE_BYTES] = bytes(len(range(0, self.spike_bytes, _PAGE_BYTES)))
            time.sleep(HELD_SECONDS)
        return torch.as_tensor(self.linear(inputs))


def model() -> nn.Module:
    """Build the model."""
    return Spiky()


def batch(size: int) -> torch.Tensor:
    """Return the input of one call: [size, 64]."""
    return torch.zeros(size, 64)
