"""Its forward takes arguments by name only."""

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(16, 64)
        self.last = nn.Linear(64, 4)

    def forward(self, *, x, scale):
        return self.last(self.first(x).relu() * scale)


def model():
    return Net()


def batch(size):
    return {"x": torch.rand(size, 16), "scale": torch.rand(size, 1)}
