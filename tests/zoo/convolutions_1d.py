"""One-dimensional convolutions: dilated, causal, circular."""

import torch
from torch import nn


def model():
    return nn.Sequential(
        nn.Conv1d(8, 16, 3, dilation=2, padding="same"),
        nn.ReLU(),
        nn.ConstantPad1d((2, 0), 0.0),
        nn.Conv1d(16, 16, 3),
        nn.ReLU(),
        nn.Conv1d(16, 4, 3, padding=1, padding_mode="circular"),
    )


def batch(size):
    return torch.rand(size, 8, 20)
