"""Custom models: what the file must define, and what is optional."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import OWN
from torch import nn

from mlflow_compress import registry
from mlflow_compress.errors import RecipeError, Unsupported, WeightsError
from mlflow_compress.networks import model_folder, value_trees
from mlflow_compress.networks.exported_modules import CallForm
from mlflow_compress.networks.own_code import OwnCode
from mlflow_compress.records import Step, Variant
from mlflow_compress.sockets import Family, Model


def custom(folder: Path, code: str = OWN, weights: str = "auto", **options: Any) -> tuple[Family, Model]:
    (folder / "own.py").write_text(code)
    family: Family = registry.build("families", "python", options)
    return family, family.load("own.py", weights, folder, 0)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = 1", r"own\.py defines no function model\(\)"),
        ("def model(): return 1", r"model\(\) returned a int, not a torch\.nn\.Module"),
        ("1 / 0", r"own\.py can't be run: ZeroDivisionError"),
    ],
)
def test_a_file_that_defines_no_module_is_reported(code: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=message):
        custom(tmp_path, code)


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="There is no file"):
        registry.build("families", "python").load("gone.py", "auto", tmp_path, 0)


def test_the_options_name_the_function(tmp_path: Path) -> None:
    code = f"{OWN}\ndef other(): return nn.Linear(8, 3)\n"
    _, model = custom(tmp_path, code, function="other")
    assert model.module.out_features == 3


def test_weights_are_random_of_a_file_or_by_the_files_own_function(tmp_path: Path) -> None:
    _, random = custom(tmp_path, weights="random")
    _, auto = custom(tmp_path, weights="auto")
    assert (random.weights, auto.weights) == ("random", "random")
    assert torch.equal(random.module[0].weight, auto.module[0].weight)
    torch.save({name: tensor + 1 for name, tensor in random.module.state_dict().items()}, tmp_path / "w.pt")
    _, filled = custom(tmp_path, weights="w.pt")
    assert filled.weights == "local"
    assert torch.equal(filled.module[0].weight, random.module[0].weight + 1)
    with pytest.raises(WeightsError, match=r"defines no load_weights\(module\)"):
        custom(tmp_path, weights="pretrained")
    with pytest.raises(WeightsError, match="There is no weights file"):
        custom(tmp_path, weights="gone.pt")


def test_weights_of_the_files_own_function_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    filling = f"""{OWN}
def load_weights(module):
    open({str(tmp_path / "calls")!r}, "a").write("x")
    torch.nn.init.constant_(module[0].weight, 3.0)
"""
    for _ in range(2):
        _, model = custom(tmp_path, filling)
        assert (model.weights, float(model.module[0].weight.mean())) == ("local", 3.0)
    assert (tmp_path / "calls").read_text() == "x"


def test_without_predict_the_greatest_output_is_the_prediction(tmp_path: Path) -> None:
    family, model = custom(tmp_path)
    inputs = torch.rand(5, 8)
    assert family.predict(model, list(inputs)) == model.module(inputs).argmax(-1).tolist()
    family, model = custom(tmp_path, f"{OWN}\ndef predict(module, inputs): return ['a'] * len(inputs)\n")
    assert family.predict(model, [1, 2]) == ["a", "a"]
    assert not family.outputs_are_scores(model)


def test_samples_are_the_files_own(tmp_path: Path) -> None:
    family, model = custom(tmp_path, f"{OWN}\ndef samples(): return [([float(n)] * 8, n) for n in range(9)]\n")
    assert [sample.reference for sample in family.samples(model, "own", tmp_path, None, 0)] == list(range(9))
    drawn = [sample.reference for sample in family.samples(model, "own", tmp_path, 4, 1)]
    assert len(set(drawn)) == 4
    assert drawn == [sample.reference for sample in family.samples(model, "own", tmp_path, 4, 1)]
    assert family.example(model) == [[0.0] * 8]
    with pytest.raises(RecipeError, match="use data=own or data=none, not 'imdb'"):
        family.samples(model, "imdb", tmp_path, None, 0)


def test_a_student_is_restored_as_a_student(tmp_path: Path) -> None:
    family, model = custom(tmp_path)
    student = family.student(model, 0.5)
    assert student.module[0].out_features == 8
    assert model.data_as(OwnCode).built is None  # the teacher does not change
    (tmp_path / "saved").mkdir()
    family.save(student, tmp_path / "saved")
    assert family.restore(tmp_path / "saved").module[0].out_features == 8
    family, model = custom(tmp_path, "from torch import nn\ndef model(): return nn.Linear(2, 2)\n")
    with pytest.raises(Unsupported, match=r"own\.py defines no student\(keep\)"):
        family.student(model, 0.5)


FILLED = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.hidden, self.head = nn.Linear(8, width), nn.Linear(width, 4)
        self.scale, self.mean = 1.0, torch.zeros(8)
        self.register_buffer("shift", torch.zeros(width), persistent=False)

    def forward(self, x):
        return self.head((self.hidden(x - self.mean) + self.shift).relu()) * self.scale

def model(): return Net(16)
def student(keep): return Net(8)
def batch(size): return torch.rand(size, 8)
def load_weights(module):
    module.scale, module.mean = 5.0, torch.full((8,), 0.5)
    module.shift.fill_(3.0)
"""


def test_a_student_copies_fitting_values_that_load_weights_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    family, model = custom(tmp_path, FILLED)
    student = family.student(model, 0.5)
    assert (student.module.scale, student.module.mean.tolist()) == (5.0, [0.5] * 8)
    assert student.module.shift.tolist() == [0.0] * 8  # the original has another width
    batch = family.batch(student, 2, 0)
    (tmp_path / "saved").mkdir()
    family.save(student, tmp_path / "saved")
    restored = family.restore(tmp_path / "saved")
    restored.module.load_state_dict(student.module.state_dict())
    assert torch.equal(restored.module(*batch), student.module(*batch))


def test_samples_and_steps_of_equal_number_are_distinguished(tmp_path: Path) -> None:
    code = (
        "import torch\nfrom torch import nn\nclass Net(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.w = nn.Parameter(torch.ones(1))\n"
        "    def forward(self, x): return x * self.w\n"
        "def model(): return Net()\ndef batch(size): return torch.rand(3, size, 5)\n"
    )
    family, model = custom(tmp_path, code)
    inputs = [torch.rand(3, 5) for _ in range(3)]  # three samples of three steps: the batch is the second axis
    assert family.predict(model, inputs) == [scores.argmax(-1).tolist() for scores in inputs]
    family, model = custom(tmp_path, f"{code}def samples(): return [(torch.rand(3, 5), 1)] * 2\n")
    samples = family.samples(model, "own", tmp_path, None, 0)
    with pytest.raises(RecipeError, match=r"returns 3 predictions for each sample .* \[3, 2, 5\]\), .* one reference"):
        family.predict(model, [sample.inputs for sample in samples])


def round_trip(model: Model, folder: Path) -> Any:
    variant = Variant("own", "original", "none", family="python", source="own.py", chain=(Step("original"),))
    folder.mkdir()
    model_folder.save(model, registry.build("families", "python"), [], variant, folder)
    return model_folder.restore(folder).model.module


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize(
    "built",
    [
        "torch.compile(nn.Linear(4, 4), backend='eager')",
        "nn.DataParallel(nn.Linear(4, 4))",
        "nn.Sequential(nn.LazyLinear(3), nn.ReLU(), nn.LazyLinear(2))",
        "nn.utils.weight_norm(nn.Linear(4, 4))",
        "nn.utils.spectral_norm(nn.Linear(4, 4))",
        "nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))",
        "nn.utils.parametrizations.orthogonal(nn.Linear(4, 4))",
        "nn.utils.prune.random_unstructured(nn.Linear(4, 4), 'weight', 0.5)",
    ],
)
def test_a_module_is_plain_and_restored_as_it_was(built: str, tmp_path: Path) -> None:
    code = f"import torch\nfrom torch import nn\nimport torch.nn.utils.prune\ndef model(): return {built}\n"
    _, model = custom(tmp_path, f"{code}def batch(size): return torch.rand(size, 4)\n")
    assert type(model.module) in (nn.Linear, nn.Sequential) or "Parametrized" in type(model.module).__name__
    inputs = torch.rand(3, 4)
    assert torch.equal(round_trip(model, tmp_path / "saved")(inputs), model.module(inputs))


def test_a_model_that_trains_itself_is_not_random(tmp_path: Path) -> None:
    _, model = custom(tmp_path, initial="trained")
    assert model.weights == "local"
    with pytest.raises(RecipeError, match="initial"):
        custom(tmp_path, initial="perhaps")


def test_a_checkpoint_in_half_precision_is_cast_with_a_caution(tmp_path: Path) -> None:
    _, model = custom(tmp_path)
    torch.save({"model": model.module.half().state_dict()}, tmp_path / "w.pt")
    _, model = custom(tmp_path, weights="w.pt")
    assert model.module[0].weight.dtype == torch.float32
    assert [caution.message for caution in model.cautions] == [
        "the weights were cast to the precision of the module: float16 to float32"
    ]
    assert model.facts["checkpoint"] == "the entry 'model' was used"


@pytest.mark.parametrize("shapes", [(4, 4), (3, 5)])
def test_more_scores_than_samples_are_rejected(shapes: tuple[int, int], tmp_path: Path) -> None:
    """Flattened views of one sample: the first ones would be paired with other samples."""
    views = "class Views(nn.Module):\n    def forward(self, x): return x.repeat_interleave(2, 0)\n"
    code = f"import torch\nfrom torch import nn\n{views}def model(): return Views()\n"
    family, model = custom(tmp_path, f"{code}def batch(size): return torch.rand(size, 4)\n")
    with pytest.raises(RecipeError, match=r"returns \d scores .* for \d samples?: .* define predict"):
        family.predict(model, [torch.rand(length) for length in shapes])


def test_a_call_of_a_fixed_number_gives_one_prediction_for_each_sample(tmp_path: Path) -> None:
    family, model = custom(tmp_path)
    model.data_as(OwnCode).form = CallForm("tensor", {}, samples=4)
    inputs = torch.rand(6, 8)
    expected = model.module(inputs).argmax(-1).tolist()
    for count in (1, 4, 6):
        assert family.predict(model, list(inputs[:count])) == expected[:count]


SEVERAL = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 4)

    def forward(self, x, *, times, bias=None):
        scores = self.layer(x) * times + bias
        return {"hidden": (x, [x.sum()]), "scores": scores, "aux": None, "n": 3}

def model(): return Net()
def batch(size): return {"bias": torch.rand(size, 4), "x": torch.rand(size, 8).double(), "times": 2.0}
def samples(): return [({"x": torch.rand(8), "bias": torch.rand(4)}, 1)]
"""


def test_inputs_by_name_and_nested_outputs_are_predicted_by_the_output_that_was_named(tmp_path: Path) -> None:
    family, model = custom(tmp_path, SEVERAL, output="scores")
    batch = family.batch(model, 3, 0)
    assert (list(batch), batch["x"].dtype, batch["times"]) == (["x", "times", "bias"], torch.float32, 2.0)
    output = family.run(model, batch, lambda stage: None)
    assert len(family.parts(model, output)) == 5
    inputs = [{"x": x, "bias": bias} for x, bias in zip(batch["x"], batch["bias"], strict=True)]
    assert family.predict(model, inputs) == output["scores"].argmax(-1).tolist()
    assert family.scores(model, output) is output["scores"]
    (example,) = family.example(model)
    assert set(example) == {"x", "bias"}
    assert len(family.predict(model, [example])) == 1
    family, model = custom(tmp_path, SEVERAL)
    with pytest.raises(
        RecipeError, match=r"returns several tensors \(hidden\.0, hidden\.1\.0, scores\): .*output: NAME"
    ):
        family.predict(model, inputs)


def test_batches_of_one_seed_are_the_same_for_all_generators(tmp_path: Path) -> None:
    drawn = "import random\nimport numpy as np\ndef batch(size): return np.random.rand(2), random.random()\n"
    family, model = custom(tmp_path, f"{OWN}\n{drawn}")
    first, repeated, another_seed = (family.batch(model, 1, seed) for seed in (5, 5, 6))
    assert value_trees.is_equal(first, repeated)
    assert not value_trees.is_equal(first, another_seed)


def test_training_must_return_what_batch_returns(tmp_path: Path) -> None:
    code = f"{OWN}\ndef training(): return list(torch.rand(40, 8))\n"
    family, model = custom(tmp_path, code)
    with pytest.raises(
        RecipeError, match=r"training\(\) returned a list of 40 tensors, but batch\(\) returns a Tensor"
    ):
        family.calibration(model, 2, 0)
    family, model = custom(tmp_path, code.replace("list(torch.rand(40, 8))", "torch.rand(40, 8)"))
    assert [batch[0].shape for batch in family.calibration(model, 2, 0, 3)] == [(3, 8), (3, 8)]


def test_no_more_calibration_samples_are_drawn_than_there_are(tmp_path: Path) -> None:
    family, model = custom(tmp_path, f"{OWN}\ndef training(): return torch.rand(40, 8)\n")
    assert len(family.calibration(model, 100_000, 0)) == 40
    assert len(family.calibration(model, 7, 0)) == 7
    family, model = custom(tmp_path, f"{OWN}\ndef training(): return torch.rand(4, 8)\n")
    assert len(family.calibration(model, 32, 0, 16)) == 32, "a training draws 32 batches at once"


def test_a_list_of_arguments_may_be_a_list_of_training_inputs(tmp_path: Path) -> None:
    code = (
        "import torch\nfrom torch import nn\nclass Sum(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.w = nn.Parameter(torch.ones(1))\n"
        "    def forward(self, a, b): return (a + b) * self.w\n"
        "def model(): return Sum()\ndef batch(size): return torch.rand(size, 4), torch.rand(size, 4)\n"
        "def training(): return [torch.rand(9, 4), torch.rand(9, 4)]\n"
    )
    family, model = custom(tmp_path, code)
    assert [[part.shape for part in batch] for batch in family.calibration(model, 1, 0, 3)] == [[(3, 4), (3, 4)]]
