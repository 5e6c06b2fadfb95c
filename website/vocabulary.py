"""`vocabulary`: the names that a page may use: options, parameters, and every word of the sources."""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Mapping
from pathlib import Path

import click
import yaml

from website.command_pages import every_command

ROOT = Path(__file__).parents[1]
_SOURCES = ("mlflow_compress/**/*.py", "mlflow_compress/templates/*", "benchmarks/**/*.py", "recipes/*", "website/*.py",
            "MLproject", "pyproject.toml", "conda.yaml", "constraints/*.txt", ".ci/*",
            "benchmarks/results/architectures.jsonl")  # fmt: skip
_NAMED_BY_FILE = ("mlflow_compress/**/*.py", "recipes/*", "tests/zoo/*.py")  # a plugin is named after its file
_WORD = re.compile(r"\w+")
# Options of other programs that pages name outside of a command line.
FOREIGN_OPTIONS = frozenset(
    {
        "--allowed-hosts", "--app-name", "--artifacts-destination", "--backend", "--backend-config",
        "--backend-store-uri", "--cov", "--dist", "--durations", "--enable-workspaces", "--env-manager",
        "--experiment-name", "--help", "--host", "--no-deps", "--num-cpus", "--port", "--strict", "--version",
    }
)  # fmt: skip


@functools.cache
def commands() -> Mapping[str, click.Command]:
    """Return the commands by their full names: `compress-bench run`, `python -m benchmarks`."""
    names = dict(every_command())
    for path in sorted((ROOT / "benchmarks").glob("*.py")):
        if "@click.command" in path.read_text(encoding="utf-8"):
            name = "benchmarks" if path.stem == "__main__" else f"benchmarks.{path.stem}"
            names[f"python -m {name}"] = importlib.import_module(f"benchmarks.{path.stem}").main
    return names


@functools.cache
def options(name: str) -> Mapping[str, click.Option]:
    """Return the options of a command by their flags; `-P` parameters are those with underscores."""
    command = commands()[name]
    context = click.Context(command, info_name=name)
    return {
        flag: param
        for param in command.get_params(context)
        if isinstance(param, click.Option)
        for flag in (*param.opts, *param.secondary_opts)
    }


@functools.cache
def benchmarks() -> tuple[str, ...]:
    """Return the names of all benchmarks."""
    (names,) = (param for param in commands()["python -m benchmarks"].params if isinstance(param, click.Argument))
    return tuple(names.type.choices) if isinstance(names.type, click.Choice) else ()


@functools.cache
def every_option() -> frozenset[str]:
    """Return the flags of all commands' options."""
    return FOREIGN_OPTIONS.union(*(options(name) for name in commands()))


@functools.cache
def entry_points() -> Mapping[str, frozenset[str]]:
    """Return the parameters of `mlflow run -P` by entry point: those of `MLproject`, and those of the command."""
    project = yaml.safe_load((ROOT / "MLproject").read_text(encoding="utf-8"))["entry_points"]
    of_command = {"main": "compress-bench run", "sweep": "compress-bench sweep", "report": "compress-report"}
    return {
        name: frozenset(entry["parameters"]).union(_parameters(of_command[name]) if name in of_command else ())
        for name, entry in project.items()
    }


@functools.cache
def extras() -> frozenset[str]:
    """Return the package's extras."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")  # Python 3.10 has no reader of TOML
    section = project.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    return frozenset(re.findall(r"^([\w-]+) = \[", section, re.MULTILINE))


@functools.cache
def words() -> frozenset[str]:
    """Return every word of the sources, of recipes and of templates."""
    paths = {path for pattern in _SOURCES for path in ROOT.glob(pattern) if path.is_file()}
    names = {path.stem for pattern in _NAMED_BY_FILE for path in ROOT.glob(pattern)}
    return frozenset(names).union(*(_WORD.findall(path.read_text(encoding="utf-8")) for path in paths))


@functools.cache
def top_level() -> frozenset[str]:
    """Return the folders of the repository."""
    return frozenset(path.name for path in ROOT.iterdir() if path.is_dir() and path.name != ".git")


def _parameters(command: str) -> set[str]:
    return {flag.removeprefix("--").replace("-", "_") for flag in options(command) if flag.startswith("--")}
