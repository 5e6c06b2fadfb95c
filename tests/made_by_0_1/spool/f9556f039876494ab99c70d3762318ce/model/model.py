"""A small CNN on scikit-learn's bundled digits: 8x8 grey images of 0 to 9, no download.

An example of the `python` family: see `mlflow_compress/families/python.py` for what such a file may define.
"""

import torch
from torch import nn

EPOCHS = 20


def model() -> nn.Module:
    """Build the architecture: images [batch, 1, 8, 8] in, scores [batch, 10] out."""
    return _net(width=1)


def student(keep: float) -> nn.Module:
    """Build the same with a share of the channels and neurons, for distillation."""
    return _net(width=keep)


def _net(width: float) -> nn.Module:
    first, second, hidden = (max(1, round(width * each)) for each in (16, 32, 128))
    return nn.Sequential(
        nn.Conv2d(1, first, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(first, second, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(second * 4 * 4, hidden),
        nn.ReLU(),
        nn.Linear(hidden, 10),
    )


def batch(size: int) -> torch.Tensor:
    """Give the input of one timed call: [size, 1, 8, 8]."""
    return torch.rand(size, 1, 8, 8)


def load_weights(module: nn.Module) -> None:
    """Train on three quarters of the digits, for some seconds."""
    images, labels = _digits(test=False)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    for _ in range(EPOCHS):
        for part in torch.randperm(len(images)).split(64):
            loss = nn.functional.cross_entropy(module(images[part]), labels[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def training() -> torch.Tensor:
    """Give the images that methods may calibrate and train on: [n, 1, 8, 8]."""
    return _digits(test=False)[0]


def samples() -> list[tuple[torch.Tensor, int]]:
    """Give the quarter that was not trained on: pairs of image [1, 8, 8] and digit."""
    images, labels = _digits(test=True)
    return list(zip(images, labels.tolist(), strict=True))


def _digits(test: bool) -> tuple[torch.Tensor, torch.Tensor]:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(images / 16, labels, test_size=0.25, random_state=0, stratify=labels)
    pixels, digits = (parts[1], parts[3]) if test else (parts[0], parts[2])
    return torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8), torch.tensor(digits)
