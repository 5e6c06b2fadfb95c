"""Structured pruning: the least important parts are removed, the rest is unchanged, and the saved model is smaller."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import DEEPER, TINY
from torch import nn

from mlflow_compress import registry
from mlflow_compress.errors import RecipeError, Unsupported
from mlflow_compress.networks import model_folder, stored_weights
from mlflow_compress.networks.own_code import OwnCode
from mlflow_compress.planning import chains
from mlflow_compress.records import Variant
from mlflow_compress.sockets import Family, Model

pytest.importorskip("torch_pruning")

NET = """
import torch
from tiny import DEEPER, TINY
from torch import nn

class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.last = nn.Linear(8 * 16, 5)

    def forward(self, images):
        features = self.first(images).relu()
        features = features + self.norm(self.second(features))
        return self.last(self.depthwise(features).relu().flatten(1))

def model():
    return Residual()

def numbers():
    class Numbers(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(6, 8), nn.Linear(4, 2)

        def forward(self, inputs):
            return self.last(self.first(inputs).view(-1, 2, 4).sum(1))

    return Numbers()

def one():
    return nn.Linear(3, 2)

def circular():
    return nn.Sequential(
        nn.Conv1d(4, 16, 3, padding=1, padding_mode="circular"), nn.ReLU(),
        nn.Conv1d(16, 4, 3, padding=1, padding_mode="circular"),
    )

def tied():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.head = nn.Embedding(20, 8), nn.Linear(8, 20, bias=False)
            self.up = nn.Linear(8, 32)
            self.down = nn.Linear(32, 8)
            self.head.weight = self.embedding.weight

        def forward(self, tokens):
            return self.head(self.down(self.up(self.embedding(tokens)).relu()))

    return Tied()

def normed():
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))

def batch(size):
    return torch.rand(size, 3, 4, 4)
"""
LM = {**TINY["causal_lm"]["architecture"], **DEEPER["causal_lm"], "vocab_size": 100, "tie_word_embeddings": False}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(NET)
    return tmp_path


def loaded(folder: Path, **options: Any) -> tuple[Family, Model]:
    family: Family = registry.build("families", "python", options)
    return family, family.load("net.py", "random", folder, 0)


def language_model() -> tuple[Family, Model]:
    options = {"prompt_tokens": 8, "new_tokens": 3, "architecture": LM}
    family: Family = registry.build("families", "causal_lm", options)
    return family, family.load("tiny", "random", Path(), 0)


def outputs(family: Family, model: Model) -> torch.Tensor:
    with torch.no_grad():
        flat: torch.Tensor = stored_weights.flat(family.forward(model, family.batch(model, 2, 0)))
    return flat


def compressed(family: Family, model: Model, chain: str) -> tuple[Model, list[Any]]:
    methods = model_folder.methods_of(chains.parse_chain(chain))
    for method in methods:
        model = method.compress(model, family)
    return model, methods


def restored(name: str, family: Family, model: Model, chain: str, folder: Path) -> model_folder.Restored:
    options = dataclasses.asdict(family)
    methods = model_folder.methods_of(chains.parse_chain(chain))
    variant = Variant("m", chain, "t", name, "s", chain=chains.parse_chain(chain), options=options)
    (folder / "saved").mkdir()
    model_folder.save(model, family, methods, variant, folder / "saved")
    return model_folder.restore(folder / "saved")


@pytest.mark.parametrize(("norm", "channels"), [("l1", [0, 3]), ("l2", [1, 3])])
def test_the_channels_with_the_greatest_norm_stay_as_they_were(folder: Path, norm: str, channels: list[int]) -> None:
    family, model = loaded(folder)
    first, last = nn.Linear(3, 4), nn.Linear(4, 2)
    with torch.no_grad():  # l1 of each channel's weights: 3.9, 3.5, 1.2, 9; squared l2: 3.05, 6.25, 0.54, 27
        first.weight[:] = torch.tensor([[1, 1, 0.9], [2.5, 0, 0], [0.3, -0.3, 0], [3, -3, 0]])
        last.weight[:] = torch.tensor([[0.5, 0, 0.6, 3], [-0.5, 1, 0, 0]])
    weights = [first.weight.clone(), first.bias.clone(), last.weight.clone(), last.bias.clone()]
    model.module = nn.Sequential(first, nn.ReLU(), last).eval()
    code: Any = model.data_as(OwnCode).code
    code.batch = lambda size: torch.rand(size, 3)
    method = registry.build("methods", "prune_structured", {"norm": norm, "steps": 0})
    module = method.compress(model, family).module
    assert torch.equal(module[0].weight, weights[0][channels])
    assert torch.equal(module[0].bias, weights[1][channels])
    assert torch.equal(module[2].weight, weights[2][:, channels])
    assert torch.equal(module[2].bias, weights[3])
    assert not any(parameter.requires_grad for parameter in module.parameters())


def test_channels_without_weight_are_not_missed_through_sums_norms_and_groups(folder: Path) -> None:
    family, model = loaded(folder)
    module = model.module
    with torch.no_grad():
        for layer in (module.first, module.second, module.depthwise):
            layer.weight[2:5] = 0
            layer.bias[2:5] = 0
        module.norm.weight[2:5] = 0
        module.norm.running_mean.uniform_(-1, 1)
    before = outputs(family, model)
    model, _ = compressed(family, model, "prune_structured:amount=0.375")
    torch.testing.assert_close(outputs(family, model), before, rtol=1e-4, atol=1e-5)
    widths = [module.first.out_channels, module.second.in_channels, module.norm.num_features, module.depthwise.groups]
    assert widths == [5, 5, 5, 5]
    assert module.last.weight.shape == (5, 80)
    assert module.first.in_channels == 3
    count = sum(parameter.numel() for parameter in module.parameters())
    assert count == (27 + 1) * 5 + (45 + 1) * 5 + 10 + (9 + 1) * 5 + 405
    assert f"{count:,} of " in model.facts["kept"]


@pytest.mark.parametrize(
    "chain", ["prune_structured", "prune_structured:amount=0.3+prune_structured:amount=0.3", "prune_structured+bf16"]
)
def test_a_pruned_module_is_restored_smaller(chain: str, folder: Path) -> None:
    family, model = loaded(folder)
    original = sum(parameter.numel() for parameter in model.module.parameters())
    model, _ = compressed(family, model, chain)
    count = sum(parameter.numel() for parameter in model.module.parameters())
    reloaded = restored("python", family, model, chain, folder)
    assert torch.equal(outputs(reloaded.family, reloaded.model), outputs(family, model))
    assert count == sum(parameter.numel() for parameter in reloaded.model.module.parameters()) < 0.6 * original
    size_bytes = sum(tensor.numel() * tensor.element_size() for tensor in model.module.state_dict().values())
    assert size_bytes <= (folder / "saved" / "model.safetensors").stat().st_size < size_bytes + 3000


def test_a_detector_without_half_of_its_channels_is_the_same(tmp_path: Path) -> None:
    family = registry.build("families", "yolo", {"image_size": 64})
    model = family.load("yolo11n.pt", "random", tmp_path, 0)
    inside = [layer for part in model.module.modules() if hasattr(part, "attn") for layer in part.modules()]
    head = model.module.model[-1]
    ends = [branch[-1] for branches in (head.cv2, head.cv3) for branch in branches]
    attention = next(layer for layer in model.module.modules() if type(layer).__name__ == "C2PSA")
    unpruned = {*inside, *ends, head.dfl.conv, attention.cv1.conv}
    halves = {layer.cv1.conv for layer in model.module.modules() if type(layer).__name__ == "C3k2"}
    with torch.no_grad():
        for module in model.module.modules():
            if isinstance(module, nn.Conv2d) and module not in unpruned:
                module.weight *= 5  # otherwise the outputs do not depend on the image
                width = module.out_channels // (2 if module in halves else 1)
                for start in range(0, module.out_channels, width):
                    for part in module.parameters():
                        part[start : start + width // 2] = 0
    images = [torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    with torch.inference_mode():
        before = [family.run(model, image, lambda stage: None) for image in images]
    model, _ = compressed(family, model, "prune_structured")
    with torch.inference_mode():
        after = [family.run(model, image, lambda stage: None) for image in images]
    assert (before[0] - before[1]).norm() > 1e-3 * before[0].norm()
    for mine, theirs in zip(after, before, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3)
    assert sum(parameter.numel() for parameter in model.module.parameters()) < 0.31 * 2_616_248
    reloaded = restored("yolo", family, model, "prune_structured", tmp_path)
    assert torch.equal(outputs(reloaded.family, reloaded.model), outputs(family, model))


def test_training_afterwards_brings_it_nearer_to_the_original_and_can_be_repeated(folder: Path) -> None:
    distances = []
    for steps in (0, 60, 60):
        family, model = loaded(folder)
        code: Any = model.data_as(OwnCode).code
        code.training = lambda: torch.rand(200, 3, 4, 4, generator=torch.Generator().manual_seed(5))
        before = outputs(family, model)
        progress: list[tuple[int, int]] = []
        model.progress = lambda done, total, progress=progress: progress.append((done, total))  # type: ignore[misc]
        model, _ = compressed(family, model, f"prune_structured:loss=mse,steps={steps}")
        distances.append(stored_weights.distance(outputs(family, model), before))
        assert len(progress) == steps
        assert not model.module.training
        assert not any(parameter.requires_grad for parameter in model.module.parameters())
    assert distances[1] == distances[2] < 0.5 * distances[0]
    assert "60 steps of 16 inputs" in model.facts["training"]
    assert not model.cautions


def test_it_trains_by_itself_only_where_there_is_data(folder: Path) -> None:
    family, model = loaded(folder)
    model, _ = compressed(family, model, "prune_structured")
    assert "training" not in model.facts
    assert not model.cautions
    family, model = loaded(folder)
    model, _ = compressed(family, model, "prune_structured:steps=1,batch_size=2")
    assert "1 steps of 2 random inputs" in model.facts["training"]
    assert [caution.code for caution in model.cautions] == ["random_calibration"]


@pytest.mark.parametrize("model_type", ["llama", "qwen2"])
def test_a_pruned_transformer_is_rebuilt_from_its_config(
    model_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LM, "model_type", model_type)
    family, model = language_model()
    chain = "prune_structured+prune_structured:what=layers+int8_dynamic"
    model, _ = compressed(family, model, chain)
    reloaded = restored("causal_lm", family, model, chain, tmp_path)
    torch.testing.assert_close(outputs(reloaded.family, reloaded.model), outputs(family, model))
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert (config["num_hidden_layers"], config["intermediate_size"]) == (2, 16)
    if model_type == "llama":  # its config has the size of a head, so that the number of heads can change
        assert (config["num_attention_heads"], config["num_key_value_heads"]) == (2, 1)
        assert "kept_heads" not in config
    else:
        assert (config["num_attention_heads"], config["kept_heads"]) == (4, {"model.layers": [2, 1]})
    with torch.inference_mode():
        family.run(reloaded.model, family.batch(reloaded.model, 1, 0), lambda stage: None)  # with a cache


def test_the_layer_that_changes_least_goes() -> None:
    family, model = language_model()
    layers = list(model.module.model.layers)
    for linear in (layers[1].self_attn.o_proj, layers[1].mlp.down_proj):
        linear.weight.zero_()
    before = outputs(family, model)
    model, _ = compressed(family, model, "prune_structured:what=layers,amount=0.25")
    assert list(model.module.model.layers) == [layers[0], layers[2], layers[3]]
    torch.testing.assert_close(outputs(family, model), before)


@pytest.mark.parametrize(
    ("function", "options", "reason"),
    [
        ("one", "", "removes no channels"),
        ("model", "amount=0.01", "removes no channels"),
        ("numbers", "", "can't be followed|can't run|would change the shape"),
        ("circular", "", "their dependencies form a cycle, as with circular padding"),
        ("model", "what=heads", "not a transformers model"),
        ("model", "what=layers", "not a transformers model"),
    ],
)
def test_modules_that_can_not_be_pruned_are_rejected(function: str, options: str, reason: str, folder: Path) -> None:
    family, model = loaded(folder, function=function)
    shape = {"one": (3,), "numbers": (6,), "model": (3, 4, 4), "circular": (4, 12)}[function]
    code: Any = model.data_as(OwnCode).code
    code.batch = lambda size: torch.rand(size, *shape)
    with pytest.raises(Unsupported, match=reason):
        compressed(family, model, f"prune_structured:steps=0,{options}".rstrip(","))


def test_a_head_stays_tied_to_its_embedding_and_the_layers_between_are_pruned(folder: Path) -> None:
    family, model = loaded(folder, function="tied")
    code: Any = model.data_as(OwnCode).code
    code.batch = lambda size: torch.randint(0, 20, (size, 5))
    pruned, _ = compressed(family, model, "prune_structured:steps=0")
    assert pruned.module.head.weight is pruned.module.embedding.weight
    assert pruned.module.embedding.weight.shape == (20, 8)
    assert pruned.module.up.weight.shape == (16, 8)


def test_a_batch_of_one_is_trained_on_with_the_statistics_that_are_there(folder: Path) -> None:
    pruned, _ = compressed(*loaded_normed(folder), "prune_structured:steps=3,batch_size=1")
    assert torch.equal(pruned.module[1].running_var, torch.ones(4))
    pruned, _ = compressed(*loaded_normed(folder), "prune_structured:steps=3,batch_size=2")
    assert not torch.equal(pruned.module[1].running_var, torch.ones(4))


def loaded_normed(folder: Path) -> tuple[Family, Model]:
    family, model = loaded(folder, function="normed")
    code: Any = model.data_as(OwnCode).code
    code.batch = lambda size: torch.rand(size, 6)
    return family, model


def test_a_transformer_has_no_channels_and_never_loses_its_last_layer() -> None:
    with pytest.raises(Unsupported, match="set what=heads, neurons or layers"):
        compressed(*language_model(), "prune_structured:what=channels")
    with pytest.raises(Unsupported, match="removes no layers"):
        compressed(*language_model(), "prune_structured:what=layers,amount=0.1")
    model, _ = compressed(*language_model(), "prune_structured:what=layers,amount=0.99")
    assert len(model.module.model.layers) == 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("amount=1", "amount='1' is invalid: input should be less than 1"),
        ("amount=0", "greater than 0"),
        ("what=filters", "'channels', 'heads', 'neurons' or 'layers'"),
        ("norm=l3", "'l1' or 'l2'"),
        ("steps=-1", "steps='-1' is invalid: input should be greater than or equal to 0"),
        ("learning_rate=0", "learning_rate='0' is invalid: input should be greater than 0"),
        ("batch_size=0", "greater than or equal to 1"),
    ],
)
def test_options_out_of_range_are_refused(options: str, reason: str) -> None:
    with pytest.raises(RecipeError, match=reason):
        chains.parse_chain(f"prune_structured:{options}")
