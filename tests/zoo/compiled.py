"""It was wrapped by torch.compile."""

import torch
from torch import nn


def model():
    return torch.compile(nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4)), backend="eager")


def batch(size):
    return torch.rand(size, 16)
