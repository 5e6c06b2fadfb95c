"""torch's MultiheadAttention, whose projections are read and never called."""

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)
        self.across = nn.MultiheadAttention(32, 4, kdim=16, vdim=16, batch_first=True)
        self.head = nn.Linear(32, 4)

    def forward(self, x, memory):
        inside, weights = self.attention(x, x, x)
        return self.head(self.across(inside, memory, memory, need_weights=False)[0]), weights


def model():
    return Net()


def batch(size):
    return torch.rand(size, 6, 32), torch.rand(size, 5, 16)
