"""The fields of a model, and its assets for plugins that use the names of 0.1."""

from __future__ import annotations

import copy
import dataclasses
import gc
import json
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny import OWN, TINY

from mlflow_compress import registry
from mlflow_compress.methods.low_rank import LowRank
from mlflow_compress.methods.prune_structured import PruneStructured
from mlflow_compress.model import PARTLY_RANDOM_WEIGHTS, RANDOM_WEIGHTS
from mlflow_compress.networks.own_code import OwnCode
from mlflow_compress.networks.transformers_models import Companions, companions
from mlflow_compress.records import Caution, CautionKind
from mlflow_compress.sockets import Family, Mark, Model


@dataclasses.dataclass
class Outside(Family):
    """A family written for 0.1 by another distribution: everything it needs is in the assets."""

    def load(self, source: str, weights: str, folder: Path, seed: int) -> Model:
        torch.manual_seed(seed)
        return Model(self._built(8), {"width": 8, "names": ["a", "b"]}, weights="local")

    def _built(self, width: int) -> Any:
        return torch.nn.Sequential(torch.nn.Linear(4, width), torch.nn.ReLU(), torch.nn.Linear(width, 2))

    def batch(self, model: Model, size: int, seed: int) -> Any:
        return torch.rand((size, 4), generator=torch.Generator().manual_seed(seed))

    def run(self, model: Model, batch: Any, mark: Mark) -> Any:
        return model.module(batch)

    def predict(self, model: Model, inputs: Any) -> list[Any]:
        best = model.module(torch.tensor(inputs)).argmax(-1).tolist()
        return [model.assets["names"][index] for index in best]

    def save(self, model: Model, folder: Path) -> None:
        saved_assets = {name: model.assets[name] for name in ("width", "names", "structure") if name in model.assets}
        (folder / "assets.json").write_text(json.dumps(saved_assets))

    def restore(self, folder: Path) -> Model:
        assets = json.loads((folder / "assets.json").read_text())
        return Model(self._built(assets["width"]), assets, weights="local")


@pytest.mark.parametrize("method", [LowRank(ratio=0.9), PruneStructured(steps=0)])
def test_a_family_of_0_1_saves_and_rebuilds_what_methods_made_smaller(method: Any, tmp_path: Path) -> None:
    family = Outside()
    model = family.load("x", "auto", tmp_path, 0)
    pruned = method.compress(model, family)
    family.save(pruned, tmp_path)
    restored = method.rebuild(family.restore(tmp_path), family)
    assert "structure" in restored.assets
    restored.module.load_state_dict(pruned.module.state_dict(), assign=True)
    inputs = [[0.1, 0.2, 0.3, 0.4], [-0.4, 0.3, -0.2, 0.1]]
    assert family.predict(restored, inputs) == family.predict(pruned, inputs)


def test_a_config_among_the_assets_makes_a_transformer() -> None:
    config = SimpleNamespace(num_hidden_layers=2)
    model = Model(None, {"config": config, "tokenizer": "mine"})
    assert model.is_transformer
    assert model.config is config
    assert dict(model.assets) == {"config": config, "tokenizer": "mine"}
    empty_model = Model(None)
    assert not empty_model.is_transformer
    assert "config" not in empty_model.assets
    empty_model.assets["config"] = config
    assert empty_model.is_transformer
    assert empty_model.assets.pop("config") is config
    assert empty_model.config is None


def test_a_copy_has_assets_of_its_own_fields_and_shares_the_rest() -> None:
    model = Model(None, {"config": SimpleNamespace(layers=2), "names": ["a"]})
    thin = dataclasses.replace(model, config=SimpleNamespace(layers=1))
    assert (model.assets["config"].layers, thin.assets["config"].layers) == (2, 1)
    as_in_0_1 = dataclasses.replace(model, assets={**model.assets, "config": SimpleNamespace(layers=3)})
    assert (model.config.layers, as_in_0_1.config.layers) == (2, 3)
    assert as_in_0_1.assets["names"] is model.assets["names"]


def test_the_structure_is_in_the_assets_once_there_is_one() -> None:
    model = Model(None)
    assert model.assets.get("structure", {}) == {}
    model.assets.setdefault("structure", {})["0"] = {"numbers": {"out_features": 3}, "parameters": {}, "buffers": {}}
    assert model.structure["0"]["numbers"] == {"out_features": 3}
    assert list(model.assets) == ["structure"]
    del model.assets["structure"]
    assert (model.structure, len(model.assets)) == ({}, 0)


def test_a_method_of_0_1_finds_what_this_packages_families_keep(tmp_path: Path) -> None:
    family = registry.build("families", "text_classification", TINY["text_classification"])
    model = family.load("tiny", "random", tmp_path, 0)
    assert model.assets["tokenizer"] is companions(model).tokenizer
    assert "processor" not in model.assets  # it has none
    assert {"config", "tokenizer"} <= set(model.assets)
    model.assets["tokenizer"] = "another"
    assert companions(model).tokenizer == "another"
    without = Model(None, model.assets)
    assert (without.config, without.family_data) == (model.config, model.family_data)
    (tmp_path / "own.py").write_text(OWN)
    own = registry.build("families", "python").load("own.py", "random", tmp_path, 0)
    assert own.assets["code"] is own.data_as(OwnCode).code
    assert own.assets["path"] == tmp_path / "own.py"


def test_another_familys_data_is_refused() -> None:
    with pytest.raises(TypeError, match="Companions, not OwnCode"):
        Model(None, family_data=Companions()).data_as(OwnCode)


@pytest.mark.parametrize(("weights", "kind"), [("random", RANDOM_WEIGHTS), ("pretrained", PARTLY_RANDOM_WEIGHTS)])
def test_what_is_said_of_loading_is_a_caution(weights: Any, kind: CautionKind) -> None:
    expected = kind.of(obstacle="no network")
    model = Model(None, weights=weights, caution="no network")
    assert model.cautions == [expected]
    assert dataclasses.replace(model, device="cuda").cautions == [expected]
    empty_model = Model(None, weights=weights)
    assert empty_model.cautions == []
    empty_model.cautions.append(Caution("other", "else"))
    empty_model.caution = "no network"
    assert empty_model.cautions == [expected, Caution("other", "else")]


def test_a_model_that_is_used_no_more_leaves_the_memory() -> None:
    module = torch.nn.Linear(2, 2)
    model = Model(module, {"a": 1})
    module_ref: Callable[[], Any] = weakref.ref(module)
    gc.disable()
    try:
        del module, model
        assert module_ref() is None
    finally:
        gc.enable()


def test_assets_of_a_model_that_is_gone_make_another() -> None:
    def restored() -> Any:
        return Model(None, {"config": "its config", "names": ["a"]}).assets

    model = Model("module", restored(), "local")
    assert (model.config, model.assets["names"], model.weights) == ("its config", ["a"], "local")


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copys_assets_are_its_own(copied: Callable[[Model], Model]) -> None:
    model = Model(None, {"config": ["one"], "names": ["a"]})
    twin = copied(model)
    twin.assets["config"] = ["two"]
    assert (model.config, twin.config) == (["one"], ["two"])
    assert twin.assets["names"] == ["a"]


def test_assets_are_a_dictionary() -> None:
    model = Model(None, {"config": {"layers": 2}, "names": ["a"]})
    plain = {"config": {"layers": 2}, "names": ["a"]}
    assert model.assets == plain
    assert json.loads(json.dumps(model.assets)) == plain
    assert model.assets | {"more": 1} == {**plain, "more": 1}
    for twin in (model.assets.copy(), copy.deepcopy(model.assets)):
        twin["config"] = None
    assert model.config == {"layers": 2}
    model.assets |= {"names": ["b"], "config": "new"}
    assert (model.assets["names"], model.config) == (["b"], "new")
    model.assets = {"config": "newer"}
    assert (dict(model.assets), model.config) == ({"config": "newer"}, "newer")


def test_fields_stand_where_0_1_had_them() -> None:
    model = Model("module", {"names": ["a"]}, "random", "cpu", "the hub is out of reach", 4)
    assert model.batch_size == 4
    assert [(caution.code, caution.message) for caution in model.cautions] == [
        ("random_weights", "the hub is out of reach")
    ]
