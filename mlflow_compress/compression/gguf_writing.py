"""Writing a transformers language model as one GGUF file, tensor by tensor, without a second copy of its weights.

Source: names, keys and the order of rotary halves: convert_hf_to_gguf.py of llama.cpp; names of tensors: the package
gguf.
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
_INTERLEAVED = ("llama",)  # llama.cpp expects interleaved rotary halves for these
_FILE_TYPES = {"f32": 0, "f16": 1, "bf16": 32}
_YARN = {
    "beta_fast": 32,
    "beta_slow": 1,
    "attention_factor": None,
    "mscale": None,
    "mscale_all_dim": None,
    "truncate": True,
}
_LAYER_NORM = "attention.layer_norm_rms_epsilon"


def write_gguf(module: Any, config: Any, tokenizer: Any, path: Path, kind: str) -> str:
    """Write a model: matrices in one type, vectors in float32.

    Args:
        module: Language model of transformers.
        config: Its config.
        tokenizer: Its tokenizer.
        path: File to write.
        kind: `f32`, `f16` or `bf16`.

    Returns:
        Why its tokenizer is not in the file; empty if it is.

    Raises:
        Unsupported: The architecture is not supported by llama.cpp or by this module.
    """
    import gguf

    architecture = _architecture(config)
    tensors = _named(_weights(module), architecture, config.num_hidden_layers)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name(type(module).__name__)
    writer.add_file_type(_FILE_TYPES[kind])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _write_numbers(writer, config, tensors)
    obstacle = write_tokenizer(writer, tokenizer, tensors["token_embd.weight"].shape[0])
    factors = _rope(writer, config)
    try:
        for name, tensor in tensors.items():
            _announce(writer, name, tensor, kind)
        if factors is not None:
            writer.add_tensor_info("rope_freqs.weight", factors.shape, factors.dtype, factors.nbytes)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, tensor in tensors.items():
            writer.write_tensor_data(_array(name, _ordered(tensor, name, architecture, config), kind))
        if factors is not None:
            writer.write_tensor_data(factors)
    finally:
        writer.close()
    return obstacle


def _architecture(config: Any) -> str:
    """Return llama.cpp's name for an architecture."""
    supported = ", ".join(ARCHITECTURES)
    if config.model_type not in ARCHITECTURES:
        raise Unsupported(f"its architecture is {config.model_type}; GGUF files are supported for {supported}")
    act = getattr(config, "hidden_act", "silu")
    if act != "silu":
        raise Unsupported(f"its activation is {act}, but llama.cpp computes silu for this architecture")
    return ARCHITECTURES[config.model_type]


def _weights(module: Any) -> dict[str, Any]:
    """Return the parameters by name, tied ones once."""
    written_storages: set[Any] = set()
    weights: dict[str, Any] = {}
    for name, tensor in module.state_dict().items():
        if (storage := identity(tensor)) not in written_storages:
            written_storages.add(storage)
            weights[name] = tensor
    return weights


def _named(weights: Mapping[str, Any], architecture: str, layers: int) -> dict[str, Any]:
    """Return the parameters by their names in a GGUF file."""
    import gguf

    arch = next(number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(arch, layers)
    tensors: dict[str, Any] = {}
    for name, tensor in weights.items():
        if (gguf_name := names.get_name(name, try_suffixes=(".weight", ".bias"))) is None:
            raise Unsupported(f"llama.cpp's {architecture} has no tensor for its {name}")
        if not tensor.is_floating_point():
            raise Unsupported(f"its {name} is not in floating point")
        tensors[gguf_name] = tensor
    return tensors


def _write_numbers(writer: Any, config: Any, tensors: Mapping[str, Any]) -> None:
    """Write the sizes of the tensors: in a pruned model they may differ between layers."""
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    layers = range(config.num_hidden_layers)
    inner_widths = [tensors[f"blk.{layer}.ffn_gate.weight"].shape[0] for layer in layers]
    if any(
        tensors[f"blk.{layer}.attn_{part}.weight"].shape[0] != count * width
        for layer in layers
        for part, count in (("q", heads), ("k", kv_heads), ("v", kv_heads))
    ):
        raise Unsupported("some layers have a different number of heads than its config")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(inner_widths[0] if len(set(inner_widths)) == 1 else inner_widths)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    writer.add_vocab_size(tensors["token_embd.weight"].shape[0])


def window_of(config: Any) -> int | None:
    """Return the sliding window of the layers, or None if they see all tokens, as llama.cpp's layers do."""
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"]
    window = getattr(config, "sliding_window", None)
    is_used = getattr(config, "use_sliding_window", True) and "sliding_attention" in kinds
    return int(window) if window and is_used and window < config.max_position_embeddings else None


def _rope(writer: Any, config: Any) -> Any:
    """Write the parameters of the rotary embedding; return the factors of its frequencies, or None."""
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
        if others := [name for name, usual in _YARN.items() if kind == "yarn" and rope.get(name) not in (None, usual)]:
            raise Unsupported(f"its rotary embedding sets {', '.join(others)} of yarn; only the defaults are supported")
        writer.add_rope_scaling_type(RopeScalingType.LINEAR if kind == "linear" else RopeScalingType.YARN)
        writer.add_rope_scaling_factor(float(rope["factor"]))
        if kind == "yarn":
            original = rope.get("original_max_position_embeddings") or config.max_position_embeddings
            writer.add_rope_scaling_orig_ctx_len(int(original))
        return None
    raise Unsupported(f"its rotary embedding is scaled by {kind}; default, linear, yarn and llama3 are supported")


def _llama3_factors(config: Any, rope: Mapping[str, Any]) -> Any:
    """Return the divisor of each frequency (see `_compute_llama3_parameters` of transformers)."""
    import numpy as np

    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    lengths = 2 * math.pi * float(rope["rope_theta"]) ** (np.arange(0, width, 2, dtype=np.float64) / width)
    low, high, factor = (float(rope[name]) for name in ("low_freq_factor", "high_freq_factor", "factor"))
    original = float(rope["original_max_position_embeddings"])
    smooth = np.clip((original / lengths - low) / (high - low), 0, 1)
    divisors = 1 / ((1 - smooth) / factor + smooth)
    divisors[lengths < original / high], divisors[lengths > original / low] = 1, factor
    return divisors.astype(np.float32)


def _announce(writer: Any, name: str, tensor: Any, kind: str) -> None:
    import gguf
    import numpy as np

    tensor_kind = _kind_of(tensor, kind)
    raw = {"f32": gguf.GGMLQuantizationType.F32, "f16": gguf.GGMLQuantizationType.F16}.get(
        tensor_kind, gguf.GGMLQuantizationType.BF16
    )
    size = tensor.numel() * (4 if tensor_kind == "f32" else 2)
    # the third argument matters only for byte types
    writer.add_tensor_info(name, tuple(tensor.shape), np.dtype(np.float32), size, raw_dtype=raw)


def _kind_of(tensor: Any, kind: str) -> str:
    return "f32" if tensor.dim() < 2 else kind


def _ordered(tensor: Any, name: str, architecture: str, config: Any) -> Any:
    """Interleave the rotary halves in the rows of queries and keys, as llama.cpp expects."""
    part = name.split(".")[-2]
    if architecture not in _INTERLEAVED or part not in ("attn_q", "attn_k"):
        return tensor
    heads = config.num_attention_heads if part == "attn_q" else config.num_key_value_heads
    rows = tensor.shape[0]
    return tensor.reshape(heads, 2, rows // heads // 2, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)


def _array(name: str, tensor: Any, kind: str) -> Any:
    """Return a tensor as the array to write."""
    import torch

    tensor_kind = _kind_of(tensor, kind)
    dtype = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[tensor_kind]
    typed = tensor.detach().to("cpu", dtype)
    if tensor_kind == "f16" and not bool(torch.isfinite(typed).all()):
        raise Unsupported(f"its {name} has numbers that float16 can't hold: use bf16 or f32")
    typed = typed.contiguous()
    return typed.view(torch.int16).numpy() if tensor_kind == "bf16" else typed.numpy()


def tensor_types(tensors: Iterator[Any] | tuple[Any, ...]) -> dict[str, int]:
    """Count the numbers of a file by type."""
    counts: dict[str, int] = {}
    for tensor in tensors:
        counts[tensor.type] = counts.get(tensor.type, 0) + tensor.elements
    return counts
