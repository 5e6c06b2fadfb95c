"""Transposed convolutions, one of them grouped."""

import torch
from torch import nn


def model():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(16, 16, 2, stride=2, groups=4),
        nn.ReLU(),
        nn.Conv2d(16, 3, 3, padding=1),
    )


def batch(size):
    return torch.rand(size, 3, 16, 16)
