"""Likelihood of texts under a language model that sees a window of tokens at a time, by the usual protocols.

Source: EleutherAI's lm-evaluation-harness, get_rolling_token_windows with context_len=1 and make_disjoint_window
(`rolling`); transformers' documentation, Perplexity of fixed-length models (`sliding`); the code of GPTQ, AWQ and
Wanda, which cuts the joined text into independent blocks (`blocks`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

_MOST_LOGITS = 2**26  # in memory at once
_PROBE = (24, 17)  # tokens of two random texts
_SAME, _ROUNDINGS = 1e-3, 8  # tolerated difference of outputs, relative, and in rounding steps of their type


@dataclass(frozen=True)
class Window:
    """A part of a text.

    Attributes:
        text: index of the text.
        start, end: position of the part in the text, in tokens.
        scored: number of its last tokens that are predicted from those before them.
    """

    text: int
    start: int
    end: int
    scored: int

    @property
    def length(self) -> int:
        """Number of tokens in the part."""
        return self.end - self.start


def sliding(text: int, length: int, window: int, stride: int) -> Iterator[Window]:
    """Cut a text into windows at multiples of the stride; the first token of the text is never predicted."""
    scored_end = 0
    for start in range(0, length, stride):
        end = min(start + window, length)
        yield Window(text, start, end, end - max(scored_end, start + 1))
        scored_end = end
        if end == length:
            break


def rolling(text: int, length: int, window: int) -> Iterator[Window]:
    """Cut a text that begins with a prefix token into windows; each predicts as many tokens as it takes as input.

    No token is predicted twice. Each later window starts one token before its predicted tokens; the last window starts
    earlier if fewer tokens are left.

    Args:
        text: index of the text.
        length: number of tokens, including the prefix token.
        window: maximum number of input tokens.
    """
    scored_end = 1
    while scored_end < length:
        end = min(scored_end + window, length)
        yield Window(text, max(0, end - window - 1), end, end - scored_end)
        scored_end = end


def blocks(text: int, length: int) -> Iterator[Window]:
    """Return a text, which is a block, as one window."""
    yield Window(text, 0, length, length - 1)


def likelihoods(
    run: Callable[[Any], Any],
    texts: Sequence[Sequence[int]],
    parts: Iterable[Window],
    vocabulary: int,
    see: Callable[[Window, Any, Any], object] | None = None,
) -> list[tuple[float, int]]:
    """Score texts, with as many windows at once as memory allows, unless a text's outputs depend on others in a batch.

    Args:
        run: returns logits [batch, tokens, vocabulary] for token ids [batch, tokens], int64 on the CPU, of a causal
            model.
        texts: token ids of each text.
        parts: the windows of all texts. The last token of a window is predicted, and is not an input.
        vocabulary: size of the vocabulary.
        see: called for each window, in any order, with the logits of its predicted tokens [scored, vocabulary], as
            float32, and the tokens themselves [scored].

    Returns:
        For each text the summed negative log-likelihood in nats, and the number of predicted tokens.
    """
    waiting = sorted((part for part in parts if part.scored > 0), key=lambda part: part.length, reverse=True)
    longest = waiting[0].length - 1 if waiting else 0  # in descending order, so that there is little padding
    max_tokens = _MOST_LOGITS // vocabulary if len(waiting) > 1 and _is_independent(run, vocabulary, longest) else 0
    sums, counts = [0.0] * len(texts), [0] * len(texts)
    while waiting:
        size = max(1, max_tokens // waiting[0].length)
        batch, waiting = waiting[:size], waiting[size:]
        ids = [texts[part.text][part.start : part.end] for part in batch]
        for part, (logits, targets) in zip(batch, _scored(run, ids, [part.scored for part in batch]), strict=True):
            sums[part.text] += _loss(logits, targets)
            if see is not None:
                see(part, logits, targets)
            counts[part.text] += part.scored
    return list(zip(sums, counts, strict=True))


def _scored(
    run: Callable[[Any], Any], texts: Sequence[Sequence[int]], scored: Sequence[int]
) -> Iterator[tuple[Any, Any]]:
    """Yield the logits and the tokens at the end of each text that are predicted."""
    import torch

    logits = run(_filled_up([text[:-1] for text in texts]))
    for row, (text, count) in enumerate(zip(texts, scored, strict=True)):
        end = len(text)
        targets = torch.tensor(text[end - count :], device=logits.device)
        yield logits[row, end - count - 1 : end - 1].float(), targets


def _loss(logits: Any, targets: Any) -> float:
    """Return the summed negative log-likelihood of tokens."""
    import torch

    loss = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    return float(loss.cpu().double().sum())  # some accelerators have no float64


def _is_independent(run: Callable[[Any], Any], vocabulary: int, longest: int) -> bool:
    """Return whether a text's logits do not depend on the other texts in a batch.

    They do if activations are quantised by their range in the whole batch.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    texts = [torch.randint(0, vocabulary, (min(length, longest),), generator=generator).tolist() for length in _PROBE]
    batched = run(_filled_up(texts))
    tolerance = max(_SAME, _ROUNDINGS * torch.finfo(batched.dtype).eps)
    for row, text in enumerate(texts):
        single = run(torch.tensor([text]))[0].float()
        if float((batched[row, : len(text)].float() - single).norm() / single.norm()) > tolerance:
            return False
    return True


def _filled_up(texts: Sequence[Sequence[int]]) -> Any:
    """Combine texts into one tensor; shorter texts are padded at the end, where no earlier token sees it."""
    import torch

    return torch.nn.utils.rnn.pad_sequence([torch.tensor(text) for text in texts], batch_first=True)
