"""Tiny models of each family: their options, their sources, and inputs for predictions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mlflow_compress import registry
from mlflow_compress.sockets import Family, Model

TINY: dict[str, dict[str, Any]] = {
    "text_classification": {
        "tokens": 16,
        "architecture": {
            "model_type": "distilbert",
            "vocab_size": 300,
            "dim": 16,
            "hidden_dim": 32,
            "n_layers": 2,
            "n_heads": 2,
        },
    },
    "causal_lm": {
        "prompt_tokens": 8,
        "new_tokens": 3,
        "architecture": {
            "model_type": "llama",
            "vocab_size": 300,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "tie_word_embeddings": True,
            "eos_token_id": 1,
            "bos_token_id": 1,
        },
    },
    "asr": {
        "new_tokens": 3,
        "architecture": {
            "model_type": "whisper",
            "vocab_size": 300,
            "d_model": 16,
            "encoder_layers": 1,
            "decoder_layers": 2,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 32,
            "decoder_ffn_dim": 32,
            "max_target_positions": 16,
            "bos_token_id": 1,
            "eos_token_id": 1,
            "pad_token_id": 1,
            "decoder_start_token_id": 2,
            "suppress_tokens": [],
            "begin_suppress_tokens": [],
        },
    },
    "asr_ctc": {
        "seconds": 1,
        "window_seconds": 2,
        "architecture": {
            "model_type": "wav2vec2",
            "vocab_size": 32,
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "conv_dim": [8, 8, 8],
            "conv_kernel": [10, 8, 8],
            "conv_stride": [5, 8, 8],
            "num_conv_pos_embeddings": 16,
            "num_conv_pos_embedding_groups": 2,
        },
    },
    "yolo": {"image_size": 64},
    "python": {},
    "image_classification": {
        "architecture": {
            "model_type": "vit",
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 8,
            "num_labels": 3,
        },
    },
    "object_detection": {
        "image_size": 64,
        "architecture": {
            "model_type": "detr",
            "backbone_config": {
                "model_type": "resnet",
                "embedding_size": 8,
                "hidden_sizes": [8, 8, 16, 16],
                "depths": [1, 1, 1, 1],
                "layer_type": "basic",
                "out_features": ["stage4"],
            },
            "d_model": 16,
            "encoder_layers": 1,
            "decoder_layers": 2,
            "encoder_ffn_dim": 32,
            "decoder_ffn_dim": 32,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "num_queries": 10,
            "num_labels": 3,
        },
    },
    "semantic_segmentation": {
        "image_size": 64,
        "architecture": {
            "model_type": "segformer",
            "num_encoder_blocks": 2,
            "depths": [1, 1],
            "sr_ratios": [4, 2],
            "hidden_sizes": [8, 16],
            "patch_sizes": [7, 3],
            "strides": [4, 2],
            "num_attention_heads": [1, 2],
            "mlp_ratios": [2, 2],
            "decoder_hidden_size": 16,
            "num_labels": 3,
        },
    },
    "token_classification": {
        "tokens": 16,
        "architecture": {
            "model_type": "bert",
            "vocab_size": 300,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "id2label": {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC", 4: "I-LOC"},
        },
    },
    "seq2seq": {
        "source_tokens": 8,
        "new_tokens": 3,
        "most_tokens": 5,
        "architecture": {
            "model_type": "marian",
            "vocab_size": 300,
            "d_model": 16,
            "encoder_layers": 1,
            "decoder_layers": 2,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 32,
            "decoder_ffn_dim": 32,
            "max_position_embeddings": 64,
            "eos_token_id": 1,
            "pad_token_id": 0,
            "forced_eos_token_id": 1,
            "decoder_start_token_id": 0,
        },
    },
    "text_embedding": {
        "tokens": 16,
        "architecture": {
            "model_type": "bert",
            "vocab_size": 300,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
        },
    },
    "masked_lm": {
        "tokens": 16,
        "architecture": {
            "model_type": "roberta",
            "vocab_size": 300,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "pad_token_id": 0,
        },
    },
    "zero_shot_image_classification": {
        "architecture": {
            "model_type": "clip",
            "projection_dim": 16,
            "text_config": {
                "vocab_size": 300,
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "eos_token_id": 2,
                "projection_dim": 16,
            },
            "vision_config": {
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": 32,
                "patch_size": 8,
                "projection_dim": 16,
            },
        },
    },
}
SOURCE = {"yolo": "yolo11n.pt", "python": "own.py"}
INPUTS: dict[str, list[Any]] = {
    "text_classification": ["a fine film", "dull"],
    "causal_lm": ["Once upon a time"],
    "asr": [[0.0] * 16000],
    "asr_ctc": [[0.1, -0.1] * 8000, [0.2, 0.0, -0.1] * 20_000],
    "yolo": [torch.zeros(40, 60, 3, dtype=torch.uint8).numpy()],
    "python": [[0.1] * 8, [0.9] * 8],
    "image_classification": [torch.zeros(40, 60, 3, dtype=torch.uint8).numpy()],
    "token_classification": ["Anna lives in Rome", ["Anna", "Rome"]],
    "seq2seq": ["The boat left the harbour.", "At dawn."],
    "text_embedding": ["a fine film", "dull"],
    "masked_lm": ["a fine film", "dull"],
    "zero_shot_image_classification": [torch.zeros(40, 60, 3, dtype=torch.uint8).numpy()],
    "object_detection": [torch.zeros(40, 60, 3, dtype=torch.uint8).numpy()],
    "semantic_segmentation": [torch.zeros(40, 60, 3, dtype=torch.uint8).numpy()],
}
DEEPER: dict[str, dict[str, Any]] = {  # architectures with layers and heads to drop
    "text_classification": {"n_layers": 4, "n_heads": 4},
    "causal_lm": {"num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2},
    "asr": {"encoder_layers": 2, "decoder_layers": 4, "encoder_attention_heads": 4},
    "asr_ctc": {"num_hidden_layers": 4, "num_attention_heads": 4},
}
OWN = """
import torch
from torch import nn

def model():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.BatchNorm1d(16), nn.Linear(16, 4))

def student(keep):
    return nn.Sequential(nn.Linear(8, round(16 * keep)), nn.ReLU(), nn.Linear(round(16 * keep), 4))

def batch(size):
    return torch.rand(size, 8)
"""


def tiny_model(name: str, architecture: Mapping[str, Any] | None = None, **options: Any) -> tuple[Family, Model]:
    """Return a transformers family and a model of it with random weights.

    Args:
        name: name of the family.
        architecture: fields of the architecture that differ from `TINY`.
        options: options of the family that differ from `TINY`.
    """
    fields = {**TINY[name]["architecture"], **(architecture or {})}
    family: Family = registry.build("families", name, {**TINY[name], **options, "architecture": fields})
    return family, family.load("tiny", "random", Path(), 0)


def gguf_file(path: Path, seed: int = 0) -> Path:
    """Write a tiny LLaMA with 8-bit weights and a tokenizer."""
    import gguf
    import numpy as np

    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(2)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    tokens = ["<unk>", "<s>", "</s>", *"abcdefghijklmnopqrstuvwxyz", "Ġ", "th", "the"]
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3, *[1] * (len(tokens) - 3)])
    writer.add_token_merges(["t h", "th e"])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    shapes = {"token_embd": (len(tokens), 32), "output_norm": (32,)}
    for layer in range(2):
        block = {"attn_norm": (32,), "ffn_norm": (32,), "attn_q": (32, 32), "attn_output": (32, 32)}
        block |= {
            "attn_k": (16, 32),
            "attn_v": (16, 32),
            "ffn_gate": (64, 32),
            "ffn_up": (64, 32),
            "ffn_down": (32, 64),
        }
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in block.items()}
    generator = np.random.default_rng(seed)
    for name, shape in shapes.items():
        values = generator.normal(0, 0.3, shape).astype(np.float32)
        if len(shape) == 1:
            writer.add_tensor(f"{name}.weight", np.ones(shape, np.float32))
        else:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(f"{name}.weight", gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
