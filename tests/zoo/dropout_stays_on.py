"""Its dropout is also active in inference."""

import torch
from torch import nn
from torch.nn import functional


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(16, 64)
        self.last = nn.Linear(64, 4)

    def forward(self, x):
        return self.last(functional.dropout(self.first(x).relu(), 0.5, training=True))


def model():
    return Net()


def batch(size):
    return torch.rand(size, 16)
