"""It is a single linear layer."""

import torch
from torch import nn


def model():
    return nn.Linear(64, 64)


def batch(size):
    return torch.rand(size, 64)
