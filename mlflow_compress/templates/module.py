"""Your own model: replace the functions below. Only model() and batch() are required.

The file runs as it is: a small network classifies three kinds of wine by 13 measurements (scikit-learn's data).
"""

import torch
from torch import nn

metrics = ["accuracy"]  # optional: the quality metrics, see `compress-bench list metrics`


def model() -> nn.Module:
    """Return the architecture; load_weights() loads the weights later."""
    return _network(width=64)


def batch(size: int) -> torch.Tensor:
    """Return the input of one timed call on `size` samples: random numbers are enough.

    It is a tensor, a tuple of tensors for several arguments, or a dict for named arguments.
    """
    return torch.rand(size, 13)


def load_weights(module: nn.Module) -> None:
    """Load the weights into the module (optional). Without it the weights are random and quality is not scored.

    The result is stored, so this is called once, not for each variant.
    """
    # To use your checkpoint (a state dict), set its path relative to this file and delete the training below.
    # module.load_state_dict(torch.load("my_checkpoint.pt", weights_only=True))
    rows, labels = _wines(test=False)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    for _ in range(100):
        loss = nn.functional.cross_entropy(module(rows), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def samples() -> list[tuple[torch.Tensor, int]]:
    """Return inputs (without the batch axis) with labels that were not used for training (optional).

    Without this function nothing is scored: set `data: none` in the recipe.
    """
    rows, labels = _wines(test=True)
    return list(zip(rows, labels.tolist(), strict=True))


# def predict(module, inputs):
#     """Return one prediction for each input (optional). Without it: the index of the greatest output."""
#     return module(torch.stack(list(inputs))).argmax(-1).tolist()


def training() -> torch.Tensor:
    """Return inputs for calibration and training by methods, without those of samples() (optional).

    The first axis is the number of inputs.
    """
    return _wines(test=False)[0]


def student(keep: float) -> nn.Module:
    """Return a smaller module with the same inputs and outputs, which the method `distill` trains (optional)."""
    return _network(width=max(1, round(64 * keep)))


def _network(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(13, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 3))


def _wines(test: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return every third wine for testing, or all others."""
    from sklearn.datasets import load_wine

    table, labels = load_wine(return_X_y=True)
    rows = torch.tensor((table - table.mean(0)) / table.std(0), dtype=torch.float32)
    is_test = torch.arange(len(rows)) % 3 == 0
    selection = is_test if test else ~is_test
    return rows[selection], torch.tensor(labels)[selection]
