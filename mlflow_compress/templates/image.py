"""Your own image classifier: replace the functions below. Only model() and batch() are required.

The file runs as it is: a small CNN classifies scikit-learn's 8x8 grey digits.
"""

import torch
from torch import nn

metrics = ["accuracy"]  # optional: the quality metrics, see `compress-bench list metrics`


def model() -> nn.Module:
    """Return the architecture; load_weights() loads the weights later."""
    return _network(width=16)


def batch(size: int) -> torch.Tensor:
    """Return the input of one timed call on `size` images: random pixels are enough.

    It is a tensor [size, channels, height, width], a tuple of tensors for several arguments, or a dict for named ones.
    """
    return torch.rand(size, 1, 8, 8)


def load_weights(module: nn.Module) -> None:
    """Load the weights into the module (optional). Without it the weights are random and quality is not scored.

    The result is stored, so this is called once, not for each variant.
    """
    # To use your checkpoint (a state dict), set its path relative to this file and delete the training below.
    # module.load_state_dict(torch.load("my_checkpoint.pt", weights_only=True))
    images, labels = _digits(test=False)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.003)
    for _ in range(6):
        for part in torch.arange(len(images)).split(64):
            loss = nn.functional.cross_entropy(module(images[part]), labels[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def samples() -> list[tuple[torch.Tensor, int]]:
    """Return images [channels, height, width] with labels that were not used for training (optional).

    Normalise them as in training. Without this function nothing is scored: set `data: none` in the recipe.
    """
    images, labels = _digits(test=True)
    return list(zip(images, labels.tolist(), strict=True))


# def predict(module, inputs):
#     """Return one prediction for each image (optional). Without it: the index of the greatest output."""
#     return module(torch.stack(list(inputs))).argmax(-1).tolist()


def training() -> torch.Tensor:
    """Return images for calibration and training by methods, without those of samples() (optional).

    The first axis is the number of images.
    """
    return _digits(test=False)[0]


def student(keep: float) -> nn.Module:
    """Return a smaller module with the same inputs and outputs, which the method `distill` trains (optional)."""
    return _network(width=max(1, round(16 * keep)))


def _network(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * width * 16, 10),
    )


def _digits(test: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return every fourth digit for testing, or all others."""
    from sklearn.datasets import load_digits

    pixels, digits = load_digits(return_X_y=True)
    images = torch.tensor(pixels / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
    is_test = torch.arange(len(images)) % 4 == 0
    selection = is_test if test else ~is_test
    return images[selection], torch.tensor(digits)[selection]
