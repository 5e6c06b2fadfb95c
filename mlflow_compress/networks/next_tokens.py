"""What a language model predicted for each scored token: the likeliest token, and the log-probabilities of some.

All log-probabilities of a vocabulary would fill hundreds of megabytes. So only the likeliest `TOP` are kept, and the
mass of all others in `BINS` bins, by their ids modulo `BINS`; and only for the first `MOST_COMPARED` tokens: 3 MiB
before packing. The likeliest token alone is kept for the first `MOST_TOKENS` tokens: 8 MiB.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow_compress.networks.token_windows import Window

ASKED = "next_tokens"  # in `Model.asked`: log-probabilities are wanted, too
TOP = BINS = 64
MOST_COMPARED = 4096
MOST_TOKENS = 2**20
_NEVER = -3e38  # the logarithm of 0 in a file, which holds finite numbers


@dataclass(frozen=True, eq=False)
class NextTokens:
    """Predictions of tokens, in the order of the text.

    Attributes:
        targets: The tokens [tokens].
        best: The likeliest tokens by the model [tokens].
        scores: For the first tokens: the log-probability of each bin of other tokens, the ids of the likeliest, and
            their log-probabilities [compared tokens, bins + 2 * kept ids], float32.
    """

    targets: Any
    best: Any
    scores: Any

    @classmethod
    def of(cls, logits: Any, targets: Any, compared: int) -> NextTokens:
        """Reduce logits [tokens, vocabulary], float32, to what is kept.

        Args:
            logits: The logits of each token.
            targets: The tokens [tokens].
            compared: Number of first tokens whose log-probabilities are kept.
        """
        import torch

        compared = max(0, min(compared, len(logits)))
        logs = logits[:compared].log_softmax(-1)
        top = logs.topk(min(TOP, logits.shape[-1]), dim=-1)
        others = logs.scatter(-1, top.indices, -torch.inf)
        filled = torch.nn.functional.pad(others, (0, -others.shape[-1] % BINS), value=-torch.inf)
        rest = filled.unflatten(-1, (-1, BINS)).logsumexp(1)  # the id is row * BINS + bin
        # ids are exact in float32 below 2^24
        scores = torch.cat([rest, top.indices.float(), top.values], dim=-1).clamp(min=_NEVER)
        return cls(*(tensor.cpu().numpy() for tensor in (targets.int(), logits.argmax(-1).int(), scores)))

    @classmethod
    def joined(cls, parts: Sequence[NextTokens]) -> NextTokens | None:
        """Join the predictions of consecutive parts, up to the limits; None if there are none.

        The log-probabilities end with the first part that does not have those of all of its tokens.
        """
        import numpy as np

        if not parts:
            return None
        scores: list[Any] = []
        for part in parts:
            scores.append(part.scores)
            if len(part.scores) < len(part.targets):
                break
        return cls(
            np.concatenate([part.targets for part in parts])[:MOST_TOKENS],
            np.concatenate([part.best for part in parts])[:MOST_TOKENS],
            np.concatenate(scores)[:MOST_COMPARED],
        )


class TextLikelihood(dict[str, Any]):
    """The likelihood of a text (see `Metric.takes`), with the predictions of its tokens.

    Args:
        numbers: The likelihood.
        predicted: The predictions; None if they are not known.
    """

    def __init__(self, numbers: Mapping[str, Any], predicted: NextTokens | None) -> None:
        super().__init__(numbers)
        self.predicted = predicted


class Recorder:
    """Collects the predictions of texts while their windows are scored, in any order.

    Args:
        texts: The token ids of each text. Each token but the first is predicted once.
        compared: Number of first tokens, over all texts, whose log-probabilities are kept.
    """

    def __init__(self, texts: Sequence[Sequence[int]], compared: int) -> None:
        self._parts: list[list[tuple[int, NextTokens]]] = [[] for _ in texts]
        self._ends: list[int] = []  # of the tokens whose log-probabilities are kept, in each text
        for text in texts:
            count = min(compared, max(0, len(text) - 1))
            self._ends.append(1 + count)
            compared -= count

    def see(self, window: Window, logits: Any, targets: Any) -> None:
        """Take the logits of a window (see `token_windows.likelihoods`)."""
        start = window.end - window.scored
        part = NextTokens.of(logits, targets, self._ends[window.text] - start)
        self._parts[window.text].append((start, part))

    def of_text(self, index: int) -> NextTokens | None:
        """Return the predictions of a text."""
        return NextTokens.joined([part for _, part in sorted(self._parts[index], key=lambda part: part[0])])


class Kept:
    """The predictions of all texts, up to the limits."""

    def __init__(self) -> None:
        """Start without any."""
        self._whole: NextTokens | None = None
        self._is_known = True

    @property
    def is_full(self) -> bool:
        """Whether no more log-probabilities are kept."""
        return not self._is_known or (self._whole is not None and len(self._whole.scores) >= MOST_COMPARED)

    def take(self, answers: Iterable[Any]) -> None:
        """Take the predictions out of answers; answers without them end the collection."""
        parts = [] if self._whole is None else [self._whole]
        for answer in answers:
            predicted = getattr(answer, "predicted", None)
            self._is_known &= isinstance(answer, TextLikelihood)
            if predicted is not None:
                parts.append(predicted)
                answer.predicted = None
        self._whole = NextTokens.joined(parts)

    def result(self) -> NextTokens | None:
        """Return all predictions; None if those of a text are not known."""
        return self._whole if self._is_known else None
