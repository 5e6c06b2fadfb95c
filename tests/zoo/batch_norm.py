"""Batch normalisation, which can't train on a batch of one value."""

import torch
from torch import nn


def model(width=64):
    return nn.Sequential(nn.Linear(16, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 4))


def student(keep):
    return model(int(64 * keep))


def batch(size):
    return torch.rand(size, 16)


def samples():
    return [(torch.rand(16), index % 4) for index in range(4)]
