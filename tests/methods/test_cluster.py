"""Weight sharing: k-means, preserved zeros, size on disk, and the gain of training the values."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

from mlflow_compress import registry
from mlflow_compress.compression import compact
from mlflow_compress.errors import RecipeError, Unsupported
from mlflow_compress.measuring import worker
from mlflow_compress.meters import size
from mlflow_compress.methods.cluster import kmeans
from mlflow_compress.networks import model_folder
from mlflow_compress.planning import chains, recipe
from mlflow_compress.sockets import Model

DIGITS = Path(__file__).parents[2] / "recipes"


def compressed(module: nn.Module, **options: Any) -> nn.Module:
    family = registry.build("families", "python")
    module.requires_grad_(False)
    result: nn.Module = registry.build("methods", "cluster", options).compress(Model(module), family).module
    return result


def inertia(values: Any, centroids: Any) -> float:
    return float(((values[:, None] - centroids[None]) ** 2).min(1).sum())


@pytest.mark.parametrize("count", [2, 4, 16])
@pytest.mark.parametrize("draw", ["normal", "laplace", "uniform"])
def test_kmeans_is_about_as_good_as_scikit_learns(draw: str, count: int) -> None:
    from sklearn.cluster import KMeans

    values = getattr(np.random.default_rng(0), draw)(size=20_000).astype(np.float32)
    theirs = KMeans(count, n_init=1, random_state=0).fit(values[:, None]).inertia_
    assert inertia(values, kmeans(values, count)) < 1.1 * theirs


@pytest.mark.parametrize("count", [2, 7, 16, 256])
def test_kmeans_is_a_fixed_point(count: int) -> None:
    values = np.random.default_rng(1).standard_t(5, size=30_000).astype(np.float32)
    centroids = kmeans(values, count)
    assert len(centroids) == count
    assert (np.diff(centroids) > 0).all()
    nearest = np.abs(values[:, None] - centroids[None]).argmin(1)
    means = np.array([values[nearest == index].mean(dtype=np.float64) for index in range(count)])
    np.testing.assert_allclose(means, centroids, rtol=1e-4, atol=1e-5)


def test_few_values_are_found_exactly() -> None:
    values = np.array([3.0, -1, 3, 0.5, -1, 0.5, 3], dtype=np.float32)
    np.testing.assert_array_equal(kmeans(values, 16), [-1, 0.5, 3])
    np.testing.assert_array_equal(kmeans(np.full(9, 0.25, dtype=np.float32), 4), [0.25])


def test_an_outlier_does_not_cost_the_codebook() -> None:
    bulk = np.random.default_rng(2).normal(size=20_000).astype(np.float32)
    with_outlier = np.append(bulk, np.float32(1000))
    centroids = kmeans(with_outlier, 16)
    assert centroids[-1] == 1000
    assert inertia(with_outlier, centroids) < 1.1 * inertia(bulk, kmeans(bulk, 15))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_each_tensor_gets_its_own_few_values_and_biases_stay(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    module: Any = nn.ModuleList(
        [nn.Linear(40, 50), nn.Conv2d(8, 16, 3), nn.ConvTranspose1d(4, 8, 3), nn.Embedding(50, 20), nn.LayerNorm(300)]
    ).to(dtype)
    nn.init.normal_(module[4].weight)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    compressed(module, centroids=8)
    for name, value in module.state_dict().items():
        assert value.dtype == dtype
        if name.endswith("weight") and value.dim() > 1:
            assert 4 < len(value.unique()) <= 8, name
            assert (value - before[name]).norm() < 0.25 * before[name].norm()
        else:
            assert torch.equal(value, before[name])


@pytest.mark.parametrize(("layers", "changed"), [("linear", 0), ("convolution", 1), ("embedding", 2)])
def test_one_kind_of_layers_can_be_chosen(layers: str, changed: int) -> None:
    module: Any = nn.ModuleList([nn.Linear(30, 30), nn.Conv1d(30, 30, 1), nn.Embedding(30, 30)])
    before = [layer.weight.clone() for layer in module]
    compressed(module, layers=layers)
    assert [not torch.equal(*pair) for pair in zip(before, [layer.weight for layer in module], strict=True)] == [
        index == changed for index in range(3)
    ]


@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_zeros_of_pruning_stay_zeros(share: float) -> None:
    torch.manual_seed(0)
    module = nn.Linear(200, 100)
    mask = torch.rand(100, 200) < share
    module.weight.data[mask] = 0
    compressed(module, centroids=16)
    assert (module.weight[mask] == 0).all()
    assert len(module.weight.unique()) <= 16


def test_tied_weights_stay_tied() -> None:
    embedding, head = nn.Embedding(60, 20), nn.Linear(20, 60, bias=False)
    head.weight = embedding.weight
    compressed(nn.ModuleList([embedding, head]), layers="linear")
    assert head.weight is embedding.weight
    assert len(head.weight.unique()) <= 16


def test_a_function_written_as_a_layer_is_not_changed() -> None:
    bins = nn.Conv2d(16, 1, 1, bias=False)
    bins.weight.data = torch.arange(16.0).view(1, 16, 1, 1)
    compressed(nn.ModuleList([bins, nn.Linear(9, 9)]), centroids=4)
    assert torch.equal(bins.weight.view(-1), torch.arange(16.0))


def test_unsupported_models_get_a_reason() -> None:
    with pytest.raises(Unsupported, match="there is no layer to cluster"):
        compressed(nn.ReLU())
    with pytest.raises(Unsupported, match=r"there is no layer to cluster \(embedding\)"):
        compressed(nn.Linear(50, 50), layers="embedding")
    with pytest.raises(Unsupported, match="no weight has more than 16 distinct values"):
        compressed(nn.Linear(4, 4))
    with pytest.raises(Unsupported, match="trained only in float32"):
        compressed(nn.Linear(50, 50).half(), steps=1)
    for options in ("centroids=1", "centroids=257", "layers=some", "coding=lzma", "steps=-1"):
        with pytest.raises(RecipeError, match=options.partition("=")[0]):
            chains.parse_chain(f"cluster:{options}")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Train the digits model once, outside of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def digits(chain: str, folder: Path) -> tuple[dict[str, float], Any]:
    """Compress the digits model, save it, and restore it."""
    variant = recipe.plan(
        recipe.read(str(DIGITS / "digits_cnn.yaml")), [(chain, chains.parse_chain(chain))], recipe.Settings()
    )[0]
    folder.mkdir(exist_ok=True)
    part = worker.prepare(variant, folder, worker.Report(io.StringIO()))
    restored = model_folder.restore(folder / worker.MODEL_FOLDER)
    samples = restored.family.samples(restored.model, "own", DIGITS, None, 0)
    predicted = restored.family.predict(restored.model, [sample.inputs for sample in samples])
    hits = [guess == sample.reference for guess, sample in zip(predicted, samples, strict=True)]
    return {**part.measurements, "accuracy": sum(hits) / len(hits)}, restored.model


def test_sixteen_centroids_take_a_seventh_of_the_disk(tmp_path: Path) -> None:
    original, _ = digits("original", tmp_path / "original")
    clustered, model = digits("cluster", tmp_path / "clustered")
    assert clustered["size/disk_mib"] < 0.16 * original["size/disk_mib"]
    assert clustered["accuracy"] > original["accuracy"] - 0.02
    weights = [value for value in model.module.state_dict().values() if value.dim() > 1]
    assert all(len(value.unique()) <= 16 for value in weights)
    bits = sum(value.numel() * 4 for value in weights)
    with safe_open(tmp_path / "clustered" / worker.MODEL_FOLDER / compact.COMPACT, framework="pt") as file:
        codes = [file.get_tensor(name) for name in file.keys() if name.endswith(".codes")]  # noqa: SIM118
    assert sum(tensor.nbytes for tensor in codes) == bits // 8
    assert size.in_memory(model.module)["size/weights_mib"] == pytest.approx(71754 * 4 / 2**20)  # it runs dense


def test_pruned_and_coded_takes_less_and_keeps_its_zeros(tmp_path: Path) -> None:
    pruned, before = digits("prune_magnitude:amount=0.6", tmp_path / "pruned")
    coded, after = digits("prune_magnitude:amount=0.6+cluster:coding=huffman", tmp_path / "coded")
    clustered, _ = digits("cluster", tmp_path / "clustered")
    assert coded["size/disk_mib"] < 0.75 * clustered["size/disk_mib"]
    assert coded["accuracy"] > pruned["accuracy"] - 0.03
    for name, value in before.module.state_dict().items():
        assert (after.module.state_dict()[name][value == 0] == 0).all()


def test_trained_values_give_the_accuracy_back(tmp_path: Path) -> None:
    untrained, _ = digits("cluster:centroids=3", tmp_path / "untrained")
    trained, model = digits("cluster:centroids=3,steps=100", tmp_path / "trained")
    assert trained["accuracy"] > untrained["accuracy"] + 0.01
    assert all(len(value.unique()) <= 3 for value in model.module.state_dict().values() if value.dim() > 1)
    assert trained["size/disk_mib"] == pytest.approx(untrained["size/disk_mib"], rel=0.02)


@pytest.mark.parametrize(
    ("chain", "is_told"),
    [
        ("cluster", True),
        ("cluster+prune_magnitude", True),
        ("low_rank:ratio=0.9+cluster", True),
        ("cluster+low_rank:ratio=0.9", False),
        ("cluster+int8_dynamic", False),
        ("cluster+bf16", False),
    ],
)
def test_the_caution_about_storage_holds_for_the_whole_chain(chain: str, is_told: bool, tmp_path: Path) -> None:
    variant = recipe.plan(
        recipe.read(str(DIGITS / "digits_cnn.yaml")), [(chain, chains.parse_chain(chain))], recipe.Settings()
    )[0]
    part = worker.prepare(variant, tmp_path, worker.Report(io.StringIO()))
    assert ("stored_only" in {caution.code for caution in part.cautions}) is is_told
