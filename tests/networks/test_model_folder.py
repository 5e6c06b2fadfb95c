"""The model folder: saved models are restored, also those of version 0.1, and other folders are rejected."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tiny import OWN, TINY

from mlflow_compress import registry
from mlflow_compress.errors import Unsupported, WeightsError
from mlflow_compress.measuring import output_error, worker
from mlflow_compress.networks import model_folder
from mlflow_compress.planning import chains
from mlflow_compress.records import Step, Variant, read_json

OF_0_1 = Path(__file__).parents[1] / "made_by_0_1" / "models"


def saved(folder: Path, chain: str) -> Path:
    """Write the folder of a tiny custom model."""
    (folder / "own.py").write_text(OWN)
    family = registry.build("families", "python")
    model = family.load("own.py", "random", folder, 0)
    steps = chains.parse_chain(chain)
    methods = model_folder.methods_of(steps)
    for method in methods:
        model = method.compress(model, family)
    target = folder / "model"
    target.mkdir()
    model_folder.save(model, family, methods, Variant("m", chain, "t", "python", "own.py", chain=steps), target)
    return target


@pytest.mark.parametrize("name", [path.name for path in sorted(OF_0_1.iterdir())])
def test_a_folder_that_0_1_wrote_gives_the_same_outputs(name: str, tmp_path: Path) -> None:
    variant = Variant.from_json(read_json(OF_0_1 / name / "variant.json"))
    restored = model_folder.restore(OF_0_1 / name / "model")
    moved = output_error.compare(restored.family, restored.model, variant, OF_0_1 / name / worker.OUTPUTS, "cpu")
    assert moved["quality/output_error_rel_l2"] > 0.01  # it was pruned, so this is not the original
    saved_again = tmp_path / "again"
    saved_again.mkdir()
    model_folder.save(restored.model, restored.family, restored.methods, variant, saved_again)
    twice = model_folder.restore(saved_again)
    output_error.compare(twice.family, twice.model, variant, OF_0_1 / name / worker.OUTPUTS, "cpu")


def test_a_manifest_says_what_the_folder_holds(tmp_path: Path) -> None:
    folder = saved(tmp_path, "prune_magnitude:amount=0.5+bf16")
    manifest = model_folder.read_manifest(folder)
    assert manifest == model_folder.Manifest(
        family="python",
        options={},
        chain=(Step("prune_magnitude", {"amount": 0.5}), Step("bf16")),
        weights="random",
        model="m",
        method="prune_magnitude:amount=0.5+bf16",
        format=3,
    )
    restored = model_folder.restore(folder)
    assert (restored.manifest, restored.model.weights) == (manifest, "random")
    assert [type(method).__name__ for method in restored.methods] == ["PruneMagnitude", "Bf16"]


@pytest.mark.parametrize("damage", ["gone", "no JSON", "another program's"])
def test_what_is_not_a_model_folder_is_reported_with_its_path(tmp_path: Path, damage: str) -> None:
    folder = saved(tmp_path, "original")
    if damage == "gone":
        shutil.rmtree(folder)
    else:
        text = "{" if damage == "no JSON" else json.dumps({"architectures": ["Bert"]})
        (folder / "manifest.json").write_text(text)
    with pytest.raises(WeightsError, match="is not a model folder") as caught:
        model_folder.restore(folder)
    assert str(folder) in str(caught.value)


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path, "original")
    (folder / "model.py").write_text(OWN.replace("16", "12"))
    with pytest.raises(WeightsError):
        model_folder.restore(folder)


def test_a_method_that_is_not_for_the_device_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    folder = saved(tmp_path, "int8_dynamic")
    (folder / "model.py").unlink()
    with pytest.raises(Unsupported, match="the output of int8_dynamic runs on cpu only"):
        model_folder.restore(folder, "cuda")


def test_options_of_the_family_come_back(tmp_path: Path) -> None:
    options = {**TINY["text_classification"], "tokens": 7}
    family = registry.build("families", "text_classification", options)
    variant = Variant("m", "original", "t", "text_classification", "tiny", options=options)
    model_folder.save(family.load("tiny", "random", tmp_path, 0), family, [], variant, tmp_path)
    restored = model_folder.restore(tmp_path)
    assert restored.family == family
    assert restored.family.batch(restored.model, 2, 0)["input_ids"].shape == (2, 7)
