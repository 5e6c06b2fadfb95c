"""An EmbeddingBag with offsets, a padding row and a maximum norm."""

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.bag = nn.EmbeddingBag(50, 32, mode="mean")
        self.word = nn.Embedding(50, 32, padding_idx=0, max_norm=1.0)
        self.head = nn.Linear(32, 4)

    def forward(self, tokens, offsets):
        return self.head(self.bag(tokens, offsets) + self.word(tokens).mean(0))


def model():
    return Net()


def batch(size):
    return torch.randint(0, 50, (size * 6,)), torch.arange(0, size * 6, 6)
