"""Its scores of forbidden classes are minus infinity."""

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width=64):
        super().__init__()
        self.first = nn.Linear(16, width)
        self.last = nn.Linear(width, 4)
        self.register_buffer("allowed", torch.tensor([True, True, False, True]))

    def forward(self, x):
        return self.last(self.first(x).relu()).masked_fill(~self.allowed, float("-inf"))


def model():
    return Net()


def student(keep):
    return Net(int(64 * keep))


def batch(size):
    return torch.rand(size, 16)


def samples():
    return [(torch.rand(16), index % 4) for index in range(4)]
