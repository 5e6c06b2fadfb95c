"""An image classifier of your own: put yours into the functions below. Only model() and batch() must be here.

As it is it runs: a small CNN that reads scikit-learn's 8x8 grey digits.
"""

import torch
from torch import nn

metrics = ["accuracy"]  # optional: what quality is called; `compress-bench list metrics` names all


def model() -> nn.Module:
    """Build the architecture; its weights come later, from load_weights()."""
    return _network(width=16)


def batch(size: int) -> torch.Tensor:
    """Give the input of one timed call on `size` images: random pixels will do.

    A tensor [size, channels, height, width]; a tuple of tensors for several arguments; a dict for arguments by name.
    """
    return torch.rand(size, 1, 8, 8)


def load_weights(module: nn.Module) -> None:
    """Fill the module (optional). Without it the weights are random, and quality is not scored.

    What it gives is kept, so that it is called once, and not for each variant.
    """
    # Your checkpoint, a state dict: put its path here, from this file's folder, and delete the training below.
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
    """Give labelled images that were not trained on (optional): pairs of one image [channels, height, width] and label.

    Normalise them here as in training. Without samples nothing is scored: say `data: none` in the recipe.
    """
    images, labels = _digits(test=True)
    return list(zip(images, labels.tolist(), strict=True))


# def predict(module, inputs):
#     """Give one prediction for each image (optional). Without it: the index of the greatest output."""
#     return module(torch.stack(list(inputs))).argmax(-1).tolist()


def training() -> torch.Tensor:
    """Give images that methods may calibrate and train on, none of samples() (optional): the first axis counts them."""
    return _digits(test=False)[0]


def student(keep: float) -> nn.Module:
    """Build a smaller module that takes and gives the same, for the method `distill` to train (optional)."""
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
    """Return every fourth digit, which is for testing, or the others."""
    from sklearn.datasets import load_digits

    pixels, digits = load_digits(return_X_y=True)
    images = torch.tensor(pixels / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
    is_test = torch.arange(len(images)) % 4 == 0
    chosen = is_test if test else ~is_test
    return images[chosen], torch.tensor(digits)[chosen]
