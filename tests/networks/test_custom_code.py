"""Models built by Python code beside their weights: with trust they run to the end, without it no code runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny import TINY, tiny_model
from transformers.utils.hub import HF_MODULES_CACHE

from mlflow_compress import registry
from mlflow_compress.cli.checking import check_models
from mlflow_compress.errors import RecipeError, WeightsError
from mlflow_compress.networks import model_folder
from mlflow_compress.networks.transformers_models import companions
from mlflow_compress.planning import chains, recipe

_CONFIG = """
from transformers import PretrainedConfig

class {name}Config(PretrainedConfig):
    model_type = "{kind}"

    def __init__(self, vocab_size=300, width=8, **others):
        self.vocab_size, self.width = vocab_size, width
        super().__init__(**others)
"""
_NET = """
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from .{kind}_config import {name}Config

open({ran!r}, "w").close()

class {name}Net(PreTrainedModel):
    config_class = {name}Config

    def __init__(self, config):
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab_size, config.width)
        self.head = nn.Linear(config.width, config.num_labels)
        self.post_init()

    def forward(self, input_ids, attention_mask=None):
        return SequenceClassifierOutput(logits=self.head(self.embed(input_ids).mean(1)))
"""
_WEIGHTS = {
    "embed.weight": torch.randn(300, 8, generator=torch.Generator().manual_seed(0)),
    "head.weight": torch.randn(2, 8, generator=torch.Generator().manual_seed(1)),
    "head.bias": torch.zeros(2),
}


def written(folder: Path, kind: str = "mine", code: str = "") -> Path:
    """Write a folder like a custom model of the hub; its code writes a file `ran` beside the folder."""
    folder.mkdir()
    name = kind.capitalize()
    words: dict[str, Any] = {"kind": kind, "name": name, "ran": str(folder.parent / "ran")}
    (folder / f"{kind}_config.py").write_text(_CONFIG.format(**words))
    (folder / f"{kind}_net.py").write_text(_NET.format(**words))
    config = {
        "model_type": kind,
        "auto_map": {
            "AutoConfig": f"{code}{kind}_config.{name}Config",
            "AutoModelForSequenceClassification": f"{code}{kind}_net.{name}Net",
        },
        "architectures": [f"{name}ForSequenceClassification"],
        "id2label": {"0": "bad", "1": "good"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(_WEIGHTS, str(folder / "model.safetensors"), metadata={"format": "pt"})
    companions(tiny_model("text_classification")[1]).tokenizer.save_pretrained(folder)
    return folder


def change_config(path: Path, **fields: Any) -> None:
    """Change fields of a config, or write a new config."""
    config = json.loads(path.read_text()) if path.exists() else {}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**config, **fields}))


def imported() -> list[str]:
    """Return the names of all modules that transformers imported from its copies of the code."""
    return [name for name in sys.modules if name.partition(".")[0] == "transformers_modules"]


@pytest.fixture(autouse=True)
def _no_modules_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give each test a separate folder for such copies; other tests or commands may also use a `folder`."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place != HF_MODULES_CACHE])
    for name in imported():
        monkeypatch.delitem(sys.modules, name)
    yield
    for name in imported():
        del sys.modules[name]


def test_trusted_code_builds_a_model_that_is_saved_with_it(tmp_path: Path) -> None:
    folder = written(tmp_path / "folder")
    plan = recipe.read(str(folder))
    (variant,) = recipe.plan(plan, plan.variants, recipe.Settings(trust=True))
    assert (variant.family, variant.options["trust"]) == ("text_classification", True)
    family = registry.build("families", variant.family, {**variant.options, "tokens": 4})
    model = family.load(str(folder), "auto", tmp_path, 0)
    assert torch.equal(model.module.head.weight, _WEIGHTS["head.weight"])
    chain = chains.parse_chain("int8_dynamic")
    methods = model_folder.methods_of(chain)
    for method in methods:
        model = method.compress(model, family)
    target = tmp_path / "kept"
    target.mkdir()
    saved_as = replace(variant, chain=chain, method="int8_dynamic")
    model_folder.save(model, family, methods, saved_as, target)
    for path in (*folder.glob("*.py"), tmp_path / "ran"):  # the saved model needs none of these
        path.unlink()
    restored = model_folder.restore_others(target)
    batch = family.batch(model, 2, 0)
    assert torch.equal(
        restored.family.run(restored.model, batch, lambda stage: None), family.run(model, batch, lambda stage: None)
    )
    assert (tmp_path / "ran").exists()


def test_without_trust_nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = written(tmp_path / "folder", "yours")
    plan = recipe.read(str(folder))
    with pytest.raises(RecipeError, match=r"Python code that builds the model.*say so: --trust"):
        recipe.plan(plan, plan.variants, recipe.Settings())
    with pytest.raises(WeightsError, match=r"transformers itself has no yours\. If you trust .* --trust"):
        registry.build("families", "text_classification").load(str(folder), "auto", tmp_path, 0)
    manifest = {"family": "text_classification", "chain": [], "weights": "local", "model": "m", "method": "original"}
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    change_config(folder / "config.json", width=float("nan"))  # transformers reads NaN
    for options, message in (({}, "was measured without trust"), ({"trust": True}, "runs its own code")):
        (folder / "manifest.json").write_text(json.dumps({**manifest, "options": options}))
        with pytest.raises(WeightsError, match=message):
            model_folder.restore_others(folder)
    assert not (tmp_path / "ran").exists()


def test_a_check_asks_for_trust_as_a_run_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = written(tmp_path / "folder", "checked")
    with pytest.raises(RecipeError, match=r"Python code that builds the model.*say so: --trust"):
        check_models([str(folder)], recipe.Settings(), deep=False)
    output = capsys.readouterr().out
    check_models([str(folder)], recipe.Settings(trust=True), deep=False)
    assert capsys.readouterr().out == output == "folder, original\n"
    assert not (tmp_path / "ran").exists()


OF_THE_HUB: list[tuple[str, dict[str, Any], str]] = [
    (
        "config.json",
        {"auto_map": {"AutoConfig": "theirs_config.TheirsConfig", "AutoModelForSequenceClassification": "a/b--c.D"}},
        "config.json names code in another repository",
    ),
    ("config.json", {"inner": {"auto_map": {"AutoModel": "a/b--c.D"}}}, "config.json names code in another"),
    ("config.json", {"configuration_files": ["config.4.0.0.json"]}, "config.json names other files to read instead"),
    ("tokenizer_config.json", {"auto_map": ["a/b--c.D", None]}, "tokenizer_config.json names code in another"),
    (
        "preprocessor_config.json",
        {"auto_map": {"AutoImageProcessor": "a/b--c.D"}},
        "preprocessor_config.json names code in another repository",
    ),
]


@pytest.mark.parametrize(("name", "fields", "message"), OF_THE_HUB)
def test_code_of_the_hub_is_refused_with_trust_too(
    tmp_path: Path, name: str, fields: dict[str, Any], message: str
) -> None:
    folder = written(tmp_path / "folder", "theirs")
    change_config(folder / name, **fields)
    with pytest.raises(WeightsError, match=rf"Code from the hub is never run \({message}"):
        registry.build("families", "text_classification", {"trust": True}).load(str(folder), "auto", tmp_path, 0)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        *OF_THE_HUB,
        ("tokenizer/tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["a/b--c.D", None]}}, "tokenizer"),
    ],
)
def test_code_of_the_hub_is_not_run_by_a_logged_model(
    tmp_path: Path, name: str, fields: dict[str, Any], message: str
) -> None:
    folder = written(tmp_path / "folder", "theirs")
    change_config(folder / name, **fields)
    manifest = {"family": "text_classification", "chain": [], "weights": "local", "model": "m", "method": "original"}
    (folder / "manifest.json").write_text(json.dumps({**manifest, "options": {"trust": True}}))
    with pytest.raises(WeightsError, match=rf"is not restored: code from the hub is never run \({message}"):
        model_folder.restore_others(folder)
    assert not (tmp_path / "ran").exists()


def test_code_that_transformers_does_not_need_is_not_run(tmp_path: Path) -> None:
    _, model = tiny_model("text_classification")
    folder = tmp_path / "folder"
    model.module.save_pretrained(folder)
    companions(model).tokenizer.save_pretrained(folder)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Net: pass\n")
    fields = json.loads((folder / "config.json").read_text())
    fields["auto_map"] = {"AutoConfig": "evil.Net", "AutoModelForSequenceClassification": "evil.Net"}
    (folder / "config.json").write_text(json.dumps(fields))
    options = {key: value for key, value in TINY["text_classification"].items() if key != "architecture"}
    trusting = registry.build("families", "text_classification", {**options, "trust": True})
    loaded = trusting.load(str(folder), "auto", tmp_path, 0)
    assert type(loaded.module) is type(model.module)
    assert not (tmp_path / "ran").exists()
    (caution,) = loaded.cautions
    assert (caution.code, "transformers' own distilbert was measured" in caution.message) == ("code_not_run", True)
    assert loaded.facts["code"].startswith("transformers' own distilbert; ")
