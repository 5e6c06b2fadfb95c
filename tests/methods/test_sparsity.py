"""Pruning in patterns and by activations: which weights stay, what the disk holds, and what runs."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mlflow_compress import registry
from mlflow_compress.compression import compact, pruning
from mlflow_compress.errors import RecipeError, Unsupported
from mlflow_compress.families.python import OwnCode
from mlflow_compress.measuring import worker
from mlflow_compress.methods import prune_2_4
from mlflow_compress.networks import model_folder
from mlflow_compress.planning import recipe
from mlflow_compress.records import Variant
from mlflow_compress.sockets import Model

OWN = """
import torch
from torch import nn

def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 8, 3, stride=2, groups=2), nn.Flatten(),
        nn.Linear(128, 96), nn.ReLU(), nn.Linear(96, 10),
    )

def batch(size):
    return torch.rand(size, 3, 10, 10)

def training():
    torch.manual_seed(3)
    return torch.rand(40, 3, 10, 10) * torch.tensor([5.0, 1.0, 0.2])[:, None, None]
"""


def loaded(folder: Path, code: str = OWN) -> tuple[Any, Model]:
    (folder / "own.py").write_text(code)
    family = registry.build("families", "python")
    return family, family.load("own.py", "auto", folder, 0)


def method(name: str, **options: Any) -> Any:
    return registry.build("methods", name, options)


def saved(chain: str, folder: Path, weights: str = "auto", code: str = OWN) -> tuple[Any, Any]:
    (folder / "own.py").write_text(code)
    steps = recipe.parse_chain(chain)
    variant = Variant("own", chain, "t", "python", "own.py", weights, chain=steps, batch_size=2, folder=str(folder))
    part = worker.prepare(variant, folder, worker.Report(io.StringIO()))
    return part, model_folder.restore(folder / worker.MODEL_FOLDER)


def groups(weight: torch.Tensor, of: int) -> torch.Tensor:
    """Give consecutive weights along the input, found the slow way: [n, of]."""
    rows = []
    for output in weight:
        for place in output.reshape(len(output), -1).T:
            rows += [place[start : start + of] for start in range(0, len(place), of)]
    return torch.stack(rows)


def test_two_of_each_four_stay_and_they_are_the_largest(tmp_path: Path) -> None:
    family, model = loaded(tmp_path)
    before = [layer.weight.clone() for layer in pruning.learned(model.module)]
    method("prune_2_4").compress(model, family)
    assert model.facts["layers"] == "3 of 4 layers pruned"  # the first sees 3 channels
    layers = pruning.learned(model.module)
    assert torch.equal(layers[0].weight, before[0])
    for layer, old in zip(layers[1:], before[1:], strict=True):
        for now, was in zip(groups(layer.weight, 4), groups(old, 4), strict=True):
            kept = now != 0
            assert kept.sum() == 2
            assert torch.equal(now[kept], was[kept])
            assert was[kept].abs().min() >= was[~kept].abs().max()


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


@pytest.mark.parametrize("samples", [1, 5])
def test_wanda_is_the_formula(samples: int, tmp_path: Path) -> None:
    """Redo it with loops: |W_ij| ||X_j||, the lowest of each output."""
    family, model = loaded(tmp_path)
    layers: list[Any] = pruning.learned(model.module)
    seen: dict[Any, list[torch.Tensor]] = {layer: [] for layer in layers}
    hooks = [layer.register_forward_pre_hook(lambda layer, given: seen[layer].append(given[0])) for layer in layers]
    with torch.no_grad():
        for batch in family.calibration(model, samples, 0):
            family.forward(model, batch)
    for hook in hooks:
        hook.remove()
    before = [layer.weight.clone() for layer in layers]
    method("wanda", sparsity=0.4, samples=samples).compress(model, family)
    for layer, weight in zip(layers, before, strict=True):
        inputs = torch.cat(seen[layer])
        columns: Any = (inputs,)
        if layer.weight.dim() == 4:  # each group's filters see their own channels
            unfolded = nn.functional.unfold(inputs, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
            columns = unfolded.movedim(1, -1).reshape(-1, unfolded.shape[1]).split(weight[0].numel(), 1)
        for output, (now, was) in enumerate(zip(layer.weight.flatten(1), weight.flatten(1), strict=True)):
            features = columns[output * len(columns) // len(weight)]
            scores = torch.tensor([abs(was[index]) * features[:, index].norm() for index in range(len(was))])
            kept = now != 0
            assert int((~kept).sum()) == int(0.4 * len(was))
            assert torch.equal(now[kept], was[kept])
            assert scores[~kept].max() <= scores[kept].min() * (1 + 1e-5)
        assert not layer._forward_pre_hooks


@pytest.mark.parametrize("pattern", ["2:4", "4:8"])
def test_wanda_keeps_the_pattern_along_the_input(pattern: str, tmp_path: Path) -> None:
    family, model = loaded(tmp_path)
    method("wanda", pattern=pattern).compress(model, family)
    keep, of = (int(each) for each in pattern.split(":"))
    for layer in pruning.learned(model.module)[1:]:
        if layer.weight.shape[1] % of == 0:
            assert (groups(layer.weight, of) != 0).sum(1).eq(keep).all()


def test_wanda_loses_less_than_magnitude_where_inputs_have_outliers(tmp_path: Path) -> None:
    code = (
        "import torch\n"
        "def model():\n    torch.manual_seed(0)\n    return torch.nn.Sequential(torch.nn.Linear(256, 256))\n"
        "def training():\n    torch.manual_seed(1)\n    scales = torch.ones(256)\n    scales[::16] = 30\n"
        "    return torch.randn(300, 256) * scales\n"
    )
    errors = {}
    for name in ("prune_magnitude", "wanda"):
        family, model = loaded(tmp_path, code)
        inputs = model.data_as(OwnCode).code.training()
        before = model.module(inputs)
        method(name).compress(model, family)
        errors[name] = float((model.module(inputs) - before).norm() / before.norm())
    assert errors["wanda"] < 0.3 * errors["prune_magnitude"]


def test_unstructured_zeros_are_stored_as_they_are(tmp_path: Path) -> None:
    part, restored = saved("wanda", tmp_path)
    assert (tmp_path / worker.MODEL_FOLDER / "weights.safetensors").is_file()
    assert part.measurements["size/disk_gzip_mib"] < 0.75 * part.measurements["size/disk_mib"]
    for layer in pruning.learned(restored.model.module):
        share = float((layer.weight == 0).float().mean())
        assert share == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("name", ["prune_2_4", "wanda"])
def test_tied_and_fixed_weights_are_left_alone(name: str, tmp_path: Path) -> None:
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


def test_magnitude_pruning_leaves_fixed_weights_alone(tmp_path: Path) -> None:
    bins, linear = nn.Conv2d(16, 1, 1, bias=False), nn.Linear(8, 8)
    bins.weight.data = torch.arange(16.0).view(1, 16, 1, 1)
    method("prune_magnitude").compress(Model(nn.ModuleList([bins, linear])), registry.build("families", "python"))
    assert torch.equal(bins.weight.view(-1), torch.arange(16.0))
    assert int((linear.weight == 0).sum()) == 32


def test_they_say_why_they_can_not(tmp_path: Path) -> None:
    family, model = loaded(tmp_path)
    nothing, odd = Model(nn.ReLU()), Model(nn.Linear(7, 7))
    with pytest.raises(Unsupported, match="inputs that are a multiple of 4"):
        method("prune_2_4").compress(odd, family)
    with pytest.raises(Unsupported, match="no linear or convolution layer"):
        method("prune_2_4").compress(nothing, family)
    with pytest.raises(Unsupported, match="to prune whose inputs are a multiple of 8"):
        method("wanda", pattern="4:8").compress(odd, family)
    with pytest.raises(Unsupported, match=r"no linear or convolution layer to prune$"):
        method("wanda").compress(nothing, family)
    with pytest.raises(Unsupported, match=r"2:4 is a sparsity of 0\.5, not 0\.7"):
        method("wanda", pattern="2:4", sparsity=0.7).compress(model, family)
    method("prune_2_4").compress(model, family)
    with pytest.raises(Unsupported, match="not zero yet"):
        method("prune_2_4").compress(model, family)
    for chain in (
        "wanda:sparsity=1",
        "wanda:sparsity=0",
        "wanda:pattern=1:4",
        "wanda:samples=0",
        "prune_2_4:kernels=x",
    ):
        with pytest.raises(RecipeError, match=chain.split(":")[1].split("=")[0]):
            recipe.parse_chain(chain)


@pytest.mark.parametrize(
    "chain",
    ["prune_2_4+cluster", "cluster+prune_2_4", "prune_2_4+int8_dynamic", "wanda:pattern=2:4+fp16", "wanda+bf16"],
)
def test_they_come_back_in_a_chain(chain: str, tmp_path: Path) -> None:
    _, restored = saved(chain, tmp_path)
    with torch.inference_mode():
        outputs = restored.family.forward(restored.model, restored.family.batch(restored.model, 2, 0))
    assert torch.isfinite(outputs).all()


def test_sparse_kernels_are_dense_without_a_gpu(tmp_path: Path) -> None:
    _, restored = saved("prune_2_4:kernels=sparse+fp16", tmp_path)
    linear = [each for each in restored.model.module if isinstance(each, nn.Linear)]
    with torch.inference_mode():
        restored.family.forward(restored.model, restored.family.batch(restored.model, 2, 0))
    assert all(type(each.weight) is nn.Parameter for each in linear)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_sparse_kernels_give_the_same_on_a_gpu() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(256, 128).half().cuda().requires_grad_(False)
    weight = layer.weight.data
    weight.masked_fill_(~pruning.largest(weight.abs(), 2, 4), 0)
    inputs = torch.randn(3, 64, 256, dtype=torch.float16, device="cuda")
    dense = layer(inputs)
    layer.register_forward_pre_hook(prune_2_4._turn_sparse)
    torch.testing.assert_close(layer(inputs), dense, rtol=1e-2, atol=1e-2)
    assert isinstance(layer.weight, torch.sparse.SparseSemiStructuredTensor)
    torch.testing.assert_close(layer(inputs.transpose(0, 1)).transpose(0, 1), dense, rtol=1e-2, atol=1e-2)
