"""Its forward takes any keyword arguments."""

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(16, 64)
        self.last = nn.Linear(64, 4)

    def forward(self, *inputs, **keywords):
        return self.last(self.first(inputs[0] if inputs else keywords["x"]).relu() + keywords.get("shift", 0))


def model():
    return Net()


def batch(size):
    return torch.rand(size, 16)
