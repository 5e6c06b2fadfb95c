from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import nn

from mlflow_compress.meters import macs
from mlflow_compress.sockets import Family, Model

TOKENS, WIDTH, HIDDEN = 5, 8, 16


class Given:
    """A family with one input shape."""

    def __init__(self, *shape: int) -> None:
        self.shape = shape

    def batch(self, model: Model, size: int, seed: int) -> Any:
        return torch.zeros(size, *self.shape)

    def forward(self, model: Model, batch: Any) -> Any:
        return model.module(batch)


class Attention(nn.Module):
    def forward(self, x: Any) -> Any:
        return nn.functional.scaled_dot_product_attention(x, x, x)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(WIDTH, HIDDEN, batch_first=True)

    def forward(self, x: Any) -> Any:
        return self.lstm(x)[0]


@pytest.mark.parametrize(
    ("module", "shape", "expected"),
    [
        (nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)), (8,), 8 * 16 + 16 * 4),
        (nn.Conv2d(3, 8, 3, padding=1), (3, 10, 10), 3 * 9 * 8 * 100),
        (nn.Conv2d(8, 8, 3, padding=1, groups=4), (8, 10, 10), 2 * 9 * 8 * 100),
        (Attention(), (2, TOKENS, WIDTH), 2 * 2 * TOKENS * TOKENS * WIDTH),
        (Recurrent(), (TOKENS, WIDTH), 4 * HIDDEN * (WIDTH + HIDDEN) * TOKENS),
        (
            nn.TransformerEncoderLayer(WIDTH, 2, HIDDEN, batch_first=True),
            (TOKENS, WIDTH),
            4 * TOKENS * WIDTH * WIDTH + 2 * TOKENS * TOKENS * WIDTH + 2 * TOKENS * WIDTH * HIDDEN,
        ),
    ],
)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_operations_by_hand(module: nn.Module, shape: tuple[int, ...], expected: int, batch_size: int) -> None:
    family = cast(Family, Given(*shape))
    assert macs.count(family, Model(module.eval()), batch_size, 0) == expected


def test_what_has_none_has_no_number() -> None:
    family = cast(Family, Given(4))
    assert macs.count(family, Model(nn.ReLU()), 1, 0) is None
    assert macs.count(family, Model(lambda x: x), 1, 0) is None


def test_settings_of_torch_stay_as_they_were() -> None:
    is_fast = torch.backends.mha.get_fastpath_enabled()
    macs.count(cast(Family, Given(8)), Model(nn.Linear(8, 2)), 1, 0)
    assert torch.backends.mha.get_fastpath_enabled() == is_fast
    assert torch.backends.cuda.flash_sdp_enabled()
