"""One list of dependencies, and an MLproject that agrees with the commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from mlflow_compress import registry
from mlflow_compress.cli.bench import main as bench
from mlflow_compress.cli.report import main as report
from mlflow_compress.planning import recipe, sweep_recipe
from mlflow_compress.planning.options import declared

tomllib = pytest.importorskip("tomllib", reason="it came with Python 3.11")

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MLPROJECT = yaml.safe_load((ROOT / "MLproject").read_text(encoding="utf-8"))

COMMANDS: dict[str, tuple[str, click.Command]] = {
    "main": ("run", bench.commands["run"]),
    "sweep": ("sweep", bench.commands["sweep"]),
    "report": ("report", report),
}


def parameters(entry: str) -> dict[str, dict[str, Any]]:
    declared: dict[str, dict[str, Any]] = MLPROJECT["entry_points"][entry]["parameters"]
    return declared


def words(entry: str) -> list[str]:
    return shlex.split(MLPROJECT["entry_points"][entry]["command"])


def option_of(command: click.Command, flag: str) -> click.Option:
    (match,) = [option for option in options_of(command) if flag in option.opts]
    return match


def options_of(command: click.Command) -> list[click.Option]:
    params = command.get_params(click.Context(command))
    return [param for param in params if isinstance(param, click.Option) and param.expose_value]


def test_the_project_has_the_three_entry_points() -> None:
    assert set(MLPROJECT["entry_points"]) == set(COMMANDS)
    assert MLPROJECT["name"] == PYPROJECT["project"]["name"]


def test_every_environment_installs_the_project_and_nothing_else() -> None:
    assert MLPROJECT["python_env"] == "python_env.yaml"
    python_env = yaml.safe_load((ROOT / "python_env.yaml").read_text(encoding="utf-8"))
    assert python_env["dependencies"] == [".[methods]"]
    conda = yaml.safe_load((ROOT / "conda.yaml").read_text(encoding="utf-8"))
    assert [dependency["pip"] for dependency in conda["dependencies"] if isinstance(dependency, dict)] == [
        [".[methods]"]
    ]
    plain = {re.split(r"[<>=]", dependency)[0] for dependency in conda["dependencies"] if isinstance(dependency, str)}
    assert plain == {"python", "pip"}
    assert f"python{PYPROJECT['project']['requires-python']}" in conda["dependencies"]


@pytest.mark.parametrize("entry", COMMANDS)
def test_an_entry_point_calls_its_command_with_every_parameter(entry: str) -> None:
    name, command = COMMANDS[entry]
    assert words(entry)[:4] == ["python", "-m", "mlflow_compress", name]
    arguments = words(entry)[4:]
    if entry != "report":
        assert arguments.pop(0) == "{model}"
    flags, values = arguments[::2], arguments[1::2]
    for flag, value in zip(flags, values, strict=True):
        assert value == f"{{{flag.removeprefix('--').replace('-', '_')}}}"
        option_of(command, flag)  # it exists
    used = {value.strip("{}") for value in values} | ({"model"} if entry != "report" else set())
    assert used == set(parameters(entry))


@pytest.mark.parametrize("entry", ["main", "sweep"])
def test_every_option_is_a_parameter(entry: str) -> None:
    name, command = COMMANDS[entry]
    declared_options = {"run": declared("run"), "sweep": declared("sweep")}[name]
    assert {option.name for option in options_of(command)} == {option.name for option in declared_options}
    assert {option.name for option in declared_options if option.is_parameter} == set(parameters(entry)) - {"model"}


@pytest.mark.parametrize("entry", COMMANDS)
def test_defaults_agree(entry: str) -> None:
    _, command = COMMANDS[entry]
    for name, parameter in parameters(entry).items():
        if "default" not in parameter or (entry, name) == ("report", "output"):  # a project has no terminal to print to
            continue
        option = option_of(command, f"--{name.replace('_', '-')}")
        converted = option.type_cast_value(click.Context(command), parameter["default"])
        assert converted == option.type_cast_value(click.Context(command), option.default), name


@pytest.mark.parametrize("entry", ["main", "sweep"])
def test_underscores_are_taken_for_hyphens(entry: str) -> None:
    _, command = COMMANDS[entry]
    line = ["distilbert", "--batch_size", "4", "--max_seconds", "2", "--log_model", "false"]
    context = bench.make_context("bench", [COMMANDS[entry][0], *line], resilient_parsing=False)
    context_made = command.make_context(COMMANDS[entry][0], list(line), parent=context)
    assert (
        context_made.params["batch_size"],
        context_made.params["max_seconds"],
        context_made.params["log_model"],
    ) == ((4,), 2.0, False)


def test_the_scripts_and_the_plugins_of_the_package_exist() -> None:
    scripts = PYPROJECT["project"]["scripts"]
    assert scripts == {
        "compress-bench": "mlflow_compress.cli.bench:main",
        "compress-report": "mlflow_compress.cli.report:main",
    }


def test_the_wheel_holds_the_recipes() -> None:
    wheel = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"]["recipes"] == "mlflow_compress/recipes"
    assert wheel["packages"] == ["mlflow_compress"]


RECIPES = [path.stem for path in sorted((ROOT / "recipes").glob("*.yaml"))]
SWEEPS = ["hw1"]


@pytest.mark.parametrize("name", [name for name in RECIPES if name not in SWEEPS])
def test_every_recipe_is_read_and_planned(name: str) -> None:
    model_recipe = recipe.read(str(ROOT / "recipes" / f"{name}.yaml"))
    variants = recipe.plan(model_recipe, model_recipe.variants, recipe.Settings())
    assert variants[0].method == "original"
    assert len({variant.method for variant in variants}) == len(variants)
    assert all(variant.model == name for variant in variants)


@pytest.mark.parametrize("name", SWEEPS)
def test_every_sweep_recipe_is_planned_under_methods_that_the_projects_environment_has(name: str) -> None:
    variants = sweep_recipe.plan([str(ROOT / "recipes" / f"{name}.yaml")], recipe.Settings())
    assert {variant.model for variant in variants} == {"digits_cnn", "distilbert"}
    assert [variant.model for variant in variants if variant.is_original] == ["digits_cnn", "distilbert"]
    installed = re.search(r"\[(.*)\]", PYPROJECT["project"]["optional-dependencies"]["methods"][0])
    assert installed is not None
    for method in {step.method for variant in variants for step in variant.chain}:
        assert registry.find("methods", method).extra in ("", *installed[1].split(",")), method
        assert "cpu" in registry.find("methods", method).devices


def test_the_courses_four_models_are_there() -> None:
    families = {recipe.read(name).family for name in ("yolo11l", "whisper_small", "distilbert", "bert_base", "llama")}
    assert families == {"yolo", "asr", "text_classification", "causal_lm"}
