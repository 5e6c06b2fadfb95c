"""The templates run unchanged: loaded, tried, compressed by two methods, saved and restored, in this process."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

import pytest

from mlflow_compress import registry
from mlflow_compress.errors import RecipeError
from mlflow_compress.measuring import model_trial, output_error
from mlflow_compress.networks import model_folder
from mlflow_compress.planning import own_file
from mlflow_compress.planning.new_model import KINDS, write
from mlflow_compress.planning.recipe import Settings
from mlflow_compress.planning.sweep_recipe import plan

OPTIONAL = {"load_weights", "samples", "training", "student", "metrics"}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.full
@pytest.mark.parametrize("kind", KINDS)
def test_a_template_runs_unchanged(kind: str) -> None:
    list(write("mine", kind))
    original, *compressed = plan(["mine.yaml"], Settings(trust=True))
    assert [planned.method for planned in (original, *compressed)] == ["original", "bf16", "int8_dynamic"]
    for variant in (original, *compressed):
        family = registry.build("families", variant.family, variant.options)
        model = model_trial.loaded(family, variant, str, str)
        methods = model_folder.methods_of(variant.chain)
        for method in methods:
            model = method.compress(model, family)
        saved = Path(variant.method)
        saved.mkdir()
        model_folder.save(model, family, methods, variant, saved)
        original_outputs = output_error.outputs(family, model, variant, 1)
        output_error.keep(original_outputs, original_outputs, saved / "outputs")
        restored = model_folder.restore(saved, "cpu")
        numbers = output_error.compare(restored.family, restored.model, variant, saved / "outputs", "cpu")
        assert numbers.get("quality/output_error_rel_l2", 0.0) < 1e-3


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "language-model"])
def test_a_template_defines_everything_optional(kind: str) -> None:
    list(write("mine", kind))
    text = Path("mine.py").read_text()
    assert {"model", "batch", *OPTIONAL} <= own_file.look(Path("mine.py")).names
    assert "def predict(module" in text
    assert 'torch.load("my_checkpoint.pt", weights_only=True)' in text
    assert "source: mine.py" in Path("mine.yaml").read_text()


def test_only_a_language_model_needs_no_code() -> None:
    lines = list(write("mine", "language-model"))
    assert lines[1] == "  compress-bench check mine.yaml --deep"
    assert not Path("mine.py").exists()


def test_existing_files_are_kept_without_force() -> None:
    Path("mine.yaml").write_text("mine")
    with pytest.raises(RecipeError, match=r"^mine\.yaml would be overwritten\. .* --force"):
        write("mine", "module")
    assert not Path("mine.py").exists()
    write("mine.py", "module", force=True)
    assert Path("mine.yaml").read_text() != "mine"


@pytest.mark.parametrize(
    ("name", "message"), [("a b", "can't name a model"), ("..", "can't name"), ("gone/x", "no folder gone")]
)
def test_invalid_names_are_rejected(name: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        write(name, "module")


def test_the_templates_are_part_of_the_package() -> None:
    names = {file.name for file in importlib.resources.files("mlflow_compress").joinpath("templates").iterdir()}
    assert {f"{kind}.yaml" for kind in KINDS} <= names
