"""Old weight normalisation: a hook computes the weight before each call."""

import torch
from torch import nn
from torch.nn.utils import weight_norm


def model():
    return nn.Sequential(
        weight_norm(nn.Linear(16, 64)), nn.ReLU(), weight_norm(nn.Linear(64, 64)), nn.ReLU(), nn.Linear(64, 4)
    )


def batch(size):
    return torch.rand(size, 16)
