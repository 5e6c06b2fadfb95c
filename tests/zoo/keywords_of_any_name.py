"""Its forward takes keywords of any name."""

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(16, 64)
        self.last = nn.Linear(64, 4)

    def forward(self, *inputs, **named):
        return self.last(self.first(inputs[0] if inputs else named["x"]).relu() + named.get("shift", 0))


def model():
    return Net()


def batch(size):
    return torch.rand(size, 16)
