"""TensorRT: where there is no GPU it says so, and what it can't serve is declared."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import tiny_model

from mlflow_compress import registry
from mlflow_compress.errors import RecipeError, Unsupported
from mlflow_compress.methods.tensorrt import Tensorrt


def test_without_a_gpu_it_is_unsupported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    family, model = tiny_model("text_classification")
    with pytest.raises(Unsupported, match="torch finds none"):
        Tensorrt().export(model, family, family.graphs(model), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_decodes_is_excluded_with_the_reason() -> None:
    assert set(Tensorrt.excludes) == {"asr", "causal_lm"}
    assert all("key-value cache" in reason for reason in Tensorrt.excludes.values())
    assert (Tensorrt.devices, Tensorrt.needs[0]) == (("cuda",), "tensorrt")


@pytest.mark.parametrize(("option", "value"), [("precision", "int8"), ("most", 1)])
def test_options_out_of_range_are_refused(option: str, value: object) -> None:
    with pytest.raises(RecipeError, match=option):
        registry.build("methods", "tensorrt", {option: value})
