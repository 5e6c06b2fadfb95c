"""How likely texts are to a language model that looks at a window of tokens at a time.

Source: transformers' documentation, Perplexity of fixed-length models: windows overlap, and of each only the tokens
that no window before it has scored are scored, so that nearly all are predicted from a long context.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

_MOST_LOGITS = 2**26  # held at once
_PROBE = (24, 17)  # tokens of two random texts
_SAME, _ROUNDINGS = 1e-3, 8  # how far outputs may be apart, relative, and in units of what their type can tell apart


@dataclass(frozen=True)
class Window:
    """A part of a text.

    Attributes:
        text: the text's index.
        start, end: the part's place in it, in tokens.
        scored: how many of its last tokens are predicted here.
    """

    text: int
    start: int
    end: int
    scored: int

    @property
    def length(self) -> int:
        """How many tokens the part has."""
        return self.end - self.start


def windows(text: int, length: int, window: int, stride: int) -> Iterator[Window]:
    """Cut a text into windows, each a stride further on; the first token of all is never predicted."""
    done = 0
    for start in range(0, length, stride):
        end = min(start + window, length)
        yield Window(text, start, end, end - max(done, start + 1))
        done = end
        if end == length:
            break


def likelihoods(
    run: Callable[[Any], Any], texts: Sequence[Sequence[int]], window: int, stride: int, vocabulary: int
) -> list[tuple[float, int]]:
    """Score texts: as many windows at once as memory allows, unless the model's outputs depend on what is beside them.

    Args:
        run: gives logits [batch, tokens, vocabulary] for token ids [batch, tokens], int64 on the CPU, of a model in
            which no token sees a later one.
        texts: token ids of each.
        window: tokens that the model is given at once.
        stride: how far a window is from the next.
        vocabulary: how many tokens there are.

    Returns:
        For each text the summed negative log-likelihood in nats, and the number of tokens predicted.
    """
    parts = [
        part for index, ids in enumerate(texts) for part in windows(index, len(ids), window, stride) if part.scored
    ]
    parts.sort(key=lambda part: part.length, reverse=True)  # so that little is filled up
    most = _MOST_LOGITS // vocabulary if len(parts) > 1 and _is_independent(run, vocabulary, window) else 0
    sums, counts = [0.0] * len(texts), [0] * len(texts)
    while parts:
        size = max(1, most // parts[0].length)
        together, parts = parts[:size], parts[size:]
        ids = [texts[part.text][part.start : part.end] for part in together]
        for part, loss in zip(together, _losses(run, ids, [part.scored for part in together]), strict=True):
            sums[part.text] += loss
            counts[part.text] += part.scored
    return list(zip(sums, counts, strict=True))


def _losses(run: Callable[[Any], Any], texts: Sequence[Sequence[int]], scored: Sequence[int]) -> list[float]:
    """Return the summed negative log-likelihood of the last tokens of each text."""
    import torch

    ids = _filled_up(texts)
    logits = run(ids)
    losses = []
    for row, (text, count) in enumerate(zip(texts, scored, strict=True)):
        end = len(text)
        wanted = ids[row, end - count : end].to(logits.device)
        chosen = logits[row, end - count - 1 : end - 1].float()
        loss = torch.nn.functional.cross_entropy(chosen, wanted, reduction="none")
        losses.append(float(loss.double().sum()))
    return losses


def _is_independent(run: Callable[[Any], Any], vocabulary: int, window: int) -> bool:
    """Return whether a text's logits are the same whatever text it is run with.

    They are not where activations are quantised by the range that they have in the whole batch.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    texts = [torch.randint(0, vocabulary, (min(length, window),), generator=generator).tolist() for length in _PROBE]
    together = run(_filled_up(texts))
    same = max(_SAME, _ROUNDINGS * torch.finfo(together.dtype).eps)
    for row, text in enumerate(texts):
        alone = run(torch.tensor([text]))[0].float()
        if float((together[row, : len(text)].float() - alone).norm() / alone.norm()) > same:
            return False
    return True


def _filled_up(texts: Sequence[Sequence[int]]) -> Any:
    """Make one tensor of texts, the shorter ones filled up behind, where no token sees it."""
    import torch

    return torch.nn.utils.rnn.pad_sequence([torch.tensor(text) for text in texts], batch_first=True)
