"""It has parameters of integers and booleans."""

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.order = nn.Parameter(torch.randperm(16), requires_grad=False)
        self.kept = nn.Parameter(torch.arange(16) % 3 > 0, requires_grad=False)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        return self.head(x[:, self.order] * self.kept)


def model():
    return Net()


def batch(size):
    return torch.rand(size, 16)
