"""Your own sequence model: replace the functions below. Only model() and batch() are required.

The file runs as it is: a small GRU decides which half of the vocabulary is more frequent in 16 tokens.
"""

import torch
from torch import nn

VOCABULARY, LENGTH = 20, 16
metrics = ["accuracy"]  # optional: the quality metrics, see `compress-bench list metrics`


class Classifier(nn.Module):
    """A network from tokens [batch, length] to scores of two classes [batch, 2]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.recurrent = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, 2)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the scores of each sequence, from the last state."""
        states, _ = self.recurrent(self.embedding(tokens))
        scores: torch.Tensor = self.head(states[:, -1])
        return scores


def model() -> nn.Module:
    """Return the architecture; load_weights() loads the weights later."""
    return Classifier(width=32)


def batch(size: int) -> torch.Tensor:
    """Return the input of one timed call on `size` samples: random tokens are enough.

    It is a tensor, a tuple of tensors for several arguments, or a dict for named ones, such as tokens and their mask.
    """
    return torch.randint(0, VOCABULARY, (size, LENGTH))


def load_weights(module: nn.Module) -> None:
    """Load the weights into the module (optional). Without it the weights are random and quality is not scored.

    The result is stored, so this is called once, not for each variant.
    """
    # To use your checkpoint (a state dict), set its path relative to this file and delete the training below.
    # module.load_state_dict(torch.load("my_checkpoint.pt", weights_only=True))
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    for part in range(60):
        tokens, labels = _sequences(64, seed=1 + part)
        loss = nn.functional.cross_entropy(module(tokens), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def samples() -> list[tuple[torch.Tensor, int]]:
    """Return inputs (without the batch axis) with labels that were not used for training (optional).

    Without this function nothing is scored: set `data: none` in the recipe.
    """
    tokens, labels = _sequences(200, seed=0)
    return list(zip(tokens, labels.tolist(), strict=True))


# def predict(module, inputs):
#     """Return one prediction for each input (optional), here for sequences of different lengths.
#
#     Without it the inputs are stacked, and the prediction is the index of the greatest output.
#     """
#     return [int(module(tokens[None]).argmax()) for tokens in inputs]


def training() -> torch.Tensor:
    """Return inputs for calibration and training by methods, without those of samples() (optional).

    The first axis is the number of inputs.
    """
    return _sequences(512, seed=1)[0]


def student(keep: float) -> nn.Module:
    """Return a smaller module with the same inputs and outputs, which the method `distill` trains (optional)."""
    return Classifier(width=max(1, round(32 * keep)))


def _sequences(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random sequences, and for each whether the upper half of the vocabulary is more frequent."""
    tokens = torch.randint(0, VOCABULARY, (count, LENGTH), generator=torch.Generator().manual_seed(seed))
    return tokens, ((tokens >= VOCABULARY // 2).sum(1) > LENGTH // 2).long()
