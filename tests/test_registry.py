from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import pytest

from mlflow_compress import registry
from mlflow_compress.errors import RecipeError, UnknownName
from mlflow_compress.sockets import Family, Method

ALL = [(kind, name) for kind in registry.KINDS for name in registry.names(kind)]


@pytest.fixture(scope="module", autouse=True)
def _plugins(plugin_path: Path) -> None:
    """Add the plugins of another distribution to our own."""


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_every_plugin_is_a_dataclass_that_is_built_without_options_and_documented(kind: str, name: str) -> None:
    plugin = registry.find(kind, name)
    assert issubclass(plugin, registry.KINDS[kind][1])
    assert dataclasses.is_dataclass(plugin)
    assert registry.build(kind, name) == plugin()
    assert registry.about(kind, name)[-1] == "."
    documented = " ".join(
        inspect.getdoc(cls) or "" for cls in plugin.__mro__[:-1]
    )  # with the options that all plugins of a socket have
    for option in registry.options_of(kind, name):
        assert f"{option}" in documented, f"{name}'s option {option} is not documented"


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_there_is_one_plugin_in_a_file(kind: str, name: str) -> None:
    socket = registry.KINDS[kind][1]
    module = inspect.getmodule(registry.find(kind, name))
    classes = [cls for _, cls in inspect.getmembers(module, inspect.isclass) if cls.__module__ == module.__name__]  # type: ignore[union-attr]
    assert len([cls for cls in classes if issubclass(cls, socket)]) == 1


@pytest.mark.parametrize("name", registry.names("families"))
def test_every_family_says_what_it_times_and_which_metrics_score_it(name: str) -> None:
    family: type[Family] = registry.find("families", name)
    assert len(family.timed) > 20
    assert family.call_options is not None
    assert set(family.call_options) <= set(registry.options_of("families", name))
    for metric in family.metrics:
        registry.find("metrics", metric)


@pytest.mark.parametrize("name", [name for kind, name in ALL if kind == "methods"])
def test_every_method_says_what_it_changes_and_how_it_is_undone(name: str) -> None:
    method: type[Method] = registry.find("methods", name)
    assert method.changes in ("nothing", "weights", "architecture", "storage", "runtime")
    if method.changes == "architecture" and name != "distill":  # its student is described by the family itself
        assert method.rebuild is not Method.rebuild
    assert method.gives == "runtime" or method.changes != "runtime"
    if method.changes in ("storage", "runtime"):
        assert method.save is not Method.save
        assert method.load is not Method.load


@pytest.mark.parametrize(
    ("kind", "name", "nearest"),
    [
        ("methods", "int8_dinamic", "int8_dynamic"),
        ("methods", "FP16", "fp16"),
        ("methods", "prune_magn", "prune_magnitude"),
        ("families", "text_clasification", "text_classification"),
        ("metrics", "acuracy", "accuracy"),
        ("renderers", "cvs", "csv"),
        ("methods", "zzzzzz", None),
        ("methods", "", None),
        ("methods", "../sockets", None),
        ("methods", "original.py", "original"),
    ],
)
def test_an_unknown_name_is_reported_with_the_nearest_one(kind: str, name: str, nearest: str | None) -> None:
    with pytest.raises(UnknownName) as raised:
        registry.find(kind, name)
    assert raised.value.nearest == nearest
    assert raised.value.exit_code == 2
    for known_name in registry.names(kind):
        assert known_name in str(raised.value)


def test_an_unknown_option_is_reported_with_the_nearest_one() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'amount'") as raised:
        registry.check("methods", "prune_magnitude", {"ammount": 0.5})
    assert "option of prune_magnitude" in str(raised.value)


def test_an_option_that_is_not_text_is_reported_too() -> None:
    with pytest.raises(UnknownName):
        registry.check("methods", "prune_magnitude", {1: 0.5})  # type: ignore[dict-item]


def test_a_method_without_options_says_that_there_are_none() -> None:
    with pytest.raises(UnknownName, match="There are none"):
        registry.check("methods", "fp16", {"amount": "1"})


@pytest.mark.parametrize("value", ["0", "1", "-0.1", "1.5", "nan", "inf", "-inf", "half", "", "0,5", None, [0.5]])
def test_a_value_out_of_range_or_of_the_wrong_type_is_refused(value: Any) -> None:
    with pytest.raises(RecipeError, match="amount") as raised:
        registry.check("methods", "prune_magnitude", {"amount": value})
    assert not isinstance(raised.value, UnknownName)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "option", "text", "value"),
    [
        ("prune_magnitude", "amount", "0.25", 0.25),
        ("prune_magnitude", "amount", "5e-1", 0.5),
        ("prune_magnitude", "scope", "global", "global"),
        ("int8_dynamic", "per_channel", "true", True),
        ("int8_dynamic", "per_channel", "False", False),
    ],
)
def test_text_becomes_the_options_type(name: str, option: str, text: str, value: Any) -> None:
    checked = registry.check("methods", name, {option: text})
    assert checked == {option: value}
    assert type(checked[option]) is type(value)


def test_whole_numbers_stay_whole() -> None:
    assert registry.check("families", "causal_lm", {"new_tokens": "16"}) == {"new_tokens": 16}
    with pytest.raises(RecipeError, match="new_tokens"):
        registry.check("families", "causal_lm", {"new_tokens": "16.5"})
    with pytest.raises(RecipeError, match="image_size"):
        registry.check("families", "yolo", {"image_size": "100"})


def test_options_are_listed_with_what_they_take() -> None:
    options = registry.options_of("methods", "prune_magnitude")
    assert options["scope"] == ("layer|global", "layer")
    assert options["amount"][1] == 0.5
    assert "float" in options["amount"][0]
    assert registry.options_of("families", "causal_lm")["architecture"][1] == {}


def test_another_distribution_adds_a_method_and_a_metric() -> None:
    assert {"drop_last", "traced", "crash"} <= set(registry.names("methods"))
    method = registry.build("methods", "drop_last", {"count": "2"})
    assert (type(method).__name__, method.count) == ("DropLast", 2)
    assert registry.build("metrics", "half_right").compute([1], [2]) == 0.5
    with pytest.raises(RecipeError, match="count"):
        registry.build("methods", "drop_last", {"count": "0"})


@pytest.mark.parametrize(
    ("name", "message"), [("broken_import", "compress_test_plugin_that_is_not_there"), ("no_method", "is not a Method")]
)
def test_a_broken_plugin_of_another_distribution_is_named(name: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as raised:
        registry.find("methods", name)
    assert name in str(raised.value)
