"""Export of few-bit linear layers in the format `compressed-tensors`."""

from __future__ import annotations

from collections.abc import Callable
from math import gcd
from pathlib import Path
from typing import Any

from mlflow_compress.errors import Unsupported
from mlflow_compress.networks.compressed_tensors_format import PACKED_BITS, SERVED_BITS, Scheme, packed, write
from mlflow_compress.networks.published_files import copy_plain
from mlflow_compress.networks.stored_weights import SAFETENSORS, TORCH
from mlflow_compress.networks.transformers_models import TransformersFamily
from mlflow_compress.sockets import Family, Model, Published

_NEEDS = ("transformers", "compressed-tensors")


def publish_integers(saved: Path, family: Family, portable: Callable[[], Model], folder: Path) -> Published:
    """Write a transformers model with rounded linear layers for transformers and vLLM.

    Both read this format for all of these methods: torchao's format has pickled tensors or the layout of one version,
    and vLLM runs it slower.

    Args:
        saved: Model folder.
        family: Family of the model.
        portable: Builds the model as it was saved.
        folder: Empty folder to write to.

    Raises:
        Unsupported: It is not a transformers model, or the format does not support a layer, which the message names.
    """
    if not isinstance(family, TransformersFamily) or not (saved / "config.json").is_file():
        raise Unsupported(
            "only transformers models have a format for integer weights that other programs load: export the original, "
            "or a runtime such as openvino_int8"
        )
    module = portable().module
    plain = family.restore(saved).module
    expected = plain.state_dict(keep_vars=True)
    tensors, schemes = _tensors(module, expected)
    _require_all(tensors, schemes, expected)
    unquantised = [name for name, layer in plain.named_modules() if _is_linear(layer) and name not in schemes]
    copy_plain(saved, folder, [path.name for path in saved.glob("*.safetensors*")] + [SAFETENSORS, TORCH])
    kinds = set(schemes.values())
    if len(kinds) != 1:
        raise Unsupported("its layers are rounded in several ways, but readers of the format support one per model")
    (scheme,) = kinds
    write(tensors, scheme, unquantised, folder)
    note = f"vLLM has no kernels for {scheme.unserved}: load it with transformers." if scheme.unserved else ""
    code = f'import transformers; transformers.{family.auto_class}.from_pretrained("FOLDER", dtype="auto")'
    return Published(code, _NEEDS, note)


def _is_linear(layer: Any) -> bool:
    from torch import nn

    return type(layer) is nn.Linear


def _tensors(module: Any, expected: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Scheme]]:
    """Return the tensors of the format by name, tied ones once, and the scheme of each rounded layer."""
    from mlflow_compress.compression.int8_layers import Int8Linear, Int8Recurrent
    from mlflow_compress.compression.packed_layers import PackedEmbedding, PackedLinear
    from mlflow_compress.compression.packing import Packed
    from mlflow_compress.networks.stored_weights import identity

    tensors: dict[str, Any] = {}
    schemes: dict[str, Scheme] = {}
    written_modules: set[str] = set()  # modules whose tensors are in `tensors`
    few_bits = {name: layer for name, layer in module.named_modules() if isinstance(layer, PackedLinear)}
    shared = _scheme_of(few_bits) if few_bits else None
    for name, layer in module.named_modules():
        if any(name == parent or name.startswith(f"{parent}.") for parent in written_modules):
            continue
        if shared is not None and name in few_bits:
            scheme, parts = shared, _of_packed(layer, shared, _dtype(expected, name))
        elif isinstance(layer, Int8Linear):
            scheme, parts = _of_int8(layer, _dtype(expected, name))
        elif (rounded := _rounded_by_torchao(layer)) is not None:
            scheme, parts = _of_torchao(name, layer, rounded, _dtype(expected, name))
        elif isinstance(layer, Int8Recurrent) or isinstance(getattr(layer, "packed", None), Packed):
            advice = "measure it without embeddings=true, or " if isinstance(layer, PackedEmbedding) else ""
            raise Unsupported(
                f"{name} is not a linear layer, and the format compressed-tensors holds only linear layers: {advice}"
                "export a runtime such as openvino_int8"
            )
        else:
            continue
        written_modules.add(name)
        schemes[name] = scheme
        tensors |= {f"{name}.{key}": value for key, value in parts.items()}
    owners: dict[Any, str] = {}
    for name, tensor in module.state_dict().items():
        if any(name.startswith(f"{parent}.") for parent in written_modules):
            continue
        if owners.setdefault(identity(tensor), name) == name:
            tensors[name] = tensor.detach().clone()
    return tensors, schemes


def _dtype(expected: dict[str, Any], name: str) -> Any:
    """Return the precision of a layer; scales are written in it, because readers unpack weights to their type."""
    weight = expected.get(f"{name}.weight")
    if weight is None:
        raise Unsupported(f"transformers stores no separate weight for {name}, so the format has no place for it")
    return weight.dtype


def _scheme_of(packed_layers: dict[str, Any]) -> Scheme:
    """Return the common scheme of all packed layers: readers of the format support one per model.

    Groups of different sizes are split to their greatest common divisor; the parts of a group share its scale.

    Raises:
        Unsupported: A layer has no place in the format.
    """
    for name, layer in packed_layers.items():
        weight = layer.packed
        if weight.bits not in PACKED_BITS:
            raise Unsupported(
                f"{name} has {weight.bits} bits, which versions of compressed-tensors pack differently and vLLM does "
                f"not run: measure it with bits={' or '.join(map(str, SERVED_BITS))}"
            )
        if weight.columns % weight.group_size:
            raise Unsupported(
                f"the {weight.columns} inputs of {name} are not a multiple of group_size={weight.group_size}: measure "
                f"it with a group_size that divides {weight.columns}"
            )
    if scaled := [name for name, layer in packed_layers.items() if layer.scales_inputs]:
        raise Unsupported(
            f"{len(scaled)} of {len(packed_layers)} layers, including {scaled[0]}, scale their inputs at each call, "
            "and no other program does that: export gptq or int4_weight_only instead"
        )
    weights = [layer.packed for layer in packed_layers.values()]
    is_symmetric = all(bool((weight.zeros == 2 ** (weight.bits - 1)).all()) for weight in weights)
    return Scheme(weights[0].bits, gcd(*(weight.group_size for weight in weights)), is_symmetric)


def _of_packed(layer: Any, scheme: Scheme, dtype: Any) -> dict[str, Any]:
    from mlflow_compress.compression.packing import unpack

    weight = layer.packed
    codes = unpack(weight.codes, weight.bits, weight.shape.numel()).view(weight.rows, weight.columns)
    times = weight.group_size // (scheme.group_size or weight.group_size)
    scales, zeros = (values.repeat_interleave(times, 1) for values in (weight.scales.to(dtype), weight.zeros))
    return packed(scheme, codes, scales, zeros) | _bias(layer)


def _of_int8(layer: Any, dtype: Any) -> tuple[Scheme, dict[str, Any]]:
    scales = layer.scales.to(dtype)[:, None].contiguous()
    parts = {"weight": layer.weight.detach().contiguous(), "weight_scale": scales} | _bias(layer)
    return Scheme(8, None, True, rounds_inputs=True), parts


def _rounded_by_torchao(layer: Any) -> Any:
    """Return the weight of a linear layer that torchao rounded to 8 bits, or None for other layers."""
    from torch import nn

    weight = layer._parameters.get("weight") if isinstance(layer, nn.Linear) else None
    return weight if weight is not None and hasattr(weight, "qdata") else None


def _of_torchao(name: str, layer: Any, weight: Any, dtype: Any) -> tuple[Scheme, dict[str, Any]]:
    import torch

    zeros = getattr(weight, "zero_point", None)
    if weight.scale.numel() != len(weight.qdata) or (zeros is not None and bool(torch.any(zeros != 0))):
        raise Unsupported(f"the weights of {name} have more than one scale for each output: measure the model again")
    codes = (weight.qdata.to(torch.int16) + 128).to(torch.uint8)
    scheme = Scheme(8, None, True)
    return scheme, packed(scheme, codes, weight.scale.reshape(-1, 1).to(dtype), None) | _bias(layer)


def _bias(layer: Any) -> dict[str, Any]:
    return {} if layer.bias is None else {"bias": layer.bias.detach().contiguous()}


def _require_all(tensors: dict[str, Any], schemes: dict[str, Scheme], expected: dict[str, Any]) -> None:
    """Check that transformers finds exactly the tensors that it expects.

    Raises:
        Unsupported: This package replaced layers by other ones.
    """
    for name, tensor in tensors.items():
        layer, _, key = name.rpartition(".")
        if key == "weight_shape":
            name, shape = f"{layer}.weight", tuple(tensor.tolist())
        elif layer in schemes and key.startswith("weight_"):
            continue
        else:
            shape = tuple(tensor.shape)
        if name not in expected or tuple(expected[name].shape) != shape:
            raise Unsupported(f"transformers stores {name} in a different form than this package rounds it")
    complete = {name for name in expected if name in tensors or name.removesuffix(".weight") in schemes}
    complete_ids = {id(expected[name]) for name in complete}  # tied ones are one parameter
    if missing := [name for name, parameter in expected.items() if id(parameter) not in complete_ids]:
        raise Unsupported(f"transformers stores {missing[0]}, which this package has replaced by something else")
