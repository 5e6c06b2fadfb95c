from __future__ import annotations

from typing import Any

import pytest

from mlflow_compress.budget import Budget
from mlflow_compress.errors import RecipeError, UnknownName, WorkerError
from mlflow_compress.meters import accelerators, gpu
from mlflow_compress.planning.options import Options, declared, from_config
from mlflow_compress.plugin.evaluator import CompressEvaluator


@pytest.mark.full
def test_defaults_of_measuring_are_those_of_the_budget() -> None:
    assert Options().settings().budget == Budget()


@pytest.mark.parametrize("option", declared(), ids=lambda option: option.name)
def test_every_option_has_help_and_takers(option: Any) -> None:
    assert option.help.endswith((".", "]", "int8_dynamic"))
    assert option.takers
    assert option.kind != "choice" or option.default in option.choices
    assert option.logged_as in ("", "option", option.name)


def test_requested_options_are_logged_as_written() -> None:
    logged = Options(batch_size=(1, 4), family_options=("tokens=8", "x=y"), limit=3, seconds=2.0, team="t").asked()
    assert logged == {
        "device": "auto",
        "weights": "auto",
        "data": "auto",
        "batch_size": "1,4",
        "threads": "auto",
        "limit": "3",
        "seed": "0",
        "iterations": "50",
        "seconds": "2.0",
        "max_seconds": "60.0",
        "energy_seconds": "5.0",
        "score_seconds": "1800.0",
        "launches": "5",
        "interleave": "auto",
        "option": "tokens=8 x=y",
        "requires": "",
    }


def test_settings_are_read_from_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COMPRESS_TEAM", raising=False)
    monkeypatch.setattr(gpu, "models", lambda: [("A100", 40_000)])
    options = Options(
        device="cuda", family_options=("tokens=8,16",), requires=("min_cores=2,none", "os=linux"), threads=(1, 2)
    )
    settings = options.settings()
    assert (settings.team, settings.devices, settings.threads) == ("none", ("cuda",), (1, 2))
    assert settings.options == {"tokens": ["8", "16"]}
    assert settings.requires == {"min_cores": 2, "os": "linux"}
    monkeypatch.setenv("COMPRESS_TEAM", "gamma")
    assert Options().settings().team == "gamma"
    assert Options(team="mine").settings().team == "mine"
    for wrong_options in (Options(family_options=("tokens",)), Options(requires=("A100",))):
        with pytest.raises(RecipeError, match="KEY=VALUE"):
            wrong_options.settings()


def test_the_keys_of_the_evaluator_and_their_defaults() -> None:
    options, values = from_config({}, {"uri": "", "model": ""})
    assert values == {
        "uri": "",
        "model": "",
        "team": "",
        "method": "original",
        "device": "cpu",
        "batch_size": 1,
        "threads": 0,
        "limit": 0,
        "seed": 0,
        "iterations": 50,
        "seconds": 3.0,
        "max_seconds": 60.0,
        "energy_seconds": 5.0,
        "score_seconds": 1800.0,
        "timeout": 3600.0,
        "launches": 5,
    }
    assert options == Options(device="cpu", team="", batch_size=(1,))
    docs = CompressEvaluator.__doc__ or ""
    assert [name for name in values if f"`{name}`" not in docs] == []


def test_the_evaluators_configuration_becomes_options() -> None:
    options, values = from_config({"threads": 2, "limit": 7, "seconds": 1, "model": "m"}, {"model": ""})
    assert (options.threads, options.limit, options.seconds) == ((2,), 7, 1)
    assert values["model"] == "m"


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({"score_second": 1.0}, UnknownName, "score_seconds"),
        ({"seed": 1.5}, RecipeError, "must be int"),
        ({"seconds": True}, RecipeError, "must be float"),
        ({"device": "gpu"}, UnknownName, "cpu"),
        ({"iterations": 0}, RecipeError, "at least 1"),
        ({"limit": -5}, RecipeError, "at least 0"),
        ({"batch_size": -1}, RecipeError, "at least 0"),
        ({"seconds": float("nan")}, RecipeError, "at least 0"),
        ({"weights": "random"}, UnknownName, "weights"),  # only the commands have this option
    ],
)
def test_invalid_configurations_of_the_evaluator_are_rejected(
    config: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        from_config(config, {})


def test_a_requested_but_missing_gpu_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "models", list)
    with pytest.raises(
        WorkerError, match=r"device=cuda was requested, but the driver of this machine shows no NVIDIA GPU"
    ):
        Options(device="cuda").settings()
    assert Options(device="auto").settings().devices == ("cpu",)
    assert Options(device="cuda", on="ray").settings().devices == ("cuda",)  # a machine of the cluster may have one


@pytest.mark.full
@pytest.mark.parametrize(
    ("launches", "message"), [(2, "Use 3 or more, or 1"), (1000, "is more than the maximum of 999")]
)
def test_a_useless_number_of_launches_is_rejected(launches: int, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Options(launches=launches).settings()
    assert [Options(launches=count).settings().budget.launches for count in (1, 3, 999)] == [1, 3, 999]


@pytest.mark.parametrize("device", ["mps", "xpu"])
def test_other_accelerators_are_measured_beside_the_cpu(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    monkeypatch.setattr(accelerators, "visible", lambda: [accelerators.Accelerator(device, "a GPU")] * 2)
    assert Options().settings().devices == ("cpu", device)
    assert Options(device=device).settings().devices == (device,)


def test_a_requested_but_missing_mps_is_left_to_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerators, "visible", list)
    assert Options(device="mps").settings().devices == ("mps",)
