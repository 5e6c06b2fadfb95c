"""What a chain of methods made of a model, looked at before it is saved: did it change, does it run, did it grow?

A row must not say `ok` of a model that is the original itself, nor of one that can't be called.
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
        "en": "holds more parameters or bytes than the original",
        "ru": "параметров или байтов больше, чем у оригинала",
    },
    message={
        "en": "the model holds more than before: {after} {what} are held, the original holds {before}",
        "ru": "модель хранит больше прежнего: хранится {after} {what}, у оригинала {before}",
    },
    advice={
        "en": "Look whether weights that were shared are held twice, or scales weigh more than the weights. Take "
        "another method for this model.",
        "ru": "Проверьте, не хранятся ли общие веса дважды и не весят ли масштабы больше самих весов. Для этой модели "
        "возьмите другой метод.",
    },
)
NOT_ALL_HELD = CautionKind(
    "not_all_held",
    short={
        "en": "holds fewer parameters than the original, though nothing was pruned",
        "ru": "параметров меньше, чем у оригинала, хотя ничего не удаляли",
    },
    message={
        "en": "{after} parameters are held, and the original has {before}, though this method removes none",
        "ru": "хранится параметров: {after}, у оригинала {before}, хотя метод ничего не удаляет",
    },
    advice={
        "en": "Either the model has weights that one call does not use, which the export leaves out, or some are held "
        "in a way that is not counted: do not believe the size before you know which.",
        "ru": "Либо часть весов при вызове не нужна и в экспорт не попала, либо они хранятся так, что не посчитаны: не "
        "верьте размеру, пока не выясните.",
    },
)
_GROWN = 1.02  # times the original's, from which on it is said: graphs hold a few constants of their own
_LOST = 0.9  # times the original's, below which it is said: exports fold normalisation into other layers
_OF_PLACES = ("dtype", "device")  # in what torch says where one tensor was moved or cast, and another was not
_MOST_NAMES = 3  # in a message
_PLAIN = (bool, int, float, str, bytes, tuple)  # attributes of a layer that say what it computes


@dataclass(frozen=True)
class State:
    """What a model is made of.

    Attributes:
        layers: by name, each layer's class, its plain attributes, and how many hooks it has.
        tensors: by name, a checksum of each parameter and buffer.
        size: bytes of weights; 0 where the module does not say.
        parameters: how many; 0 where the module does not say.
    """

    layers: Mapping[str, str]
    tensors: Mapping[str, tuple[Any, ...]]
    size: int
    parameters: int

    @classmethod
    def of(cls, model: Model) -> State:
        """Look at a model; one of another runtime says what it holds, and no more."""
        import torch

        module = model.module
        is_torch = isinstance(module, torch.nn.Module)
        tensors = list(held(module)) if is_torch or hasattr(module, "held_weights") else []
        size = sum(each.tensor.numel() * each.tensor.element_size() for each in tensors)
        parameters = sum(each.parameters for each in tensors)
        if not is_torch:
            return cls({}, {}, size, parameters)
        layers = {name: _described(layer) for name, layer in module.named_modules(remove_duplicate=False)}
        values = (*module.named_parameters(), *module.named_buffers())
        return cls(layers, {name: _checksum(value) for name, value in values}, size, parameters)


def require_change(before: State, model: Model, step: str, method: Method | None = None) -> State:
    """Return what the model is made of now.

    Args:
        before: what it was made of.
        model: the compressed one.
        step: what was done, as the user names it.
        method: what did it, where it acts once more when the model is restored: one that gives another runtime may do
            all then.

    Raises:
        Unsupported: it is what it was.
    """
    after = State.of(model)
    if method is not None and method.gives == "runtime":
        return after
    if (after.layers, after.tensors) == (before.layers, before.tensors):
        raise Unsupported(f"{step} changed nothing in this model: every layer and every weight is as it was")
    return after


def tried(call: Callable[[], Outputs], method: str, module: Any = None) -> Outputs:
    """Return what a first call of the compressed model gives.

    Args:
        call: makes it.
        method: what was done, as the user names it.
        module: what is called; what methods can't reach in it is named.

    Raises:
        Unsupported: it fails, as it does where the module reaches for what the method has replaced.
    """
    try:
        return call()
    except (Unsupported, CompressError, ArithmeticError):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        traceback.print_exc()
        said = _said(error)
        hint = _out_of_reach(module) if any(word in said for word in _OF_PLACES) else ""
        raise Unsupported(f"the model does not run after {method}: {said}{hint}") from error


def cautions(before: State, after: State, removes: bool, told: Sequence[Caution] = ()) -> list[Caution]:
    """Say where a model holds more than the original, or less without a method that removes parameters.

    Args:
        before: the original.
        after: what the methods made of it.
        removes: whether a method of the chain may remove parameters.
        told: what the methods themselves say: an export names the weights that it leaves out.
    """
    if not after.size or not before.size:
        return []
    if after.size > _GROWN * before.size:
        return [GREW.of(after=f"{after.size:,}", before=f"{before.size:,}", what={"en": "bytes", "ru": "байт"})]
    if after.parameters > _GROWN * before.parameters:
        what = {"en": "parameters", "ru": "параметров"}
        return [GREW.of(after=f"{after.parameters:,}", before=f"{before.parameters:,}", what=what)]
    is_told = FEWER_WEIGHTS.code in {caution.code for caution in told}
    if not (removes or is_told) and after.parameters < _LOST * before.parameters:
        return [NOT_ALL_HELD.of(after=f"{after.parameters:,}", before=f"{before.parameters:,}")]
    return []


def _said(error: Exception) -> str:
    """Return the root cause in a line; an attribute that is missing is one of a layer that a method replaced."""
    text = cause_line(error, most=140).removeprefix(f"{AttributeError.__name__}: ")
    return f"its code reaches for what is no longer there: {text}" if "has no attribute" in text else text


def _out_of_reach(module: Any) -> str:
    """Name the tensors that a method neither casts nor quantises, being no parameters and no buffers."""
    import torch

    names = tensors_outside(module)[:_MOST_NAMES] if isinstance(module, torch.nn.Module) else []
    if not names:
        return ""
    return f". Not registered with torch, so that no method reaches it: {', '.join(names)}"


def _described(layer: Any) -> str:
    kinds = f"{type(layer).__module__}.{type(layer).__qualname__}"
    plain = sorted((key, value) for key, value in vars(layer).items() if type(value) in _PLAIN)
    hooks = len(layer._forward_hooks), len(layer._forward_pre_hooks), "forward" in vars(layer)
    return f"{kinds} {plain} {hooks}"


def _checksum(value: Any) -> tuple[Any, ...]:
    """Return what tells a tensor from another: its class, type, shape, and a checksum of its bytes."""
    import torch

    facts = type(value).__name__, str(value.dtype), tuple(value.shape)
    is_plain = type(value) in (torch.Tensor, torch.nn.Parameter) and not value.is_quantized
    if not is_plain or value.is_meta or value.layout != torch.strided:
        return facts
    data = value.detach().cpu().contiguous().reshape(-1)
    return (*facts, zlib.crc32(data.view(torch.uint8).numpy())) if data.numel() else facts
