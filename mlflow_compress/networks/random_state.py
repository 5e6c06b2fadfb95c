"""The generators of random numbers that a user's code may draw from: torch's, NumPy's and Python's own."""

from __future__ import annotations

import pickle
import random

_SEEDS = 2**32  # that NumPy takes


def seed_all(seed: int) -> None:
    """Let all three begin anew, the same for the same seed; torch's on every device."""
    import numpy as np
    import torch

    torch.manual_seed(seed)
    np.random.seed(seed % _SEEDS)
    random.seed(seed)


def has_drawn(seed: int) -> bool:
    """Return whether something has drawn from one of them since `seed_all`; all begin anew then."""
    now = _states()
    seed_all(seed)
    return now != _states()


def _states() -> tuple[object, ...]:
    import numpy as np
    import torch

    devices = range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0)
    of_torch = [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in devices)]
    of_numpy = pickle.dumps(np.random.get_state())
    return (*(state.numpy().tobytes() for state in of_torch), of_numpy, random.getstate())
