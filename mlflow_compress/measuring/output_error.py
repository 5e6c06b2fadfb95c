"""Compare a compressed model with its original: the raw outputs of both on the same inputs.

This needs neither labels nor real weights. The inputs are those of the timed call, random ones. The scores show the
effect on real inputs; if there are scores, the output error is not reported. Each part of the output is compared
separately (see `output_parts`), and the worst one counts.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
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
        "en": "with these weights the outputs for two inputs differ by less than {most:.0e}: their difference from the "
        "original's outputs means nothing",
        "ru": "с этими весами выходы на двух входах различаются меньше чем на {most:.0e}: их отличие от "
        "оригинала ни о чём не говорит",
    },
    advice={"en": "Use real weights.", "ru": "Возьмите настоящие веса."},
)
RANDOM_OUTPUTS = CautionKind(
    "random_outputs",
    short={
        "en": "the model draws random numbers: its outputs were not compared",
        "ru": "модель использует случайные числа: выходы не сравнивались",
    },
    message={
        "en": "the model draws random numbers in each call, and different ones here: the difference of its outputs "
        "from the original's can't be separated from chance",
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
        "en": "the model returns a different result at each call: its outputs were not compared",
        "ru": "модель при каждом вызове даёт другой результат: выходы не сравнивались",
    },
    message={
        "en": "for the same inputs and seeds the model returns a different result at each call: it keeps state between "
        "calls, or has its own random numbers. The difference of its outputs from the original's can't be measured",
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
    short={"en": "the model returns no numbers to compare", "ru": "модель не возвращает чисел для сравнения"},
    message={
        "en": "the model returns no finite number: it is unknown whether compression changed its outputs",
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
        "en": "its outputs have different shapes than the original's",
        "ru": "форма выходов не та, что у оригинала",
    },
    message={
        "en": "for the same inputs the outputs have different shapes than the original's: they can't be compared",
        "ru": "на тех же входах форма выходов не та, что у оригинала: их отличие измерить нельзя",
    },
    advice={
        "en": "Compression may change how many objects a model finds: score it on data.",
        "ru": "Сжатие может менять количество объектов, найденных моделью: измерьте качество на данных.",
    },
)
OTHER_INPUTS = CautionKind(
    "other_inputs",
    short={
        "en": "it reads inputs in another form than the original: outputs were not compared",
        "ru": "читает входы в другом виде, чем оригинал: выходы не сравнивались",
    },
    message={
        "en": "the model reads a sample as other numbers than the original (its own tokenizer, or another size of "
        "pictures): their outputs for random numbers can't be compared",
        "ru": "модель читает пример не теми же числами, что оригинал (свой токенизатор или другой размер картинок): "
        "выходы на случайных числах сравнить нельзя",
    },
    advice={"en": "Score it on data.", "ru": "Измерьте качество на данных."},
)
FUSED_PADDING = CautionKind(
    "fused_padding",
    short={
        "en": "timed and scored with zeros at padded positions, unlike in training",
        "ru": "время и качество измерены с нулями на местах заполнения, которых нет при обучении",
    },
    message={
        "en": "torch's fused path for nn.TransformerEncoder, which this model uses in inference, changes the outputs "
        "by {moved:.0%}: it returns zeros at padded positions; training and exports do not. Outputs were compared "
        "without it",
        "ru": "ускоренный путь torch для nn.TransformerEncoder, которым модель идёт без обучения, сдвигает выходы на "
        "{moved:.0%}: на местах заполнения он даёт нули, а обучение и экспорт — нет. Выходы сравнивались без него",
    },
    advice={
        "en": "Exclude padded positions after the encoder (a masked mean), or call "
        "torch.backends.mha.set_fastpath_enabled(False) in the model's file.",
        "ru": "Исключите места заполнения из того, что идёт после энкодера (среднее по маске), или вызовите "
        "torch.backends.mha.set_fastpath_enabled(False) в файле модели.",
    },
)
NUMBERS = ("quality/output_error_rel_l2", "quality/top1_agreement", "quality/kl_divergence_nats")
_MOST_NAMES = 3  # in a message
_MOST_BATCHES, _MOST_SECONDS, _MOST_ELEMENTS = 8, 0.5, 2**24
_FEWEST = 2  # inputs, to see whether outputs depend on them
_MOVED = 0.01  # relative difference by torch's fused path; smaller ones are not reported
_STEPS = 10  # outputs may be this many times farther from the saved ones than two runs are from each other
_ALIKE = 1e-5  # relative difference of the outputs for two inputs; below it they can't be compared
_OLD = ("original", "saved")  # tensors of 0.1, with all parts in one vector
_COUNT, _SPREAD = "passes", "spread"
_CAST = 0.02  # difference of inputs that casting to half precision explains


@dataclass(frozen=True)
class Outputs:
    """Outputs of forward passes, always on the same inputs.

    Attributes:
        passes: The parts of each pass: float32 vectors on the CPU.
        least: The smallest norm that a difference is divided by, for each part.
        spread: Difference of two passes on one input with different random numbers; 0: the model draws none.
        fused: How much torch's fused path, if the model can use it, changes the outputs of the first pass.
    """

    passes: list[list[Any]]
    least: list[float]
    spread: float = 0.0
    fused: float = 0.0

    def joined(self) -> list[Any]:
        """Return one vector per part, over all passes; a single vector if the passes have different parts."""
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
        family: The model's family.
        model: The model.
        variant: Variant with the batch size and seed.
        count: Number of passes; None: as many as fit into half a second and 64 MiB, at least two.
    """
    import torch

    result = _passes(family, model, variant, count)
    last_seed = variant.seed + len(result.passes) - 1
    is_random = has_drawn(last_seed)
    seed = last_seed if is_random else variant.seed
    with torch.inference_mode():
        batch = family.batch(model, variant.batch_size, seed)
        if is_random:
            return replace(result, spread=spread_of(family, model, batch, seed))
        return replace(result, fused=moved_by_fusing(family, model, batch, seed))


def inputs(family: Family, model: Model, variant: Variant) -> list[Any]:
    """Return copies of the tensors in a batch that depends only on the seed; empty for the user's own inputs."""
    import torch

    from mlflow_compress.networks import value_trees

    if type(family).runs_users_code:  # they may differ in each call
        return []
    with torch.inference_mode():
        batch = family.batch(model, variant.batch_size, variant.seed)
    return [tensor.detach().cpu().clone() for tensor in value_trees.tensors(batch)]


def read_alike(original: Sequence[Any], compressed: Sequence[Any]) -> bool:
    """Return whether two models got the same `inputs`, except for rounding in half precision."""
    import torch

    if [tuple(one.shape) for one in original] != [tuple(other.shape) for other in compressed]:
        return False
    pairs = [(one.float(), other.float()) for one, other in zip(original, compressed, strict=True)]
    return all(torch.allclose(one, other, rtol=_CAST, atol=_CAST) for one, other in pairs)


def keep(original: Outputs, saved: Outputs, path: Path, is_comparable: bool = True) -> None:
    """Write the outputs of the original, and those of the compressed model before it was saved.

    Args:
        original: Outputs of the original.
        saved: Outputs of the compressed model.
        path: File to write.
        is_comparable: Whether both had the same inputs; otherwise the original's are left out.

    Raises:
        WorkerError: The compressed model's outputs contain NaN or infinity where the original's do not.
    """
    import torch
    from safetensors.torch import save_file

    if not is_comparable:
        original = Outputs([[] for _ in saved.passes], [])
    elif places := odd_places(saved.joined(), original.joined()):
        all_places = sum(part.numel() for part in saved.joined())
        raise WorkerError(
            f"the compressed model's outputs contain NaN or infinity where the original's do not, at {places:,} of "
            f"{all_places:,} positions"
        )
    tensors = {_COUNT: torch.tensor(len(original.passes)), _SPREAD: torch.tensor(original.spread)}
    for name, model_outputs in zip(_OLD, (original, saved), strict=True):
        for index, parts in enumerate(model_outputs.passes):
            tensors |= {f"{name}.{index}.{position}": part.clone() for position, part in enumerate(parts)}
    save_file(tensors, str(path))


def compare(
    family: Family, model: Model, variant: Variant, path: Path, device: str, cautions: list[Caution] | None = None
) -> dict[str, float]:
    """Compare the outputs of the restored model with those that `keep` wrote.

    Args:
        family: The model's family.
        model: The restored model.
        variant: Variant with the batch size and seed.
        path: File that `keep` wrote.
        device: Device of the model.
        cautions: List to which the reason is added if outputs can't be compared.

    Returns:
        `quality/output_error_rel_l2`: the 2-norm of the difference from the original's outputs, divided by the norm of
        the original's outputs, for the part that differs most. For families whose outputs are class scores also
        `quality/top1_agreement`, the share of positions with the same top class, and `quality/kl_divergence_nats`, the
        mean of KL(original || restored) over positions. Empty if outputs do not depend on the input, or can't be
        compared.

    Raises:
        WorkerError: The restored model's outputs differ from those of the saved model.
    """
    from safetensors.torch import load_file

    warnings = cautions if cautions is not None else []
    tensors: Mapping[str, Any] = load_file(str(path))
    is_old = _OLD[1] in tensors
    original, saved = (_kept_by_0_1(tensors, name) if is_old else _kept(tensors, name) for name in _OLD)
    restored = _passes(family, model, variant, len(saved.passes))
    restored = _as_0_1_did(restored) if is_old else restored
    if not any(part.numel() for part in (*restored.joined(), *saved.joined())):
        return {}  # `cautions` reports this
    norms = restored.norms()
    if not (moved := farthest(restored.joined(), saved.joined(), norms)) <= rounding(model.module, device):
        is_random = saved.spread > 0
        unsteadiness = 0.0 if is_random else _unsteadiness(family, model, variant, len(saved.passes))
        if not (is_random or unsteadiness >= min(moved, 1.0) / _STEPS):
            raise WorkerError(
                f"the restored model's outputs {differ(moved)} from those of the model that was saved{_unsaved(model)}"
            )
        warnings.append(RANDOM_OUTPUTS.of() if is_random or original.spread > 0 else UNSTEADY_OUTPUTS.of())
        return {}
    if is_blind(original) or not _has_numbers(original):
        return {}
    difference = farthest(restored.joined(), original.joined(), norms)
    if difference >= original.spread / 2 > 0:
        warnings.append(RANDOM_OUTPUTS.of())
        return {}
    if difference == float("inf"):
        warnings.append(OTHER_SHAPES.of())
        return {}
    numbers = {"quality/output_error_rel_l2": difference}
    if (classes := family.classes(model)) > 1:
        numbers |= _of_classes(*(side.joined()[0].reshape(-1, classes) for side in (restored, original)))
    return numbers


def _unsaved(model: Model) -> str:
    """Return a hint that names values outside the state dict that a restored model uses; empty if there are none."""
    import torch

    names = [model.facts[NOT_SAVED]] if NOT_SAVED in model.facts else []
    if isinstance(model.module, torch.nn.Module):
        layers = model.module.named_modules()
        repacked = tuple(f"{name}." for name, layer in layers if hasattr(layer, "use_kernel"))  # from the state dict
        names += [name for name in tensors_outside(model.module) if not name.startswith(repacked)][:_MOST_NAMES]
    problem = "it uses values that are not in its state dict"
    advice = "Register tensors as buffers, and create everything else in model()"
    return f": {problem}: {', '.join(names)}. {advice}" if names else ""


def cautions(original: Outputs, is_compared: bool = True) -> list[Caution]:
    """Return cautions if outputs do not depend on the input, can't be compared, or were compared without fused kernels.

    Args:
        original: The original's outputs.
        is_compared: Whether other outputs are compared with them.
    """
    fused = [FUSED_PADDING.of(moved=original.fused)] if original.fused > _MOVED else []
    if not is_compared:
        return fused
    if not _has_numbers(original):
        return [NO_OUTPUTS.of()]
    return [*fused, *([BLIND_OUTPUTS.of(most=_ALIKE)] if is_blind(original) else [])]


def _has_numbers(original: Outputs) -> bool:
    import torch

    return any(bool(torch.isfinite(part).any()) for part in original.joined())


def is_blind(original: Outputs) -> bool:
    """Return whether the first two passes, on two inputs, gave the same outputs except for rounding."""
    if len(original.passes) < _FEWEST:
        return False
    first, second = original.passes[:_FEWEST]
    return any(part.numel() for part in first) and farthest(first, second, [0.0] * len(first)) < _ALIKE


def _passes(family: Family, model: Model, variant: Variant, count: int | None) -> Outputs:
    """Return the outputs (see `outputs`) without their spread."""
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
    return Outputs([[part for part, _ in parts] for parts in passes], [least for _, least in passes[0]])


def _unsteadiness(family: Family, model: Model, variant: Variant, count: int) -> float:
    """Return how far `count` passes are from a repetition of the same passes (see `farthest`).

    They differ if a runtime or library has its own random numbers, or the model keeps state between calls.
    """
    first, second = (_passes(family, model, variant, count) for _ in range(2))
    return farthest(first.joined(), second.joined(), first.norms())


def _kept(tensors: Mapping[str, Any], name: str) -> Outputs:
    passes: list[list[Any]] = []
    for index in range(int(tensors[_COUNT])):
        count = sum(key.startswith(f"{name}.{index}.") for key in tensors)
        passes.append([tensors[f"{name}.{index}.{position}"] for position in range(count)])
    return Outputs(passes, [], float(tensors[_SPREAD]))


def _kept_by_0_1(tensors: Mapping[str, Any], name: str) -> Outputs:
    return Outputs([[vector] for vector in tensors[name]], [])


def _as_0_1_did(restored: Outputs) -> Outputs:
    """Join all parts of each pass into one vector."""
    import torch

    return Outputs([[torch.cat(parts)] for parts in restored.passes], [0.0])


def _of_classes(own: Any, original: Any) -> dict[str, float]:
    import torch

    agreement = (own.argmax(-1) == original.argmax(-1)).float().mean()
    pointwise = torch.nn.functional.kl_div(
        own.log_softmax(-1), original.log_softmax(-1), reduction="none", log_target=True
    )
    pointwise = pointwise.masked_fill(original == -float("inf"), 0.0)  # probability 0 has weight 0
    not_below_0 = max(0.0, float(pointwise.sum(-1).mean()))  # rounding can make it -1e-9 for nearly equal outputs
    return {"quality/top1_agreement": float(agreement), "quality/kl_divergence_nats": not_below_0}
