"""Checks what a decoder generates: with its cache as in one pass without it, and restored as before it was saved.

A decoder that loses its past is as fast and as large as a correct one, and its single passes are correct too: only the
generated text is wrong. So it generates some tokens from calibration inputs: one text, two, and up to four of a timed
batch at a time. The check does not see a past that is lost only later, or only in larger batches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow_compress.errors import WorkerError
from mlflow_compress.networks.kernels import rounding
from mlflow_compress.networks.stored_weights import ROUNDING, distance
from mlflow_compress.records import Caution, CautionKind
from mlflow_compress.sockets import Continuation, Family, Model

_NEW_TOKENS = 16
_BATCH_SIZES = (1, 2)
_LARGEST_BATCH = 4  # the logits of a larger batch would take more memory than timing it
_SEED = 17
_ARRAY = "array"
_LEAST_LOSS = 0.3  # the least change of logits by a lost past: 31% to 90% were observed

UNCHECKED_PAST = CautionKind(
    "unchecked_past",
    short={
        "en": "too much changed to check what it generates",
        "ru": "изменено слишком много, чтобы проверить генерацию",
    },
    message={
        "en": "compression changed the outputs of single passes by up to {moved:.0%}: a decoder that loses its past "
        "may have gone unnoticed",
        "ru": "сжатие изменило отдельные проходы на величину до {moved:.0%}: декодер, который теряет контекст, мог "
        "остаться незамеченным",
    },
    advice={
        "en": "Read some generated texts before you trust the scores.",
        "ru": "Прочитайте несколько сгенерированных текстов, прежде чем верить оценкам.",
    },
)


def generate(family: Family, model: Model) -> list[Continuation]:
    """Generate from one calibration input, and from several at once; nothing if the family does not generate."""
    return _generate(family, model, _batches(family, model))


def require_past(before: Sequence[Continuation], after: Sequence[Continuation]) -> list[Caution]:
    """Check that a compressed decoder uses its past: its logits with the cache must equal those of one pass without it.

    They may differ by rounding, plus twice the change of single passes by the compression.

    Args:
        before: what the model generated before it was compressed.
        after: what it generates now, from the same inputs.

    Returns:
        A caution if this tolerance is so large that a lost past might go unnoticed.

    Raises:
        WorkerError: they differ by more. The message names the first token that differs.
    """
    most_moved = 0.0
    for original, compressed in zip(before, after, strict=True):
        explained = _explained(original, compressed)
        most_moved = max(most_moved, explained)
        allowed = ROUNDING["cpu"] + 2 * explained
        best = compressed.at_once.argmax(-1)
        if difference := _first_difference(
            compressed.tokens, compressed.logits, compressed.tokens, compressed.at_once, allowed
        ):
            text, token, moved = difference
            actual, likeliest = int(compressed.tokens[text, token]), int(best[text, token])
            expected = f"{likeliest} is the likeliest" if actual != likeliest else "its probability is different"
            raise WorkerError(
                f"the compressed decoder generates from a wrong cache: token {token + 1} of text {text + 1} is {actual}"
                f", but {expected} in one pass without a cache (the logits differ by {moved:.1%})"
            )
    return [UNCHECKED_PAST.of(moved=most_moved)] if 2 * most_moved >= _LEAST_LOSS else []


def agrees(continuation: Continuation, allowed: float) -> bool:
    """Return whether logits of generated tokens equal those of one pass without a cache, within a tolerance."""
    return (
        _first_difference(continuation.tokens, continuation.logits, continuation.tokens, continuation.at_once, allowed)
        is None
    )


def keep(family: Family, model: Model, path: Path) -> None:
    """Write calibration inputs and the tokens that the model generates from them."""
    import torch

    batches = _batches(family, model)
    continuations = _generate(family, model, batches)
    if continuations:
        content = {
            "batches": [_to_plain(batch) for batch in batches],
            "tokens": [continuation.tokens.cpu() for continuation in continuations],
            "logits": [continuation.logits.cpu() for continuation in continuations],
        }
        torch.save(content, path)


def compare(family: Family, model: Model, path: Path, device: str) -> None:
    """Generate from the inputs that `keep` wrote, and compare.

    Args:
        family: the model's family.
        model: the restored model.
        path: file of `keep`; if it does not exist, there is nothing to compare.
        device: device of the model: `cpu` or an accelerator.

    Raises:
        WorkerError: the restored model generates something else. The message names the first token that differs.
    """
    import torch

    if not path.exists():
        return
    content = torch.load(path, weights_only=True)
    continuations = _generate(family, model, [_from_plain(batch, device) for batch in content["batches"]])
    tolerance = rounding(model.module, device)
    for continuation, tokens, logits in zip(continuations, content["tokens"], content["logits"], strict=True):
        now = continuation.tokens.cpu()
        if difference := _first_difference(now, continuation.logits.cpu(), tokens, logits, tolerance):
            text, token, moved = difference
            raise WorkerError(
                f"the restored model does not generate what it generated before it was saved: token {token + 1} of "
                f"text {text + 1} is {int(now[text, token])} and was {int(tokens[text, token])} "
                f"(the logits differ by {moved:.1%})"
            )


def _batches(family: Family, model: Model) -> list[Any]:
    if type(family).generate is Family.generate:  # the family generates nothing: read no data for it
        return []
    silent = dataclasses.replace(model, cautions=[])  # cautions about this check's inputs do not concern the model
    sizes = sorted({*_BATCH_SIZES, min(model.batch_size, _LARGEST_BATCH)})
    return [batch for size in sizes for batch in family.calibration(silent, 1, _SEED, size)]


def _generate(family: Family, model: Model, batches: Sequence[Any]) -> list[Continuation]:
    import torch

    with torch.inference_mode():
        continuations = [family.generate(model, batch, _NEW_TOKENS) for batch in batches]
    return [continuation for continuation in continuations if continuation is not None]


def _explained(original: Continuation, compressed: Continuation) -> float:
    """Return the greatest difference of single passes, as long as both generated the same tokens."""
    largest = 0.0
    for text in range(len(compressed.tokens)):
        for token in range(compressed.tokens.shape[1]):
            largest = max(largest, _moved(compressed.at_once[text, token], original.at_once[text, token]))
            if compressed.tokens[text, token] != original.tokens[text, token]:
                break
    return largest


def _first_difference(
    tokens: Any, logits: Any, expected_tokens: Any, expected_logits: Any, allowed: float
) -> tuple[int, int, float] | None:
    """Find the first token whose logits [batch, tokens, vocabulary] differ by more than is allowed.

    Where a token differs within the tolerance, the texts diverge: what follows is not compared.

    Returns:
        Indices of the text and of the token, and the relative difference; None if there is none.
    """
    for text in range(len(tokens)):
        for token in range(tokens.shape[1]):
            moved = _moved(logits[text, token], expected_logits[text, token])
            if not moved <= allowed:  # NaN counts as a difference
                return text, token, moved
            if tokens[text, token] != expected_tokens[text, token]:
                break
    return None


def _moved(one: Any, other: Any) -> float:
    """Return the relative difference of two vectors of logits, without their means, which have no meaning."""
    return distance(one - one.mean(), other - other.mean())


def _to_plain(batch: Any) -> Any:
    """Return a batch in a form that `torch.load` reads without running code."""
    import torch

    if isinstance(batch, Mapping):
        return {name: _to_plain(value) for name, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        return [_to_plain(value) for value in batch]
    return batch.cpu() if isinstance(batch, torch.Tensor) else {_ARRAY: torch.from_numpy(batch)}


def _from_plain(batch: Any, device: str) -> Any:
    """Undo `_to_plain`: tensors go to the device, arrays come back as arrays."""
    if isinstance(batch, list):
        return [_from_plain(value, device) for value in batch]
    if not isinstance(batch, dict):
        return batch.to(device)
    if set(batch) == {_ARRAY}:
        return batch[_ARRAY].numpy()
    return {name: _from_plain(value, device) for name, value in batch.items()}
