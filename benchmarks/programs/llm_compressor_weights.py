"""The program for llm-compressor's own virtual environment, which does not have this package.

`llm_compressor_weights.py FOLDER TOKENS METHOD BITS GROUP MADE`: quantise the linear layers of the model in FOLDER,
except the head, and write the model with the dequantised weights in float32 to the folder MADE. TOKENS is a JSON file
with rows of token ids for calibration. METHOD is `nearest`, `gptq` or `awq`.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any


def modifier(method: str, bits: int, group_size: int) -> Any:
    """Return llm-compressor's modifier for the method, with its defaults for everything else."""
    from llmcompressor.modifiers.awq import AWQModifier
    from llmcompressor.modifiers.quantization import GPTQModifier, QuantizationModifier

    weights = {
        "num_bits": bits, "type": "int", "symmetric": False, "strategy": "group", "group_size": group_size,
    }  # fmt: skip
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    kind = {"nearest": QuantizationModifier, "gptq": GPTQModifier, "awq": AWQModifier}[method]
    return kind(config_groups=groups, ignore=["lm_head"])


def main(folder: str, tokens: str, method: str, bits: str, group_size: str, made: str) -> None:
    """Quantise the model, and write it."""
    import torch
    from compressed_tensors.quantization.lifecycle.forward import fake_quantize
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.pipelines.cache import IntermediatesCache
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    if not torch.cuda.is_available():
        IntermediatesCache.pin_memory = lambda *args, **options: None  # it requires a GPU, and is only for one
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    names = {name for name, _ in model.named_parameters()}
    rows = json.loads(Path(tokens).read_text())
    data = Dataset.from_list([{"input_ids": row, "attention_mask": [1] * len(row)} for row in rows])
    calibration = {} if method == "nearest" else {
        "dataset": data, "max_seq_length": max(map(len, rows)), "num_calibration_samples": len(rows),
    }  # fmt: skip
    oneshot(model=model, recipe=[modifier(method, int(bits), int(group_size))], **calibration)
    layers: list[Any] = list(model.modules())
    with torch.no_grad():
        for layer in layers:
            scheme = getattr(layer, "quantization_scheme", None)
            if scheme is not None and scheme.weights is not None:
                assert not hasattr(layer, "weight_g_idx"), "groups in another order are not dequantised here"
                zero = layer.weight_zero_point
                layer.weight.copy_(fake_quantize(layer.weight, layer.weight_scale, zero, scheme.weights))
    weights = {name: tensor.detach().contiguous() for name, tensor in model.named_parameters() if name in names}
    shutil.copytree(folder, made, ignore=shutil.ignore_patterns("*.safetensors*", "manifest.json"))
    save_file(weights, Path(made) / "model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    main(*sys.argv[1:])
