"""It has parameters without elements, and a layer without outputs."""

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.extra = nn.Parameter(torch.zeros(0, 16))
        self.none = nn.Linear(16, 0)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        return self.head(x) + self.none(x).sum(-1, keepdim=True) + self.extra.sum()


def model():
    return Net()


def batch(size):
    return torch.rand(size, 16)
