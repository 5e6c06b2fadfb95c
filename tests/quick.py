"""The quick tests: no heavy library, no process, no socket. A guard fails those that break this.

`pytest -m quick` runs every test that nothing excludes. Excluded are: a file that imports something heavy (pytest does
not even collect it); a test that imports something heavy itself, or through a fixture; a test that is marked `full`.
All other sessions ignore this file.
"""

from __future__ import annotations

import ast
import dis
import functools
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parent
ROOT = TESTS.parent
HEAVY = frozenset(
    {
        *("accelerate", "bitsandbytes", "codecarbon", "ctranslate2", "cv2", "datasets", "evaluate", "gguf"),
        *("huggingface_hub", "llama_cpp", "mlflow", "ncnn", "nncf", "onnx", "onnxruntime", "openvino", "pandas", "ray"),
        *("sklearn", "tokenizers", "torch", "torch_pruning", "torchao", "torchvision", "transformers", "ultralytics"),
    }
)
HEAVY_FIXTURES = frozenset({"lab", "tracking_uri"})  # the package does the heavy part, where bytecode doesn't show it
OUTSIDE = frozenset(
    {
        *("os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "subprocess.Popen"),
        *("socket.bind", "socket.connect"),
    }
)


class QuickSession:
    """A session with `-m quick`: chooses the tests, and listens to Python's audit events while one runs."""

    def __init__(self) -> None:
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
    def pytest_runtest_protocol(self) -> Iterator[None]:
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
        elif event in OUTSIDE:
            self._refuse(f"calls {event}")

    def _refuse(self, deed: str) -> None:
        self.is_guarding = False  # pytest itself may do so to report the failure
        pytest.fail(f"a quick test {deed}: mark it with @pytest.mark.full (tests/quick.py says why)")


def pytest_configure(config: pytest.Config) -> None:
    if re.search(r"(?<!not )\bquick\b", config.option.markexpr):
        config.pluginmanager.register(QuickSession(), "quick")


def is_heavy_file(path: Path) -> bool:
    """Return whether a heavy library is imported when a file is, also through other files of this repository."""
    reached, left = {path}, [path]
    while left:
        for module in _imports(left.pop()):
            if _is_heavy(module):
                return True
            for file in _files_of(module) - reached:
                reached.add(file)
                left.append(file)
    return False


def is_heavy_test(item: pytest.Function) -> bool:
    """Return whether a test is marked as not quick, or imports something heavy itself or in a fixture."""
    if item.get_closest_marker("full") or HEAVY_FIXTURES.intersection(item.fixturenames):
        return True
    hypothesis = getattr(item.function, "hypothesis", None)
    functions = [item.function if hypothesis is None else hypothesis.inner_test]
    fixtures = item._fixtureinfo.name2fixturedefs
    functions += [fixture.func for name in item.fixturenames for fixture in fixtures.get(name, ())]
    return any(_is_heavy(module) for function in functions for module in _imported_by(function))


def _is_heavy(module: str) -> bool:
    return module.partition(".")[0] in HEAVY


@functools.cache
def _imports(path: Path) -> frozenset[str]:
    """Return the modules that a file imports when it is imported, not in its functions."""
    modules: set[str] = set()
    left: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while left:
        node = left.pop()
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = ".".join(path.relative_to(ROOT).parts[: -node.level]) if node.level else ""
            module = ".".join(part for part in (package, node.module or "") if part)
            modules |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "importorskip":
            modules |= {argument.value for argument in node.args if isinstance(argument, ast.Constant)}
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) and not _is_for_types(node):
            left += ast.iter_child_nodes(node)
    return frozenset(modules)


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


@functools.cache
def _files_of(module: str) -> frozenset[Path]:
    """Return the file of a module of this repository; none for all other modules."""
    tops = (ROOT, TESTS) if "." not in module else (ROOT,)
    places = [top.joinpath(*module.split(".")) for top in tops]
    files = [file for place in places for file in (place.with_suffix(".py"), place / "__init__.py")]
    return frozenset(file for file in files if file.is_file())


@functools.cache
def _imported_by(function: Any) -> frozenset[str]:
    code = getattr(function, "__code__", None)
    found = () if code is None else dis.get_instructions(code)
    return frozenset(str(step.argval) for step in found if step.opname == "IMPORT_NAME")
