"""Both kinds of spectral normalisation, with their own buffers."""

import torch
from torch import nn
from torch.nn.utils import spectral_norm as old
from torch.nn.utils.parametrizations import spectral_norm as new


def model():
    return nn.Sequential(
        old(nn.Conv2d(3, 16, 3)),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        new(nn.Linear(64, 32)),
        nn.ReLU(),
        nn.Linear(32, 4),
    )


def batch(size):
    return torch.rand(size, 3, 16, 16)
