"""Three-dimensional convolutions."""

import torch
from torch import nn


def model():
    return nn.Sequential(
        nn.Conv3d(1, 8, 3),
        nn.ReLU(),
        nn.ConvTranspose3d(8, 8, 2, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )


def batch(size):
    return torch.rand(size, 1, 6, 6, 6)
