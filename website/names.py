"""`names`: checks that what a page calls an option, method, family, metric, tag, recipe or file exists in the code.

Command lines are read word by word, with the commands' own parsers. Code spans are recognised by their form:
`--option`, `-P name=value`, `cpu/latency_p50_ms`, `compress.work`, `COMPRESS_TEAM`, `recipes/hw1.yaml`,
`method:option=value`, `a_name`. Words in capitals, and parts with `...`, stand for something that the reader chooses.
"""

from __future__ import annotations

import ast
import functools
import re
import shlex
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import yaml

from mlflow_compress import registry
from mlflow_compress.planning import recipe, sweep_recipe
from mlflow_compress.tracking import logged_names
from website import command_lines, runnable, shell_lines, vocabulary
from website.complaints import Complaint
from website.markdown_page import MarkdownPage, Snippet

_METRIC = re.compile(r"(?:size|cpu|gpu|quality)/[a-z]\w*")
_TAG = re.compile(r"(?:mlflow\.)?compress\.(?!bench|report)[a-z][\w.]*")
_VARIABLE = re.compile(r"(COMPRESS_[A-Z_]+)(?:=.*)?")
_MODULE = re.compile(r"mlflow_compress(?:\.\w+)+")
_PATH = re.compile(r"(?!.*[A-Z]{3,}\.)\.?[\w-]+(?:/[\w.*-]+)+/?")  # methods/NAME.py stands for a file of the reader
_NAME = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)+")
_CHAIN = re.compile(r"[a-z]\w*(?::\w+=[^\s+]+)?(?:\+[a-z]\w*(?::\w+=[^\s+]+)?)*")
_SETTING = re.compile(r"([a-z]\w*)=\S*")
_OURS = ("compress-bench", "compress-report", "mlflow run")


def complaints(page: MarkdownPage) -> Iterator[Complaint]:
    """Check the names on a page as written, without its generated parts."""
    yield from runnable.complaints(page.path)
    for fence in page.fences:
        for line, message in _of_fence(fence):
            yield Complaint(page.path, fence.line + 1 + line, message)
    for span in page.code_spans:
        for message in of_code(span.text):
            yield Complaint(page.path, span.line, message)


def of_code(text: str) -> Iterator[str]:
    """Check a code span."""
    text = text.strip()
    if text.startswith((*_OURS, "python -m ")):
        yield from command_lines.of_command(_split(text))
    elif text.startswith(("--", "-P ", "-O ", "--option ")):
        yield from command_lines.of_options(_split(text))
    elif _METRIC.fullmatch(text):
        if not logged_names.is_metric(text):
            yield f"no run has a metric {text}"
    elif _MODULE.fullmatch(text):
        yield from _of_module(text)
    elif _TAG.fullmatch(text):
        if not logged_names.is_tag(text):
            yield f"no run has a tag {text}"
    elif match := _VARIABLE.fullmatch(text):
        if match[1] not in vocabulary.words():
            yield f"nothing reads the variable {match[1]}"
    elif _PATH.fullmatch(text) and text.split("/")[0] in vocabulary.top_level():
        if not list(vocabulary.ROOT.glob(text.rstrip("/"))):
            yield f"there is no file {text}"
    elif _is_chain(text):
        yield from command_lines.of_chain(text)
    elif match := _SETTING.fullmatch(text):
        if match[1] not in vocabulary.words():
            yield f"the code has no name {match[1]}"
    elif _NAME.fullmatch(text) and text not in vocabulary.words():
        yield f"the code has no name {text}"


def _of_fence(fence: Snippet) -> Iterator[tuple[int, str]]:
    """Check a block by its language. Lines are counted from 0."""
    if fence.language in runnable.SHELLS:
        for line, words in shell_lines.commands(fence.text):
            yield from ((line, message) for message in command_lines.of_command(words))
    elif fence.language in ("yaml", "yml"):
        yield from ((0, message) for message in _of_recipe(fence.text))
    elif fence.language == "python":
        yield from _of_python(fence.text)


def _is_chain(text: str) -> bool:
    """Return whether code is a chain of methods: it begins with one, or has a plus."""
    first = re.split(r"[:+]", text)[0]
    return _CHAIN.fullmatch(text) is not None and text != first and ("+" in text or first in registry.names("methods"))


def _of_module(text: str) -> Iterator[str]:
    """Check a dotted name of the package: a module, a name in a module, or a group of entry points."""
    parts = text.split(".")
    if len(parts) == 2 and parts[1] in registry.KINDS:
        return
    for count in range(len(parts), 0, -1):
        path = vocabulary.ROOT.joinpath(*parts[:count])
        file = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
        if file.is_file():
            if parts[count:] and parts[count] not in _defined(file):
                yield f"{'.'.join(parts[:count])} has no {parts[count]}"
            return


@functools.cache
def _defined(file: Path) -> frozenset[str]:
    """Return the names that a file defines or imports."""
    names: set[str] = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {alias.asname or alias.name for alias in node.names}
        else:
            names |= {target.id for target in ast.walk(node) if isinstance(target, ast.Name)}
    return frozenset(names)


def _of_recipe(text: str) -> Iterator[str]:
    """Check a block with a recipe, using the readers of recipes."""
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        yield f"this is not valid YAML: {error}"
        return
    if not isinstance(data, dict) or not ({"family", "source"} <= set(data) or "models" in data):
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "recipe.yaml")
        path.write_text(text, encoding="utf-8")
        read_recipe: Callable[[str], object] = sweep_recipe.read if "models" in data else recipe.read
        for message in command_lines.refused(lambda: read_recipe(str(path))):
            yield message.replace(f"{path}: ", "")


def _of_python(text: str) -> Iterator[tuple[int, str]]:
    """Check a block of Python: its syntax, its imports from the package, and its chains of methods."""
    import mlflow_compress

    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        yield (error.lineno or 1) - 1, f"this is not valid Python: {error.msg}"
        return
    names = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name == "mlflow_compress"
    }
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 1) - 1
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "mlflow_compress":
            for alias in node.names:
                yield from ((line, message) for message in _of_module(f"{node.module}.{alias.name}"))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in names:
            if node.attr not in mlflow_compress.__all__:
                yield line, f"mlflow_compress has no {node.attr}"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _is_chain(node.value):
            yield from ((line, message) for message in command_lines.of_chain(node.value))


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()
