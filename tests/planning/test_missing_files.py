from __future__ import annotations

from pathlib import Path

import pytest

from mlflow_compress.errors import RecipeError, UnknownName
from mlflow_compress.planning import recipe

pytestmark = pytest.mark.full


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_model.py").touch()


@pytest.mark.parametrize(
    "name", ["./net.pth", "net.pth", "gone/net.pt", "/gone/net.ckpt", "~/net.safetensors", "./net"]
)
def test_a_path_to_a_missing_file_is_reported(name: str) -> None:
    with pytest.raises(RecipeError) as raised:
        recipe.read(name)
    assert str(raised.value) == f"There is no file {name}."


def test_the_nearest_file_in_the_folder_is_suggested(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"^There is no file my_modle\.py: did you mean my_model\.py\?$"):
        recipe.read("my_modle.py")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "small.yaml").touch()
    with pytest.raises(RecipeError, match=r"no recipe sub/smal\.yaml: did you mean sub/small\.yaml\?"):
        recipe.read("sub/smal.yaml")


def test_a_project_names_the_folder_of_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.setenv(name, "1")
    with pytest.raises(RecipeError, match=rf"`mlflow run` works in the project's folder, {tmp_path}: use an absolute"):
        recipe.read("gone.yaml")
    with pytest.raises(RecipeError) as raised:
        recipe.read("/gone/model.yaml")
    assert str(raised.value) == "There is no recipe /gone/model.yaml."


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors", "net.ckpt"])
def test_weights_without_an_architecture_are_rejected(name: str) -> None:
    Path(name).touch()
    with pytest.raises(
        RecipeError, match=rf"{name} holds only weights; .* init my_model`, .* run my_model\.py --weights {name}"
    ):
        recipe.read(name)


def test_a_name_that_is_not_a_path_is_an_unknown_model() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'digits_cnn'"):
        recipe.read("digits_cn")
