"""Its weights and inputs have the memory layout channels_last."""

import torch
from torch import nn


def model():
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)
    )
    return net.to(memory_format=torch.channels_last)


def batch(size):
    return torch.rand(size, 3, 16, 16).to(memory_format=torch.channels_last)
