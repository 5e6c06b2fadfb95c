"""Descriptions of ultralytics models are accepted only in a closed form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ultralytics
from ultralytics.nn import tasks

from mlflow_compress.errors import WeightsError
from mlflow_compress.networks.ultralytics_architecture import Architecture, require_closed

DESCRIBED = sorted(Path(ultralytics.__file__).parent.glob("cfg/models/**/*.yaml"))


def described(**changes: Any) -> dict[str, Any]:
    return {"nc": 2, "backbone": [[-1, 1, "Conv", [8, 3, 2]]], "head": [[[0], 1, "Detect", ["nc"]]], **changes}


def layer(name: str, *arguments: Any, repeats: Any = 1) -> dict[str, Any]:
    return described(backbone=[[-1, repeats, name, list(arguments)]])


@pytest.mark.parametrize("path", DESCRIBED, ids=[path.stem for path in DESCRIBED])
def test_every_description_of_ultralytics_is_closed(path: Path) -> None:
    require_closed(tasks.yaml_model_load(path))


@pytest.mark.parametrize(
    "activation",
    ["nn.SiLU()", "torch.nn.ReLU()", "nn.LeakyReLU(0.1)", "nn.LeakyReLU(negative_slope=-0.1)", "nn.ReLU(True)", None],
)
def test_activations_of_torch_are_closed(activation: str | None) -> None:
    require_closed(described(activation=activation))


@pytest.mark.parametrize(
    "yaml",
    [
        *(
            described(activation=text)
            for text in (
                "__import__('os').system('true')",
                "nn.SiLU",
                "nn.SiLU().__class__()",
                "nn.Module()",
                "nn.modules.activation.SiLU()",
                "nn.LeakyReLU(open('x'))",
                "nn.LeakyReLU('0.1')",
                "nn.LeakyReLU(*[0.1])",
                "nn.LeakyReLU(**{})",
                "nn.F()",
                "(nn.SiLU())()",
                "nn.SiLU() if True else 0",
                "torch.hub.load('a', 'b')",
                f"nn.LeakyReLU({'-' * 1000}1)",
                "(" * 150,
                "",
                3,
                ["nn.SiLU()"],
            )
        ),
        layer("torch_safe_load", "evil.pt"),
        layer("yaml_model_load", "evil.yaml"),
        layer("DetectionModel", "evil.yaml"),
        layer("Ensemble"),
        layer("torch"),
        layer("nn.functional.relu"),
        layer("nn.__builtins__"),
        layer("nn.init"),
        layer("nn.Parameter"),
        layer("torchvision.ops.nms"),
        layer("torchvision.io.read_file"),
        layer("Conv", "ast"),
        layer("Conv", "d"),
        layer("Conv", "base_modules"),
        layer("Conv", "[" * 50),
        layer("Conv", "__import__('os')"),
        layer("Conv", 10**9),
        layer("Conv", float("inf")),
        layer("Conv", 8, repeats=10**9),
        layer("Conv", 8, repeats="9"),
        described(backbone="text"),
        described(backbone=[[-1, 1, "Conv"]]),
        described(backbone=[], head=[]),
        described(more=object()),
        described(more="x" * 10_000),
        described(more=[0] * 200_000),
        [],
        None,
    ],
)
def test_what_would_be_evaluated_or_looked_up_is_refused(yaml: Any) -> None:
    with pytest.raises(WeightsError, match=r"The architecture of an ultralytics model is rejected: .{5,}"):
        Architecture(yaml, {0: "a"}, "detect")


def test_a_description_within_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(WeightsError, match="more than 100,000 values, or more than 12 nested levels"):
        Architecture(described(more=endless), {0: "a"}, "detect")


@pytest.mark.parametrize(("names", "task"), [({"a": "b"}, "detect"), ({0: 1}, "detect"), ([], "detect"), ({}, "count")])
def test_names_and_task_are_known(names: Any, task: str) -> None:
    with pytest.raises(WeightsError, match=r"its classes are not a mapping of numbers to names|its task is 'count'"):
        Architecture(described(), names, task)
