"""TorchScript is checked: honest traces pass, whatever they contain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from transformers import BertConfig, BertForSequenceClassification

from mlflow_compress.networks.torchscript_scan import code_in_script


def bert() -> torch.nn.Module:
    config = BertConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8, vocab_size=20)
    net: torch.nn.Module = BertForSequenceClassification(config)
    return net.eval()


@pytest.mark.parametrize(
    ("net", "inputs"),
    [
        (torchvision.models.mobilenet_v3_small(weights=None).eval(), torch.rand(1, 3, 64, 64)),
        (torchvision.models.vit_b_32(weights=None, num_classes=3).eval(), torch.rand(1, 3, 224, 224)),
        (torch.nn.LSTM(4, 5, bidirectional=True), torch.rand(3, 2, 4)),
        (torch.nn.TransformerEncoderLayer(8, 2, batch_first=True).eval(), torch.rand(3, 2, 8)),
        (bert(), torch.zeros(2, 5, dtype=torch.int64)),
    ],
)
def test_honest_traces_are_let_through(net: torch.nn.Module, inputs: Any, tmp_path: Path) -> None:
    with torch.no_grad():
        torch.jit.save(torch.jit.trace(net, inputs, strict=False, check_trace=False), str(tmp_path / "model.ts"))
    assert code_in_script(tmp_path / "model.ts") == ""


def test_another_kind_of_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "text.ts").write_text("no archive")
    assert code_in_script(tmp_path / "text.ts") == "no archive as torch.jit.save writes it"
    assert "No such file" in code_in_script(tmp_path / "gone.ts")
