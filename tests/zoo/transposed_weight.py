"""A weight is a transposed view, and two weights are slices of one tensor."""

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(16, 64), nn.Linear(16, 64), nn.Linear(64, 4)
        weights = torch.randn(128, 16)
        self.first.weight, self.second.weight = nn.Parameter(weights[:64]), nn.Parameter(weights[64:])
        self.last.weight = nn.Parameter(torch.randn(64, 4).t())

    def forward(self, x):
        return self.last(self.first(x).relu() + self.second(x))


def model():
    return Net()


def batch(size):
    return torch.rand(size, 16)
