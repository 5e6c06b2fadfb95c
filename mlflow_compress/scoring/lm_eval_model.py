"""A model as lm-evaluation-harness asks it: likelihoods of continuations and of whole texts, and generated text.

Source: `HFLM` of EleutherAI's lm-evaluation-harness, whose tokens, cuts of long texts and answers these are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from mlflow_compress.errors import RecipeError
from mlflow_compress.networks.token_windows import Window, likelihoods, rolling
from mlflow_compress.sockets import TextModel

Progress = Callable[[int, int | None, float | None], None]

_LONGEST = 2048  # tokens, if the model states no limit
_NEW_TOKENS = 256  # of an answer, if the task states no limit
_LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


class OutOfTime(Exception):  # noqa: N818  (the task is left out, with this reason)
    """The time for scoring is over before all requests of a task were answered."""


class Clock:
    """Reports progress over the requests of a task, and ends it when the time is over.

    Args:
        seconds: Seconds that are left.
        progress: Called with the requests done, all requests, and the seconds left.
    """

    def __init__(self, seconds: float, progress: Progress) -> None:
        self._started, self._seconds, self._progress = time.monotonic(), seconds, progress
        self._done, self._total, self._begin = 0, 0, self._started

    def begin(self, total: int) -> None:
        """Start counting requests of one kind."""
        self._done, self._total, self._begin = 0, total, time.monotonic()

    def tick(self) -> None:
        """Count one answer.

        Raises:
            OutOfTime: The time is over, and there are more requests.
        """
        self._done += 1
        now = time.monotonic()
        left = (now - self._begin) / self._done * (self._total - self._done)
        self._progress(self._done, self._total, left)
        if self._done < self._total and now - self._started > self._seconds:
            raise OutOfTime(f"after {self._done:,} of {self._total:,} requests the time was over")


def harness_model(model: TextModel, clock: Clock) -> Any:
    """Return the model as an `lm_eval.api.model.LM`."""
    from lm_eval.api.model import TemplateLM

    tokenizer = model.tokenizer
    end, begin = tokenizer.eos_token_id, tokenizer.bos_token_id
    prefix = end if begin is None else begin
    longest = model.longest or _LONGEST

    class Asked(TemplateLM):  # type: ignore[misc]
        """Answers requests one after the other in the order of their length."""

        @property
        def eot_token_id(self) -> Any:
            return end

        @property
        def prefix_token_id(self) -> Any:
            if prefix is None:
                raise RecipeError("lm-eval requires a prefix token, which this tokenizer lacks: use another tokenizer.")
            return prefix

        def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
            if add_special_tokens is None and prefix is not None and string.startswith(tokenizer.decode(prefix)):
                add_special_tokens = False
            options = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
            return list(tokenizer(string, verbose=False, **options)["input_ids"])

        def _loglikelihood_tokens(self, requests: Sequence[Any], **kwargs: Any) -> list[tuple[float, bool]]:
            texts = [[*context, *continuation][-longest - 1 :] for _, context, continuation in requests]
            if any(not continuation for _, _, continuation in requests):
                raise RecipeError("A continuation of this task has no tokens with this model's tokenizer.")
            windows = [
                Window(index, 0, len(text), min(len(request[2]), len(text) - 1))
                for index, (request, text) in enumerate(zip(requests, texts, strict=True))
            ]
            is_greedy = [True] * len(texts)

            def see(window: Window, logits: Any, targets: Any) -> None:
                is_greedy[window.text] = bool((logits.argmax(-1) == targets).all())
                clock.tick()

            clock.begin(len(texts))
            losses = likelihoods(model.logits, texts, windows, model.vocabulary, see)
            return [(-loss, flag) for (loss, _), flag in zip(losses, is_greedy, strict=True)]

        def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
            texts = [[self.prefix_token_id, *self.tok_encode(request.args[0])] for request in requests]
            windows = [part for index, text in enumerate(texts) for part in rolling(index, len(text), longest)]
            clock.begin(len(windows))
            losses = likelihoods(model.logits, texts, windows, model.vocabulary, lambda *window: clock.tick())
            return [-loss for loss, _ in losses]

        def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
            clock.begin(len(requests))
            return [self._answer(*request.args) for request in requests]

        def _answer(self, context: str, options: dict[str, Any]) -> str:
            if options.get("do_sample"):
                raise RecipeError("This task draws its answers at random (do_sample): only greedy answers are scored.")
            new_tokens = next((int(options[name]) for name in _LIMITS if options.get(name) is not None), _NEW_TOKENS)
            if new_tokens >= longest:
                raise RecipeError(
                    f"This task generates {new_tokens} tokens, but the model takes {longest} at once with the prompt."
                )
            until = options.get("until") or []
            stops = [stop for stop in ([until] if isinstance(until, str) else until) if stop]
            text = model.proceed(self.tok_encode(context)[new_tokens - longest :], new_tokens, stops)
            for stop in stops:
                text = text.split(stop)[0]
            clock.tick()
            return text

    return Asked()
