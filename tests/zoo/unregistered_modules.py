"""One layer is in a plain list, which torch does not search."""

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = [nn.Linear(16, 64)]
        self.last = nn.Linear(64, 4)

    def forward(self, x):
        return self.last(self.hidden[0](x).relu())


def model():
    return Net()


def batch(size):
    return torch.rand(size, 16)
