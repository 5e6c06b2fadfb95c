"""A detector of your own: put yours into the functions below. Only model() and batch() must be here.

As it is it runs: a small CNN that finds the one bright rectangle in a grey image, and tells whether it is wide or tall.
A detector of ultralytics needs no file of this kind: `compress-bench run my_yolo.pt`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

SIDE, CLASSES = 32, ("wide", "tall")
metrics = ["map50", "box_recall"]  # optional: `compress-bench list metrics` names all; these take boxes


def model() -> nn.Module:
    """Build the architecture; its weights come later, from load_weights()."""
    return _network(width=16)


def batch(size: int) -> torch.Tensor:
    """Give the input of one timed call on `size` images: random pixels will do."""
    return torch.rand(size, 1, SIDE, SIDE)


def load_weights(module: nn.Module) -> None:
    """Fill the module (optional). Without it the weights are random, and quality is not scored.

    What it gives is kept, so that it is called once, and not for each variant.
    """
    # Your checkpoint, a state dict: put its path here, from this file's folder, and delete the training below.
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
    """Give images that were not trained on (optional), each with its true boxes: x1, y1, x2, y2 in pixels, and labels.

    Without it nothing is scored: say `data: none` in the recipe.
    """
    images, boxes, labels = _rectangles(100, seed=0)
    return [
        (image, {"boxes": [box.tolist()], "labels": [CLASSES[label]]})
        for image, box, label in zip(images, boxes, labels.tolist(), strict=True)
    ]


def predict(module: nn.Module, inputs: Sequence[torch.Tensor]) -> list[dict[str, Any]]:
    """Give the boxes of each image, with their labels and scores: all above a score of 0.001, after suppression."""
    outputs = module(torch.stack(list(inputs))).float()
    scores, labels = outputs[:, 4:].softmax(-1).max(-1)
    return [
        {"boxes": [box.tolist()], "labels": [CLASSES[label]], "scores": [score]}
        for box, label, score in zip(outputs[:, :4] * SIDE, labels.tolist(), scores.tolist(), strict=True)
    ]


def training() -> torch.Tensor:
    """Give images that methods may calibrate and train on, none of samples() (optional): the first axis counts them."""
    return _rectangles(512, seed=1)[0]


def student(keep: float) -> nn.Module:
    """Build a smaller module that takes and gives the same, for the method `distill` to train (optional)."""
    return _network(width=max(1, round(16 * keep)))


def _network(width: int) -> nn.Module:
    """Images [batch, 1, side, side] in; box as shares of the side, and scores of the classes, [batch, 4 + 2] out."""
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
    """Draw images [count, 1, side, side] with a rectangle each; its box [count, 4] in pixels, and its class [count]."""
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
