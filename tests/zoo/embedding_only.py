"""It is only an embedding."""

import torch
from torch import nn


def model():
    return nn.Embedding(50, 32)


def batch(size):
    return torch.randint(0, 50, (size, 12))
