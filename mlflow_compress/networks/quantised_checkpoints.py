"""Checkpoints that others quantised (`quantization_config` in their config.json), measured as they are.

transformers loads them with the library that made them. Their own files are copied: nothing is encoded again.
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

PACKED = "packed"  # fact: how the weights are quantised, as shown in tables
_FIELD = "quantization_config"
_BITS = range(1, 17)
_BYTES_OF_HALF = 2  # bytes of a half-precision number; smaller numbers are quantised
_FILES = ("*.safetensors", "*.safetensors.index.json", "config.json", "quantize_config.json", "quant_config.json")
_NEEDS: Mapping[str, tuple[str, ...]] = {  # distributions that each method needs besides torch and transformers
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
        method: name of the method in `quant_method`.
        numbers: short name of the type of the weights: `4 bit`, `nf4`, `int8`.
        group_size: number of weights that share a scale; 0: unknown.
    """

    method: str
    numbers: str
    group_size: int = 0

    def __str__(self) -> str:
        """Return the text for tables: `gptq 4 bit`."""
        return f"{self.method} {self.numbers}".strip()

    def facts(self) -> dict[str, str]:
        """Return the facts about the files and the library that runs them."""
        groups = f", {self.group_size} weights share a scale" if self.group_size else ""
        libraries = ", ".join(f"{name} {installed(name)}" for name in _NEEDS[self.method])
        by = f"transformers with {libraries}" if libraries else "transformers"
        return {PACKED: str(self), "checkpoint": f"{self}{groups}; run by {by}"}


def packing(fields: Mapping[str, Any], location: str) -> Packing | None:
    """Return how a checkpoint is quantised; None if it is not.

    Args:
        fields: fields of its config.
        location: its location, for messages.

    Raises:
        WeightsError: the config is invalid.
        Unsupported: the method of quantisation is not supported.
    """
    settings = fields.get(_FIELD)
    if settings is None:
        return None
    if not isinstance(settings, Mapping):
        raise WeightsError(f"{_FIELD} in the config.json of {location} must be a mapping, not {settings!r:.60}.")
    method = str(settings.get("quant_method") or _unnamed(settings))
    if method not in _NEEDS:
        _require_known(method, location)
        raise Unsupported(
            f"its weights are quantised with {method:.40}, which is not supported. Supported: "
            f"{', '.join(sorted(_NEEDS))}"
        )
    return Packing(method, _numbers(method, settings, location), _group_size(settings, location))


def require_runs(scheme: Packing, fields: Mapping[str, Any], location: str) -> None:
    """Check that this machine can run a checkpoint, before its weights are loaded.

    Raises:
        MachineLacks: a library is not installed, or transformers requires a device that is missing.
        Unsupported: its kernels would be fetched from the hub.
        WeightsError: its files are pickles, or transformers rejects its config.
    """
    if missing := [name for name in _NEEDS[scheme.method] if not _is_there(name)]:
        raise MachineLacks(
            f"its weights are quantised ({scheme}), and running them requires {' and '.join(missing)}: pip install "
            f"{' '.join(missing)}"
        )
    if Path(location).is_dir() and not any(Path(location).glob("*.safetensors")):
        raise WeightsError(
            f"The weights in {location} are quantised ({scheme}) but not in safetensors files: pickles may run code."
        )
    import torch
    from transformers.quantizers.auto import AutoHfQuantizer, AutoQuantizationConfig

    if scheme.method == "fp8" and torch.cuda.is_available():
        raise Unsupported(
            "on a GPU, transformers runs fp8 with kernels from the hub, and code from the hub is never run"
        )
    try:
        config = AutoQuantizationConfig.from_dict({"quant_method": scheme.method, **fields[_FIELD]})
        quantizer = AutoHfQuantizer.from_config(config, pre_quantized=True)
    except Exception as error:  # each library raises its own errors
        raise WeightsError(f"{_FIELD} in the config.json of {location} can't be used: {one_line(error)}") from error
    try:
        quantizer.validate_environment(dtype=None, device_map=None)
    except Exception as error:  # as above
        raise MachineLacks(f"its weights are quantised ({scheme}), and can't run here: {one_line(error)}") from error


def is_quantised(module: Any) -> bool:
    """Return whether transformers loaded a module from a quantised checkpoint.

    transformers removes its quantizer from a module that it unpacked while loading (`dequantize` in config.json).
    """
    return any(getattr(module, name, None) is not None for name in ("hf_quantizer", "checkpoint_folder"))


def lies_in(folder: Path) -> bool:
    """Return whether a model folder contains the files of such a checkpoint."""
    try:
        return isinstance(config_fields(str(folder)).get(_FIELD), Mapping)
    except (RecipeError, WeightsError):
        return False


def prepare(module: Any, folder: Path) -> None:
    """Record in a loaded module where its files are, and how many parameters its layers hold.

    Raises:
        WeightsError: the weights are not packed as the config says.
    """
    module.checkpoint_folder = folder
    _count_packed(module)


def copy(module: Any, folder: Path) -> None:
    """Copy the weights and the config that a module was loaded from."""
    for path in (path for pattern in _FILES for path in sorted(module.checkpoint_folder.glob(pattern))):
        shutil.copyfile(path, folder / path.name)


def note(module: Any, facts: dict[str, str]) -> None:
    """Note in the facts if the library unpacked the weights permanently, so that the model computes in floating point.

    Args:
        module: the model, after its first call, in which some libraries unpack.
        facts: facts of the model, which say how it is quantised.
    """
    unpacked = next((dtype for layer in module.modules() if (dtype := _unpacked_to(layer))), "")
    is_loaded_unpacked = getattr(module, "hf_quantizer", None) is None
    if is_loaded_unpacked or getattr(getattr(module.config, _FIELD, None), "dequantize", False):
        unpacked = unpacked or str(module.dtype).removeprefix("torch.")
    if unpacked and PACKED in facts:
        facts[PACKED] = f"{facts[PACKED].partition(',')[0]}, computed in {unpacked}"


def _count_packed(module: Any) -> None:
    """Add a method for the number of parameters (see `stored_weights.held`) to layers whose tensors do not show it."""
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


def _unnamed(settings: Mapping[str, Any]) -> str:
    """Return the method for a config that names none, as early configs of bitsandbytes."""
    return "bitsandbytes" if settings.get("load_in_8bit") or settings.get("load_in_4bit") else ""


def _require_known(method: str, location: str) -> None:
    from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING

    if method not in AUTO_QUANTIZER_MAPPING:
        raise WeightsError(
            f"{_FIELD} in the config.json of {location} says quant_method {method!r:.60}, which transformers does not "
            f"know. Supported: {', '.join(sorted(_NEEDS))}."
        )


def _numbers(method: str, settings: Mapping[str, Any], location: str) -> str:
    if method == "bitsandbytes":
        return str(settings.get("bnb_4bit_quant_type", "fp4"))[:8] if settings.get("load_in_4bit") else "int8"
    if method == "torchao":
        kind = settings.get("quant_type")
        inner = kind.get("default") if isinstance(kind, Mapping) else kind
        name = inner.get("_type", "") if isinstance(inner, Mapping) else inner or ""
        return str(name).removesuffix("Config")[:40]
    if method == "fp8":
        return ""
    if method == "compressed-tensors":
        groups = settings.get("config_groups")
        schemes = groups.values() if isinstance(groups, Mapping) else ()
        entries = [scheme.get("weights") for scheme in schemes if isinstance(scheme, Mapping)]
        weights = [entry for entry in entries if isinstance(entry, Mapping)]
        if not weights or len(weights) < len(entries):
            raise WeightsError(f"{_FIELD} in the config.json of {location} names no weights in its config_groups.")
        names = {f"{_kind_of(entry)}{_bits(entry, 'num_bits', location)}" for entry in weights}
        return "+".join(sorted(names))
    return f"{_bits(settings, 'bits' if 'bits' in settings else 'w_bit', location)} bit"


def _kind_of(weights: Mapping[str, Any]) -> str:
    return "fp" if weights.get("type") == "float" else "int"


def _bits(settings: Mapping[str, Any], name: str, location: str) -> int:
    bits = settings.get(name)
    if type(bits) is not int or bits not in _BITS:
        raise WeightsError(f"{_FIELD} in the config.json of {location} says {name}={bits!r:.40}, which is not valid.")
    return bits


def _group_size(settings: Mapping[str, Any], location: str) -> int:
    """Return how many weights share a scale; 0 if that is unknown, or a whole row shares it."""
    groups = settings.get("config_groups")
    schemes = list(groups.values()) if isinstance(groups, Mapping) else [settings]
    mappings = [scheme for scheme in schemes if isinstance(scheme, Mapping)]
    inner = [weights for scheme in mappings if isinstance(weights := scheme.get("weights", scheme), Mapping)]
    sizes = [size for weights in inner if (size := weights.get("group_size")) is not None]
    for size in sizes:
        if type(size) is not int or (size != -1 and size <= 0):
            raise WeightsError(
                f"{_FIELD} in the config.json of {location} says group_size={size!r:.40}, which is not valid."
            )
    return max(sizes[0], 0) if sizes else 0


def _is_there(name: str) -> bool:
    return importlib.util.find_spec(name.replace("-", "_")) is not None


def _unpacked_to(layer: Any) -> str:
    """Return the type to which compressed-tensors unpacked a layer's weights; empty if they are packed."""
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
    """Yield the tensors of a compressed-tensors layer: packed until its first call, then unpacked."""
    import torch

    for name, tensor in (*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)):
        if name == "weight_packed":
            rows, columns = (int(size) for size in layer.weight_shape)
            bits = layer.quantization_scheme.weights.num_bits
            yield Held(tensor.data, rows * columns, functools.partial(_codes, tensor.data, bits, columns))
        elif name in ("weight", "bias"):
            values = tensor.data
            is_small = values.itemsize < _BYTES_OF_HALF and values.is_floating_point()
            unpack = functools.partial(values.to, torch.float32) if is_small else None  # float8 can't be compared
            yield Held(values, values.numel(), unpack)
        else:
            yield Held(tensor.data, 0)


def _codes(packed: Any, bits: int, columns: int) -> Any:
    """Unpack words of 32 bits [rows, words], with the first number in the lowest bits, to numbers [rows, columns]."""
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
