"""Its argument is a dataclass of tensors."""

from dataclasses import dataclass

import torch
from torch import nn


@dataclass
class Inputs:
    x: torch.Tensor
    bias: torch.Tensor


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(16, 64)
        self.last = nn.Linear(64, 4)

    def forward(self, inputs):
        return self.last(self.first(inputs.x).relu()) + inputs.bias


def model():
    return Net()


def batch(size):
    return Inputs(torch.rand(size, 16), torch.rand(size, 4))
