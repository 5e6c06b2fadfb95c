"""Your own detector: replace the functions below. Only model() and batch() are required.

The file runs as it is: a small CNN finds the one bright rectangle in a grey image and classifies it as wide or tall.
An ultralytics detector needs no such file: `compress-bench run my_yolo.pt`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

SIDE, CLASSES = 32, ("wide", "tall")
metrics = ["map50", "box_recall"]  # optional: see `compress-bench list metrics`; these need boxes


def model() -> nn.Module:
    """Return the architecture; load_weights() loads the weights later."""
    return _network(width=16)


def batch(size: int) -> torch.Tensor:
    """Return the input of one timed call on `size` images: random pixels are enough."""
    return torch.rand(size, 1, SIDE, SIDE)


def load_weights(module: nn.Module) -> None:
    """Load the weights into the module (optional). Without it the weights are random and quality is not scored.

    The result is stored, so this is called once, not for each variant.
    """
    # To use your checkpoint (a state dict), set its path relative to this file and delete the training below.
    # module.load_state_dict(torch.load("my_checkpoint.pt", weights_only=True))
    optimizer = torch.optim.Adam(module.parameters(), lr=0.005)
    for part in range(100):
        images, boxes, labels = _rectangles(64, seed=1 + part)
        outputs = module(images)
        loss = (outputs[:, :4] - boxes / SIDE).abs().mean() * 10 + nn.functional.cross_entropy(outputs[:, 4:], labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def samples() -> list[tuple[torch.Tensor, dict[str, Any]]]:
    """Return images that were not used for training (optional), each with its true boxes and labels.

    Boxes are x1, y1, x2, y2 in pixels. Without this function nothing is scored: set `data: none` in the recipe.
    """
    images, boxes, labels = _rectangles(100, seed=0)
    return [
        (image, {"boxes": [box.tolist()], "labels": [CLASSES[label]]})
        for image, box, label in zip(images, boxes, labels.tolist(), strict=True)
    ]


def predict(module: nn.Module, inputs: Sequence[torch.Tensor]) -> list[dict[str, Any]]:
    """Return the boxes of each image after suppression, with labels and scores: all with a score above 0.001."""
    outputs = module(torch.stack(list(inputs))).float()
    scores, labels = outputs[:, 4:].softmax(-1).max(-1)
    return [
        {"boxes": [box.tolist()], "labels": [CLASSES[label]], "scores": [score]}
        for box, label, score in zip(outputs[:, :4] * SIDE, labels.tolist(), scores.tolist(), strict=True)
    ]


def training() -> torch.Tensor:
    """Return images for calibration and training by methods, without those of samples() (optional).

    The first axis is the number of images.
    """
    return _rectangles(512, seed=1)[0]


def student(keep: float) -> nn.Module:
    """Return a smaller module with the same inputs and outputs, which the method `distill` trains (optional)."""
    return _network(width=max(1, round(16 * keep)))


def _network(width: int) -> nn.Module:
    """Return a network from images [batch, 1, side, side] to boxes and class scores [batch, 4 + 2].

    Boxes are shares of the side.
    """
    return nn.Sequential(
        nn.Conv2d(1, width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * width * (SIDE // 4) ** 2, 64),
        nn.ReLU(),
        nn.Linear(64, 4 + len(CLASSES)),
    )


def _rectangles(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return images [count, 1, side, side] with one rectangle each, its box [count, 4] in pixels, and its class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (count,), generator=generator)
    long = torch.randint(12, 20, (count,), generator=generator)
    short = torch.randint(5, 9, (count,), generator=generator)
    width, height = torch.where(labels == 0, long, short), torch.where(labels == 0, short, long)
    left = (torch.rand(count, generator=generator) * (SIDE - width)).long()
    top = (torch.rand(count, generator=generator) * (SIDE - height)).long()
    boxes = torch.stack([left, top, left + width, top + height], 1)
    row, column = torch.arange(SIDE)[None, :, None], torch.arange(SIDE)[None, None, :]
    x1, y1, x2, y2 = (edge[:, None, None] for edge in boxes.T)
    is_inside = (column >= x1) & (column < x2) & (row >= y1) & (row < y2)
    noise = torch.rand(count, SIDE, SIDE, generator=generator) * 0.3
    return (noise + is_inside * 0.7)[:, None], boxes.float(), labels
