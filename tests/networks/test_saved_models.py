"""Saved transformers models are loaded as they are, with a note of what was done, or rejected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TINY

from mlflow_compress.errors import WeightsError
from mlflow_compress.networks import saved_models
from mlflow_compress.networks.hub import Origin, find_weights
from mlflow_compress.networks.transformers_models import load_transformer

CLASSIFIER = "AutoModelForSequenceClassification"


@pytest.fixture
def saved(tmp_path: Path) -> Any:
    architecture = TINY["text_classification"]["architecture"]
    module = load_transformer(CLASSIFIER, "tiny", Origin("random"), architecture, 3).module
    module.save_pretrained(tmp_path / "mine")
    return module


def loaded(folder: Path) -> Any:
    return load_transformer(CLASSIFIER, "mine", find_weights(str(folder), "auto", folder), {}, 0)


def test_half_precision_files_are_reported(tmp_path: Path, saved: Any) -> None:
    assert "precision" not in loaded(tmp_path / "mine").facts
    saved.to(torch.bfloat16).save_pretrained(tmp_path / "mine")
    model = loaded(tmp_path / "mine")
    assert model.facts["precision"] == "measured in float32; the files hold bfloat16"
    assert {parameter.dtype for parameter in model.module.parameters()} == {torch.float32}


def test_files_measured_in_their_own_precision_are_not_reported_as_cast(tmp_path: Path, saved: Any) -> None:
    saved.to(torch.bfloat16).save_pretrained(tmp_path / "mine")
    origin = find_weights(str(tmp_path / "mine"), "auto", tmp_path)
    assert "precision" not in load_transformer(CLASSIFIER, "mine", origin, {}, 0, "native").facts
    model = load_transformer(CLASSIFIER, "mine", origin, {}, 0, "float16")
    assert model.facts["precision"] == "measured in float16; the files hold bfloat16"


def test_a_variant_and_shards_are_read(tmp_path: Path, saved: Any) -> None:
    saved.save_pretrained(tmp_path / "other", variant="fp16", max_shard_size="10KB")
    assert not (tmp_path / "other/model.safetensors").exists()
    model = loaded(tmp_path / "other")
    assert model.facts["variant"] == "fp16"
    assert torch.equal(model.module.classifier.weight, saved.classifier.weight)


def test_weights_of_torch_save_are_read(tmp_path: Path, saved: Any) -> None:
    (tmp_path / "mine/model.safetensors").unlink()
    torch.save(saved.state_dict(), tmp_path / "mine/pytorch_model.bin")
    assert torch.equal(loaded(tmp_path / "mine").module.classifier.weight, saved.classifier.weight)


def test_what_macos_puts_beside_files_is_passed_over(tmp_path: Path, saved: Any) -> None:
    for name in ("._model.safetensors", "._config.json", ".DS_Store", "._small.gguf"):
        (tmp_path / "mine" / name).write_bytes(b"\x00\x05\x16\x07")
    assert torch.equal(loaded(tmp_path / "mine").module.classifier.weight, saved.classifier.weight)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"quantization_config": {"quant_method": "awq", "bits": 0}}, r"says bits=0"),
        (
            {"model_type": "mine", "auto_map": {"AutoConfig": "c.C"}},
            r"Python code beside it.*say so: --trust",
        ),
    ],
)
def test_what_cannot_be_loaded_as_it_is_is_refused(
    tmp_path: Path, saved: Any, fields: dict[str, Any], message: str
) -> None:
    path = tmp_path / "mine/config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    with pytest.raises(WeightsError, match=message) as error:
        loaded(tmp_path / "mine")
    assert "\n" not in str(error.value)


def test_where_links_are_forbidden_files_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("x")

    def forbid(link: Path, target: Path, target_is_directory: bool = False) -> None:
        raise OSError("a required privilege is not held by the client")

    monkeypatch.setattr(Path, "symlink_to", forbid)  # as on Windows without developer mode
    saved_models._link(tmp_path / "folder", tmp_path / "copy")
    saved_models._link(tmp_path / "folder" / "file", tmp_path / "copied")
    assert (tmp_path / "copy" / "file").read_text() == (tmp_path / "copied").read_text() == "x"
