"""A model is tried before anything is measured: errors of all its variants are reported with file and line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mlflow_compress import registry
from mlflow_compress.errors import RecipeError, WeightsError
from mlflow_compress.measuring import isolate
from mlflow_compress.measuring.model_trial import OF_MODEL, ModelError, fails_all, loaded, try_call, try_scoring
from mlflow_compress.measuring.one_process import work
from mlflow_compress.planning.recipe import Settings
from mlflow_compress.planning.sweep_recipe import plan
from mlflow_compress.records import Outcome, Result, Variant

pytestmark = pytest.mark.full

HEAD = "import torch\nfrom torch import nn\n"
MODEL = "def model():\n    return nn.Linear(4, 3)\n"
BATCH = "def batch(size):\n    return torch.rand(size, 4)\n"
WEIGHTS = "def load_weights(module):\n    nn.init.ones_(module.weight)\n"
SAMPLES = "def samples():\n    return [(torch.rand(4), 1), (torch.rand(4), 2), (torch.rand(4), 0)]\n"
TWO_INPUTS = """
class Sum(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, left, right):
        return self.layer(left + right)

def model():
    return Sum()

def batch(size):
    return torch.rand(size, 4), torch.rand(size, 4)

def load_weights(module):
    pass
"""


def variant(folder: Path, *parts: str, **changes: Any) -> Variant:
    (folder / "mine.py").write_text(HEAD + "".join(parts))
    (planned,) = plan([str(folder / "mine.py")], Settings(**changes))
    return planned


def trial(folder: Path, *parts: str, **changes: Any) -> tuple[list[str], list[str]]:
    stages: list[str] = []
    warnings: list[str] = []
    planned = variant(folder, *parts, **changes)
    loaded(registry.build("families", "python", {}), planned, stages.append, warnings.append)
    return stages, warnings


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_model_that_does_what_it_must_is_loaded(tmp_path: Path) -> None:
    stages, warnings = trial(tmp_path, MODEL, BATCH, WEIGHTS, SAMPLES)
    assert stages == ["loading", "checking the data", "trying the model"]
    assert warnings == []


def test_inputs_and_outputs_are_described(tmp_path: Path) -> None:
    planned = variant(tmp_path, MODEL, BATCH, WEIGHTS, SAMPLES, batch_sizes=(2,))
    family = registry.build("families", "python", {})
    model = loaded(family, planned, str, str)
    samples = family.samples(model, "own", tmp_path, None, 0)
    facts = try_call(family, model, planned) | try_scoring(family, model, planned, samples)
    assert facts["takes"] == "float32 [2, 4]"
    assert facts["gives"] == "float32 [2, 3]"
    assert facts["samples"] == "3"
    assert facts["score"].startswith("accuracy ")
    assert facts["score"].endswith(" on 2 samples")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (("1 / 0\n",), r"mine\.py can't be run: ZeroDivisionError: .* \(mine\.py, line 3\)\.$"),
        ((BATCH,), r"mine\.py defines no function model\(\)"),
        (("def model():\n    return nn.Linear(4)\n", BATCH), r"TypeError: .*out_features.*|mine\.py, line 4, in model"),
        ((MODEL,), r"batch\(1\) failed: .*mine\.py defines no function batch\(\)"),
        ((MODEL, "def batch(size):\n    return torch.rand(size, width)\n"),
         r"batch\(1\) failed: mine\.py, line 6, in batch: NameError: name 'width' is not defined"),
        ((MODEL, "def batch(size):\n    return torch.rand(size, 5)\n"),
         r"the module can't be called on what batch\(1\) returns, float32 \[1, 5\]: mat1 and mat2 shapes"),
        ((MODEL, BATCH, "def load_weights(module):\n    module.load_state_dict({})\n", SAMPLES),
         r"mine\.py: mine\.py, line 8, in load_weights: Error\(s\) in loading state_dict for Linear: Missing key\(s\)"),
        ((MODEL, BATCH, WEIGHTS, "def samples():\n    return []\n"), r"no samples to score\. .*data: none"),
    ],
)  # fmt: skip
def test_errors_are_reported_with_their_place(tmp_path: Path, parts: tuple[str, ...], message: str) -> None:
    with pytest.raises(ModelError, match=message) as raised:
        trial(tmp_path, *parts)
    assert raised.value.exit_code == 2
    assert raised.value.cause == "recipe"


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((MODEL, BATCH, WEIGHTS, "def samples():\n    return [(torch.rand(7), 1)]\n"),
         r"1 samples can't be predicted \(the first is float32 \[7\]\): mat1 and mat2"),
        ((MODEL, BATCH, WEIGHTS, SAMPLES, "def predict(module, inputs):\n    return [0]\n"),
         r"predict\(\) returned 1 predictions for 2 samples"),
        ((MODEL, BATCH, WEIGHTS, SAMPLES, "def predict(module, inputs):\n    return inputs.argmax\n"),
         r"the first is float32 \[4\]\): mine\.py, line 12, in predict: 'list' object has no attribute"),
        ((MODEL, BATCH, WEIGHTS, SAMPLES, "metrics = ['map50']\n"),
         r"the score can't be computed from what samples\(\) and predict\(\) return: .* first reference is int 1, the"),
    ],
)  # fmt: skip
def test_a_score_that_can_not_be_computed_is_reported_at_once_and_ends_only_a_check(
    tmp_path: Path, parts: tuple[str, ...], message: str
) -> None:
    stages, warnings = trial(tmp_path, *parts)
    assert stages[-1] == "trying the model"
    assert len(warnings) == 1
    assert re.search(f"^quality can't be scored: .*{message}", warnings[0])
    planned = variant(tmp_path, *parts)
    family = registry.build("families", "python", {})
    model = loaded(family, planned, str, str)
    samples = family.samples(model, "own", tmp_path, None, 0)
    with pytest.raises(RecipeError, match=message):
        try_scoring(family, model, planned, samples)


def test_a_metric_without_a_value_is_reported_before_anything_is_measured(tmp_path: Path) -> None:
    one_class = "def samples():\n    return [(torch.rand(4), 1)] * 3\n"
    of_both = (MODEL, BATCH, WEIGHTS, one_class, "metrics = ['accuracy', 'roc_auc']\n")
    _, warnings = trial(tmp_path, *of_both)
    assert "roc_auc has no value: all references belong to one class" in warnings
    with pytest.raises(ModelError, match="roc_auc has no value: all references belong to one class"):
        trial(tmp_path, MODEL, BATCH, WEIGHTS, one_class, "metrics = ['roc_auc']\n")


def test_missing_weights_keep_their_exit_code(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"gone\.pt") as raised:
        trial(tmp_path, MODEL, BATCH, weights="gone.pt")
    error = raised.value
    assert (error.exit_code, error.cause, error.doing) == (WeightsError.exit_code, "weights", "loading")


def test_two_inputs_are_predicted_or_refused_at_once(tmp_path: Path) -> None:
    samples = "def samples():\n    return [((torch.rand(4), torch.rand(4)), 1)] * 3\n"
    call = "module(left[None], right[None]).argmax()"
    predict = f"def predict(module, inputs):\n    return [int({call}) for left, right in inputs]\n"
    assert trial(tmp_path, TWO_INPUTS, samples, predict)[0][-1] == "trying the model"


def test_a_failure_of_the_model_is_one_of_all_its_variants(tmp_path: Path) -> None:
    planned = variant(tmp_path, MODEL, "def batch(size):\n    return torch.rand(size, 5)\n")
    prepared = work("prepare", planned, tmp_path / "work", lambda event: None)
    assert prepared.outcome.status == "failed"
    assert prepared.facts == {OF_MODEL: "trying the model"}
    assert fails_all(Result(planned, "failed", facts=prepared.facts))
    assert not fails_all(Result(planned, "failed"))


def test_a_checked_model_is_saved_restored_and_tried_again_on_data_beside_its_file(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("1\n2\n0\n")
    samples = "def samples():\n    return [(torch.rand(4), int(line)) for line in open('labels.txt')]\n"
    part = isolate.check(variant(tmp_path, MODEL, BATCH, WEIGHTS, samples), tmp_path / "work", lambda event: None)
    assert part.outcome == Outcome("ok")
    assert part.facts["parameters"] == "15"
    assert part.facts["samples"] == "3"
