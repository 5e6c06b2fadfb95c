"""Requirements for machines: parsed strictly, and checked against machines."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_compress.errors import RecipeError, UnknownName
from mlflow_compress.meters import accelerators, gpu
from mlflow_compress.planning import requirements

SERVER = {
    "os": "Linux 6.1",
    "cpu_model": "AMD EPYC 7763 64-Core Processor",
    "cores_logical": "128",
    "affinity": "0,1,2,3",
    "ram_total_mib": "64200",  # 64 GiB minus the kernel's share
    "gpu_model": "NVIDIA A100-SXM4-40GB",
    "gpu_memory_mib": "40536",
}
LAPTOP = {"os": "Darwin 24.1", "cpu_model": "Apple M3", "cores_logical": "8", "ram_total_mib": "16384"}


@pytest.mark.parametrize(
    ("needs", "serves"),
    [
        ({}, True),
        ({"gpu": "A100"}, True),
        ({"gpu": "a100-sxm4"}, True),
        ({"gpu": "H100"}, False),
        ({"gpu": "any"}, True),
        ({"gpu": "none"}, False),
        ({"min_vram_gb": 40}, True),
        ({"min_vram_gb": 80}, False),
        ({"min_ram_gb": 64}, True),
        ({"min_ram_gb": 128}, False),
        ({"min_cores": 4}, True),
        ({"min_cores": 5}, False),  # cores that this process may use
        ({"cpu": "epyc"}, True),
        ({"cpu": "Xeon"}, False),
        ({"os": "linux"}, True),
        ({"os": "windows"}, False),
        ({"gpu": "A100", "min_ram_gb": 64, "os": "linux"}, True),
        ({"gpu": "A100", "min_ram_gb": 64, "os": "darwin"}, False),
    ],
    ids=str,
)
def test_a_server_meets_requirements_or_does_not(needs: dict[str, Any], serves: bool) -> None:
    unmet = requirements.unmet(requirements.check(needs), SERVER)
    assert (unmet == "") is serves


@pytest.mark.parametrize(
    ("needs", "message"),
    [
        ({"gpu": "any"}, "gpu=any is required, but the machine has no GPU"),
        ({"min_vram_gb": 8}, "min_vram_gb=8 is required, but the machine has no GPU"),
        ({"min_ram_gb": 32}, "min_ram_gb=32 is required, but the machine has 17.18"),
        ({"os": "Linux", "cpu": "M4"}, "os=linux is required, but the machine has darwin; "
                                       "cpu=M4 is required, but the machine has Apple M3"),
        ({"gpu": "none", "min_cores": "8"}, ""),
    ],
    ids=str,
)  # fmt: skip
def test_unmet_requirements_are_described(needs: dict[str, Any], message: str) -> None:
    assert requirements.unmet(requirements.check(needs), LAPTOP) == message


def test_limits_of_a_container_count() -> None:
    container = {**LAPTOP, "ram_limit_mib": "4096", "cores_limit": "1.5"}
    assert requirements.unmet(requirements.check({"min_ram_gb": 4, "min_cores": 1}), container) == ""
    lacks = requirements.unmet(requirements.check({"min_ram_gb": 8, "min_cores": 2}), container).split("; ")
    assert lacks[0].startswith("min_ram_gb=8 is required, but the machine has 4.295 of 17.18 available (limited by")
    assert lacks[1].startswith("min_cores=2 is required, but the machine has 1.5 of 8 available (limited by")


def test_an_unknown_machine_meets_no_requirements() -> None:
    for key in requirements.KEYS:
        needs = requirements.check({key: 1 if key.startswith("min_") else "linux"})
        assert f"{key}=" in requirements.unmet(needs, {})
    assert requirements.unmet({}, {}) == ""
    assert requirements.unmet(requirements.check({"min_cores": 0}), {"cores_logical": "unknown"}) == ""


@pytest.mark.parametrize(
    ("needs", "nearest"),
    [({"gpus": "A100"}, "gpu"), ({"min_ram": 4}, "min_ram_gb"), ({"os": "linus"}, "linux"), ({1: 2}, None)],
)
def test_an_unknown_name_is_reported_with_the_nearest(needs: dict[Any, Any], nearest: str | None) -> None:
    with pytest.raises(UnknownName) as raised:
        requirements.check(needs)
    assert raised.value.nearest == nearest


@pytest.mark.parametrize(
    "needs",
    [
        {"min_ram_gb": -1},
        {"min_ram_gb": "much"},
        {"min_ram_gb": True},
        {"min_ram_gb": None},
        {"min_ram_gb": math.nan},
        {"min_ram_gb": math.inf},
        {"min_cores": [4]},
        {"min_cores": 10**400},
        {"gpu": ""},
        {"gpu": " "},
        {"gpu": False},
        {"gpu": ["A100"]},
        {"cpu": None},
        {"os": 3.5},
    ],
    ids=str,
)
def test_invalid_values_are_rejected(needs: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=f"requires: {next(iter(needs))} must be") as raised:
        requirements.check(needs)
    assert not isinstance(raised.value, UnknownName)


def test_text_and_yaml_values_are_equivalent() -> None:
    texts = {"gpu": "4090", "min_ram_gb": "64", "min_vram_gb": "7.5", "os": "Linux"}
    assert requirements.check(texts) == {"gpu": "4090", "min_ram_gb": 64, "min_vram_gb": 7.5, "os": "linux"}
    assert requirements.check({"gpu": 4090, "min_ram_gb": 64.0}) == {"gpu": "4090", "min_ram_gb": 64}
    assert requirements.check({"gpu": "None"}) == {"gpu": "none"}


@given(
    st.dictionaries(st.sampled_from(list(requirements.KEYS)) | st.text(max_size=5), st.text(max_size=9) | st.floats())
)
def test_any_requirements_are_checked_or_rejected(given_needs: dict[str, Any]) -> None:
    try:
        checked = requirements.check(given_needs)
    except RecipeError:
        return
    assert requirements.check(checked) == checked
    assert isinstance(requirements.unmet(checked, SERVER), str)


def test_this_machine_is_described_with_its_first_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "models", lambda: [("Tesla T4", 15360), ("NVIDIA L4", 23034)])
    monkeypatch.setattr(gpu, "first_power_limit_w", lambda: None)
    machine = requirements.here()
    assert (machine["gpu_model"], machine["gpu_memory_mib"]) == ("Tesla T4", "15360")
    assert "gpu_power_limit_w" not in machine
    assert requirements.unmet(requirements.check({"gpu": "t4", "min_vram_gb": 16, "min_cores": 1}), machine) == ""
    monkeypatch.setattr(gpu, "first_power_limit_w", lambda: 69.6)
    assert requirements.here()["gpu_power_limit_w"] == "70"  # as in runs
    monkeypatch.setattr(gpu, "models", list)
    assert "gpu_model" not in requirements.here()


MAC = {**LAPTOP, "gpu_device": "mps", "gpu_model": "Apple M3 (MPS)", "gpu_memory_mib": "0"}


@pytest.mark.parametrize(
    ("gpu_name", "serves"),
    [("mps", True), ("MPS", True), ("apple", True), ("any", True), ("cuda", False), ("xpu", False)],
)
def test_the_kind_of_an_accelerator_can_be_required(gpu_name: str, serves: bool) -> None:
    unmet = requirements.unmet(requirements.check({"gpu": gpu_name}), MAC)
    assert (unmet == "") is serves
    assert serves or unmet == f"gpu={gpu_name} is required, but the machine has Apple M3 (MPS)"


def test_this_machine_is_described_with_its_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerators, "visible", lambda: [accelerators.Accelerator("mps", "Apple M3 (MPS)")])
    monkeypatch.setattr(gpu, "first_power_limit_w", lambda: None)
    machine = requirements.here()
    assert (machine["gpu_device"], machine["gpu_model"], machine["gpu_memory_mib"]) == ("mps", "Apple M3 (MPS)", "0")
    monkeypatch.setattr(accelerators, "visible", list)
    assert "gpu_device" not in requirements.here()
