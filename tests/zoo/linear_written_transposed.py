"""Its linear layers are transformers' Conv1D, whose weight is [in, out]."""

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D


def model():
    return nn.Sequential(Conv1D(64, 16), nn.ReLU(), Conv1D(64, 64), nn.ReLU(), nn.Linear(64, 4))


def batch(size):
    return torch.rand(size, 16)
