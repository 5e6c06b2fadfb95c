"""How much of a model a method reached, and what its result runs on: said in the row, not in a docstring alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mlflow_compress.networks.stored_weights import held
from mlflow_compress.records import CautionKind
from mlflow_compress.sockets import Model

REACHED = "reached"  # the fact
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
        "en": "It leaves most of this model as it was: embeddings, a head, or layers of a kind that it does not know. "
        "compress-bench list methods says which kinds each method takes.",
        "ru": "Большая часть модели осталась прежней: эмбеддинги, выходной слой или слои, которых метод не знает. "
        "compress-bench list methods говорит, какие слои берёт каждый метод.",
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
        "en": "The weights are unpacked at each call. Compare size and quality; for speed take openvino_int8 or "
        "int8_dynamic.",
        "ru": "Веса распаковываются при каждом вызове. Сравнивайте размер и качество; для скорости есть openvino_int8 "
        "и int8_dynamic.",
    },
)
STORED_ONLY = CautionKind(
    "stored_only",
    short={
        "en": "smaller on disk only: time and memory are the original's",
        "ru": "меньше только на диске: время и память как у оригинала",
    },
    message={
        "en": "the weights are written in {bits} bits and held in full: time and memory are those of the original",
        "ru": "веса записаны в {bits} битах, а в памяти лежат целиком: время и память как у оригинала",
    },
    advice={
        "en": "Compare the size on disk and the quality.",
        "ru": "Сравнивайте размер на диске и качество.",
    },
)
DENSE_ZEROS = CautionKind(
    "dense_zeros",
    short={
        "en": "zeros are computed as any weight: time and memory are the original's",
        "ru": "нули считаются как все веса: время и память как у оригинала",
    },
    message={
        "en": "the pruned weights are zeros in a dense model: time and memory are those of the original",
        "ru": "удалённые веса это нули в плотной модели: время и память как у оригинала",
    },
    advice={
        "en": "Compare the quality and size/disk_gzip_mib; prune_structured makes a model smaller in fact.",
        "ru": "Сравнивайте качество и size/disk_gzip_mib; prune_structured уменьшает модель на самом деле.",
    },
)
HELD_TWICE = CautionKind(
    "tied_held_twice",
    short={
        "en": "a head tied to an embedding is held twice",
        "ru": "выходной слой, общий с эмбеддингом, хранится дважды",
    },
    message={
        "en": "the head was tied to an embedding and has weights of its own now: {parameters} more are held",
        "ru": "у выходного слоя, общего с эмбеддингом, теперь свои веса: хранится на {parameters} больше",
    },
    advice={
        "en": "The model is larger for it; int8_dynamic leaves the head as it is.",
        "ru": "Поэтому модель больше; int8_dynamic не трогает выходной слой.",
    },
)


def note(model: Model, weights: Iterable[Any]) -> None:
    """Say in a model's facts how many of its parameters a method reaches; few of them is a caution.

    It is called before the weights are replaced.

    Args:
        model: as it still is.
        weights: the parameters that the method changes; one that comes twice counts once.
    """
    distinct = {id(weight): weight for weight in weights}
    record(model, sum(weight.numel() for weight in distinct.values()), total(model.module))


def note_all(model: Model) -> None:
    """Say that a method reaches every parameter."""
    if every := total(model.module):
        record(model, every, every)


def total(module: Any) -> int:
    """Count a module's parameters, tied ones once, packed ones opened."""
    return sum(each.parameters for each in held(module))


def record(model: Model, reached: int, every: int) -> None:
    """Say how many parameters of how many a method reached. Of a chain each step says it, in order."""
    told = f"reached {reached:,} of {every:,} weights"
    earlier = model.facts.get(REACHED)
    model.facts[REACHED] = f"{earlier}; then {told}" if earlier else told
    if reached < _SMALL_SHARE * every:
        share = f"{reached / every:.2%}" if reached < 0.01 * every else f"{reached / every:.0%}"
        model.cautions.append(SMALL_COVERAGE.of(reached=f"{reached:,}", total=f"{every:,}", share=share))
