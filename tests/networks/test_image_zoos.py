"""Classifiers of torchvision and timm, by their names."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures import loaded, picture
from PIL import Image

from mlflow_compress.errors import RecipeError, UnknownName, Unsupported, WeightsError
from mlflow_compress.networks import hub, image_zoos, model_folder
from mlflow_compress.planning import chains
from mlflow_compress.records import Variant
from mlflow_compress.sockets import Family, Model

SMALL = "torchvision:squeezenet1_1"


def stored(family: Family, model: Model, folder: Path, source: str, method: str = "original") -> Model:
    folder.mkdir()
    chain = chains.parse_chain(method)
    options = dataclasses.asdict(family)
    variant = Variant("m", method, "t", "image_classification", source, "random", chain=chain, options=options)
    model_folder.save(model, family, model_folder.methods_of(chain), variant, folder)
    return model_folder.restore(folder).model


def test_a_model_of_torchvision_answers_as_torchvision_does(tmp_path: Path) -> None:
    import torchvision

    family, model = loaded(SMALL)
    path = picture(tmp_path / "1.png", 1, (300, 260))
    weights = torchvision.models.get_model_weights("squeezenet1_1").DEFAULT
    with Image.open(path) as image, torch.no_grad():
        logits = model.module(weights.transforms()(image.convert("RGB"))[None])[0]
    names = [weights.meta["categories"][index] for index in logits.argsort(descending=True)[:5].tolist()]
    (answer,) = family.answers(model, [str(path)])
    assert [label.partition(" (")[0] for label in answer] == [label.partition(" (")[0] for label in names]
    assert family.batch(model, 2, 0).shape == (2, 3, 224, 224)
    restored = stored(family, model, tmp_path / "saved", SMALL)
    assert family.answers(restored, [str(path)]) == [answer]


def test_weights_of_a_file_fill_a_model_of_torchvision(tmp_path: Path) -> None:
    options: dict[str, Any] = {"architecture": {"num_classes": 4}}
    _, trained = loaded(SMALL, **options)
    for parameter in trained.module.parameters():
        parameter.mul_(2)
    torch.save(trained.module.state_dict(), tmp_path / "own.pt")
    family, model = loaded(SMALL, "own.pt", tmp_path, **options)
    assert model.weights == "local"
    assert torch.equal(model.module.classifier[1].weight, trained.module.classifier[1].weight)
    assert set(family.answers(model, [np.zeros((9, 9, 3), np.uint8)])[0]) == {f"LABEL_{index}" for index in range(4)}
    with pytest.raises(WeightsError, match=r"own\.pt are not this model's: different shapes: classifier\.1\.weight"):
        loaded(SMALL, "own.pt", tmp_path)
    with pytest.raises(WeightsError, match="There is no weights file"):
        loaded(SMALL, "none.pt", tmp_path)
    (tmp_path / "bad.pt").write_bytes(b"no weights")
    with pytest.raises(WeightsError, match=r"bad\.pt can't be read"):
        loaded(SMALL, "bad.pt", tmp_path)


def test_what_a_trainer_saved_fills_a_model_of_torchvision(tmp_path: Path) -> None:
    options: dict[str, Any] = {"architecture": {"num_classes": 4}}
    _, trained = loaded(SMALL, **options)
    state = {f"module.{name}": tensor.mul(2).half() for name, tensor in trained.module.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3, "optimizer": {"state": {}}}, tmp_path / "run.ckpt")
    _, model = loaded(SMALL, "run.ckpt", tmp_path, **options)
    expected = state["module.classifier.1.weight"].float()
    assert torch.equal(model.module.classifier[1].weight, expected)
    assert model.facts == {
        "checkpoint": "the entry 'state_dict' was used; 'module.' was removed from its names",
        "precision": "the weights were cast: float16 to float32",
    }


def test_without_a_network_weights_are_of_the_cache_or_random(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_ask", lambda endpoint: f"{endpoint} can't be reached (no network)")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(WeightsError, match=r"torchvision:squeezenet1_1 are not available: .*weights=PATH"):
        loaded(SMALL, "pretrained")
    _, model = loaded(SMALL, "auto")
    assert model.weights == "random"
    assert "RANDOM" in model.cautions[0].message
    model.module.classifier[1].weight.fill_(0.25)
    (tmp_path / "checkpoints").mkdir()
    torch.save(model.module.state_dict(), tmp_path / "checkpoints" / "squeezenet1_1-b8a52dc0.pth")
    _, model = loaded(SMALL, "auto")
    assert (model.weights, model.cautions) == ("pretrained", [])
    assert (model.module.classifier[1].weight == 0.25).all()


def test_names_unknown_to_torchvision_are_reported_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'resnet18'"):
        loaded("torchvision:resnet81")
    with pytest.raises(UnknownName, match="IMAGENET1K_V1"):
        loaded("torchvision:resnet50@IMAGENET1K_V9")
    with pytest.raises(UnknownName):
        loaded("torchvision:fcn_resnet50")  # it does not classify
    with pytest.raises(RecipeError, match="does not describe a model"):
        loaded(SMALL, architecture={"classes": 3})


@pytest.mark.skipif(importlib.util.find_spec("timm") is not None, reason="timm is installed")
def test_timm_must_be_installed() -> None:
    with pytest.raises(Unsupported, match="pip install timm"):
        loaded("timm:resnet18")


def test_channels_of_a_model_of_torchvision_are_pruned(tmp_path: Path) -> None:
    pytest.importorskip("torch_pruning")
    family, model = loaded(SMALL, architecture={"num_classes": 4})
    before = sum(parameter.numel() for parameter in model.module.parameters())
    (method,) = model_folder.methods_of(chains.parse_chain("prune_structured:amount=0.5"))
    pruned = method.compress(model, family)
    batch = family.batch(pruned, 1, 0)
    restored = stored(family, pruned, tmp_path / "saved", SMALL, "prune_structured:amount=0.5")
    assert sum(parameter.numel() for parameter in restored.module.parameters()) < before / 3
    with torch.no_grad():
        torch.testing.assert_close(family.forward(restored, batch), family.forward(pruned, batch))


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("resnet18", {"checkpoint_path": "evil.pth"}),
        ("resnet18", {"pretrained_cfg_overlay": {"file": "evil.pth"}}),
        ("hf-hub:someone/evil", {}),
        ("local-dir:evil", {}),
    ],
)
@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_building_a_model_loads_no_other_files(library: str, name: str, architecture: dict[str, Any]) -> None:
    described = {"library": library, "name": name, "architecture": architecture, "labels": [], "transform": {}}
    with pytest.raises(RecipeError, match=r"is not the name of a model|which loads weights"):
        image_zoos.build(described)
    with pytest.raises(RecipeError, match=r"is not the name of a model|which loads weights"):
        image_zoos.load(f"{library}:{name}", "random", Path(), architecture, 0)
