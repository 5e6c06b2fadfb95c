"""A transformers language model as one GGUF file, tensor by tensor: its weights are never held a second time.

Source: convert_hf_to_gguf.py of llama.cpp, whose names, keys and order of rotary halves these are; the names of tensors
are those of the package gguf.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlflow_compress.compression.gguf_tokenizer import write_tokenizer
from mlflow_compress.errors import Unsupported
from mlflow_compress.networks.stored_weights import identity

ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}  # llama.cpp's own names
_INTERLEAVED = ("llama",)  # whose rotary halves llama.cpp wants in turns
_FILE_TYPES = {"f32": 0, "f16": 1, "bf16": 32}
_LAYER_NORM = "attention.layer_norm_rms_epsilon"


def write_gguf(module: Any, config: Any, tokenizer: Any, path: Path, kind: str) -> str:
    """Write a model; matrices in one type, vectors in float32.

    Args:
        module: a transformers language model.
        config: its config.
        tokenizer: its tokenizer.
        path: the file.
        kind: `f32`, `f16` or `bf16`.

    Returns:
        Why its tokenizer is not in the file; empty where it is.

    Raises:
        Unsupported: llama.cpp has no such architecture, or it isn't one that is known here to come out alike.
    """
    import gguf

    architecture = _architecture(config)
    weights = _weights(module)
    layers = config.num_hidden_layers
    named = _named(weights, architecture, layers)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name(type(module).__name__)
    writer.add_file_type(_FILE_TYPES[kind])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _write_numbers(writer, config, named)
    obstacle = write_tokenizer(writer, tokenizer, named["token_embd.weight"].shape[0])
    factors = _rope(writer, config)
    try:
        for name, tensor in named.items():
            _announce(writer, name, tensor, kind)
        if factors is not None:
            writer.add_tensor_info("rope_freqs.weight", factors.shape, factors.dtype, factors.nbytes)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, tensor in named.items():
            writer.write_tensor_data(_array(name, _ordered(tensor, name, architecture, config), kind))
        if factors is not None:
            writer.write_tensor_data(factors)
    finally:
        writer.close()
    return obstacle


def _architecture(config: Any) -> str:
    """Return what llama.cpp calls an architecture."""
    known = ", ".join(ARCHITECTURES)
    if config.model_type not in ARCHITECTURES:
        raise Unsupported(f"its architecture is {config.model_type}; GGUF files are supported for {known}")
    act = getattr(config, "hidden_act", "silu")
    if act != "silu":
        raise Unsupported(f"its activation is {act}, but llama.cpp computes silu for this architecture")
    return ARCHITECTURES[config.model_type]


def _weights(module: Any) -> dict[str, Any]:
    """Return the parameters by name, one that is tied to the embeddings once."""
    seen: set[Any] = set()
    found: dict[str, Any] = {}
    for name, tensor in module.state_dict().items():
        if (place := identity(tensor)) not in seen:
            seen.add(place)
            found[name] = tensor
    return found


def _named(weights: Mapping[str, Any], architecture: str, layers: int) -> dict[str, Any]:
    """Return the parameters by the names that they have in a GGUF file."""
    import gguf

    arch = next(each for each, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(arch, layers)
    found: dict[str, Any] = {}
    for name, tensor in weights.items():
        if (own := names.get_name(name, try_suffixes=(".weight", ".bias"))) is None:
            raise Unsupported(f"llama.cpp's {architecture} has no tensor for its {name}")
        if not tensor.is_floating_point():
            raise Unsupported(f"its {name} is not in floating point")
        found[own] = tensor
    return found


def _write_numbers(writer: Any, config: Any, named: Mapping[str, Any]) -> None:
    """Write the sizes, as the tensors have them: a pruned model's may differ from layer to layer."""
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    layers = range(config.num_hidden_layers)
    between = [named[f"blk.{layer}.ffn_gate.weight"].shape[0] for layer in layers]
    if any(
        named[f"blk.{layer}.attn_{part}.weight"].shape[0] != count * width
        for layer in layers
        for part, count in (("q", heads), ("k", kv_heads), ("v", kv_heads))
    ):
        raise Unsupported("some layers have another number of heads than its config says")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(between[0] if len(set(between)) == 1 else between)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    writer.add_vocab_size(named["token_embd.weight"].shape[0])


def window_of(config: Any) -> int | None:
    """Return how many tokens back a layer sees, where that is less than all: llama.cpp's layers see them all."""
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"]
    window = getattr(config, "sliding_window", None)
    is_used = getattr(config, "use_sliding_window", True) and "sliding_attention" in kinds
    return int(window) if window and is_used and window < config.max_position_embeddings else None


def _rope(writer: Any, config: Any) -> Any:
    """Write the parameters of the rotary embedding; return the factors of its frequencies, where there are some."""
    rope = dict(getattr(config, "rope_parameters", None) or {})
    kind = rope.get("rope_type", "default")
    writer.add_rope_freq_base(float(rope.get("rope_theta", 10000.0)))
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise Unsupported("its rotary embedding covers only a part of each head, which is not supported")
    if kind == "default":
        return None
    from gguf import RopeScalingType

    if kind == "llama3":
        return _llama3_factors(config, rope)
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(RopeScalingType.LINEAR if kind == "linear" else RopeScalingType.YARN)
        writer.add_rope_scaling_factor(float(rope["factor"]))
        if kind == "yarn":
            original = rope.get("original_max_position_embeddings") or config.max_position_embeddings
            writer.add_rope_scaling_orig_ctx_len(int(original))
        return None
    raise Unsupported(f"its rotary embedding is scaled by {kind}; default, linear, yarn and llama3 are supported")


def _llama3_factors(config: Any, rope: Mapping[str, Any]) -> Any:
    """Return by what each frequency is divided (see `_compute_llama3_parameters` of transformers)."""
    import numpy as np

    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    lengths = 2 * math.pi * float(rope["rope_theta"]) ** (np.arange(0, width, 2, dtype=np.float64) / width)
    low, high, factor = (float(rope[name]) for name in ("low_freq_factor", "high_freq_factor", "factor"))
    original = float(rope["original_max_position_embeddings"])
    smooth = np.clip((original / lengths - low) / (high - low), 0, 1)
    divided = 1 / ((1 - smooth) / factor + smooth)
    divided[lengths < original / high], divided[lengths > original / low] = 1, factor
    return divided.astype(np.float32)


def _announce(writer: Any, name: str, tensor: Any, kind: str) -> None:
    import gguf
    import numpy as np

    own = _kind_of(tensor, kind)
    raw = {"f32": gguf.GGMLQuantizationType.F32, "f16": gguf.GGMLQuantizationType.F16}.get(
        own, gguf.GGMLQuantizationType.BF16
    )
    size = tensor.numel() * (4 if own == "f32" else 2)
    # the third argument only matters for types of bytes
    writer.add_tensor_info(name, tuple(tensor.shape), np.dtype(np.float32), size, raw_dtype=raw)


def _kind_of(tensor: Any, kind: str) -> str:
    return "f32" if tensor.dim() < 2 else kind


def _ordered(tensor: Any, name: str, architecture: str, config: Any) -> Any:
    """Put the rows of queries and keys as llama.cpp's rotary embedding wants them: halves in turns."""
    part = name.split(".")[-2]
    if architecture not in _INTERLEAVED or part not in ("attn_q", "attn_k"):
        return tensor
    heads = config.num_attention_heads if part == "attn_q" else config.num_key_value_heads
    rows = tensor.shape[0]
    return tensor.reshape(heads, 2, rows // heads // 2, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)


def _array(name: str, tensor: Any, kind: str) -> Any:
    """Return a tensor's numbers as they are written."""
    import torch

    own = _kind_of(tensor, kind)
    typed = tensor.detach().to("cpu", {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[own])
    if own == "f16" and not bool(torch.isfinite(typed).all()):
        raise Unsupported(f"its {name} has numbers that float16 can't hold: use bf16 or f32")
    typed = typed.contiguous()
    return typed.view(torch.int16).numpy() if own == "bf16" else typed.numpy()


def tensor_types(tensors: Iterator[Any] | tuple[Any, ...]) -> dict[str, int]:
    """Count the numbers of a file by the type that they are in."""
    counts: dict[str, int] = {}
    for each in tensors:
        counts[each.type] = counts.get(each.type, 0) + each.elements
    return counts
