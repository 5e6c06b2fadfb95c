"""A file that needs others: they are imported and read beside it, and saved with the model."""

from __future__ import annotations

import sys
import threading
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mlflow_compress import errors, registry
from mlflow_compress.errors import RecipeError, WeightsError
from mlflow_compress.meters.size import on_disk
from mlflow_compress.networks import model_folder, modules_beside, own_code, own_folder
from mlflow_compress.networks.exported_modules import CallForm, form_of
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
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    code = {
        f"code/{name}" for name in FILES if name.startswith(("own", "helper", "blocks", "later", "words", "config"))
    }
    assert files == {"manifest.json", "architecture.json", "model.safetensors", *code}
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
    assert [sample.reference for sample in restored.family.samples(restored.model, "own", home, None, 0)] == [1]
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
    module: Any = sys.modules[name]
    loaded(written(tmp_path / "home", FILES | {f"{name}.py": "1 / 0"}))
    assert sys.modules[name] is module


def test_this_package_is_neither_copied_nor_replaced(tmp_path: Path) -> None:
    package = Path(errors.__file__).parent
    files = {"own.py": f"from {package.name}.errors import Unsupported\n{NET}", f"{package.name}/__init__.py": ""}
    _, model = loaded(written(tmp_path / "home", files | {f"{package.name}/errors.py": "Unsupported = None"}))
    own_code: Any = model.data_as(OwnCode)
    assert own_code.code.Unsupported is errors.Unsupported
    assert own_folder.files_beside(own_code) == []
    code = saved(model, tmp_path / "saved")
    written(code, {f"{package.name}/__init__.py": "", f"{package.name}/errors.py": "Unsupported = None"})
    model_folder.restore(code)
    assert sys.modules[errors.__name__] is errors


def test_a_file_beside_this_package_does_not_take_it_for_its_own() -> None:
    package = Path(errors.__file__).parent
    assert [file for file in modules_beside.loaded_from(package.parent) if file.is_relative_to(package)] == []


def test_too_many_bytes_of_files_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_folder, "MOST_BYTES", 5)
    _, model = loaded(written(tmp_path / "home", FILES))
    with pytest.raises(RecipeError, match=r"such as config\.json: at most .*Read weights in load_weights\(module\)"):
        saved(model, tmp_path / "saved")


def test_code_outside_of_the_folder_is_not_run(tmp_path: Path) -> None:
    _, model = loaded(written(tmp_path / "home", FILES))
    folder = saved(model, tmp_path / "saved")
    (folder / "architecture.json").write_text('{"code": "../home/own.py"}')
    with pytest.raises(WeightsError, match="names code outside the model's folder"):
        model_folder.restore(folder)


def test_a_single_file_is_saved_as_model_py(tmp_path: Path) -> None:
    _, model = loaded(written(tmp_path, {"own.py": "from torch import nn\ndef model(): return nn.Linear(2, 2)"}))
    assert {path.name for path in saved(model, tmp_path / "saved").iterdir()} == {
        "manifest.json", "architecture.json", "model.safetensors", "model.py"
    }  # fmt: skip


LOADING = """
import torch
from torch import nn
from pathlib import Path
from settings import HELD_OUT, PATH

CHECKPOINT = Path(__file__).parent / "best.pt"
WORDS = "words.txt"

class Settings:
    checkpoint = "class.pt"
    words = WORDS

def _weights(name):
    return torch.load(Path(__file__).parent / name)

def model():
    Settings()
    return nn.Linear(2, 2)

def batch(size):
    return torch.rand(size, 2)

def load_weights(module):
    for path in (CHECKPOINT, PATH, Settings.checkpoint):
        module.load_state_dict(_weights(path))
    assert Path(Settings.words).exists()

def samples():
    return [(torch.rand(2), HELD_OUT)]

if __name__ == "__main__":
    print("train.csv")
"""
SETTINGS = "PATH = 'other.pt'\nHELD_OUT = 'table.csv'\n"


@pytest.mark.parametrize("weights", ["auto", "auto again", "random"])
def test_a_checkpoint_that_load_weights_reads_is_not_copied(
    weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    files = dict.fromkeys(["words.txt", "table.csv", "train.csv"], "x")
    home = written(tmp_path / "home", {"own.py": LOADING, "settings.py": SETTINGS, **files})
    for name in ("best.pt", "other.pt", "class.pt"):
        torch.save(torch.nn.Linear(2, 2).state_dict(), home / name)
    family = registry.build("families", "python")
    for _ in range(2 if "again" in weights else 1):
        model = family.load("own.py", weights.split()[0], home, 0)
    folder = saved(model, tmp_path / "saved")
    assert {path.name for path in (folder / "code").iterdir()} == {"own.py", "settings.py", "words.txt"}
    home.rename(tmp_path / "gone")
    assert torch.equal(model_folder.restore(folder).model.module.weight, model.module.weight)


def test_a_checkpoint_that_model_reads_is_kept_at_any_size_and_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_folder, "MOST_BYTES", 5)
    code = (
        "import torch\ndef model():\n    net = torch.nn.Linear(2, 2)\n"
        "    net.load_state_dict(torch.load('best.pt'))\n    return net\n"
    )
    home = written(tmp_path / "home", {"own.py": code})
    torch.save(torch.nn.Linear(2, 2).state_dict(), home / "best.pt")
    _, model = loaded(home)
    folder = saved(model, tmp_path / "saved")
    assert own_folder.weights_read_again(folder) == [folder / "code" / "best.pt"]
    assert model.facts["read_again"].startswith("best.pt (0.0 MiB")
    home.rename(tmp_path / "gone")
    assert torch.equal(model_folder.restore(folder).model.module.weight, model.module.weight)
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "best.pt"]
    counted = on_disk(folder, own_folder.weights_read_again(folder))["size/disk_mib"]
    assert counted == sum(path.stat().st_size for path in files) / 2**20


def test_data_that_a_batch_reads_is_not_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_folder, "MOST_BYTES", 500)
    code = NET.replace("...", "return torch.from_file('train.bin', size=2).reshape(1, 2)")
    home = written(tmp_path / "home", {"own.py": f"import torch\n{code}", "train.bin": "x" * 501})
    family, model = loaded(home)
    family.batch(model, 1, 0)
    with pytest.raises(RecipeError, match=r"such as train\.bin: at most"):
        saved(model, tmp_path / "saved")


def test_an_array_that_model_reads_counts_in_its_size(tmp_path: Path) -> None:
    code = (
        "import numpy, torch\ndef model():\n    net = torch.nn.Linear(2, 2)\n"
        "    net.index = numpy.load('index.npy')\n    return net\n"
    )
    home = written(tmp_path / "home", {"own.py": code})
    np.save(home / "index.npy", np.zeros(10))
    _, model = loaded(home)
    folder = saved(model, tmp_path / "saved")
    assert (folder / "code" / "index.npy").is_file()
    assert own_folder.weights_read_again(folder) == []


def test_an_exported_model_does_not_carry_the_checkpoint_that_built_it(tmp_path: Path) -> None:
    code = (
        "import torch\nNAMES = torch.load('names.pt')\ndef model():\n    net = torch.nn.Linear(2, 2)\n"
        "    net.load_state_dict(torch.load('best.pt'))\n    return net\ndef batch(size): return torch.rand(size, 2)\n"
    )
    home = written(tmp_path / "home", {"own.py": code})
    torch.save({"a": 1}, home / "names.pt")
    torch.save(torch.nn.Linear(2, 2).state_dict(), home / "best.pt")
    _, model = loaded(home)
    own_code = model.data_as(OwnCode)
    assert [path.name for path in own_folder.files_beside(own_code)] == ["names.pt", "best.pt"]
    own_code.form = CallForm(form_of(torch.zeros(1)), {})
    assert [path.name for path in own_folder.files_beside(own_code)] == ["names.pt"]


LATE = """from torch import nn

def model():
    return nn.Linear(2, 2)

def predict(module, inputs):
    from late import NAME
    return [NAME]
"""


def test_two_models_in_one_process_have_each_their_own_late_helper(tmp_path: Path) -> None:
    models = {}
    for name in ("a", "b"):
        models[name] = loaded(written(tmp_path / name, {"own.py": LATE, "late.py": f"NAME = '{name}'\n"}))
    for name in ("a", "b", "a", "b"):
        family, model = models[name]
        assert family.predict(model, [0]) == [name]


def test_the_program_that_loads_a_model_keeps_its_own_helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    users = types.ModuleType("late")
    monkeypatch.setitem(sys.modules, "late", users)
    code = LATE.replace("from torch import nn", "import late\nfrom torch import nn", 1)
    family, model = loaded(written(tmp_path / "home", {"own.py": code, "late.py": "NAME = 'model'\n"}))
    assert sys.modules["late"] is users
    assert family.predict(model, [0]) == ["model"]
    assert sys.modules["late"] is users
    folder = saved(model, tmp_path / "saved")
    assert (folder / "code" / "late.py").is_file()


def test_threads_that_predict_at_once_leave_the_process_where_it_was(tmp_path: Path) -> None:
    before = Path.cwd()
    inside, outside = threading.Event(), threading.Event()

    def second() -> None:
        with own_code.at_home(tmp_path / "b" / "own.py"):
            inside.set()
            outside.wait(5)

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    thread = threading.Thread(target=second)
    with own_code.at_home(tmp_path / "a" / "own.py"):
        thread.start()
        inside.wait(5)
    outside.set()
    thread.join()
    assert Path.cwd() == before
