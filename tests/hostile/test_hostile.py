"""No hostile input runs code, crashes a reader, or blocks it forever."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest
import torch

from mlflow_compress import registry
from mlflow_compress.errors import CompressError, Unsupported
from mlflow_compress.networks import ultralytics_models
from mlflow_compress.networks.exported_program_scan import code_in_program
from mlflow_compress.networks.pickle_scan import code_in
from mlflow_compress.networks.torchscript_scan import code_in_script

from .harmless import assert_harmless, inputs


@pytest.mark.parametrize("name", inputs("checkpoints"))
def test_looking_into_a_checkpoint_is_harmless(name: str) -> None:
    assert_harmless(code_in, name)


@pytest.mark.parametrize("name", inputs("checkpoints"))
def test_loading_a_checkpoint_without_trust_is_harmless(name: str) -> None:
    assert_harmless(lambda path: ultralytics_models.load(path.name, "auto", path.parent), name)


@pytest.mark.parametrize("name", inputs("programs"))
def test_a_program_that_is_let_through_is_harmless(name: str) -> None:
    def load(path: Path) -> None:
        if not code_in_program(path):
            torch.export.load(path).module()(torch.rand(3, 2))

    assert_harmless(load, name)


@pytest.mark.parametrize("name", inputs("scripts"))
def test_a_script_that_is_let_through_is_harmless(name: str) -> None:
    def load(path: Path) -> None:
        if not code_in_script(path):
            torch.jit.load(str(path))(torch.rand(3, 2))

    assert_harmless(load, name)


@pytest.mark.parametrize("name", inputs("folders"))
def test_measuring_a_logged_model_without_trust_is_harmless(name: str) -> None:
    def load(path: Path) -> None:
        registry.build("families", "mlflow_model").load(str(path), "auto", Path(), 0)

    assert_harmless(load, name)


@pytest.mark.parametrize("name", inputs("folders"))
def test_loading_a_model_of_this_packages_is_harmless(name: str) -> None:
    def load(path: Path) -> None:
        if (path / "data" / "manifest.json").exists():
            mlflow.pyfunc.load_model(str(path))

    assert_harmless(load, name, (CompressError, Unsupported))
