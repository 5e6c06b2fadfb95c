"""Its parameters are created by the first batch."""

import torch
from torch import nn


def model():
    return nn.Sequential(
        nn.LazyConv2d(16, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.LazyLinear(64),
        nn.ReLU(),
        nn.LazyLinear(4),
    )


def batch(size):
    return torch.rand(size, 3, 16, 16)
