"""Pruning in patterns and by activations: which weights stay, the size on disk, and restoring."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pruned import loaded, method, saved
from torch import nn

from mlflow_compress.compression import compact
from mlflow_compress.errors import RecipeError, Unsupported
from mlflow_compress.measuring import worker
from mlflow_compress.planning import chains
from mlflow_compress.sockets import Model


@pytest.mark.parametrize(("chain", "item"), [("prune_2_4", 4), ("wanda:pattern=4:8", 4), ("prune_2_4+bf16", 2)])
def test_patterns_take_half_the_values_and_a_bit_for_each_weight(chain: str, item: int, tmp_path: Path) -> None:
    code = "import torch\ndef model():\n    return torch.nn.Sequential(torch.nn.Linear(512, 512))\n"
    code += "def batch(size):\n    return torch.rand(size, 512)\n"
    part, restored = saved(chain, tmp_path, code=code)
    weight = restored.model.module[0].weight
    assert int(weight.count_nonzero()) == weight.numel() // 2
    expected = weight.numel() * (item / 2 + 1 / 8) + 512 * item
    file = tmp_path / worker.MODEL_FOLDER / compact.COMPACT
    assert expected < file.stat().st_size < expected + 600
    assert part.measurements["size/disk_mib"] * 2**20 < expected + 2000


@pytest.mark.parametrize("name", ["prune_2_4", "wanda"])
def test_tied_and_fixed_weights_are_not_changed(name: str, tmp_path: Path) -> None:
    code = """
import torch
from torch import nn

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.inner, self.head = nn.Embedding(40, 16), nn.Linear(16, 16), nn.Linear(16, 40)
        self.head.weight = self.embedding.weight
        self.bins = nn.Linear(40, 1, bias=False)
        self.bins.weight.data = torch.arange(40.0)[None]

    def forward(self, ids):
        return self.bins(self.head(self.inner(self.embedding(ids))).softmax(-1))

def model():
    return Tied()

def batch(size):
    return torch.randint(0, 40, (size, 5))
"""
    family, model = loaded(tmp_path, code)
    before = {key: value.clone() for key, value in model.module.state_dict().items()}
    method(name).compress(model, family)
    changed = {key for key, value in model.module.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"inner.weight"}
    assert model.module.head.weight is model.module.embedding.weight


def test_unsupported_models_get_a_reason(tmp_path: Path) -> None:
    family, model = loaded(tmp_path)
    without_layers, odd = Model(nn.ReLU()), Model(nn.Linear(7, 7))
    with pytest.raises(Unsupported, match="inputs that are a multiple of 4"):
        method("prune_2_4").compress(odd, family)
    with pytest.raises(Unsupported, match="no linear or convolution layer"):
        method("prune_2_4").compress(without_layers, family)
    with pytest.raises(Unsupported, match="to prune whose inputs are a multiple of 8"):
        method("wanda", pattern="4:8").compress(odd, family)
    with pytest.raises(Unsupported, match=r"no linear or convolution layer to prune$"):
        method("wanda").compress(without_layers, family)
    with pytest.raises(Unsupported, match=r"2:4 has a sparsity of 0\.5, not 0\.7"):
        method("wanda", pattern="2:4", sparsity=0.7).compress(model, family)
    method("prune_2_4").compress(model, family)
    with pytest.raises(Unsupported, match="weights left to prune"):
        method("prune_2_4").compress(model, family)
    for chain in (
        "wanda:sparsity=1",
        "wanda:sparsity=0",
        "wanda:pattern=1:4",
        "wanda:samples=0",
        "prune_2_4:kernels=x",
    ):
        with pytest.raises(RecipeError, match=chain.split(":")[1].split("=")[0]):
            chains.parse_chain(chain)


@pytest.mark.parametrize(
    "chain",
    ["prune_2_4+cluster", "cluster+prune_2_4", "prune_2_4+int8_dynamic", "wanda:pattern=2:4+fp16", "wanda+bf16"],
)
def test_they_are_restored_in_a_chain(chain: str, tmp_path: Path) -> None:
    _, restored = saved(chain, tmp_path)
    with torch.inference_mode():
        outputs = restored.family.forward(restored.model, restored.family.batch(restored.model, 2, 0))
    assert torch.isfinite(outputs).all()
