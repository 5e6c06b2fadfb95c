"""A bidirectional LSTM with two layers and batch_first."""

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(16, 16, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(32, 4)

    def forward(self, x):
        output, (hidden, cell) = self.lstm(x)
        return self.head(output), hidden, cell


def model():
    return Net()


def batch(size):
    return torch.rand(size, 5, 16)
