"""Tiny models of each family: their options, where they come from, and inputs to predict for."""

from __future__ import annotations

from typing import Any

import torch

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
}
SOURCE = {"yolo": "yolo11n.pt", "python": "own.py"}
INPUTS: dict[str, list[Any]] = {
    "text_classification": ["a fine film", "dull"],
    "causal_lm": ["Once upon a time"],
    "asr": [[0.0] * 16000],
    "yolo": [torch.zeros(40, 60, 3, dtype=torch.uint8).numpy()],
    "python": [[0.1] * 8, [0.9] * 8],
    "image_classification": [torch.zeros(40, 60, 3, dtype=torch.uint8).numpy()],
    "token_classification": ["Anna lives in Rome", ["Anna", "Rome"]],
    "seq2seq": ["The boat left the harbour.", "At dawn."],
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
