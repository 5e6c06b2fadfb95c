"""Which folder may import which. The tests walk the imports and check them against the table."""

from __future__ import annotations

import ast
import functools
import graphlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mlflow_compress

PACKAGE = Path(mlflow_compress.__file__).parent

# From the lowest layer up. Within a folder modules may import each other, but never in a cycle.
FLOORS = (
    {
        "budget",
        "file_locks",
        "files",
        "folder_trees",
        "interrupts",
        "plain_text",
        "torch_devices",
        "trust_word",
        "user_home",
        "version",
        "words",
    },
    {"cache_folders", "error_causes", "errors", "percentiles", "terminal", "untrusted"},
    {"records", "untrusted_yaml"},
    {"model"},
    {"sockets"},
    {"registry"},
    {"networks", "reporting"},
    {"compression", "data", "meters", "pyfunc", "renderers", "scoring"},
    {"families", "measuring", "methods", "metrics", "planning"},
    {"tracking"},
    {"notebook", "plugin", "sweeping"},
    {"__init__", "cli"},
    {"__main__"},
)

# The modules that may import each heavy dependency.
DOORS = {
    # also where its models are loaded, and in the plugins that it calls
    "mlflow": {
        "tracking.connection",
        "tracking.imported_rows",
        "tracking.models",
        "tracking.private_mlflow",
        "tracking.writing",
        "families.mlflow_model",
        "networks.mlflow_folders",
        "plugin.experiment",
        "plugin.evaluator",
        "plugin.backend",
    },
    "click": {
        "cli.bench",
        "cli.report",
        "cli.gate",
        "cli.selecting",
        "cli.exits",
        "cli.late_options",
        "cli.click_options",
    },
    "sqlalchemy": {"tracking.database", "tracking.private_mlflow"},
    "yaml": {"untrusted_yaml"},  # ultralytics' own reader can run code in a data.yaml
    "pydantic": {"registry", "untrusted"},
    "pydantic_core": {"untrusted"},
    "platformdirs": {"cache_folders"},
    "subprocess": {"measuring.worker_process"},
    "filelock": {"measuring.machine_lock", "tracking.new_store", "tracking.spool", "sweeping.file_bundle"},
    "ray": {"sweeping.ray_cluster"},
    "pynvml": {"meters.gpu"},
    "matplotlib": {"tracking.run_plots", "renderers.png"},  # pictures of one result, and of the comparison
    "openpyxl": {"renderers.xlsx"},
    "jinja2": {"renderers.html"},
    "markupsafe": {"renderers.html"},
    "markdown_it": {"reporting.markdown_tables"},
    "ultralytics": {
        "networks.ultralytics_architecture",
        "networks.ultralytics_images",
        "networks.ultralytics_models",
        "networks.ultralytics_training",
        "scoring.boxes",
        "scoring.keypoints",
        "scoring.masks",
        "scoring.rotated_boxes",
    },
    "cv2": {"networks.ultralytics_images"},
    "jiwer": {"scoring.transcripts"},
    "sacrebleu": {"metrics.bleu", "metrics.chrf"},
    "seqeval": {"scoring.entities"},
    "rouge_score": {"scoring.overlap"},
    "evaluate": {"scoring.hf_evaluate"},
    "accelerate": {"networks.stored_weights"},
    "codecarbon": {"meters.energy"},
    "huggingface_hub": {  # it also splits weights into files, and reads model cards
        "networks.hub",
        "networks.model_card",
        "networks.sentence_modules",
        "networks.stored_weights",
        "scoring.lm_eval_tasks",
    },
    "datasets": {"data.hubdata", "scoring.hf_evaluate", "scoring.lm_eval_tasks"},
    "lm_eval": {"scoring.lm_eval_model", "scoring.lm_eval_tasks"},
    "soundfile": {"data.media"},
    "PIL": {"data.media", "data.segmentations"},
    "timm": {"networks.image_zoos"},
    "torch_pruning": {"methods.prune_structured"},
    "torchao": {"compression.executorch_files", "methods.int8_weight_only"},
    "bitsandbytes": {"compression.bnb"},
    "onnx": {
        "compression.onnx_blocks",
        "compression.onnx_fusions",
        "compression.onnx_gpu_sessions",
        "compression.onnx_graphs",
        "compression.onnx_packed_weights",
        "compression.onnx_static_int8",
        "methods.onnx_int8",
        "methods.tensorrt",
        "networks.onnx_files",
    },
    "onnxruntime": {
        "compression.onnx_blocks",
        "compression.onnx_fusions",
        "compression.onnx_gpu_sessions",
        "compression.onnx_graphs",
        "compression.onnx_settings",
        "compression.onnx_static_int8",
        "methods.onnx_int8",
    },
    "llama_cpp": {"networks.llama_binding"},
    "ai_edge_litert": {"compression.litert_files", "networks.litert_module"},
    "ctranslate2": {
        "compression.ctranslate2_conversion",
        "compression.ctranslate2_module",
        "compression.ctranslate2_translation",
        "compression.ctranslate2_whisper",
    },
    "openvino": {
        "compression.openvino_decoders",
        "compression.openvino_graphs",
        "compression.openvino_weights",
        "methods.openvino_int8",
    },
    "nncf": {"compression.openvino_weights", "methods.openvino_int4", "methods.openvino_int8"},
    "ncnn": {"methods.ncnn"},
    "pnnx": {"methods.ncnn"},
    "litert_torch": {"compression.litert_files"},
    "ai_edge_quantizer": {"methods.litert_int8"},
    "executorch": {"compression.executorch_files"},
    "coremltools": {"methods.coreml"},
    "tensorrt": {"compression.tensorrt_engine", "methods.tensorrt"},
}

# What a module may import at the top, besides the standard library; everything else is imported inside functions.
LIGHT = {"click", "annotated_types", "packaging", "mlflow_compress"}

# Modules that define torch modules import torch at the top, and are themselves imported inside functions.
HEAVY = {
    "compression.dense_choice": {"torch"},
    "compression.few_bit_kernels": {"torch"},
    "compression.int4_kernel": {"torch"},
    "compression.int8_kernel": {"torch"},
    "compression.packed_layers": {"torch"},
    "compression.packing": {"torch"},
    "compression.weight_groups": {"torch"},
    "compression.rounded_linear": {"torch"},
    "compression.int8_layers": {"torch"},
    "compression.bnb": {"torch", "bitsandbytes"},
}

SOURCES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.parent.name not in ("recipes", "templates")  # user code that the wheel includes
}


def floor(module: str) -> int:
    for number, names in enumerate(FLOORS):
        if folder(module) in names:
            return number
    raise AssertionError(f"{module} has no floor: add its folder to the table")


def folder(module: str) -> str:
    """Return the folder of a module; for a module at the root, its own name."""
    return module.partition(".")[0]


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def imports(path: Path) -> tuple[tuple[str, bool], ...]:
    """Return every module that a file imports, and whether the import is at the top level."""
    return tuple(imports_of(path))


def imports_of(path: Path) -> Iterator[tuple[str, bool]]:
    for statement, eager in walk(parsed(path), eager=True):
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                yield alias.name, eager
        elif isinstance(statement, ast.ImportFrom):
            assert statement.level == 0, f"{path}: a relative import hides the floor"
            assert statement.module
            for alias in statement.names:
                full_name = f"{statement.module}.{alias.name}"
                yield (full_name if is_own_module(full_name) else statement.module), eager


def walk(node: ast.AST, eager: bool) -> Iterator[tuple[ast.AST, bool]]:
    for child in ast.iter_child_nodes(node):
        yield child, eager
        is_function = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for_types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
        yield from walk(child, eager and not is_function and not for_types)


def is_own_module(dotted: str) -> bool:
    path = PACKAGE.parent.joinpath(*dotted.split("."))
    return dotted.startswith("mlflow_compress.") and (path.with_suffix(".py").is_file() or path.is_dir())


def own(name: str) -> str | None:
    """Return the name inside the package, `__init__` for the package itself, None for other packages."""
    if name == "mlflow_compress":
        return "__init__"
    return name.removeprefix("mlflow_compress.") if name.startswith("mlflow_compress.") else None


def test_the_plan_names_every_folder_once_and_nothing_that_is_gone() -> None:
    names_in_floors = [name for names in FLOORS for name in names]
    assert sorted(names_in_floors) == sorted({folder(module) for module in SOURCES})


@pytest.mark.parametrize("module", SOURCES)
def test_a_module_imports_from_its_own_folder_and_from_lower_floors_only(module: str) -> None:
    own_floor = floor(module)
    for name, _ in imports(SOURCES[module]):
        if (imported := own(name)) is not None and folder(imported) != folder(module):
            assert floor(imported) < own_floor, (
                f"{module} (floor {own_floor}) imports {imported} (floor {floor(imported)})"
            )


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {module: {own(name) for name, _ in imports(path)} - {None} for module, path in SOURCES.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


@pytest.mark.parametrize("module", SOURCES)
def test_a_heavy_dependency_has_one_door(module: str) -> None:
    for name, _ in imports(SOURCES[module]):
        doors = DOORS.get(name.partition(".")[0])
        assert doors is None or module in doors, f"{module} imports {name}, which comes in through {doors}"


def test_each_door_is_still_one() -> None:
    for dependency, doors in DOORS.items():
        for door in doors:
            assert dependency in {name.partition(".")[0] for name, _ in imports(SOURCES[door])}, (dependency, door)


@pytest.mark.parametrize("module", SOURCES)
def test_nothing_heavy_is_imported_before_it_is_needed(module: str) -> None:
    for name, eager in imports(SOURCES[module]):
        root = name.partition(".")[0]
        is_light = root in LIGHT | sys.stdlib_module_names | HEAVY.get(module, set())
        is_light &= own(name) not in HEAVY or module in HEAVY
        assert not eager or is_light, f"{module} imports {name} at once"


@pytest.mark.parametrize("module", SOURCES)
def test_no_file_is_named_for_nothing(module: str) -> None:
    named_for_nothing = {"utils", "helpers", "base", "common", "core", "manager", "config"}
    assert not named_for_nothing & set(module.split("."))


@pytest.mark.parametrize("module", SOURCES)
def test_all_that_is_written_to_a_terminal_goes_through_one_door(module: str) -> None:
    if module in ("terminal", "measuring.worker"):  # its stream is the pipe to the parent process
        return
    for node in ast.walk(parsed(SOURCES[module])):
        callee = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        by_itself = r"print|click\.s?echo|click\.secho|(sys\.std(out|err)|(self\.)?_?stream)(\.buffer)?\.write(lines)?"
        assert not re.fullmatch(by_itself, callee), f"{module} calls {callee}: the door is terminal.py"


def test_a_plan_imports_no_torch(tmp_path: Path) -> None:
    code = """
import sys
from mlflow_compress.cli.bench import main
main.main(["sweep", "hw1", "--dry-run"], prog_name="x", standalone_mode=False)
print("TORCH" if "torch" in sys.modules else "NONE")
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert process.returncode == 0, process.stderr
    assert process.stdout.endswith("on one machine (from the budget, without compressing and scoring)\nNONE\n")
    assert list(tmp_path.iterdir()) == []


def test_help_and_lists_import_neither_torch_nor_mlflow() -> None:
    code = """
import json, sys
from mlflow_compress.cli.bench import main as bench
from mlflow_compress.cli.report import main as report
loaded = {}
for command, line in ((bench, ["--help"]), (bench, ["run", "--help"]), (bench, ["list", "methods"]),
                      (bench, ["list", "families"]), (bench, ["check", "distilbert"]), (report, ["--help"])):
    try:
        command.main(line, prog_name="x", standalone_mode=False)
    finally:
        heavy = {"torch", "mlflow", "transformers", "matplotlib", "numpy"} & set(sys.modules)
        loaded[" ".join([command.name, *line])] = sorted(heavy)
print("LOADED" + json.dumps(loaded))
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    loaded = json.loads(process.stdout.rpartition("LOADED")[2])
    assert len(loaded) == 6
    assert not any(loaded.values()), loaded
