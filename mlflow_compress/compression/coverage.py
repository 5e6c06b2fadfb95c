"""The share of a model that a method reached, and cautions about what its result runs on, for the model's row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from mlflow_compress.networks.stored_weights import held
from mlflow_compress.records import Caution, CautionKind
from mlflow_compress.sockets import Method, Model

REACHED = "reached"  # name of the fact
_SMALL_SHARE = 0.5

SMALL_COVERAGE = CautionKind(
    "small_coverage",
    short={
        "en": "the method reached less than half of the weights",
        "ru": "метод затронул меньше половины весов",
    },
    message={
        "en": "the method reached {reached} of {total} weights ({share})",
        "ru": "метод затронул {reached} из {total} весов ({share})",
    },
    advice={
        "en": "Most of this model is unchanged: embeddings, a head, or layers that the method does not support. "
        "compress-bench list methods shows which layers each method supports.",
        "ru": "Большая часть модели не изменилась: эмбеддинги, выходной слой или слои, которые метод не поддерживает. "
        "compress-bench list methods показывает, какие слои поддерживает каждый метод.",
    },
)
NO_KERNEL = CautionKind(
    "no_kernel",
    short={
        "en": "stored in few bits, computed in float: the latency is not that of the method's kernels",
        "ru": "хранится в малом числе бит, считается во float: время не такое, как у ядер этого метода",
    },
    message={
        "en": "stored as {bits} bit, computed in float: this latency is not that of the method's kernels",
        "ru": "хранится в {bits} битах, считается во float: это не время ядер этого метода",
    },
    advice={
        "en": "The weights are converted at each call. Compare size and quality; for speed use openvino_int8.",
        "ru": "Веса преобразуются при каждом вызове. Сравнивайте размер и качество; для скорости возьмите "
        "openvino_int8.",
    },
)
STORED_ONLY = CautionKind(
    "stored_only",
    short={
        "en": "smaller on disk only: latency and memory are those of the original",
        "ru": "меньше только на диске: время и память как у оригинала",
    },
    message={
        "en": "the weights are stored in {bits} bits on disk and in full precision in memory: latency and memory are "
        "those of the original",
        "ru": "веса на диске хранятся в {bits} битах, а в памяти с полной точностью: время и память как у оригинала",
    },
    advice={
        "en": "Compare the size on disk and the quality.",
        "ru": "Сравнивайте размер на диске и качество.",
    },
)
DENSE_ZEROS = CautionKind(
    "dense_zeros",
    short={
        "en": "zeros are computed like any weight: pruning changes neither latency nor memory",
        "ru": "нули считаются как все веса: прореживание не меняет ни время, ни память",
    },
    message={
        "en": "the pruned weights are zeros in a dense model: pruning changes neither latency nor memory",
        "ru": "удалённые веса стали нулями в плотной модели: прореживание не меняет ни время, ни память",
    },
    advice={
        "en": "Compare the quality and size/disk_gzip_mib. To make the model itself smaller, use prune_structured.",
        "ru": "Сравнивайте качество и size/disk_gzip_mib. Саму модель уменьшает prune_structured.",
    },
)
HELD_TWICE = CautionKind(
    "tied_held_twice",
    short={
        "en": "a head tied to an embedding is stored twice",
        "ru": "выходной слой, общий с эмбеддингом, хранится дважды",
    },
    message={
        "en": "the head was tied to an embedding and now has its own weights: {parameters} more weights are stored",
        "ru": "выходной слой был общим с эмбеддингом, теперь у него свои веса: их хранится на {parameters} больше",
    },
    advice={
        "en": "This makes the model larger; int8_dynamic leaves the head unchanged.",
        "ru": "Поэтому модель больше; int8_dynamic не трогает выходной слой.",
    },
)


def outdated(cautions: Sequence[Caution], method: Method) -> list[Caution]:
    """Return the cautions about earlier steps of a chain that its next method makes untrue.

    After a method that changes layers, precision or runtime, weights are neither stored nor run as `cluster` left them.
    """
    if method.changes in ("nothing", "weights", "storage") and method.gives is None:
        return []
    return [caution for caution in cautions if caution.code == STORED_ONLY.code]


def without(cautions: Sequence[Caution], dropped: Sequence[Caution]) -> list[Caution]:
    """Return cautions without those very objects: an equal one of a later step stays."""
    return [caution for caution in cautions if not any(caution is one for one in dropped)]


def note(model: Model, weights: Iterable[Any]) -> None:
    """Record in a model's facts how many of its parameters a method reaches; add a caution if they are few.

    Call it before the weights are replaced.

    Args:
        model: Model before compression.
        weights: Parameters that the method changes; duplicates count once.
    """
    distinct = {id(weight): weight for weight in weights}
    record(model, sum(weight.numel() for weight in distinct.values()), total(model.module))


def note_all(model: Model) -> None:
    """Record that a method reaches every parameter."""
    if count := total(model.module):
        record(model, count, count)


def total(module: Any) -> int:
    """Count a module's parameters: tied ones once, packed ones unpacked."""
    return sum(weights.parameters for weights in held(module))


def record(model: Model, reached: int, available: int) -> None:
    """Record how many parameters of how many a method reached; the steps of a chain are listed in order."""
    fact = f"reached {reached:,} of {available:,} weights"
    earlier = model.facts.get(REACHED)
    model.facts[REACHED] = f"{earlier}; then {fact}" if earlier else fact
    if reached < _SMALL_SHARE * available:
        share = f"{reached / available:.2%}" if reached < 0.01 * available else f"{reached / available:.0%}"
        model.cautions.append(SMALL_COVERAGE.of(reached=f"{reached:,}", total=f"{available:,}", share=share))
