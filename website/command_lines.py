"""`command_lines`: checks the words of a command line: commands, options, parameters and values."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence

import click

from mlflow_compress import registry
from mlflow_compress.errors import CompressError
from mlflow_compress.planning import chains, recipe, requirements
from website import vocabulary

# Placeholders for something that the reader chooses: MODEL, a name with `...`, `<name>`, `$NAME`, a word in Russian.
_PLACEHOLDER = re.compile(r"[A-Z][A-Z0-9_|]*(?:\.\.\.)?|.*\.\.\..*|<.*>|\$.*|.*[а-яё].*", re.DOTALL)
_FLAG = re.compile(r"--?[a-zA-Z]")
_REDIRECTIONS = (">", ">>", ">&", "<")
_TAKING_MODELS = ("compress-bench run", "compress-bench sweep", "compress-bench check")
_EXTRAS = re.compile(r"(?:mlflow-compress|\.)\[([\w,-]+)\]")


def of_command(words: Sequence[str]) -> Iterator[str]:
    """Check one command line."""
    if words[:2] == ["mlflow", "run"]:
        yield from _of_mlflow(words[2:])
        return
    if (module := " ".join(words[:3])) in vocabulary.commands():
        yield from _of_ours(module, words[3:])
        return
    if words[:2] == ["python", "-m"] and len(words) > 2:
        yield from _of_python_module(words[2])
        return
    if words[0] in ("pip", "python", "uv"):
        extras_named = [extra for word in words if (match := _EXTRAS.search(word)) for extra in match[1].split(",")]
        yield from (f"the package has no extra {extra}" for extra in extras_named if extra not in vocabulary.extras())
        return
    if words[0] not in ("compress-bench", "compress-report"):
        return
    name, arguments = words[0], list(words[1:])
    if arguments and f"{name} {arguments[0]}" in vocabulary.commands():
        name, arguments = f"{name} {arguments[0]}", arguments[1:]
    elif arguments and not arguments[0].startswith("-") and not _PLACEHOLDER.fullmatch(arguments[0]):
        yield f"{name} has no command {arguments[0]}"
        return
    yield from _of_ours(name, arguments)


def _of_ours(name: str, words: Sequence[str]) -> Iterator[str]:
    """Check the options and arguments of one of our commands."""
    options, waiting, arguments = vocabulary.options(name), list(words), []
    while waiting:
        word = waiting.pop(0)
        if word in _REDIRECTIONS:
            waiting = waiting[1:]
            continue
        if not _FLAG.match(word):
            arguments.append(word)
            continue
        flag, equals, value = word.partition("=")
        option = options.get(flag) or options.get(flag.replace("_", "-"))
        if option is None:
            yield f"{name} has no option {flag}"
            continue
        is_value_next = bool(waiting) and not _FLAG.match(waiting[0])
        takes_none = option.is_flag or (option.flag_value is True and not is_value_next)
        if not (equals or takes_none) and waiting:
            value = waiting.pop(0)
        if value:
            yield from _of_value(flag, value, option)
    if name in _TAKING_MODELS:
        for argument in arguments:
            yield from _of_model(argument)
    if name == "python -m benchmarks":
        for argument in arguments:
            if not _known(argument, vocabulary.benchmarks()):
                yield f"there is no benchmark {argument}"


def _of_mlflow(words: Sequence[str]) -> Iterator[str]:
    """Check `mlflow run . -e ENTRY -P NAME=VALUE ...` of this project."""
    if not words or words[0] != ".":
        return
    entry = next(
        (following for word, following in itertools.pairwise(words) if word in ("-e", "--entry-point")), "main"
    )
    if entry not in vocabulary.entry_points():
        yield f"MLproject has no entry point {entry}"
        return
    for word, following in itertools.pairwise(words):
        if word == "-P":
            yield from _of_parameter(following, vocabulary.entry_points()[entry])


def _of_parameter(text: str, parameters: frozenset[str]) -> Iterator[str]:
    name, _, value = text.partition("=")
    if _PLACEHOLDER.fullmatch(name):
        return
    if name not in parameters:
        if not _is_family_option(name):  # a parameter that MLproject does not declare is passed as `--NAME VALUE`
            yield f"MLproject has no parameter {name}"
    elif name == "model":
        yield from _of_model(value)
    elif value:
        yield from _of_value(f"--{name}", value, None)


def of_options(words: Sequence[str]) -> Iterator[str]:
    """Check options that are written without their command."""
    all_parameters = frozenset().union(*vocabulary.entry_points().values())
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == "-P":
            yield from _of_parameter(following, all_parameters)
        elif word in ("-O", "--option"):
            yield from _of_value(word, following, None)
        elif word.startswith("--"):
            flag, equals, value = word.partition("=")
            if flag not in vocabulary.every_option():
                yield f"no command has an option {flag}"
            else:
                yield from _of_value(flag, value if equals else following, None)


def _of_value(flag: str, value: str, option: click.Option | None) -> Iterator[str]:
    """Check the value of an option if it is a name from the code."""
    value = value.rstrip(",.;")
    if not value or value.startswith("-") or _PLACEHOLDER.fullmatch(re.split("[:=]", value)[0]):
        return
    if flag == "--method" and not any(sign in value for sign in "*?"):
        yield from of_chain(value)
    elif flag == "--family":
        if not _known(value, (*registry.names("families"), "auto")):
            yield f"there is no family {value}"
    elif flag == "--metric":
        if "/" not in value and not _known(value, registry.names("metrics")):
            yield f"there is no metric {value}"
    elif flag in ("-O", "--option"):
        key = value.partition("=")[0]
        if not _is_family_option(key):
            yield f"no family has an option {key}"
    elif flag == "--requires":
        yield from refused(lambda: requirements.check(dict(part.split("=", 1) for part in value.split(","))))
    elif option is not None and isinstance(option.type, click.Choice) and not _known(value, option.type.choices):
        yield f"{flag} takes {', '.join(option.type.choices)}, not {value}"


def _is_family_option(name: str) -> bool:
    return any(name in registry.options_of("families", family) for family in registry.names("families"))


def _of_model(name: str) -> Iterator[str]:
    """Check the name of a model: a recipe, a hub id, a path, or an ultralytics name."""
    if _PLACEHOLDER.fullmatch(name) or any(sign in name for sign in "/.:~"):
        path = vocabulary.ROOT / name
        if name.startswith("recipes/") and not path.exists():
            yield f"there is no file {name}"
    elif not _known(name, recipe.names()):
        yield f"there is no recipe {name}"


def of_chain(text: str) -> Iterator[str]:
    """Check a chain of methods."""
    if not _PLACEHOLDER.fullmatch(text):
        yield from refused(lambda: chains.parse_chain(text))


def _of_python_module(name: str) -> Iterator[str]:
    path = vocabulary.ROOT.joinpath(*name.split("."))
    is_ours = (vocabulary.ROOT / name.split(".")[0]).is_dir()
    if is_ours and not (path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()):
        yield f"there is no module {name}"


def refused(read: Callable[[], object]) -> Iterator[str]:
    """Yield why a reader rejects its input, if it does."""
    try:
        read()
    except (CompressError, ValueError) as error:
        yield str(error)


def _known(name: str, names: Sequence[str]) -> bool:
    return name in names or _PLACEHOLDER.fullmatch(name) is not None
