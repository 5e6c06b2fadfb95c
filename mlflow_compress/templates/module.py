"""A model of your own: put yours into the functions below. Only model() and batch() must be here.

As it is it runs: a small network that tells three sorts of wine apart by 13 measurements (scikit-learn's data).
"""

import torch
from torch import nn

metrics = ["accuracy"]  # optional: what quality is called; `compress-bench list metrics` names all


def model() -> nn.Module:
    """Build the architecture; its weights come later, from load_weights()."""
    return _network(width=64)


def batch(size: int) -> torch.Tensor:
    """Give the input of one timed call on `size` samples: random numbers will do.

    A tensor; a tuple of tensors for several arguments; a dict for arguments by name.
    """
    return torch.rand(size, 13)


def load_weights(module: nn.Module) -> None:
    """Fill the module (optional). Without it the weights are random, and quality is not scored.

    What it gives is kept, so that it is called once, and not for each variant.
    """
    # Your checkpoint, a state dict: put its path here, from this file's folder, and delete the training below.
    # module.load_state_dict(torch.load("my_checkpoint.pt", weights_only=True))
    rows, labels = _wines(test=False)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    for _ in range(100):
        loss = nn.functional.cross_entropy(module(rows), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def samples() -> list[tuple[torch.Tensor, int]]:
    """Give labelled samples that were not trained on (optional): pairs of one input, without the batch axis, and label.

    Without it nothing is scored: say `data: none` in the recipe.
    """
    rows, labels = _wines(test=True)
    return list(zip(rows, labels.tolist(), strict=True))


# def predict(module, inputs):
#     """Give one prediction for each input (optional). Without it: the index of the greatest output."""
#     return module(torch.stack(list(inputs))).argmax(-1).tolist()


def training() -> torch.Tensor:
    """Give inputs that methods may calibrate and train on, none of samples() (optional): the first axis counts them."""
    return _wines(test=False)[0]


def student(keep: float) -> nn.Module:
    """Build a smaller module that takes and gives the same, for the method `distill` to train (optional)."""
    return _network(width=max(1, round(64 * keep)))


def _network(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(13, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 3))


def _wines(test: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return every third wine, which is for testing, or the others."""
    from sklearn.datasets import load_wine

    table, labels = load_wine(return_X_y=True)
    rows = torch.tensor((table - table.mean(0)) / table.std(0), dtype=torch.float32)
    is_test = torch.arange(len(rows)) % 3 == 0
    chosen = is_test if test else ~is_test
    return rows[chosen], torch.tensor(labels)[chosen]
