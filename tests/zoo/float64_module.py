"""Its parameters are float64."""

import torch
from torch import nn


def model():
    return nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4)).double()


def batch(size):
    return torch.rand(size, 16, dtype=torch.float64)
