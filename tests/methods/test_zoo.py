"""Every method on odd modules: what is saved is restored, or a sentence says why the method does not apply."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

import mlflow_compress as mc
from benchmarks import zoo
from mlflow_compress import registry
from mlflow_compress.errors import Unsupported
from mlflow_compress.measuring import worker
from mlflow_compress.pyfunc import _load_pyfunc

# one method of each kind that torch runs itself; all others are tried by the benchmark
CHEAP = ("awq", "bf16", "gptq", "int8_dynamic", "int8_dynamic_torch", "int8_static", "prune_magnitude")
REACHED = [  # where a method once changed nothing, broke the model, or passed over what it should reach
    ("single_linear", "int8_dynamic"),
    ("single_linear", "int8_dynamic_torch"),
    ("weight_norm_by_hook", "int8_dynamic"),
    ("weight_norm_parametrized", "int4_weight_only"),
    ("spectral_norm", "prune_magnitude"),
    ("pruning_masks_left_on", "int8_dynamic_torch"),
    ("linear_written_transposed", "int4_weight_only"),
    ("linear_written_transposed", "low_rank"),
    ("transformer_encoder", "int8_dynamic_torch"),
    ("transformer_encoder", "wanda"),
    ("batch_norm", "prune_structured"),
    ("unsaved_buffers", "bf16"),
    ("masked_output", "fp16"),
]


def needs(method: str) -> bool:
    """Return whether what a method needs is installed."""
    from mlflow_compress.version import installed

    return all(installed(name) is not None for name in registry.find("methods", method).needs)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("module", zoo.MODULES)
def test_each_cell_is_right_or_says_why_not(module: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        failed = {}
        for method in filter(needs, CHEAP):
            folder = tmp_path / method
            folder.mkdir()
            cell = zoo.tried(zoo.variant_of(module, method), folder)
            if cell.status == "refused":  # the module: it is the same for all methods
                return
            if cell.status == "failed":
                failed[method] = cell.reason
        assert not failed


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("module", "method"), REACHED)
def test_what_a_method_serves_stays_served(module: str, method: str, tmp_path: Path) -> None:
    if not needs(method):
        pytest.skip(f"what {method} needs is not installed")
    cell = zoo.tried(zoo.variant_of(module, method), tmp_path)
    assert (cell.status, cell.reason) == ("ok", cell.reason)


def test_every_module_says_what_is_odd() -> None:
    for module in zoo.MODULES:
        assert zoo.oddity(module).endswith("."), module


def loaded(module: str) -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    """Return a module of the zoo as a notebook holds it, and a batch of two."""
    family = registry.build("families", "python")
    model = family.load(f"{module}.py", "random", zoo.ZOO, 0)
    code = model.family_data.code
    inputs = code.batch(2)
    return model.module, inputs if isinstance(inputs, tuple) else (inputs,)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "module",
    ["single_linear", "weight_norm_by_hook", "pruning_masks_left_on", "linear_written_transposed", "tied_head"],
)
def test_a_module_in_a_notebook_is_compressed_and_measured(module: str) -> None:
    original, inputs = loaded(module)
    compressed = mc.compress(original, "int8_dynamic")
    with torch.no_grad():
        wanted, given = original(*inputs), compressed(*inputs)
    assert 0 < float((given - wanted).norm() / wanted.norm()) < 0.1
    assert mc.benchmark(compressed, inputs, seconds=0.01, log=False).status == "ok"


@pytest.mark.filterwarnings("ignore")
def test_a_notebook_is_told_that_nothing_was_changed() -> None:
    pruned = mc.compress(torch.nn.Linear(4, 4), "prune_magnitude")
    with pytest.raises(Unsupported, match="prune_magnitude changed nothing"):
        mc.compress(pruned, "prune_magnitude")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("module", ["masked_output", "batch_norm"])
def test_a_logged_model_predicts(module: str, tmp_path: Path) -> None:
    variant = zoo.variant_of(module, "int8_dynamic")
    assert zoo.tried(variant, tmp_path).status == "ok"
    answers = _load_pyfunc(str(tmp_path / worker.MODEL_FOLDER)).predict([torch.rand(16), torch.rand(16)])
    assert len(answers) == 2
    assert all(0 <= answer < 4 for answer in answers)
