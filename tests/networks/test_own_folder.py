"""A file that needs others: they are imported and read where it is, and kept with the model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mlflow_compress import errors, registry
from mlflow_compress.errors import RecipeError, WeightsError
from mlflow_compress.networks import model_folder, modules_beside, own_folder
from mlflow_compress.networks.own_code import OwnCode
from mlflow_compress.records import Step, Variant
from mlflow_compress.sockets import Family, Model

FILES = {
    "own.py": """
import json
from pathlib import Path
import torch
from helper import build

def model():
    config = json.loads(Path("config.json").read_text())
    return build(config["out"])

def batch(size):
    return torch.rand(size, 8)

def samples():
    for path in sorted((Path(__file__).parent / "pictures").glob("*.txt")):
        yield torch.rand(8), int(path.read_text())

def predict(module, inputs):
    from later import word
    return [word(Path(__file__).parent / "words.txt") for _ in inputs]
""",
    "helper.py": "from blocks.linear import Layer\ndef build(out): return Layer(8, out)\n",
    "blocks/__init__.py": "",
    "blocks/linear.py": "from torch import nn\nfrom .sizes import BIAS\nclass Layer(nn.Linear):\n    bias_too = BIAS\n",
    "blocks/sizes.py": "BIAS = True\n",
    "later.py": "def word(path): return path.read_text()\n",
    "words.txt": "cat",
    "config.json": '{"out": 4}',
    "pictures/1.txt": "1",
    "unused.py": "1 / 0",
    ".secret": "geheim",
    "mlruns/large.bin": "x" * 1000,
}

NET = "from torch import nn\ndef model(): return nn.Linear(2, 2)\ndef batch(size): ...\n"


def written(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def loaded(folder: Path) -> tuple[Family, Model]:
    family: Family = registry.build("families", "python")
    return family, family.load("own.py", "auto", folder, 0)


def saved(model: Model, folder: Path) -> Path:
    variant = Variant("own", "original", "none", family="python", source="own.py", chain=(Step("original"),))
    folder.mkdir()
    model_folder.save(model, registry.build("families", "python"), [], variant, folder)
    return folder


def test_what_the_file_needs_is_kept_and_no_more(tmp_path: Path) -> None:
    before = list(sys.path)
    _, model = loaded(written(tmp_path / "home", FILES))
    folder = saved(model, tmp_path / "saved")
    kept = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    code = {
        f"code/{name}" for name in FILES if name.startswith(("own", "helper", "blocks", "later", "words", "config"))
    }
    assert kept == {"manifest.json", "architecture.json", "weights.safetensors", *code}
    assert sys.path == before


def test_it_is_restored_where_the_rest_is_gone(tmp_path: Path) -> None:
    _, model = loaded(written(tmp_path / "home", FILES))
    folder = saved(model, tmp_path / "saved")
    (tmp_path / "home").rename(tmp_path / "gone")
    restored = model_folder.restore(folder)
    inputs = torch.rand(2, 8)
    assert torch.equal(restored.model.module(inputs), model.module(inputs))
    assert restored.family.predict(restored.model, [0]) == ["cat"]
    assert type(restored.model.module).__module__ == "blocks.linear"


def test_samples_are_read_where_the_file_was(tmp_path: Path) -> None:
    home = written(tmp_path / "home", FILES)
    _, model = loaded(home)
    restored = model_folder.restore(saved(model, tmp_path / "saved"))
    restored.model.origin = home / "own.py"
    assert [each.reference for each in restored.family.samples(restored.model, "own", home, None, 0)] == [1]
    (home / "own.py").write_text("another file")
    assert list(restored.family.samples(restored.model, "own", home, None, 0)) == []


def test_helpers_of_one_name_in_two_folders_are_two(tmp_path: Path) -> None:
    code = {"own.py": "from helper import model\ndef batch(size): ..."}
    for size in (3, 5):
        helper = {"helper.py": f"from torch import nn\ndef model(): return nn.Linear(2, {size})\n"}
        _, model = loaded(written(tmp_path / str(size), code | helper))
        assert model.module.out_features == size


def test_nobody_else_finds_the_modules_beside_it(tmp_path: Path) -> None:
    loaded(written(tmp_path / "home", FILES | {"own.py": "from torch import nn\ndef model(): return nn.Linear(2, 2)"}))
    with pytest.raises(ModuleNotFoundError):
        __import__("later")


@pytest.mark.parametrize("name", ["json", "torch"])
def test_a_file_called_like_what_others_use_takes_nothing_over(name: str, tmp_path: Path) -> None:
    kept: Any = sys.modules[name]
    loaded(written(tmp_path / "home", FILES | {f"{name}.py": "1 / 0"}))
    assert sys.modules[name] is kept


def test_this_package_is_neither_copied_nor_replaced(tmp_path: Path) -> None:
    package = Path(errors.__file__).parent
    files = {"own.py": f"from {package.name}.errors import Unsupported\n{NET}", f"{package.name}/__init__.py": ""}
    _, model = loaded(written(tmp_path / "home", files | {f"{package.name}/errors.py": "Unsupported = None"}))
    kept: Any = model.data_as(OwnCode)
    assert kept.code.Unsupported is errors.Unsupported
    assert own_folder.files_beside(kept) == []
    code = saved(model, tmp_path / "saved")
    written(code, {f"{package.name}/__init__.py": "", f"{package.name}/errors.py": "Unsupported = None"})
    model_folder.restore(code)
    assert sys.modules[errors.__name__] is errors


def test_a_file_beside_this_package_does_not_take_it_for_its_own() -> None:
    package = Path(errors.__file__).parent
    assert [file for file in modules_beside.loaded_from(package.parent) if file.is_relative_to(package)] == []


def test_what_is_too_much_to_keep_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_folder, "MOST_BYTES", 5)
    _, model = loaded(written(tmp_path / "home", FILES))
    with pytest.raises(RecipeError, match=r"such as config\.json: at most .*Read weights in load_weights\(module\)"):
        saved(model, tmp_path / "saved")


def test_code_outside_of_the_folder_is_not_run(tmp_path: Path) -> None:
    _, model = loaded(written(tmp_path / "home", FILES))
    folder = saved(model, tmp_path / "saved")
    (folder / "architecture.json").write_text('{"code": "../home/own.py"}')
    with pytest.raises(WeightsError, match="names code outside of the model's folder"):
        model_folder.restore(folder)


def test_a_file_that_stands_alone_is_model_py(tmp_path: Path) -> None:
    _, model = loaded(written(tmp_path, {"own.py": "from torch import nn\ndef model(): return nn.Linear(2, 2)"}))
    assert {path.name for path in saved(model, tmp_path / "saved").iterdir()} == {
        "manifest.json", "architecture.json", "weights.safetensors", "model.py"
    }  # fmt: skip
