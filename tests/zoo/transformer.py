"""torch's complete Transformer, encoder and decoder, with a mask."""

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.transformer = nn.Transformer(32, 4, 1, 1, 64, batch_first=True)
        self.head = nn.Linear(32, 10)

    def forward(self, source, target):
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1], device=target.device, dtype=target.dtype)
        return self.head(self.transformer(source, target, tgt_mask=mask))


def model():
    return Net()


def batch(size):
    return torch.rand(size, 6, 32), torch.rand(size, 4, 32)
