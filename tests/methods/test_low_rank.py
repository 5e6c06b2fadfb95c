"""Truncated SVD: the best approximation at its rank, the requested energy, and restoring."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from mlflow_compress import registry
from mlflow_compress.errors import RecipeError, Unsupported
from mlflow_compress.measuring import worker
from mlflow_compress.networks import model_folder
from mlflow_compress.networks.own_code import OwnCode
from mlflow_compress.planning import chains
from mlflow_compress.records import Variant
from mlflow_compress.sockets import Family, Model

OWN = """
import torch
from torch import nn

def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(3, 24, 5, padding=2), nn.Flatten(), nn.Linear(240, 40), nn.ReLU(), nn.Linear(40, 30))

def batch(size):
    return torch.rand(size, 3, 10)

def training():
    return torch.rand(64, 3, 10) * torch.tensor([1.0, 0.1, 0.01])[:, None]
"""


def split(module: nn.Module, family: Family | None = None, **options: Any) -> Model:
    module.requires_grad_(False)
    module.eval()
    family = family or registry.build("families", "python")
    model: Model = registry.build("methods", "low_rank", options).compress(Model(module), family)
    return model


def product(halves: Any) -> Any:
    return halves[1].weight.flatten(1) @ halves[0].weight.flatten(1)


def truncated(matrix: Any, rank: int) -> Any:
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    return (left[:, :rank] * values[:rank] @ right[:rank]).float()


@pytest.mark.parametrize("shape", [(30, 50), (50, 30), (40, 40)])
def test_it_is_the_truncated_singular_value_decomposition(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(shape[1], shape[0])
    weight, bias = linear.weight.detach().clone(), linear.bias.detach().clone()
    halves = split(nn.Sequential(linear)).module[0]
    rank = len(halves[0].weight)
    assert rank == int(0.5 * shape[0] * shape[1] / sum(shape))
    torch.testing.assert_close(product(halves), truncated(weight, rank), rtol=1e-4, atol=1e-5)
    inputs = torch.randn(7, shape[1])
    torch.testing.assert_close(
        halves(inputs), functional.linear(inputs, truncated(weight, rank), bias), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("convolution", "shape"),
    [
        (nn.Conv1d(6, 20, 5, stride=2, padding=2), (2, 6, 31)),
        (nn.Conv2d(6, 20, (3, 5), stride=(2, 1), padding=(1, 2), dilation=(1, 2)), (2, 6, 17, 19)),
        (nn.Conv2d(16, 20, 1, bias=False), (2, 16, 9, 9)),
        (nn.Conv2d(6, 20, 3, padding="same", padding_mode="reflect"), (2, 6, 9, 9)),
        (nn.Conv3d(4, 12, 3), (1, 4, 5, 6, 7)),
    ],
)
def test_a_convolution_is_the_one_with_the_truncated_weight(convolution: Any, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    weight = convolution.weight.detach().clone()
    inputs = torch.randn(shape)
    halves = split(nn.Sequential(convolution)).module[0]
    rank = len(halves[0].weight)
    convolution.weight = nn.Parameter(truncated(weight.flatten(1), rank).view(weight.shape))
    torch.testing.assert_close(halves(inputs), convolution(inputs), rtol=1e-4, atol=1e-5)
    assert halves.stride == convolution.stride  # callers read it


@pytest.mark.parametrize("energy", [0.3, 0.6, 0.9])
def test_the_rank_is_the_least_that_keeps_the_energy(energy: float) -> None:
    torch.manual_seed(1)
    module: Any = nn.Sequential(nn.Linear(64, 128), nn.Conv2d(16, 32, 3))
    for layer in module:  # decreasing singular values
        matrix = layer.weight.data.flatten(1)
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        layer.weight.data = (left * 0.8 ** torch.arange(len(values)) @ right).view(layer.weight.shape)
    weights = [layer.weight.detach().clone().flatten(1) for layer in module]
    for weight, halves in zip(weights, split(module, energy=energy).module, strict=True):
        squares = torch.linalg.svdvals(weight.double()) ** 2
        rank = len(halves[0].weight)
        assert squares[:rank].sum() >= energy * squares.sum() * (1 - 1e-6)
        assert squares[: rank - 1].sum() < energy * squares.sum()
        lost = (product(halves) - weight).square().sum()
        assert lost == pytest.approx(float(squares[rank:].sum()), rel=1e-3)


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.5])
def test_the_ratio_holds_over_all_layers_which_keep_equal_energy(ratio: float) -> None:
    torch.manual_seed(2)
    module: Any = nn.Sequential(nn.Linear(100, 100), nn.Linear(100, 100), nn.Linear(100, 100))
    for power, layer in zip((0.99, 0.9, 0.7), module, strict=True):
        left, _, right = torch.linalg.svd(layer.weight.data)
        layer.weight.data = left * power ** torch.arange(100) @ right
    weights = [layer.weight.detach().clone() for layer in module]
    model = split(module, ratio=ratio)
    sizes = [
        sum(half.weight.numel() for half in part) if len(list(part.children())) else 10_000 for part in model.module
    ]
    assert ratio * 30_000 - 400 < sum(sizes) <= ratio * 30_000
    ranks = [len(part[0].weight) if size < 10_000 else 100 for part, size in zip(model.module, sizes, strict=True)]
    assert ranks == sorted(ranks, reverse=True)
    shares = []
    for weight, rank in zip(weights, ranks, strict=True):
        squares = torch.linalg.svdvals(weight) ** 2
        shares.append((squares[: rank - 1].sum() / squares.sum(), squares[:rank].sum() / squares.sum()))
    assert max(low for low, _ in shares[-2:]) < min(high for _, high in shares[-2:])
    assert model.facts["layers"].endswith(f"{sum(sizes) / 30_000:.0%} of their weights left")


def test_it_has_fewer_parameters() -> None:
    model = split(nn.Sequential(nn.Linear(200, 300), nn.ReLU(), nn.Linear(300, 100)))
    assert 0.49 * 90_000 < sum(parameter.numel() for parameter in model.module.parameters()) <= 0.5 * 90_000 + 400
    assert model.facts["layers"] == "2 of 2 layers split, 50% of their weights left"


def test_samples_keep_what_the_outputs_need(tmp_path: Path) -> None:
    """Inputs with few directions give outputs of low rank, although the weights have full rank."""
    (tmp_path / "own.py").write_text(
        "import torch\n"
        "def model():\n    torch.manual_seed(0)\n    return torch.nn.Sequential(torch.nn.Linear(64, 64))\n"
        "def training():\n    torch.manual_seed(1)\n    return torch.randn(512, 8) @ torch.randn(8, 64)\n"
    )
    family = registry.build("families", "python")
    errors = {}
    for samples in (0, 128):
        model = family.load("own.py", "auto", tmp_path, 0)
        inputs = model.data_as(OwnCode).code.training()
        before = model.module(inputs)
        after = registry.build("methods", "low_rank", {"ratio": 0.3, "samples": samples}).compress(model, family)
        assert not after.cautions
        errors[samples] = float((after.module(inputs) - before).norm() / before.norm())
    assert errors[0] > 0.3
    assert errors[128] < 1e-3


@pytest.mark.parametrize("samples", [0, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_halves_keep_the_dtype(dtype: torch.dtype, samples: int, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    family = registry.build("families", "python")
    model = family.load("own.py", "auto", tmp_path, 0)
    model.module.to(dtype)
    registry.build("methods", "low_rank", {"samples": samples}).compress(model, family)
    assert {parameter.dtype for parameter in model.module.parameters()} == {dtype}
    assert not any(parameter.requires_grad for parameter in model.module.parameters())


def test_layers_that_can_not_be_split_are_not_changed() -> None:
    embedding, head = nn.Embedding(90, 40), nn.Linear(40, 90, bias=False)
    head.weight = embedding.weight
    module = nn.ModuleDict(
        {
            "embedding": embedding,
            "head": head,
            "grouped": nn.Conv2d(32, 32, 3, groups=2),
            "attention": nn.MultiheadAttention(32, 4),
            "encoder": nn.TransformerEncoderLayer(32, 4, 64),
            "thin": nn.Linear(50, 1),
            "plain": nn.Linear(40, 40),
        }
    )
    model = split(module)
    assert model.facts["layers"].startswith("1 of 2 layers split")
    assert isinstance(model.module["plain"], nn.Sequential)
    assert model.module["head"] is head
    assert head.weight is embedding.weight
    model.module["encoder"](torch.rand(5, 2, 32))


def test_a_layer_that_is_held_twice_is_split_once() -> None:
    linear = nn.Linear(40, 40)
    module = split(nn.ModuleDict({"a": linear, "b": nn.Sequential(linear)})).module
    assert module["a"] is module["b"][0]
    assert len(module["a"]) == 2


def test_a_module_that_is_a_layer_is_split() -> None:
    assert isinstance(split(nn.Linear(40, 40)).module, nn.Sequential)


def test_unsupported_models_get_a_reason() -> None:
    with pytest.raises(Unsupported, match="there is no layer to split"):
        split(nn.ReLU())
    with pytest.raises(Unsupported, match="no layer gets smaller at this rank"):
        split(nn.Sequential(nn.Linear(40, 1)))
    with pytest.raises(Unsupported, match="no layer gets smaller at this rank"):
        split(nn.Sequential(nn.Linear(40, 40)), energy=0.999)
    for options in ("ratio=0", "ratio=1", "energy=1", "energy=0", "samples=-1"):
        with pytest.raises(RecipeError, match=options.partition("=")[0]):
            chains.parse_chain(f"low_rank:{options}")


@pytest.mark.parametrize(
    "chain",
    [
        "low_rank",
        "low_rank:energy=0.8",
        "low_rank:energy=0.8,samples=4",
        "low_rank+fp16",
        "low_rank:energy=0.8+int8_dynamic",
        "low_rank:energy=0.8+int4_weight_only",
        "low_rank:energy=0.8+cluster",
        "low_rank+prune_2_4",
        "low_rank+low_rank",
    ],
)
def test_it_is_restored_alone_and_in_a_chain(chain: str, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    steps = chains.parse_chain(chain)
    variant = Variant("own", chain, "t", "python", "own.py", "auto", chain=steps, batch_size=2, folder=str(tmp_path))
    worker.prepare(variant, tmp_path, worker.Report(io.StringIO()))
    saved = model_folder.restore(tmp_path / worker.MODEL_FOLDER)
    repeated = model_folder.restore(tmp_path / worker.MODEL_FOLDER)
    with torch.inference_mode():
        inputs = saved.family.batch(saved.model, 2, 0)
        outputs = saved.family.forward(saved.model, inputs).float()
    assert torch.equal(outputs, repeated.family.forward(repeated.model, inputs).float())
    assert len(list(saved.model.module.modules())) >= 3 * 3 + 3
