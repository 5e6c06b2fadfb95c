"""It was compiled to TorchScript."""

import torch
from torch import nn


def model():
    return torch.jit.script(nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4)))


def batch(size):
    return torch.rand(size, 16)
