"""Every method on unusual modules: the saved model is restored, or a message says why the method does not apply."""

from __future__ import annotations

import dataclasses
import itertools
import json
import warnings
from pathlib import Path

import pytest
import torch

import mlflow_compress as mc
from benchmarks import zoo
from benchmarks.finding import RESULTS
from mlflow_compress import registry
from mlflow_compress.errors import Unsupported
from mlflow_compress.measuring import worker
from mlflow_compress.planning import chains
from mlflow_compress.pyfunc import _load_pyfunc

pytestmark = pytest.mark.slow

# one method of each kind that torch runs itself; all others are tried by the benchmark
CHEAP = ("awq", "bf16", "gptq", "int8_dynamic", "int8_dynamic_torch", "int8_static", "prune_magnitude")
REFUSED = {"scripted"}
FEWEST_SERVED = 1250
REACHED = [  # where a method once changed nothing, broke the model, or missed layers
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


EXPORTED = [  # where an exporter once broke or left out something
    ("transformer_encoder", "torchscript"),
    ("transformer", "torch_export"),
    ("keyword_only_input", "torchscript"),
    ("number_and_text_input", "torchscript"),
    ("nested_output", "torch_export"),
    ("weight_norm_by_hook", "onnx"),
    ("tied_head", "openvino"),
    ("masked_output", "openvino"),
    ("single_linear", "onnx_int8"),
]
NOT_EXPORTED = [
    ("data_dependent_control_flow", "torchscript", "the outputs of the model converted by TorchScript differ by"),
    ("data_dependent_control_flow", "torch_export", "path depends on the values of its inputs"),
    ("changes_at_each_call", "onnx", "gives different outputs at each call"),
    ("dropout_stays_on", "openvino", "it draws random numbers, and the export draws different ones or none"),
    ("lstm", "onnx_fp16", "ONNX Runtime crashes when it opens an LSTM in float16"),
    ("no_parameters", "ncnn", "the module has no parameters, and ncnn crashes on a graph without parameters"),
    ("gives_none", "openvino", "the module returns no tensor but a NoneType"),
]


def needs(method: str) -> bool:
    """Return whether the packages that a method needs are installed."""
    from mlflow_compress.version import installed

    return all(installed(name) is not None for name in registry.find("methods", method).needs)


def served() -> set[tuple[str, str]]:
    """Return the cells that were `ok` in the last run of the benchmark."""
    lines = (RESULTS / "zoo.jsonl").read_text(encoding="utf-8").splitlines()
    return {(cell["module"], cell["method"]) for cell in map(json.loads, lines) if cell["status"] == "ok"}


def is_as_in_the_benchmark() -> bool:
    """Return whether torch has the version of the benchmark: another version may serve more or fewer cells."""
    machine = json.loads((RESULTS / "zoo.json").read_text(encoding="utf-8"))["machine"]
    return bool(machine["torch"] == torch.__version__.partition("+")[0])


TRIED_EACH_TIME = {module for module, *_ in (*REACHED, *EXPORTED, *NOT_EXPORTED)} | REFUSED
MODULES = [
    module if module in TRIED_EACH_TIME else pytest.param(module, marks=pytest.mark.extra) for module in zoo.MODULES
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("module", MODULES)
def test_each_cell_is_right_or_has_a_reason_and_served_cells_stay_served(module: str, tmp_path: Path) -> None:
    cells = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for method in filter(needs, CHEAP):
            folder = tmp_path / method
            folder.mkdir()
            cells[method] = zoo.tried(zoo.variant_of(module, method), folder)
            if cells[method].status == "refused":  # the module: it is the same for all methods
                break
    assert [cell for cell in cells.values() if cell.status == "failed"] == []
    assert any(cell.status == "refused" for cell in cells.values()) is (module in REFUSED)
    served_before = {method for method in cells if (module, method) in served()}
    no_more = served_before - {method for method, cell in cells.items() if cell.status == "ok"}
    assert len(no_more) <= (0 if is_as_in_the_benchmark() else 1), [cells[method] for method in no_more]


def test_the_benchmark_tried_all_that_torch_runs_itself_served_most_and_nothing_failed() -> None:
    lines = (RESULTS / "zoo.jsonl").read_text(encoding="utf-8").splitlines()
    cells = [json.loads(line) for line in lines]
    methods = [name for name in registry.own("methods") if registry.find("methods", name).gives != "runtime"]
    untried = set(itertools.product(zoo.MODULES, methods)) - {(cell["module"], cell["method"]) for cell in cells}
    assert not untried, "try them: python -m benchmarks zoo"
    assert [cell for cell in cells if cell["status"] == "failed"] == []
    assert len(served()) >= FEWEST_SERVED


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("module", "method"), [*REACHED, *EXPORTED])
def test_what_a_method_serves_stays_served(module: str, method: str, tmp_path: Path) -> None:
    if not needs(method):
        pytest.skip(f"what {method} needs is not installed")
    cell = zoo.tried(zoo.variant_of(module, method), tmp_path)
    assert cell.status == "ok", cell.reason


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("module", "method", "reason"), NOT_EXPORTED)
def test_what_no_graph_can_hold_is_skipped_for_that_reason(
    module: str, method: str, reason: str, tmp_path: Path
) -> None:
    if not needs(method):
        pytest.skip(f"what {method} needs is not installed")
    cell = zoo.tried(zoo.variant_of(module, method), tmp_path)
    assert cell.status == "skipped"
    assert reason in cell.reason


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_not_an_answer_of_the_method(tmp_path: Path) -> None:
    cell = zoo.tried(zoo.variant_of("single_linear", "tensorrt"), tmp_path)
    assert cell.status == "not tried here"
    assert "this machine has no CUDA device" in cell.reason


def test_the_goal_is_not_known_where_cells_were_not_tried() -> None:
    modules, methods = ["batch_norm", "single_linear"], ["bf16", "tensorrt"]
    cells = {place: zoo.Cell("ok") for place in itertools.product(modules, methods)}
    assert zoo._finding(modules, methods, cells).met
    cells["batch_norm", "tensorrt"] = zoo.Cell("not tried here", "no GPU")
    finding = zoo._finding(modules, methods, cells)
    assert finding.met is None
    assert [row["not tried here"] for row in finding.rows] == [0, 1]
    assert any(note.startswith("cells that were not tried: 1,") for note in finding.notes)
    page = zoo.page(modules, methods, cells)
    assert "| – [1](#1) |" in page
    assert "`distill` needs a `student(keep)` in the module's file; 1 of these files have one." in page
    del cells["single_linear", "tensorrt"]
    assert zoo._finding(modules, methods, cells).met is None
    cells["single_linear", "bf16"] = zoo.Cell("failed", "the process died")
    assert zoo._finding(modules, methods, cells).met is False


def test_every_module_describes_its_oddity() -> None:
    for module in zoo.MODULES:
        assert zoo.oddity(module).endswith("."), module


def loaded(module: str) -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    """Return a module of the zoo as in a notebook, and a batch of two."""
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
        expected, actual = original(*inputs), compressed(*inputs)
    assert 0 < float((actual - expected).norm() / expected.norm()) < 0.1
    assert mc.benchmark(compressed, inputs, seconds=0.01, log=False).status == "ok"


@pytest.mark.filterwarnings("ignore")
def test_a_method_that_changes_nothing_is_an_error_in_a_notebook() -> None:
    pruned = mc.compress(torch.nn.Linear(4, 4), "prune_magnitude")
    with pytest.raises(Unsupported, match="prune_magnitude changed nothing"):
        mc.compress(pruned, "prune_magnitude")
    with pytest.raises(Unsupported, match="prune_magnitude changed nothing"):  # the second of them
        mc.compress(torch.nn.Linear(4, 4), "prune_magnitude+prune_magnitude+int8_dynamic")


@pytest.mark.filterwarnings("ignore")
def test_each_step_of_a_chain_must_change_something(tmp_path: Path) -> None:
    chain = chains.parse_chain("prune_magnitude+prune_magnitude:amount=0.4+int8_dynamic")
    variant = dataclasses.replace(zoo.variant_of("single_linear", "bf16"), method="named", chain=chain)
    cell = zoo.tried(variant, tmp_path)
    assert cell.status == "skipped"
    assert cell.reason.startswith("prune_magnitude:amount=0.4 changed nothing in this model")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("module", ["masked_output", "batch_norm"])
def test_a_logged_model_predicts(module: str, tmp_path: Path) -> None:
    variant = zoo.variant_of(module, "int8_dynamic")
    assert zoo.tried(variant, tmp_path).status == "ok"
    answers = _load_pyfunc(str(tmp_path / worker.MODEL_FOLDER)).predict([torch.rand(16), torch.rand(16)])
    assert len(answers) == 2
    assert all(0 <= answer < 4 for answer in answers)
