"""It has no parameters."""

import torch
from torch import nn


class Net(nn.Module):
    def forward(self, x):
        return x.softmax(-1)


def model():
    return Net()


def batch(size):
    return torch.rand(size, 16)
