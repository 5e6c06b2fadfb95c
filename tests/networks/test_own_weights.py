"""Weights from `load_weights` are cached, and loaded again when one of their sources changes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mlflow_compress import registry
from mlflow_compress.errors import WeightsError
from mlflow_compress.networks import model_folder, outside_state
from mlflow_compress.networks.own_code import OwnCode
from mlflow_compress.records import Step, Variant
from mlflow_compress.sockets import Family, Model

CODE = """
import os
from pathlib import Path
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.scale = 1.0
    def forward(self, x):
        return self.layer(x) * self.scale

def model():
    return Net()

def batch(size):
    return torch.rand(size, 4)

def load_weights(module):
    with open({counter!r}, "a") as file:
        file.write("x")
"""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def loaded(folder: Path, filling: str, helper: str = "") -> Model:
    folder.mkdir(exist_ok=True)
    if helper:
        (folder / "filler.py").write_text(helper)
    code = CODE.format(counter=str(folder.parent / "calls"))
    (folder / "own.py").write_text(f"{code}    {filling}\n")
    family: Family = registry.build("families", "python")
    return family.load("own.py", "auto", folder, 0)


def calls(folder: Path) -> int:
    return len((folder / "calls").read_text())


def checkpoint(path: Path, value: float) -> None:
    state = {"layer.weight": torch.full((3, 4), value), "layer.bias": torch.zeros(3)}
    if path.suffix == ".safetensors":
        save_file(state, str(path))
    else:
        torch.save(state, path)


@pytest.mark.parametrize(
    ("name", "reading"),
    [
        ("w.pt", "module.load_state_dict(torch.load(Path(__file__).parent / 'w.pt'))"),
        ("w.pt", "module.load_state_dict(torch.load('w.pt'))"),
        ("w.safetensors", "import safetensors.torch as s; module.load_state_dict(s.load_file('w' + '.safetensors'))"),
        ("w.pt", "module.load_state_dict(torch.load(sorted(Path(__file__).parent.glob('*.pt'))[-1]))"),
    ],
)
def test_a_rewritten_checkpoint_is_loaded_again(name: str, reading: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    for value in (1.0, 1.0, 2.0):
        if not (home / name).exists() or value == 2.0:
            checkpoint(home / name, value)
        assert float(loaded(home, reading).module.layer.weight.mean()) == value
    assert calls(tmp_path) == 2
    assert len(list((tmp_path / "cache").rglob("made_of.json"))) == 1  # the old one is gone


def test_a_new_checkpoint_in_a_folder_that_was_listed_is_loaded(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    reading = "module.load_state_dict(torch.load(max(Path(__file__).parent.glob('*.pt'))))"
    checkpoint(home / "1.pt", 1.0)
    assert float(loaded(home, reading).module.layer.weight.mean()) == 1
    checkpoint(home / "2.pt", 2.0)
    assert float(loaded(home, reading).module.layer.weight.mean()) == 2


def test_another_value_of_the_environment_is_another_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in (1.0, 2.0):
        checkpoint(tmp_path / f"{value}.pt", value)
    for value in (1.0, 2.0, 1.0):
        monkeypatch.setenv("MY_CHECKPOINT", str(tmp_path / f"{value}.pt"))
        module = loaded(tmp_path / "home", "module.load_state_dict(torch.load(os.environ['MY_CHECKPOINT']))").module
        assert float(module.layer.weight.mean()) == value


def test_what_each_value_of_a_variable_gave_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that see different GPUs do not remove each other's weights."""
    code = CODE.partition("    with open")[0]
    (tmp_path / "own.py").write_text(f"{code}    os.environ['CUDA_VISIBLE_DEVICES']\n")
    family: Family = registry.build("families", "python")
    for value in ("0", "1", "0"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
        family.load("own.py", "auto", tmp_path, 0)
    assert len(list((tmp_path / "cache").rglob("made_of.json"))) == 2


def test_a_helper_that_changed_is_called_again(tmp_path: Path) -> None:
    for value in (1, 2):  # with the same size, and within one second
        helper = f"import torch\ndef fill(module): torch.nn.init.constant_(module.layer.weight, {value})\n"
        module = loaded(tmp_path / "home", "from filler import fill; fill(module)", helper).module
        assert float(module.layer.weight.mean()) == value


def test_what_is_set_beside_the_tensors_is_there_the_second_time_too(tmp_path: Path) -> None:
    for _ in range(2):
        module = loaded(tmp_path / "home", "module.scale = 3.0; module.table = {'a': [torch.ones(2)]}").module
        assert module.scale == 3.0
        assert torch.equal(module.table["a"][0], torch.ones(2))
    assert calls(tmp_path) == 1


def test_where_it_can_not_be_kept_load_weights_is_called_each_time(tmp_path: Path) -> None:
    for _ in range(2):
        model = loaded(tmp_path / "home", "module.layer.how = abs; module.optimizer = object()")
        assert model.module.optimizer is not None
        assert sorted(model.data_as(OwnCode).lost) == ["layer.how", "optimizer"]
        assert [caution.code for caution in model.cautions] == ["set_elsewhere"]
        assert "layer.how" in model.cautions[0].message
    assert calls(tmp_path) == 2


def test_two_folders_with_the_same_file_have_each_their_own_weights(tmp_path: Path) -> None:
    reading = "module.load_state_dict(torch.load('w.pt'))"
    for name, value in (("a", 1.0), ("b", 2.0), ("b", 2.0)):
        if not (tmp_path / name).exists():
            (tmp_path / name).mkdir()
            checkpoint(tmp_path / name / "w.pt", value)
        assert float(loaded(tmp_path / name, reading).module.layer.weight.mean()) == value
    assert calls(tmp_path) == 2


@pytest.mark.parametrize(
    ("filling", "place"),
    [
        ("global CALLED; CALLED = 3.0", "CALLED in own.py"),
        ("SETTINGS['scale'] = 3.0", "SETTINGS in own.py"),
        ("OPTIONS.scale = 3.0", "OPTIONS in own.py"),
        ("OFFSET.fill_(3.0)", "OFFSET in own.py"),
        ("import filler; filler.scale = 3.0", "scale in filler"),
        ("Net.factor = 3.0", "Net.factor"),
        ("Net.forward = lambda self, x: x", "Net.forward"),
        ("module.layer.register_forward_hook(lambda *given: given[-1] * 3)", "a forward hook of layer"),
        ("module.register_forward_pre_hook(lambda *given: None)", "a forward pre-hook of the module"),
    ],
)
def test_changes_outside_the_module_are_reported_and_made_each_time(filling: str, place: str, tmp_path: Path) -> None:
    before = """import filler
from types import SimpleNamespace
SETTINGS, OPTIONS = {"scale": 1.0}, SimpleNamespace(scale=1.0)
OFFSET = torch.zeros(1)
ROUND = [1]
ROUND.append(ROUND)"""
    for _ in range(2):
        code = CODE.format(counter=str(tmp_path / "calls")).replace("class Net", f"{before}\nclass Net", 1)
        source = f"{code}    {filling}\n"
        (tmp_path / "home").mkdir(exist_ok=True)
        (tmp_path / "home" / "own.py").write_text(source)
        (tmp_path / "home" / "filler.py").write_text("scale = 1.0\n")
        model = registry.build("families", "python").load("own.py", "auto", tmp_path / "home", 0)
        assert model.data_as(OwnCode).lost == [place]
    assert calls(tmp_path) == 2


def test_a_global_that_is_the_module_itself_is_filled_and_kept(tmp_path: Path) -> None:
    code = CODE.format(counter=str(tmp_path / "calls")).replace("return Net()", "return NET\n\nNET = Net()")
    (tmp_path / "own.py").write_text(f"{code}    nn.init.ones_(module.layer.weight)\n")
    for _ in range(2):
        model = registry.build("families", "python").load("own.py", "auto", tmp_path, 0)
        assert float(model.module.layer.weight.mean()) == 1
        assert model.data_as(OwnCode).lost == []
    assert calls(tmp_path) == 1


def test_globals_that_stay_as_they_are_keep_what_load_weights_gave(tmp_path: Path) -> None:
    for _ in range(2):
        loaded(tmp_path / "home", "import json; handle = module.register_forward_hook(print); handle.remove()")
    assert calls(tmp_path) == 1


@pytest.mark.parametrize(
    ("filling", "message"),
    [
        (
            "module.layer = nn.Linear(4, 5)",
            r"layer\.bias was a tensor of shape \[3\] and is now a tensor of shape \[5\]",
        ),
        ("module.layer = nn.Identity()", "layer was Linear and is now Identity"),
        ("module.act = nn.ReLU()", "act was not there and is now ReLU"),
    ],
)
def test_an_architecture_that_load_weights_changed_is_refused(filling: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(
        WeightsError, match=rf"changed the architecture: {message}.*Build this architecture in model\(\)"
    ):
        loaded(tmp_path / "home", filling)


def saved(model: Model, folder: Path) -> Path:
    variant = Variant(
        model="own", method="original", team="none", family="python", source="own.py", chain=(Step("original"),)
    )
    folder.mkdir()
    model_folder.save(model, registry.build("families", "python"), [], variant, folder)
    return folder


@pytest.mark.parametrize("is_first", [True, False])
def test_what_is_set_beside_the_tensors_is_restored(is_first: bool, tmp_path: Path) -> None:
    filling = "module.scale = 3.0"
    if not is_first:
        loaded(tmp_path / "home", filling)
    model = loaded(tmp_path / "home", filling)
    restored = model_folder.restore(saved(model, tmp_path / "saved")).model.module
    assert restored.scale == 3.0
    inputs = torch.rand(2, 4)
    assert torch.equal(restored(inputs), model.module(inputs))


def test_what_was_not_a_number_before_is_kept_when_it_is_one(tmp_path: Path) -> None:
    """`model()` uses NaN for a number that is not known yet."""
    before = {"layer": {"mean": torch.full((2,), float("nan")), "scale": float("nan")}}
    after = {"layer": {"mean": torch.ones(2), "scale": 3.0}}
    assert outside_state.changed(before, after)["layer"].keys() == {"mean", "scale"}
    assert outside_state.changed(before, before) == {}


def test_what_model_draws_is_drawn_alike_when_it_is_restored(tmp_path: Path) -> None:
    code = """
import random
import numpy as np
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.scale = torch.rand(3) + float(np.random.rand()) + random.random()
    def forward(self, x):
        return self.layer(x) * self.scale

model = Net
"""
    (tmp_path / "own.py").write_text(code)
    family: Any = registry.build("families", "python")
    model = family.load("own.py", "auto", tmp_path, 5)
    torch.rand(3)
    assert torch.equal(model_folder.restore(saved(model, tmp_path / "saved")).model.module.scale, model.module.scale)


def test_no_secret_of_the_environment_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "geheim")
    loaded(tmp_path / "home", "os.environ['MY_TOKEN']")
    texts = [path.read_text() for path in (tmp_path / "cache").rglob("made_of.json")]
    assert ["$MY_TOKEN" in text for text in texts] == [True]
    assert "geheim" not in "".join(texts)
    assert os.environ["MY_TOKEN"] == "geheim"


def test_arrays_are_kept_as_tensors_are(tmp_path: Path) -> None:
    filling = "import numpy as np; module.mean = np.array([[1.5, np.nan]]); module.names = {'n': [np.float32(2.5)]}"
    filling += "; module.words = np.array(['cat', 'mouse']); module.none = np.ones(0)"
    for index in range(2):
        model = loaded(tmp_path / "home", filling)
        restored = model_folder.restore(saved(model, tmp_path / f"saved{index}")).model.module
        for module in (model.module, restored):
            np.testing.assert_array_equal(module.mean, [[1.5, np.nan]])
            assert module.mean.dtype == np.float64
            assert module.names == {"n": [2.5]}
            assert type(module.names["n"][0]) is np.float32
            assert list(module.words) == ["cat", "mouse"]
            assert module.none.shape == (0,)
        assert model.data_as(OwnCode).lost == []
    assert calls(tmp_path) == 1


def test_an_array_of_objects_is_reported(tmp_path: Path) -> None:
    model = loaded(tmp_path / "home", "import numpy as np; module.mean = np.array([print, None])")
    assert model.data_as(OwnCode).lost == ["mean"]


@pytest.mark.parametrize(
    "reading",
    [
        "name = 'best.pt'; torch.load(name) if os.path.exists(name) else None",
        "name = 'be' + 'st.pt'; torch.load(name) if os.path.exists(name) else None",
        'name = f\'{os.environ.get("RUN", "best")}.pt\'; torch.load(name) if os.path.exists(name) else None',
        "[torch.load(path) for path in Path('runs').rglob('*') if path.is_file()]",
        "[torch.load(path) for path in Path('.').iterdir() if path.suffix == '.' + 'pt']",
        "path = Path('runs') / 'best'; path.exists() and torch.load(path)",
    ],
)
def test_a_checkpoint_that_appears_later_is_loaded(reading: str, tmp_path: Path) -> None:
    (tmp_path / "home" / "runs").mkdir(parents=True)
    for expected in (1, 1, 2, 2):
        if expected == 2 and not (tmp_path / "home" / "best.pt").exists():
            checkpoint(tmp_path / "home" / "best.pt", 1.0)
            checkpoint(tmp_path / "home" / "runs" / "best", 1.0)
        loaded(tmp_path / "home", reading)
        assert calls(tmp_path) == expected


def test_what_is_opened_outside_of_python_is_seen(tmp_path: Path) -> None:
    def written(value: float) -> None:
        layer = torch.nn.Linear(4, 3)
        torch.nn.init.constant_(layer.weight, value)
        torch.jit.save(torch.jit.script(layer), str(tmp_path / "elsewhere"))

    name = f"'{tmp_path}/else' + 'where'"
    for value in (1.0, 1.0, 2.0):
        if value == 2.0 or not (tmp_path / "elsewhere").exists():
            written(value)
        module = loaded(tmp_path / "home", f"module.layer.load_state_dict(torch.jit.load({name}).state_dict())").module
        assert float(module.layer.weight.mean()) == value
    assert calls(tmp_path) == 2
    assert torch.jit.load.__name__ == "load"  # the original is back


@pytest.mark.parametrize(
    "training",
    [
        "Path('runs').mkdir(exist_ok=True); number = len(os.listdir('runs')); torch.save({}, f'runs/{number}.pt')",
        "os.path.exists('last.pt') and torch.load('last.pt'); torch.save(module.state_dict(), 'last.pt')",
        "Path('last.txt').touch(); Path('last.txt').read_text(); Path('last.txt').write_text('1')",
        "import tempfile; f = tempfile.NamedTemporaryFile(mode='w+'); f.write('x'); open(f.name).read(); f.close()",
    ],
)
def test_what_load_weights_writes_itself_does_not_call_it_again(training: str, tmp_path: Path) -> None:
    for _ in range(3):
        loaded(tmp_path / "home", training)
    assert calls(tmp_path) == 1
