"""Methods that calibrate: trained weights are never fitted to noise silently."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_model

from mlflow_compress import registry
from mlflow_compress.errors import Unsupported
from mlflow_compress.sockets import Family, Model


def trained(name: str, folder: Path, rows: int | None = None, limit: int | None = None, **options: Any) -> Any:
    """Return a model whose weights count as trained, after reading its samples if there are any."""
    family, model = tiny_model(name, **options)
    model.weights = "local"
    if rows is not None:
        path = folder / "a.jsonl"
        labelled = [{"text": f"{chr(97 + index % 26) * 9} {index}", "label": index % 2} for index in range(rows)]
        path.write_text("".join(json.dumps(row) + "\n" for row in labelled))
        family.samples(model, str(path), folder, limit, 0)
    return family, model


def compress(name: str, family: Family, model: Model, **options: Any) -> Model:
    compressed: Model = registry.build("methods", name, options).compress(model, family)
    return compressed


@pytest.mark.parametrize("method", ["gptq", "awq", "wanda"])
@pytest.mark.parametrize("rows", [None, 20])
def test_trained_weights_are_not_fitted_to_random_tokens(method: str, rows: int | None, tmp_path: Path) -> None:
    family, model = trained("causal_lm", tmp_path, rows)
    with pytest.raises(Unsupported, match=r"calibration=OTHER, or limit=N.* weights=random"):
        compress(method, family, model)


@pytest.mark.parametrize("method", ["int8_static", "openvino_int8", "onnx_int8"])
def test_static_int8_that_is_scored_is_not_calibrated_on_random_inputs(method: str, tmp_path: Path) -> None:
    family, model = trained("text_classification", tmp_path, 20)
    with pytest.raises(Unsupported, match="a training part"):
        compress(method, family, model, **({"mode": "static"} if method == "onnx_int8" else {}))


def test_without_scoring_random_calibration_is_only_a_caution(tmp_path: Path) -> None:
    family, model = trained("text_classification", tmp_path)
    (caution,) = (caution for caution in compress("int8_static", family, model).cautions if "random" in caution.code)
    assert "limit=N" in caution.advice


def test_what_a_limit_leaves_over_is_enough(tmp_path: Path) -> None:
    family, model = trained("text_classification", tmp_path, 20, 12)
    assert "random_calibration" not in {caution.code for caution in compress("int8_static", family, model).cautions}


def test_a_user_file_without_training_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import torch\nmodel = lambda: torch.nn.Linear(8, 8)\nload_weights = lambda module: None\n"
        "batch = lambda size: torch.rand(size, 8)\nsamples = lambda: [(torch.rand(8), 1)]\n"
    )
    family: Family = registry.build("families", "python")
    model = family.load("own.py", "auto", tmp_path, 0)
    family.samples(model, "own", tmp_path, None, 0)
    with pytest.raises(Unsupported, match=r"a function training\(\) in its file"):
        compress("int8_static", family, model)


@pytest.mark.parametrize("method", ["gptq", "wanda"])
def test_the_timed_length_does_not_change_the_weights(method: str, tmp_path: Path) -> None:
    states = []
    for prompt_tokens in (8, 32):
        family, model = trained("causal_lm", tmp_path, 60, 20, prompt_tokens=prompt_tokens)
        states.append(compress(method, family, model).module.state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_few_tokens_have_a_caution(tmp_path: Path) -> None:
    for samples, is_few in ((8, True), (128, False)):
        family, model = trained("causal_lm", tmp_path, 60, 20)
        cautions = [
            caution for caution in compress("wanda", family, model, samples=samples).cautions if "few" in caution.code
        ]
        assert bool(cautions) is is_few
        if cautions:
            assert "1,024 tokens; at least 16,384" in cautions[0].message


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("distill", {"keep": 0.5}, "10 training steps on random inputs"),
        ("prune_structured", {"amount": 0.5}, "not trained afterwards"),
        ("prune_structured", {"amount": 0.5, "steps": 1}, "1 training steps on random inputs"),
    ],
)
def test_a_smaller_model_without_real_training_has_a_caution(
    method: str, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    family, model = trained("text_classification", tmp_path, 20)
    (caution,) = (
        caution for caution in compress(method, family, model, **options).cautions if caution.code == "not_trained"
    )
    assert message in caution.message
    assert "Provide inputs to train on" in caution.advice


def test_a_smaller_model_trained_on_data_has_no_caution(tmp_path: Path) -> None:
    family, model = trained("text_classification", tmp_path, 20, 10)
    student = compress("prune_structured", family, model, amount=0.5, steps=1)
    assert "not_trained" not in {caution.code for caution in student.cautions}
