"""Check a compressed model before it is saved: did it change, does it run, did it grow?

A row must not say `ok` for a model that is still the original, or one that can't be called.
"""

from __future__ import annotations

import traceback
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from mlflow_compress.compression.exporting import FEWER_WEIGHTS
from mlflow_compress.error_causes import cause_line, is_out_of_memory
from mlflow_compress.errors import CompressError, Unsupported
from mlflow_compress.networks.outside_state import tensors_outside
from mlflow_compress.networks.stored_weights import held
from mlflow_compress.records import Caution, CautionKind
from mlflow_compress.sockets import Method, Model

Outputs = TypeVar("Outputs")

GREW = CautionKind(
    "grew",
    short={
        "en": "has more parameters or bytes than the original",
        "ru": "параметров или байтов больше, чем у оригинала",
    },
    message={
        "en": "the model is larger than the original: it has {after} {what}, the original has {before}",
        "ru": "модель больше оригинала: хранится {after} {what}, у оригинала {before}",
    },
    advice={
        "en": "Check whether shared weights are stored twice, or scales are larger than the weights. Use another "
        "method for this model.",
        "ru": "Проверьте, не хранятся ли общие веса дважды и не весят ли масштабы больше самих весов. Для этой модели "
        "возьмите другой метод.",
    },
)
NOT_ALL_HELD = CautionKind(
    "not_all_held",
    short={
        "en": "has fewer parameters than the original, although nothing was pruned",
        "ru": "параметров меньше, чем у оригинала, хотя ничего не удаляли",
    },
    message={
        "en": "the model has {after} parameters, the original has {before}, although this method removes none",
        "ru": "хранится параметров: {after}, у оригинала {before}, хотя метод ничего не удаляет",
    },
    advice={
        "en": "Either the export omits weights that a call does not use, or some weights are stored in a form that is "
        "not counted: do not trust the size until you know which.",
        "ru": "Либо часть весов при вызове не нужна и в экспорт не попала, либо они хранятся так, что не посчитаны: не "
        "верьте размеру, пока не выясните.",
    },
)
_GROWN = 1.02  # times the original; smaller growth is ignored: graphs have a few constants of their own
_LOST = 0.9  # times the original; smaller losses are ignored: exports fold normalisation into other layers
_OF_PLACES = ("dtype", "device")  # words in torch's message if one tensor was moved or cast, and another was not
_MOST_NAMES = 3  # in a message
_PLAIN = (bool, int, float, str, bytes, tuple)  # types of layer attributes that define what it computes


@dataclass(frozen=True)
class State:
    """The layers and tensors of a model.

    Attributes:
        layers: Each layer's class, plain attributes and number of hooks, by name.
        tensors: A checksum of each parameter and buffer, by name.
        size: Bytes of weights; 0 if the module does not report them.
        parameters: Number of parameters; 0 if the module does not report it.
    """

    layers: Mapping[str, str]
    tensors: Mapping[str, tuple[Any, ...]]
    size: int
    parameters: int

    @classmethod
    def of(cls, model: Model) -> State:
        """Return the state of a model. A module of another runtime reports only its weights."""
        import torch

        module = model.module
        is_torch = isinstance(module, torch.nn.Module)
        tensors = list(held(module)) if is_torch or hasattr(module, "held_weights") else []
        size = sum(weight.tensor.numel() * weight.tensor.element_size() for weight in tensors)
        parameters = sum(weight.parameters for weight in tensors)
        if not is_torch:
            return cls({}, {}, size, parameters)
        layers = {name: _described(layer) for name, layer in module.named_modules(remove_duplicate=False)}
        values = (*module.named_parameters(), *module.named_buffers())
        return cls(layers, {name: _checksum(value) for name, value in values}, size, parameters)


def require_change(before: State, model: Model, step: str, method: Method | None = None) -> State:
    """Return the state of the compressed model, which must differ from the state before.

    Args:
        before: State before the step.
        model: The compressed model.
        step: The step, as the user writes it.
        method: The method of the step, if it acts again when the model is restored: a method for another runtime may
            do all its work then.

    Raises:
        Unsupported: The model did not change.
    """
    after = State.of(model)
    if method is not None and method.gives == "runtime":
        return after
    if (after.layers, after.tensors) == (before.layers, before.tensors):
        raise Unsupported(f"{step} changed nothing in this model: all layers and weights are the same as before")
    return after


def tried(call: Callable[[], Outputs], method: str, module: Any = None) -> Outputs:
    """Return the outputs of the first call of the compressed model.

    Args:
        call: Makes the call.
        method: The methods, as the user writes them.
        module: The called module; tensors in it that methods can't reach are named in the error.

    Raises:
        Unsupported: The call fails, for example because the module accesses something that the method replaced.
    """
    try:
        return call()
    except (Unsupported, CompressError, ArithmeticError):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        traceback.print_exc()
        cause = _root_cause(error)
        hint = _out_of_reach(module) if any(word in cause for word in _OF_PLACES) else ""
        raise Unsupported(f"the model does not run after {method}: {cause}{hint}") from error


def cautions(before: State, after: State, removes: bool, of_methods: Sequence[Caution] = ()) -> list[Caution]:
    """Return a caution if a model is larger than the original, or smaller without a method that removes parameters.

    Args:
        before: The original.
        after: The compressed model.
        removes: Whether a method of the chain may remove parameters.
        of_methods: Cautions of the methods themselves: an export names the weights that it omits.
    """
    if not after.size or not before.size:
        return []
    if after.size > _GROWN * before.size:
        return [GREW.of(after=f"{after.size:,}", before=f"{before.size:,}", what={"en": "bytes", "ru": "байт"})]
    if after.parameters > _GROWN * before.parameters:
        unit = {"en": "parameters", "ru": "параметров"}
        return [GREW.of(after=f"{after.parameters:,}", before=f"{before.parameters:,}", what=unit)]
    is_explained = FEWER_WEIGHTS.code in {caution.code for caution in of_methods}
    if not (removes or is_explained) and after.parameters < _LOST * before.parameters:
        return [NOT_ALL_HELD.of(after=f"{after.parameters:,}", before=f"{before.parameters:,}")]
    return []


def _root_cause(error: Exception) -> str:
    """Return the root cause in one line. A missing attribute belongs to a layer that a method replaced."""
    text = cause_line(error, most=140).removeprefix(f"{AttributeError.__name__}: ")
    return f"its code uses an attribute that no longer exists: {text}" if "has no attribute" in text else text


def _out_of_reach(module: Any) -> str:
    """Name the tensors that methods do not cast or quantise because they are neither parameters nor buffers."""
    import torch

    names = tensors_outside(module)[:_MOST_NAMES] if isinstance(module, torch.nn.Module) else []
    if not names:
        return ""
    return f". Not registered with torch, so no method can convert it: {', '.join(names)}"


def _described(layer: Any) -> str:
    kinds = f"{type(layer).__module__}.{type(layer).__qualname__}"
    plain = sorted((key, value) for key, value in vars(layer).items() if type(value) in _PLAIN)
    hooks = len(layer._forward_hooks), len(layer._forward_pre_hooks), "forward" in vars(layer)
    return f"{kinds} {plain} {hooks}"


def _checksum(value: Any) -> tuple[Any, ...]:
    """Return a tensor's class, dtype, shape, and a checksum of its bytes."""
    import torch

    facts = type(value).__name__, str(value.dtype), tuple(value.shape)
    is_plain = type(value) in (torch.Tensor, torch.nn.Parameter) and not value.is_quantized
    if not is_plain or value.is_meta or value.layout != torch.strided:
        return facts
    data = value.detach().cpu().contiguous().reshape(-1)
    return (*facts, zlib.crc32(data.view(torch.uint8).numpy())) if data.numel() else facts
