"""It computes in a custom autograd function."""

import torch
from torch import nn


class Halved(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x / 2

    @staticmethod
    def backward(ctx, gradient):
        return gradient / 2


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(16, 64)
        self.last = nn.Linear(64, 4)

    def forward(self, x):
        return self.last(Halved.apply(self.first(x)).relu())


def model():
    return Net()


def batch(size):
    return torch.rand(size, 16)
