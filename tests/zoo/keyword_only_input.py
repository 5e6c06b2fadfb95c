"""Its forward takes only keyword arguments."""

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(64, 64)
        self.last = nn.Linear(64, 4)

    def forward(self, *, x, scale):
        return self.last(self.first(x).relu() * scale)


def model():
    return Net()


def batch(size):
    return {"scale": torch.rand(size, 64), "x": torch.rand(size, 64)}  # another order than in forward
