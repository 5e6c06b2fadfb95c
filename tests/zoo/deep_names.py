"""Its layers are nested thirty modules deep, under names that modules use for other things."""

import torch
from torch import nn


class Wrapped(nn.Module):
    def __init__(self, inner, name):
        super().__init__()
        self.name = name
        self.add_module(name, inner)

    def forward(self, x):
        return getattr(self, self.name)(x)


def model():
    inner = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4))
    for index in range(30):
        inner = Wrapped(inner, ("module", "weight", "0", "model")[index % 4])
    return inner


def batch(size):
    return torch.rand(size, 16)
