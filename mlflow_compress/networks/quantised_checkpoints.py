"""Checkpoints that somebody else quantised (`quantization_config` in their config.json), measured as they are.

transformers loads them with the library that made them. Their own files are saved again: nothing is encoded anew.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_compress.errors import MachineLacks, RecipeError, Unsupported, WeightsError, one_line
from mlflow_compress.networks.hub import config_fields
from mlflow_compress.networks.stored_weights import Held
from mlflow_compress.version import installed

PACKED = "packed"  # the fact: how the weights are quantised, as tables say it
_FIELD = "quantization_config"
_BITS = range(1, 17)
_BYTES_OF_HALF = 2  # of a number in half precision: what has fewer is quantised
_FILES = ("*.safetensors", "*.safetensors.index.json", "config.json", "quantize_config.json", "quant_config.json")
_NEEDS: Mapping[str, tuple[str, ...]] = {  # what runs each method beside torch and transformers, by distribution
    "gptq": ("optimum", "gptqmodel"),
    "awq": ("gptqmodel",),
    "compressed-tensors": ("compressed-tensors",),
    "bitsandbytes": ("bitsandbytes",),
    "torchao": ("torchao",),
    "fp8": (),
}


@dataclass(frozen=True)
class Packing:
    """How a checkpoint is quantised.

    Attributes:
        method: as `quant_method` names it.
        numbers: what the weights are, in short: `4 bit`, `nf4`, `int8`.
        group_size: how many weights share a scale; 0: not said.
    """

    method: str
    numbers: str
    group_size: int = 0

    def __str__(self) -> str:
        """Return it as tables say it: `gptq 4 bit`."""
        return f"{self.method} {self.numbers}".strip()

    def facts(self) -> dict[str, str]:
        """Say what the files hold, and which library runs it."""
        groups = f", {self.group_size} weights share a scale" if self.group_size else ""
        libraries = ", ".join(f"{name} {installed(name)}" for name in _NEEDS[self.method])
        by = f"transformers with {libraries}" if libraries else "transformers"
        return {PACKED: str(self), "checkpoint": f"{self}{groups}; run by {by}"}


def packing(fields: Mapping[str, Any], location: str) -> Packing | None:
    """Return how a checkpoint is quantised; None where it is not.

    Args:
        fields: of its config.
        location: where it is, for messages.

    Raises:
        WeightsError: the config contradicts itself.
        Unsupported: it is quantised in a way that is not served.
    """
    told = fields.get(_FIELD)
    if told is None:
        return None
    if not isinstance(told, Mapping):
        raise WeightsError(f"{_FIELD} in the config.json of {location} must be a mapping, not {told!r:.60}.")
    method = str(told.get("quant_method") or _unnamed(told))
    if method not in _NEEDS:
        _require_known(method, location)
        raise Unsupported(
            f"its weights are quantised with {method:.40}, which is not supported. Supported: "
            f"{', '.join(sorted(_NEEDS))}"
        )
    return Packing(method, _numbers(method, told, location), _group_size(told, location))


def require_runs(found: Packing, fields: Mapping[str, Any], location: str) -> None:
    """Check that this machine can run a checkpoint, before its weights are loaded.

    Raises:
        MachineLacks: a library is not installed, or transformers asks for a device that is not there.
        Unsupported: what runs it would be fetched from the hub.
        WeightsError: its files are pickles, or what its config says of the packing is not what transformers takes.
    """
    if missing := [name for name in _NEEDS[found.method] if not _is_there(name)]:
        raise MachineLacks(
            f"its weights are quantised ({found}), and running them requires {' and '.join(missing)}: pip install "
            f"{' '.join(missing)}"
        )
    if Path(location).is_dir() and not any(Path(location).glob("*.safetensors")):
        raise WeightsError(
            f"The weights in {location} are quantised ({found}) but not in safetensors files: pickles may run code."
        )
    import torch
    from transformers.quantizers.auto import AutoHfQuantizer, AutoQuantizationConfig

    if found.method == "fp8" and torch.cuda.is_available():
        raise Unsupported(
            "on a GPU, transformers runs fp8 with kernels from the hub, and code from the hub is never run"
        )
    try:
        told = {"quant_method": found.method, **fields[_FIELD]}
        config = AutoQuantizationConfig.from_dict(told)
        quantizer = AutoHfQuantizer.from_config(config, pre_quantized=True)
    except Exception as error:  # each library checks its own fields in its own way
        raise WeightsError(f"{_FIELD} in the config.json of {location} can't be used: {one_line(error)}") from error
    try:
        quantizer.validate_environment(dtype=None, device_map=None)
    except Exception as error:  # as above
        raise MachineLacks(f"its weights are quantised ({found}), and can't run here: {one_line(error)}") from error


def is_quantised(module: Any) -> bool:
    """Return whether transformers loaded a module from a quantised checkpoint."""
    return getattr(module, "hf_quantizer", None) is not None


def lies_in(folder: Path) -> bool:
    """Return whether a model folder holds such a checkpoint's own files."""
    try:
        return isinstance(config_fields(str(folder)).get(_FIELD), Mapping)
    except (RecipeError, WeightsError):
        return False


def prepare(module: Any, folder: Path) -> None:
    """Have a loaded module know where its files are, and how many parameters its layers hold.

    Raises:
        WeightsError: weights are not packed as the config says.
    """
    module.checkpoint_folder = folder
    _count_packed(module)


def copy(module: Any, folder: Path) -> None:
    """Copy the weights and the config that a module was loaded from."""
    for path in (path for pattern in _FILES for path in sorted(module.checkpoint_folder.glob(pattern))):
        shutil.copyfile(path, folder / path.name)


def note(module: Any, facts: dict[str, str]) -> None:
    """Say in the facts where the library unpacked the weights for good, so that the model computes in floating point.

    Args:
        module: the model, after its first call: some unpack then.
        facts: of the model, with how it is quantised.
    """
    unpacked = next((dtype for layer in module.modules() if (dtype := _unpacked_to(layer))), "")
    if getattr(getattr(module.config, _FIELD, None), "dequantize", False):
        unpacked = unpacked or str(module.dtype).removeprefix("torch.")
    if unpacked and PACKED in facts:
        facts[PACKED] = f"{facts[PACKED].partition(',')[0]}, computed in {unpacked}"


def _count_packed(module: Any) -> None:
    """Have the layers say how many parameters they hold (see `stored_weights.held`), where tensors alone do not."""
    for layer in module.modules():
        kind = type(layer).__name__
        if kind == "Linear4bit" and type(layer).__module__.startswith("bitsandbytes"):
            if getattr(layer.weight, "quant_state", None) is None:
                raise WeightsError(
                    f"The weights in {module.checkpoint_folder} are not 4-bit, although config.json says so."
                )
            layer.held_weights = functools.partial(_held_4bit, layer)
        elif kind == "Linear8bitLt":
            layer.held_weights = functools.partial(_held_8bit, layer)
        elif hasattr(layer, "quantization_scheme") and hasattr(layer, "weight_scale"):
            layer.held_weights = functools.partial(_held_compressed, layer)
        elif hasattr(layer, "qweight") and hasattr(layer, "scales"):
            layer.held_weights = functools.partial(_held_gptq, layer)


def _unnamed(told: Mapping[str, Any]) -> str:
    """Return the method of a config that names none, as the first ones of bitsandbytes did."""
    return "bitsandbytes" if told.get("load_in_8bit") or told.get("load_in_4bit") else ""


def _require_known(method: str, location: str) -> None:
    from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING

    if method not in AUTO_QUANTIZER_MAPPING:
        raise WeightsError(
            f"{_FIELD} in the config.json of {location} says quant_method {method!r:.60}, which transformers does not "
            f"know. Supported: {', '.join(sorted(_NEEDS))}."
        )


def _numbers(method: str, told: Mapping[str, Any], location: str) -> str:
    if method == "bitsandbytes":
        return str(told.get("bnb_4bit_quant_type", "fp4"))[:8] if told.get("load_in_4bit") else "int8"
    if method == "torchao":
        kind = told.get("quant_type")
        inner = kind.get("default") if isinstance(kind, Mapping) else kind
        name = inner.get("_type", "") if isinstance(inner, Mapping) else inner or ""
        return str(name).removesuffix("Config")[:40]
    if method == "fp8":
        return ""
    if method == "compressed-tensors":
        groups = told.get("config_groups")
        schemes = groups.values() if isinstance(groups, Mapping) else ()
        given = [each.get("weights") for each in schemes if isinstance(each, Mapping)]
        weights = [each for each in given if isinstance(each, Mapping)]
        if not weights or len(weights) < len(given):
            raise WeightsError(f"{_FIELD} in the config.json of {location} names no weights in its config_groups.")
        names = {f"{_kind_of(each)}{_bits(each, 'num_bits', location)}" for each in weights}
        return "+".join(sorted(names))
    return f"{_bits(told, 'bits' if 'bits' in told else 'w_bit', location)} bit"


def _kind_of(weights: Mapping[str, Any]) -> str:
    return "fp" if weights.get("type") == "float" else "int"


def _bits(told: Mapping[str, Any], name: str, location: str) -> int:
    bits = told.get(name)
    if type(bits) is not int or bits not in _BITS:
        raise WeightsError(f"{_FIELD} in the config.json of {location} says {name}={bits!r:.40}, which is not valid.")
    return bits


def _group_size(told: Mapping[str, Any], location: str) -> int:
    """Return how many weights share a scale; 0 where that is not said, or they are all of a row."""
    groups = told.get("config_groups")
    schemes = [each for each in groups.values() if isinstance(each, Mapping)] if isinstance(groups, Mapping) else [told]
    inner = [weights for each in schemes if isinstance(weights := each.get("weights", each), Mapping)]
    sizes = [size for each in inner if (size := each.get("group_size")) is not None]
    for size in sizes:
        if type(size) is not int or (size != -1 and size <= 0):
            raise WeightsError(
                f"{_FIELD} in the config.json of {location} says group_size={size!r:.40}, which is not valid."
            )
    return max(sizes[0], 0) if sizes else 0


def _is_there(name: str) -> bool:
    return importlib.util.find_spec(name.replace("-", "_")) is not None


def _unpacked_to(layer: Any) -> str:
    """Return the type that compressed-tensors unpacked a layer's weights to; empty where they are packed."""
    import torch

    weight = getattr(layer, "weight", None) if hasattr(layer, "quantization_scheme") else None
    is_float = isinstance(weight, torch.Tensor) and weight.is_floating_point() and weight.itemsize >= _BYTES_OF_HALF
    return str(weight.dtype).removeprefix("torch.") if is_float and weight is not None else ""


def _bias(layer: Any) -> Iterator[Held]:
    if getattr(layer, "bias", None) is not None:
        yield Held(layer.bias.data, layer.bias.numel())


def _held_4bit(layer: Any) -> Iterator[Held]:
    import torch

    state = layer.weight.quant_state
    codes = layer.weight.data.view(torch.uint8).reshape(-1)
    count = math.prod(state.shape)
    yield Held(layer.weight.data, count, lambda: state.code[torch.stack((codes >> 4, codes & 15), 1).long()])
    for value in state.as_dict().values():
        if isinstance(value, torch.Tensor):
            yield Held(value, 0)
    yield from _bias(layer)


def _held_8bit(layer: Any) -> Iterator[Held]:
    yield Held(layer.weight.data, layer.weight.numel())
    scales = layer.state.SCB if layer.state.SCB is not None else getattr(layer.weight, "SCB", None)
    if scales is not None:
        yield Held(scales, 0)
    yield from _bias(layer)


def _held_compressed(layer: Any) -> Iterator[Held]:
    """Return what a layer of compressed-tensors holds: packed until its first call, as numbers afterwards."""
    import torch

    for name, tensor in (*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)):
        if name == "weight_packed":
            rows, columns = (int(size) for size in layer.weight_shape)
            bits = layer.quantization_scheme.weights.num_bits
            yield Held(tensor.data, rows * columns, functools.partial(_codes, tensor.data, bits, columns))
        elif name in ("weight", "bias"):
            values = tensor.data
            is_small = values.itemsize < _BYTES_OF_HALF and values.is_floating_point()
            wide = functools.partial(values.to, torch.float32) if is_small else None  # float8 can't be compared
            yield Held(values, values.numel(), wide)
        else:
            yield Held(tensor.data, 0)


def _codes(packed: Any, bits: int, columns: int) -> Any:
    """Return the numbers in words of 32 bits [rows, words], the first in the lowest bits [rows, columns]."""
    import torch

    shifts = torch.arange(0, 32 - 32 % bits, bits, device=packed.device)
    codes = (packed.unsqueeze(-1) >> shifts) & (2**bits - 1)
    return codes.flatten(-2)[..., :columns] - 2 ** (bits - 1)


def _held_gptq(layer: Any) -> Iterator[Held]:
    yield Held(layer.qweight, layer.in_features * layer.out_features, getattr(layer, "dequantize_weight", None))
    for name in ("qzeros", "scales", "g_idx"):
        if (tensor := getattr(layer, name, None)) is not None:
            yield Held(tensor, 0)
    yield from _bias(layer)
