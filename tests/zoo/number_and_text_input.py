"""Its arguments are a tensor, a number, a text and None."""

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(16, 64)
        self.last = nn.Linear(64, 4)

    def forward(self, x, times, activation, mask):
        hidden = getattr(torch, activation)(self.first(x) * times)
        return self.last(hidden if mask is None else hidden * mask)


def model():
    return Net()


def batch(size):
    return torch.rand(size, 16), 2.0, "relu", None
