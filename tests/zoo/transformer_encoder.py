"""torch's encoder, whose fast path passes all weights to one kernel."""

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(32, 4)

    def forward(self, tokens):
        padded = tokens == 0
        return self.head(self.encoder(self.embedding(tokens), src_key_padding_mask=padded).mean(1))


def model():
    return Net()


def batch(size):
    tokens = torch.randint(1, 50, (size, 12))
    tokens[:, 8:] = 0
    return tokens
