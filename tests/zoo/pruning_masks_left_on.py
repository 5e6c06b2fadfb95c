"""torch's pruning masks were never removed."""

import torch
from torch import nn
from torch.nn.utils import prune


def model():
    net = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4))
    prune.l1_unstructured(net[0], "weight", amount=0.5)
    prune.random_unstructured(net[2], "weight", amount=0.3)
    return net


def batch(size):
    return torch.rand(size, 16)
