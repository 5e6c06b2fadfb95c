"""A GRU, and an LSTM cell that is called in a loop."""

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(16, 16)
        self.cell = nn.LSTMCell(16, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        steps, state = self.gru(x.transpose(0, 1))[0], None
        for step in steps:
            state = self.cell(step, state)
        return self.head(state[0])


def model():
    return Net()


def batch(size):
    return torch.rand(size, 5, 16)
