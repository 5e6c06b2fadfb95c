"""Fuses the operators of transformers in ONNX files: attention, normalisation with its addition, GELU with its bias."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from mlflow_compress.errors import Unsupported

Fusions = Literal["none", "transformer", "approximate"]

# ONNX Runtime's name of the pattern set for each architecture; other transformers use those of BERT.
_PATTERNS: Mapping[str, str] = {
    "bart": "bart",
    "clip": "clip",
    "deit": "vit",
    "gpt2": "gpt2",
    "gpt_neox": "gpt_neox",
    "marian": "bart",
    "mbart": "bart",
    "mt5": "t5",
    "pegasus": "bart",
    "phi": "phi",
    "qwen3": "qwen3",
    "swin": "swin",
    "t5": "t5",
    "vit": "vit",
    "whisper": "bart",
}


def fuse(path: Path, config: Any, *, is_approximate: bool) -> Counter[str]:
    """Fuse operators of an ONNX file, in place.

    Source: onnxruntime.transformers.optimizer.optimize_model.

    Args:
        path: File.
        config: Config of the transformers model, with its number of heads; None for another model.
        is_approximate: Whether GELU is replaced by its approximation with tanh.

    Returns:
        The number of new fused operators by type.
    """
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions

    kind = _PATTERNS.get(getattr(config, "model_type", ""), "bert")
    options = FusionOptions(kind)
    options.enable_gelu_approximation = is_approximate
    options.use_raw_attention_mask()  # the other mask formats assume that padding is on the right
    before = _operators(path)
    fused = optimizer.optimize_model(
        str(path),
        model_type=kind,
        num_heads=getattr(config, "num_attention_heads", None) or 0,
        hidden_size=getattr(config, "hidden_size", None) or 0,
        optimization_options=options,
        opt_level=0,  # ONNX Runtime's own optimizations follow when the file is opened
    )
    data = path.with_name(f"{path.name}.data")
    is_large = data.is_file()
    data.unlink(missing_ok=True)
    fused.save_model_to_file(str(path), use_external_data_format=is_large)
    names = fused.get_fused_operator_statistics()
    return Counter({name: count for name, count in (_operators(path) - before).items() if name in names})


def summary(counts: Counter[str]) -> str:
    """Describe the fused operators: `12 Attention, 24 SkipLayerNormalization`.

    Raises:
        Unsupported: There are none.
    """
    if not counts:
        raise Unsupported(
            "no operators of the graph match ONNX Runtime's patterns for transformers: remove fusions, or set "
            "fusions=none"
        )
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


def _operators(path: Path) -> Counter[str]:
    import onnx

    return Counter(node.op_type for node in onnx.load(str(path), load_external_data=False).graph.node)
