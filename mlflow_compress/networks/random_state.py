"""The random number generators that a user's code may use: those of torch, NumPy and Python."""

from __future__ import annotations

import pickle
import random

_SEEDS = 2**32  # number of seeds that NumPy accepts


def seed_all(seed: int) -> None:
    """Seed all three generators; torch's on every device."""
    import numpy as np
    import torch

    if _has_accelerator():
        torch.manual_seed(seed)
    else:  # the former notes its caller's stack for each device that is not there: milliseconds
        torch.default_generator.manual_seed(seed)
    np.random.seed(seed % _SEEDS)
    random.seed(seed)


def _has_accelerator() -> bool:
    import torch

    return torch.cuda.is_available() or torch.backends.mps.is_available() or torch.xpu.is_available()


def has_drawn(seed: int) -> bool:
    """Return whether a generator was used since `seed_all`, and seed all generators again."""
    now = _states()
    seed_all(seed)
    return now != _states()


def _states() -> tuple[object, ...]:
    import numpy as np
    import torch

    devices = range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0)
    of_torch = [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in devices)]
    if torch.backends.mps.is_available():
        of_torch.append(torch.mps.get_rng_state())
    if torch.xpu.is_initialized():
        of_torch.append(torch.xpu.get_rng_state())
    of_numpy = pickle.dumps(np.random.get_state())
    return (*(state.numpy().tobytes() for state in of_torch), of_numpy, random.getstate())
