"""`names`: checks that what a page calls an option, method, family, metric, tag, recipe or file exists in the code.

Command lines are read word by word, with the commands' own parsers. Code inside of lines is recognised by its form:
`--option`, `-P name=value`, `cpu/latency_p50_ms`, `compress.work`, `COMPRESS_TEAM`, `recipes/hw1.yaml`,
`method:option=value`, `a_name`. Words in capitals, and parts with `...`, stand for something of the reader's.
"""

from __future__ import annotations

import ast
import itertools
import re
import shlex
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click
import yaml

from mlflow_compress import registry
from mlflow_compress.errors import CompressError
from mlflow_compress.planning import chains, recipe, requirements, sweep_recipe
from mlflow_compress.tracking import logged_names
from website import runnable, shell_lines, vocabulary
from website.complaints import Complaint
from website.markdown_page import MarkdownPage, Snippet

_PLACEHOLDER = re.compile(r"[A-Z][A-Z0-9_|]*(?:\.\.\.)?|.*\.\.\..*|<.*>|\$.*|.*[а-яё].*", re.DOTALL)
_METRIC = re.compile(r"(?:size|cpu|gpu|quality)/[a-z]\w*")
_TAG = re.compile(r"(?:mlflow\.)?compress\.(?!bench|report)[a-z][\w.]*")
_VARIABLE = re.compile(r"(COMPRESS_[A-Z_]+)(?:=.*)?")
_MODULE = re.compile(r"mlflow_compress(?:\.\w+)+")
_PATH = re.compile(r"\.?[\w-]+(?:/[\w.*-]+)+/?")
_NAME = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)+")
_CHAIN = re.compile(r"[a-z]\w*(?::\w+=[^\s+]+)?(?:\+[a-z]\w*(?::\w+=[^\s+]+)?)*")
_SETTING = re.compile(r"([a-z]\w*)=\S*")
_EXTRAS = re.compile(r"(?:mlflow-compress|\.)\[([\w,-]+)\]")
_OURS = ("compress-bench", "compress-report", "mlflow run")


def complaints(page: MarkdownPage) -> Iterator[Complaint]:
    """Check the names on a page, as somebody wrote it."""
    yield from runnable.complaints(page.path)
    for fence in page.fences:
        for line, message in _of_fence(fence):
            yield Complaint(page.path, fence.line + 1 + line, message)
    for span in page.code_spans:
        for message in of_code(span.text):
            yield Complaint(page.path, span.line, message)


def of_code(text: str) -> Iterator[str]:
    """Check code that is inside of a line."""
    text = text.strip()
    if text.startswith((*_OURS, "python -m ")):
        yield from of_command(_split(text))
    elif text.startswith(("--", "-P ", "-O ", "--option ")):
        yield from _of_options(_split(text))
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
        yield from _of_chain(text)
    elif match := _SETTING.fullmatch(text):
        if match[1] not in vocabulary.words():
            yield f"the code has no name {match[1]}"
    elif _NAME.fullmatch(text) and text not in vocabulary.words():
        yield f"the code has no name {text}"


def of_command(words: Sequence[str]) -> Iterator[str]:
    """Check one command line."""
    if words[:2] == ["mlflow", "run"]:
        yield from _of_mlflow(words[2:])
        return
    if words[:3] == ["python", "-m", "benchmarks"]:
        yield from _of_ours("python -m benchmarks", words[3:])
        return
    if words[:2] == ["python", "-m"] and len(words) > 2:
        yield from _of_python_module(words[2])
        return
    if words[0] in ("pip", "python", "uv"):
        for word in words:
            for extra in ((match := _EXTRAS.search(word)) and match[1].split(",")) or ():
                if extra not in vocabulary.extras():
                    yield f"the package has no extra {extra}"
        return
    if words[0] not in ("compress-bench", "compress-report"):
        return
    name, rest = words[0], list(words[1:])
    if rest and f"{name} {rest[0]}" in vocabulary.commands():
        name, rest = f"{name} {rest[0]}", rest[1:]
    elif rest and not rest[0].startswith("-") and not _PLACEHOLDER.fullmatch(rest[0]):
        yield f"{name} has no command {rest[0]}"
        return
    yield from _of_ours(name, rest)


def _of_fence(fence: Snippet) -> Iterator[tuple[int, str]]:
    """Check a block, by its language. The lines are counted from 0."""
    if fence.language in runnable.SHELLS:
        for line, words in shell_lines.commands(fence.text):
            yield from ((line, message) for message in of_command(words))
    elif fence.language in ("yaml", "yml"):
        yield from ((0, message) for message in _of_recipe(fence.text))
    elif fence.language == "python":
        yield from _of_python(fence.text)


def _of_ours(name: str, words: Sequence[str]) -> Iterator[str]:
    """Check the options and arguments of one of our commands."""
    options, rest = vocabulary.options(name), list(words)
    arguments = []
    while rest:
        word = rest.pop(0)
        if word in (">", ">>", "2>", "<"):
            rest = rest[1:]
            continue
        if not word.startswith("-") or (re.fullmatch(r"-[a-z_]*\d*", word) is None and not word.startswith("--")):
            arguments.append(word)
            continue
        flag, equals, value = word.partition("=")
        option = options.get(flag) or options.get(flag.replace("_", "-"))
        if option is None:
            yield f"{name} has no option {flag}"
            continue
        if option.is_flag or (option.flag_value is not None and not equals and (not rest or rest[0].startswith("-"))):
            continue
        if not equals:
            if not rest:
                if option.flag_value is None and len(words) > 1:
                    yield f"{name}: {flag} needs a value"
                continue
            value = rest.pop(0)
        yield from _of_value(flag, value, option)
    if name in ("compress-bench run", "compress-bench sweep", "compress-bench check"):
        for argument in arguments:
            yield from _of_model(argument)
    if name == "python -m benchmarks":
        from benchmarks.__main__ import main as benchmarks

        (names,) = (param for param in benchmarks.params if isinstance(param, click.Argument))
        choices = names.type.choices if isinstance(names.type, click.Choice) else ()
        yield from (f"there is no benchmark {each}" for each in arguments if not _known(each, choices))


def _of_mlflow(words: Sequence[str]) -> Iterator[str]:
    """Check `mlflow run . -e ENTRY -P NAME=VALUE ...` of this project."""
    if not words or words[0] != ".":
        return
    entry = next((after for word, after in itertools.pairwise(words) if word in ("-e", "--entry-point")), "main")
    if entry not in vocabulary.entry_points():
        yield f"MLproject has no entry point {entry}"
        return
    for word, after in itertools.pairwise(words):
        if word == "-P":
            yield from _of_parameter(after, vocabulary.entry_points()[entry])


def _of_parameter(text: str, known: frozenset[str]) -> Iterator[str]:
    name, _, value = text.partition("=")
    if _PLACEHOLDER.fullmatch(name):
        return
    if name not in known:
        yield f"MLproject has no parameter {name}"
    elif name == "model":
        yield from _of_model(value)
    elif value:
        yield from _of_value(f"--{name}", value, None)


def _of_options(words: Sequence[str]) -> Iterator[str]:
    """Check options that are named without their command."""
    every = frozenset().union(*vocabulary.entry_points().values())
    for word, after in zip(words, [*words[1:], ""], strict=True):
        if word == "-P":
            yield from _of_parameter(after, every)
        elif word in ("-O", "--option"):
            yield from _of_value(word, after, None)
        elif word.startswith("--"):
            flag, equals, value = word.partition("=")
            if flag not in vocabulary.every_option():
                yield f"no command has an option {flag}"
            else:
                yield from _of_value(flag, value if equals else after, None)


def _of_value(flag: str, value: str, option: click.Option | None) -> Iterator[str]:
    """Check the value of an option, where it names something of the code."""
    value = value.rstrip(",.;")
    if not value or value.startswith("-") or _PLACEHOLDER.fullmatch(value):
        return
    if flag == "--method" and not any(sign in value for sign in "*?"):
        yield from _of_chain(value)
    elif flag == "--family":
        if not _known(value, (*registry.names("families"), "auto")):
            yield f"there is no family {value}"
    elif flag == "--metric":
        if "/" not in value and not _known(value, registry.names("metrics")):
            yield f"there is no metric {value}"
    elif flag in ("-O", "--option"):
        key = value.partition("=")[0]
        if not any(key in registry.options_of("families", name) for name in registry.names("families")):
            yield f"no family has an option {key}"
    elif flag == "--requires":
        yield from _refused(lambda: requirements.check(dict(part.split("=", 1) for part in value.split(","))))
    elif option is not None and isinstance(option.type, click.Choice) and not _known(value, option.type.choices):
        yield f"{flag} takes {', '.join(option.type.choices)}, not {value}"


def _of_model(name: str) -> Iterator[str]:
    """Check what names a model: a recipe, a hub id, a path, or an ultralytics name."""
    if _PLACEHOLDER.fullmatch(name) or any(sign in name for sign in "/.:~"):
        path = vocabulary.ROOT / name
        if name.startswith("recipes/") and not path.exists():
            yield f"there is no file {name}"
    elif not _known(name, recipe.names()):
        yield f"there is no recipe {name}"


def _is_chain(text: str) -> bool:
    """Return whether code is a chain of methods: it begins with one, or has a plus."""
    first = re.split(r"[:+]", text)[0]
    return _CHAIN.fullmatch(text) is not None and text != first and ("+" in text or first in registry.names("methods"))


def _of_chain(text: str) -> Iterator[str]:
    if not _PLACEHOLDER.fullmatch(text):
        yield from _refused(lambda: chains.parse_chain(text))


def _of_module(text: str) -> Iterator[str]:
    """Check a dotted name of the package: a module, a name in one, or a group of entry points."""
    parts = text.split(".")
    if len(parts) == 2 and parts[1] in registry.KINDS:
        return
    for count in range(len(parts), 0, -1):
        path = vocabulary.ROOT.joinpath(*parts[:count])
        file = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
        if file.is_file():
            source = file.read_text(encoding="utf-8")
            yield from (
                f"{'.'.join(parts[:count])} has no {name}"
                for name in parts[count:]
                if not re.search(rf"\b{name}\b", source)
            )
            return


def _of_python_module(name: str) -> Iterator[str]:
    path = vocabulary.ROOT.joinpath(*name.split("."))
    is_ours = (vocabulary.ROOT / name.split(".")[0]).is_dir()
    if is_ours and not (path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()):
        yield f"there is no module {name}"


def _of_recipe(text: str) -> Iterator[str]:
    """Check a block that is a recipe, with the readers of recipes."""
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        yield f"this is no YAML: {error}"
        return
    if not isinstance(data, dict) or not ({"family", "source"} <= set(data) or "models" in data):
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "recipe.yaml")
        path.write_text(text, encoding="utf-8")
        read: Callable[[str], object] = sweep_recipe.read if "models" in data else recipe.read
        for message in _refused(lambda: read(str(path))):
            yield message.replace(f"{path}: ", "")


def _of_python(text: str) -> Iterator[tuple[int, str]]:
    """Check a block of Python: its syntax, what it imports of the package, and chains of methods in it."""
    import mlflow_compress

    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        yield (error.lineno or 1) - 1, f"this is no Python: {error.msg}"
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
            yield from ((line, message) for message in _of_chain(node.value))


def _refused(read: Callable[[], object]) -> Iterator[str]:
    """Yield why something is refused, if it is."""
    try:
        read()
    except (CompressError, ValueError) as error:
        yield str(error)


def _known(name: str, names: Sequence[str]) -> bool:
    return name in names or _PLACEHOLDER.fullmatch(name) is not None


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()
