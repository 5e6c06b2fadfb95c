"""Its layers are in a ModuleDict, a ModuleList and a ParameterList."""

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleDict(
            {"first": nn.Linear(16, 64), "rest": nn.ModuleList([nn.Linear(64, 64), nn.Linear(64, 4)])}
        )
        self.shifts = nn.ParameterList([torch.randn(64), torch.randn(4)])

    def forward(self, x):
        x = self.layers["first"](x)
        for layer, shift in zip(self.layers["rest"], self.shifts, strict=True):
            x = layer(x.relu()) + shift
        return x


def model():
    return Net()


def batch(size):
    return torch.rand(size, 16)
