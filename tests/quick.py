"""The quick tests: no heavy library, no process, no socket. A guard fails tests that break this.

`pytest -m quick` runs all tests except these: tests in a file that imports a heavy library (pytest does not collect
it); tests whose code or fixtures import a heavy library, or use a module that starts processes or opens sockets; and
tests marked `full`, because the package does so or they take seconds. Hypothesis tries fewer examples. Other sessions
ignore this file.
"""

from __future__ import annotations

import ast
import dis
import functools
import multiprocessing
import re
import socket
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

TESTS = Path(__file__).parent
ROOT = TESTS.parent
MARK = "pytest.mark.full"  # also for a whole file: `pytestmark = pytest.mark.full`
HEAVY = frozenset(
    {
        *("accelerate", "ai_edge_litert", "ai_edge_quantizer", "coremltools", "executorch", "litert_torch"),
        *("bitsandbytes", "codecarbon", "ctranslate2", "cv2", "datasets", "evaluate", "gguf"),
        *(
            "huggingface_hub",
            "llama_cpp",
            "lm_eval",
            "mlflow",
            "ncnn",
            "nncf",
            "onnx",
            "onnxruntime",
            "openvino",
            "pandas",
        ),
        *("pyarrow", "ray", "sklearn", "tokenizers", "torch", "torch_pruning", "torchao", "torchvision"),
        *("transformers", "ultralytics"),
    }
)
HEAVY_FIXTURES = frozenset({"empty_store", "lab"})  # the heavy part is in the package, which is not searched
STARTERS = (multiprocessing, socket, subprocess)
OUTSIDE = frozenset(
    {
        *("os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "subprocess.Popen"),
        *("socket.bind", "socket.connect"),
    }
)
FONT_LISTERS = frozenset({"fc-list", "system_profiler"})  # matplotlib runs them once on a machine, when it is imported


class QuickSession:
    """A session with `-m quick`: chooses the tests, and listens to Python's audit events while one runs."""

    def __init__(self) -> None:
        settings.register_profile("quick", settings(), max_examples=25)
        settings.load_profile("quick")
        self.is_guarding = False
        sys.addaudithook(self._hear)

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        is_module = collection_path.suffix == ".py" and collection_path.name != "conftest.py"
        return True if is_module and is_heavy_file(collection_path) else None

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            if isinstance(item, pytest.Function) and not is_heavy_test(item):
                item.add_marker("quick")

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self) -> Iterator[Any]:
        return (yield from self._guarded())

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self) -> Iterator[Any]:
        return (yield from self._guarded())

    def _guarded(self) -> Iterator[Any]:
        self.is_guarding = True
        try:
            return (yield)
        finally:
            self.is_guarding = False

    def _hear(self, event: str, details: tuple[Any, ...]) -> None:
        if not self.is_guarding:
            return
        if event == "import" and _is_heavy(details[0]):
            self._refuse(f"imports {details[0]}")
        elif event in OUTSIDE and not (event == "subprocess.Popen" and details[0] in FONT_LISTERS):
            self._refuse(f"calls {event}")

    def _refuse(self, action: str) -> None:
        self.is_guarding = False  # pytest itself may do the same to report the failure
        pytest.fail(f"a quick test {action}: mark it with @{MARK}, or its file (tests/quick.py says why)")


def pytest_configure(config: pytest.Config) -> None:
    if re.search(r"(?<!not )\bquick\b", config.option.markexpr):
        config.pluginmanager.register(QuickSession(), "quick-session")


def is_heavy_file(path: Path) -> bool:
    """Return whether importing a file imports a heavy library, also through other files of this repository."""
    reached, left = {path}, [path]
    while left:
        for module in _imports(left.pop()):
            if _is_heavy(module) or module == MARK:
                return True
            for file in _files_of(module) - reached:
                reached.add(file)
                left.append(file)
    return False


def is_heavy_test(item: pytest.Function) -> bool:
    """Return whether a test is marked `full`, or its code or a fixture's code uses something heavy."""
    if item.get_closest_marker("full") or HEAVY_FIXTURES.intersection(item.fixturenames):
        return True
    hypothesis = getattr(item.function, "hypothesis", None)
    functions = [item.function if hypothesis is None else hypothesis.inner_test]
    fixtures = item._fixtureinfo.name2fixturedefs
    functions += [fixture.func for name in item.fixturenames for fixture in fixtures.get(name, ())]
    return _are_heavy(tuple(functions))


@functools.cache  # the parameters of a test share its functions
def _are_heavy(functions: tuple[Any, ...]) -> bool:
    return any(map(_is_heavy_code, _reached(functions)))


def _reached(functions: tuple[Any, ...]) -> Iterator[types.FunctionType]:
    """Yield functions, and the functions of tests and benchmarks that they use."""
    left, reached = list(functions), set()
    while left:
        function = left.pop()
        if isinstance(function, type):
            left += vars(function).values()
        elif isinstance(function, types.FunctionType) and function not in reached:
            reached.add(function)
            if _is_ours(function.__code__.co_filename) and not function.__module__.startswith("mlflow_"):
                yield function
                left += [function.__globals__.get(name) for code in _codes(function) for name in code.co_names]


@functools.cache
def _is_ours(file: str) -> bool:
    return Path(file).is_relative_to(ROOT)


@functools.cache
def _is_heavy_code(function: types.FunctionType) -> bool:
    for code in _codes(function):
        values = [function.__globals__.get(name) for name in code.co_names]
        if any(value is starter for value in values for starter in STARTERS):
            return True
        if any(map(_is_heavy, code.co_names)) and any(map(_is_heavy, _imported(code))):
            return True
    return False


def _imported(code: types.CodeType) -> Iterator[str]:
    return (str(step.argval) for step in dis.get_instructions(code) if step.opname == "IMPORT_NAME")


def _codes(function: types.FunctionType) -> Iterator[types.CodeType]:
    """Yield the code of a function and of the functions inside it."""
    left = [function.__code__]
    while left:
        code = left.pop()
        yield code
        left += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]


def _is_heavy(module: str) -> bool:
    return module.partition(".")[0] in HEAVY


@functools.cache
def _imports(path: Path) -> frozenset[str]:
    """Return the modules that a file imports outside its functions."""
    modules: set[str] = set()
    text = path.read_text(encoding="utf-8")
    left: list[ast.AST] = [ast.parse(text)]
    is_marked = MARK in text  # `ast.unparse` is slow
    while left:
        node = left.pop()
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = ".".join(path.relative_to(ROOT).parts[: -node.level]) if node.level else ""
            module = ".".join(part for part in (package, node.module or "") if part)
            modules |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
        elif is_marked and isinstance(node, ast.Assign) and MARK in ast.unparse(node):
            modules.add(MARK)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "importorskip":
            modules |= {str(argument.value) for argument in node.args if isinstance(argument, ast.Constant)}
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) and not _is_for_types(node):
            left += ast.iter_child_nodes(node)
    return frozenset(modules)


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


@functools.cache
def _files_of(module: str) -> frozenset[Path]:
    """Return the file of a module of this repository; empty for all other modules."""
    tops = (ROOT, TESTS) if "." not in module else (ROOT,)
    places = [top.joinpath(*module.split(".")) for top in tops]
    files = [file for path in places for file in (path.with_suffix(".py"), path / "__init__.py")]
    return frozenset(file for file in files if file.is_file())
