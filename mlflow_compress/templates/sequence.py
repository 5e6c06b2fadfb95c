"""A model of sequences of your own: put yours into the functions below. Only model() and batch() must be here.

As it is it runs: a small GRU that tells which half of the vocabulary is more frequent in 16 tokens.
"""

import torch
from torch import nn

VOCABULARY, LENGTH = 20, 16
metrics = ["accuracy"]  # optional: what quality is called; `compress-bench list metrics` names all


class Classifier(nn.Module):
    """Tokens [batch, length] in, scores of two classes [batch, 2] out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.recurrent = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, 2)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Score each sequence by the last state."""
        states, _ = self.recurrent(self.embedding(tokens))
        scores: torch.Tensor = self.head(states[:, -1])
        return scores


def model() -> nn.Module:
    """Build the architecture; its weights come later, from load_weights()."""
    return Classifier(width=32)


def batch(size: int) -> torch.Tensor:
    """Give the input of one timed call on `size` samples: random tokens will do.

    A tensor; a tuple of tensors for several arguments; a dict for arguments by name, such as tokens and their mask.
    """
    return torch.randint(0, VOCABULARY, (size, LENGTH))


def load_weights(module: nn.Module) -> None:
    """Fill the module (optional). Without it the weights are random, and quality is not scored.

    What it gives is kept, so that it is called once, and not for each variant.
    """
    # Your checkpoint, a state dict: put its path here, from this file's folder, and delete the training below.
    # module.load_state_dict(torch.load("my_checkpoint.pt", weights_only=True))
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    for part in range(60):
        tokens, labels = _sequences(64, seed=1 + part)
        loss = nn.functional.cross_entropy(module(tokens), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def samples() -> list[tuple[torch.Tensor, int]]:
    """Give labelled samples that were not trained on (optional): pairs of one input, without the batch axis, and label.

    Without it nothing is scored: say `data: none` in the recipe.
    """
    tokens, labels = _sequences(200, seed=0)
    return list(zip(tokens, labels.tolist(), strict=True))


# def predict(module, inputs):
#     """Give one prediction for each input (optional), here for sequences of several lengths.
#
#     Without it inputs are stacked, and the index of the greatest output is the prediction.
#     """
#     return [int(module(tokens[None]).argmax()) for tokens in inputs]


def training() -> torch.Tensor:
    """Give inputs that methods may calibrate and train on, none of samples() (optional): the first axis counts them."""
    return _sequences(512, seed=1)[0]


def student(keep: float) -> nn.Module:
    """Build a smaller module that takes and gives the same, for the method `distill` to train (optional)."""
    return Classifier(width=max(1, round(32 * keep)))


def _sequences(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw sequences, and tell of each whether the upper half of the vocabulary is the more frequent one."""
    tokens = torch.randint(0, VOCABULARY, (count, LENGTH), generator=torch.Generator().manual_seed(seed))
    return tokens, ((tokens >= VOCABULARY // 2).sum(1) > LENGTH // 2).long()
