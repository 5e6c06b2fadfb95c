"""Its argument is a nested structure of lists, tuples and dictionaries of tensors."""

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(16, 64)
        self.last = nn.Linear(64, 4)

    def forward(self, tree):
        first, (second, further) = tree
        return self.last(self.first(first + second["x"]).relu()) + further[0]


def model():
    return Net()


def batch(size):
    return ((torch.rand(size, 16), ({"x": torch.rand(size, 16)}, [torch.rand(size, 4)])),)
