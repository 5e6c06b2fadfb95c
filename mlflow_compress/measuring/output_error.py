"""How like the original a compressed model still is: the raw outputs of both on the same inputs.

It needs no labels and no real weights. The inputs are those of the timed call, random ones: what real inputs make of
the difference, the scores say, and where there are scores it is not told. Each part of the output is compared by itself
(see `output_parts`), and the worst counts.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlflow_compress.errors import WorkerError
from mlflow_compress.model import NOT_SAVED
from mlflow_compress.networks.kernels import rounding
from mlflow_compress.networks.output_parts import (
    differ,
    farthest,
    moved_by_fusing,
    odd_places,
    parts_of,
    spread_of,
)
from mlflow_compress.networks.outside_state import tensors_outside
from mlflow_compress.networks.random_state import has_drawn
from mlflow_compress.records import Caution, CautionKind, Variant
from mlflow_compress.sockets import Family, Model

BLIND_OUTPUTS = CautionKind(
    "blind_outputs",
    short={
        "en": "random weights: outputs do not depend on the input",
        "ru": "случайные веса: выходы не зависят от входа",
    },
    message={
        "en": "with these weights the outputs of two inputs differ by less than {most:.0e}: how far they are from the "
        "original's says nothing",
        "ru": "с этими весами выходы на двух входах различаются меньше чем на {most:.0e}: их отличие от "
        "оригинала ни о чём не говорит",
    },
    advice={"en": "Give real weights.", "ru": "Возьмите настоящие веса."},
)
RANDOM_OUTPUTS = CautionKind(
    "random_outputs",
    short={
        "en": "the model draws random numbers: its outputs were not compared",
        "ru": "модель использует случайные числа: выходы не сравнивались",
    },
    message={
        "en": "the model draws random numbers in each call, and others here than where it was compared: how far its "
        "outputs are from the original's can't be told from chance",
        "ru": "модель при каждом вызове берёт случайные числа, и здесь не те, с которыми её сравнивали: отличие её "
        "выходов от выходов оригинала не отделить от случайности",
    },
    advice={
        "en": "Score it on data, or let forward() take the random numbers as an input.",
        "ru": "Измерьте качество на данных или передавайте случайные числа в forward() как вход.",
    },
)
UNSTEADY_OUTPUTS = CautionKind(
    "unsteady_outputs",
    short={
        "en": "the model gives something else at each call: its outputs were not compared",
        "ru": "модель при каждом вызове даёт другой результат: выходы не сравнивались",
    },
    message={
        "en": "for the same inputs and seeds the model gives something else at each call: it keeps something between "
        "calls, or has random numbers of its own. How far its outputs are from the original's can't be said",
        "ru": "на тех же входах и с тем же начальным состоянием генераторов модель при каждом вызове даёт другой "
        "результат: она что-то хранит между вызовами или берёт собственные случайные числа. Отличие её выходов от "
        "выходов оригинала измерить нельзя",
    },
    advice={
        "en": "Let forward() depend on its inputs and weights alone, or score the model on data.",
        "ru": "Пусть forward() зависит только от входов и весов, или измерьте качество на данных.",
    },
)
NO_OUTPUTS = CautionKind(
    "no_outputs",
    short={"en": "it gives no numbers to compare", "ru": "модель не возвращает чисел для сравнения"},
    message={
        "en": "the model gives no finite number: whether compressing changed its outputs can't be said",
        "ru": "модель не возвращает ни одного конечного числа: нельзя сказать, изменило ли сжатие её выходы",
    },
    advice={
        "en": "Let forward() return what it computes.",
        "ru": "Пусть forward() возвращает то, что вычисляет.",
    },
)
OTHER_SHAPES = CautionKind(
    "other_output_shapes",
    short={
        "en": "its outputs have other shapes than the original's",
        "ru": "форма выходов не та, что у оригинала",
    },
    message={
        "en": "the outputs have other shapes than the original's on the same inputs: how far they are can't be said",
        "ru": "на тех же входах форма выходов не та, что у оригинала: их отличие измерить нельзя",
    },
    advice={
        "en": "The number of what a model finds may change when it is compressed: score it on data.",
        "ru": "Сжатие может менять количество найденного моделью: измерьте качество на данных.",
    },
)
FUSED_PADDING = CautionKind(
    "fused_padding",
    short={
        "en": "timed and scored with zeros at padded places, which training does not have",
        "ru": "время и качество измерены с нулями на местах заполнения, которых нет при обучении",
    },
    message={
        "en": "torch's fused path for nn.TransformerEncoder, which this model takes in inference, moves the outputs by "
        "{moved:.0%}: at padded places it gives zeros; training and exports do not. Outputs were compared without it",
        "ru": "ускоренный путь torch для nn.TransformerEncoder, которым модель идёт без обучения, сдвигает выходы на "
        "{moved:.0%}: на местах заполнения он даёт нули, а обучение и экспорт — нет. Выходы сравнивались без него",
    },
    advice={
        "en": "Leave padded places out of what follows the encoder (a masked mean), or call "
        "torch.backends.mha.set_fastpath_enabled(False) in the model's file.",
        "ru": "Исключите места заполнения из того, что идёт после энкодера (среднее по маске), или вызовите "
        "torch.backends.mha.set_fastpath_enabled(False) в файле модели.",
    },
)
NUMBERS = ("quality/output_error_rel_l2", "quality/top1_agreement", "quality/kl_divergence_nats")
_MOST_NAMES = 3  # in a message
_MOST_BATCHES, _MOST_SECONDS, _MOST_ELEMENTS = 8, 0.5, 2**24
_FEWEST = 2  # inputs, to see whether outputs depend on them
_MOVED = 0.01  # relative difference that torch's fused path makes, from which on it is told
_STEPS = 10  # as far as outputs are from the saved ones at most, where each time they are made they are so far apart
_ALIKE = 1e-5  # relative difference of what two inputs give, below which nothing can be said
_OLD = ("original", "saved")  # tensors of 0.1, whose parts stood in one vector
_COUNT, _SPREAD = "passes", "spread"


@dataclass(frozen=True)
class Outputs:
    """What forward passes gave, always on the same inputs.

    Attributes:
        passes: of each pass its parts: vectors of float32 on the CPU.
        least: of each part the least norm that a difference is divided by.
        spread: how far apart two passes on one input are that draw other random numbers; 0: the model draws none.
        fused: how far torch's fused path, where it is open to the model, moves the outputs of the first pass.
    """

    passes: list[list[Any]]
    least: list[float]
    spread: float = 0.0
    fused: float = 0.0

    def joined(self) -> list[Any]:
        """Return each part of all passes in one vector; everything in one, where passes have other parts."""
        import torch

        if len({len(parts) for parts in self.passes}) == 1:
            return [torch.cat(part) for part in zip(*self.passes, strict=True)]
        return [torch.cat([part for parts in self.passes for part in parts])]

    def norms(self) -> list[float]:
        """Return `least` for the parts of `joined`."""
        parts = len(self.joined())
        return self.least if len(self.least) == parts else [0.0] * parts


def outputs(family: Family, model: Model, variant: Variant, count: int | None = None) -> Outputs:
    """Return the outputs of forward passes, always on the same inputs and with the same random numbers.

    Args:
        family: the model's family.
        model: the model.
        variant: gives batch size and seed.
        count: how many passes; None: as many as fit into half a second and 64 MiB, two at least.
    """
    import torch

    given = _passes(family, model, variant, count)
    last = variant.seed + len(given.passes) - 1
    is_random = has_drawn(last)
    seed = last if is_random else variant.seed
    with torch.inference_mode():
        batch = family.batch(model, variant.batch_size, seed)
        if is_random:
            return replace(given, spread=spread_of(family, model, batch, seed))
        return replace(given, fused=moved_by_fusing(family, model, batch, seed))


def keep(original: Outputs, saved: Outputs, path: Path) -> None:
    """Write what the original gave, and what the compressed model gave before it was saved.

    Raises:
        WorkerError: the compressed model's outputs hold NaN or infinity where the original's do not.
    """
    import torch
    from safetensors.torch import save_file

    if places := odd_places(saved.joined(), original.joined()):
        all_places = sum(part.numel() for part in saved.joined())
        raise WorkerError(
            f"the compressed model's outputs hold NaN or infinity where the original's do not, at {places:,} of "
            f"{all_places:,} places"
        )
    kept = {_COUNT: torch.tensor(len(original.passes)), _SPREAD: torch.tensor(original.spread)}
    for name, given in zip(_OLD, (original, saved), strict=True):
        for index, parts in enumerate(given.passes):
            kept |= {f"{name}.{index}.{place}": part.clone() for place, part in enumerate(parts)}
    save_file(kept, str(path))


def compare(
    family: Family, model: Model, variant: Variant, path: Path, device: str, cautions: list[Caution] | None = None
) -> dict[str, float]:
    """Compare the restored model with what `keep` wrote.

    Args:
        family: the model's family.
        model: the restored model.
        variant: gives batch size and seed.
        path: what `keep` wrote.
        device: where the model is.
        cautions: takes why outputs can't be compared.

    Returns:
        `quality/output_error_rel_l2`, the 2-norm of the difference to the original's outputs over that of these, of the
        part that differs most. For families whose outputs are scores of classes also `quality/top1_agreement`, the
        share of positions at which both choose the same class, and `quality/kl_divergence_nats`, the mean of
        KL(original || restored) over positions. Nothing where outputs do not depend on the input, or can't be compared.

    Raises:
        WorkerError: the restored model's outputs are not those of the model that was saved.
    """
    from safetensors.torch import load_file

    told = cautions if cautions is not None else []
    before: Mapping[str, Any] = load_file(str(path))
    is_old = _OLD[1] in before
    original, saved = (_kept_by_0_1(before, name) if is_old else _kept(before, name) for name in _OLD)
    restored = _passes(family, model, variant, len(saved.passes))
    restored = _as_0_1_did(restored) if is_old else restored
    if not any(part.numel() for part in (*restored.joined(), *saved.joined())):
        return {}  # `cautions` has said so
    norms = restored.norms()
    if not (moved := farthest(restored.joined(), saved.joined(), norms)) <= rounding(model.module, device):
        is_random = saved.spread > 0
        unsteadiness = 0.0 if is_random else _unsteadiness(family, model, variant, len(saved.passes))
        if not (is_random or unsteadiness >= min(moved, 1.0) / _STEPS):
            raise WorkerError(
                f"the restored model's outputs {differ(moved)} from those of the model that was saved{_unsaved(model)}"
            )
        told.append(RANDOM_OUTPUTS.of() if is_random or original.spread > 0 else UNSTEADY_OUTPUTS.of())
        return {}
    if is_blind(original) or not _has_numbers(original):
        return {}
    apart = farthest(restored.joined(), original.joined(), norms)
    if apart >= original.spread / 2 > 0:
        told.append(RANDOM_OUTPUTS.of())
        return {}
    if apart == float("inf"):
        told.append(OTHER_SHAPES.of())
        return {}
    found = {"quality/output_error_rel_l2": apart}
    if (classes := family.classes(model)) > 1:
        found |= _of_classes(*(given.joined()[0].reshape(-1, classes) for given in (restored, original)))
    return found


def _unsaved(model: Model) -> str:
    """Name what a restored model computes with and its state dict does not hold; empty where that is nothing."""
    import torch

    names = [model.facts[NOT_SAVED]] if NOT_SAVED in model.facts else []
    if isinstance(model.module, torch.nn.Module):
        names += tensors_outside(model.module)[:_MOST_NAMES]
    what = "it computes with what is not in its state dict"
    return f": {what}: {', '.join(names)}. Register tensors as buffers, and build all else in model()" if names else ""


def cautions(original: Outputs, is_compared: bool = True) -> list[Caution]:
    """Say where outputs do not depend on the input, where there is nothing to compare, or how it was done.

    Args:
        original: the original's outputs.
        is_compared: whether others are compared with them.
    """
    fused = [FUSED_PADDING.of(moved=original.fused)] if original.fused > _MOVED else []
    if not is_compared:
        return fused
    if not _has_numbers(original):
        return [NO_OUTPUTS.of()]
    return [*fused, *([BLIND_OUTPUTS.of(most=_ALIKE)] if is_blind(original) else [])]


def _has_numbers(given: Outputs) -> bool:
    import torch

    return any(bool(torch.isfinite(part).any()) for part in given.joined())


def is_blind(original: Outputs) -> bool:
    """Return whether the first two passes, on two inputs, gave the same but for rounding, in all parts."""
    if len(original.passes) < _FEWEST:
        return False
    one, two = original.passes[:_FEWEST]
    return any(part.numel() for part in one) and farthest(one, two, [0.0] * len(one)) < _ALIKE


def _passes(family: Family, model: Model, variant: Variant, count: int | None) -> Outputs:
    """Return the outputs (see `outputs`), but not their spread."""
    import torch

    started = time.monotonic()
    passes: list[list[tuple[Any, float]]] = []
    with torch.inference_mode():
        while len(passes) < (count or _MOST_BATCHES):
            seed = variant.seed + len(passes)
            passes.append(parts_of(family, model, family.batch(model, variant.batch_size, seed), seed))
            elements = len(passes) * sum(part.numel() for part, _ in passes[0])
            is_enough = time.monotonic() - started > _MOST_SECONDS or elements > _MOST_ELEMENTS
            if count is None and is_enough and len(passes) >= _FEWEST:
                break
    return Outputs([[part for part, _ in each] for each in passes], [least for _, least in passes[0]])


def _unsteadiness(family: Family, model: Model, variant: Variant, count: int) -> float:
    """Return how far so many passes are from the same ones made again, as `farthest` does.

    They are where a runtime or a library has random numbers of its own, or the model keeps something between calls.
    """
    one, two = (_passes(family, model, variant, count) for _ in range(2))
    return farthest(one.joined(), two.joined(), one.norms())


def _kept(before: Mapping[str, Any], name: str) -> Outputs:
    passes: list[list[Any]] = []
    for index in range(int(before[_COUNT])):
        count = sum(key.startswith(f"{name}.{index}.") for key in before)
        passes.append([before[f"{name}.{index}.{place}"] for place in range(count)])
    return Outputs(passes, [], float(before[_SPREAD]))


def _kept_by_0_1(before: Mapping[str, Any], name: str) -> Outputs:
    return Outputs([[vector] for vector in before[name]], [])


def _as_0_1_did(given: Outputs) -> Outputs:
    """Put all parts of each pass into one vector."""
    import torch

    return Outputs([[torch.cat(parts)] for parts in given.passes], [0.0])


def _of_classes(own: Any, original: Any) -> dict[str, float]:
    import torch

    agreement = (own.argmax(-1) == original.argmax(-1)).float().mean()
    pointwise = torch.nn.functional.kl_div(
        own.log_softmax(-1), original.log_softmax(-1), reduction="none", log_target=True
    )
    pointwise = pointwise.masked_fill(original == -float("inf"), 0.0)  # of no probability, and of no weight
    not_below_0 = max(0.0, float(pointwise.sum(-1).mean()))  # of two that are nearly the same, rounding makes it -1e-9
    return {"quality/top1_agreement": float(agreement), "quality/kl_divergence_nats": not_below_0}
