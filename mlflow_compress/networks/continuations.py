"""Texts to be continued by a language model: a prompt, and the reference that its continuation is scored against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlflow_compress.errors import RecipeError, one_line

_MOST_PROMPT = 512  # tokens of half a text
_SHOWN = 60  # characters of a text


@dataclass(frozen=True)
class Continued:
    """A text to be continued, and scored by its likelihood if a metric takes that.

    Attributes:
        text: The whole text, or its tokens (see `causal_lm`).
        prompt: The tokens that the model continues.
        reference: The expected continuation.
        is_line: Whether only the first line of the continuation counts, as in an answer to a question.
    """

    text: Any
    prompt: tuple[int, ...]
    reference: str
    is_line: bool = False

    def cut(self, continuation: str) -> str:
        """Return the part of a continuation that counts."""
        return continuation.strip().partition("\n")[0].strip() if self.is_line else continuation


def split(tokenizer: Any, text: Any, ids: Sequence[int], prompt_tokens: int | None, new_tokens: int) -> Continued:
    """Split a text: the first tokens are the prompt, and the next ones the reference.

    Args:
        tokenizer: The model's tokenizer.
        text: The text, or its tokens.
        ids: The tokens of the text.
        prompt_tokens: Number of tokens of the prompt; None: half of the text, at most 512. At least one token is left
            for the reference if the text has two.
        new_tokens: Maximum number of tokens of the reference.

    Raises:
        RecipeError: No token is left for the reference.
    """
    count = min(len(ids) // 2, _MOST_PROMPT) if prompt_tokens is None else min(prompt_tokens, len(ids) - 1)
    count = max(count, 1)
    reference = tokenizer.decode(list(ids[count : count + new_tokens]), skip_special_tokens=True)
    if not reference:
        raise RecipeError(
            f"The text {one_line(tokenizer.decode(list(ids), skip_special_tokens=True), _SHOWN)!r} is too short: after "
            "the prompt, nothing is left to compare a continuation with. Remove it from the data, or name only metrics "
            "of likelihoods, such as perplexity."
        )
    return Continued(text, tuple(ids[:count]), reference)


def stopping(tokenizer: Any, prompt_tokens: int, stops: Sequence[str]) -> Any:
    """Return the criterion for `generate` of transformers that ends a single text after one of `stops`.

    Args:
        tokenizer: The model's tokenizer.
        prompt_tokens: Number of tokens of the prompt, which may contain the stops.
        stops: Texts that end the continuation.
    """
    import torch
    from transformers import StoppingCriteria, StoppingCriteriaList

    class Contains(StoppingCriteria):
        def __call__(self, input_ids: Any, scores: Any, **arguments: Any) -> Any:
            tokens = [token for token in input_ids[0, prompt_tokens:].tolist() if token < len(tokenizer)]
            text = tokenizer.decode(tokens, skip_special_tokens=True)
            is_done = any(stop in text for stop in stops)
            return torch.full((len(input_ids),), is_done, dtype=torch.bool, device=input_ids.device)

    return StoppingCriteriaList([Contains()])
