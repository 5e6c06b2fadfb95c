"""It reads the weights of its layers instead of calling them."""

import torch
from torch import nn
from torch.nn import functional


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(16, 64)
        self.last = nn.Linear(64, 4)

    def forward(self, x):
        hidden = functional.linear(x.to(self.first.weight.dtype), self.first.weight, self.first.bias).relu()
        return self.last(hidden)


def model():
    return Net()


def batch(size):
    return torch.rand(size, 16)
