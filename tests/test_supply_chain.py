"""The checks in `.ci/` of required packages: known vulnerabilities, and the bill of materials."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / ".ci"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="not from a checkout")

FINE = {"name": "click", "version": "8.5.1", "vulns": []}
BAD = {"name": "jinja2", "version": "3.1.2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3.1.6"]}]}
UNKNOWN = {"name": "torch", "skip_reason": "Dependency not found on PyPI and could not be audited: torch (2.14.1)"}
NO_NETWORK = "requests.exceptions.ConnectionError: HTTPSConnectionPool(...): Failed to resolve 'a.b'"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("output", "errors", "code", "texts"),
    [
        ({"dependencies": [FINE]}, "", 0, ["vulnerabilities: 0 in 1 packages"]),
        (
            {"dependencies": [FINE, BAD]},
            "Found 1 known vulnerability",
            1,
            ["vulnerabilities: jinja2 3.1.2: PYSEC-1, fixed in 3.1.6", "vulnerabilities: 1 in 2 packages"],
        ),
        (
            {"dependencies": [FINE, UNKNOWN]},
            "",
            0,
            [f"vulnerabilities: not audited: torch: {UNKNOWN['skip_reason']}", "vulnerabilities: 0 in 1 packages"],
        ),
        ({"dependencies": [BAD, UNKNOWN]}, NO_NETWORK, 1, ["PYSEC-1", "1 in 1 packages"]),
        ({"dependencies": [UNKNOWN, UNKNOWN]}, "", 0, ["a mirror that knows no package answers): skipped"]),
        (None, NO_NETWORK, 0, ["vulnerabilities: the service is not reachable: skipped"]),
        (None, "ValueError: something else", 1, ["ended without an answer", "ValueError: something else"]),
        (None, "", 1, ["ended without an answer"]),
    ],
)
def test_only_the_network_excuses_that_nothing_was_audited(
    output: Any, errors: str, code: int, texts: list[str]
) -> None:
    exit_code, lines = script("audit").judge("" if output is None else json.dumps(output), errors)
    assert exit_code == code
    assert all(any(text in line for line in lines) for text in texts)


def test_a_vulnerability_is_accepted_with_a_reason_only() -> None:
    audit = script("audit")
    assert audit.accepted("# ids\n\nPYSEC-1 not used by us, until 3.2\n") == ["PYSEC-1"]
    with pytest.raises(ValueError, match="PYSEC-2 is accepted without a reason"):
        audit.accepted("PYSEC-1 because\nPYSEC-2\n")
    audit.accepted(audit.ACCEPTED.read_text(encoding="utf-8"))


@pytest.mark.full
def test_this_package_is_not_audited_and_local_versions_are_cut() -> None:
    pins = script("audit").pins()
    assert all(pin.count("==") == 1 and "+" not in pin for pin in pins)
    assert any(pin.startswith("torch==") for pin in pins)
    assert not any(pin.startswith("mlflow-compress==") for pin in pins)


def bill(**components: str) -> dict[str, Any]:
    return {
        "bomFormat": "CycloneDX",
        "metadata": {"component": {"name": "mlflow-compress", "type": "library"}},
        "components": [{"name": name, "version": version} for name, version in components.items()],
    }


def test_a_bill_holds_every_requirement_in_a_version_that_is_allowed() -> None:
    requirements = ["torch>=2.10,<3", "Flask_WTF>=1.2", "numpy>=1.26", "colorama; sys_platform == 'win32'", "click>=8"]
    sbom = script("sbom")
    versions = {"Torch": "2.14.1+cu130", "flask-wtf": "1.3.0", "numpy": "1.25", "click": ""}
    assert sbom.missing(bill(**versions), requirements) == [
        "numpy is in it as 1.25, not as >=1.26",
        "click is in it as no version, not as >=8",
    ]
    assert sbom.missing(bill(), ["torch>=2.10"]) == ["torch is not in it"]


def test_a_bill_is_of_this_package_and_its_version() -> None:
    sbom = script("sbom")
    assert sbom.named(bill(), "mlflow-compress", "0.1.0")["metadata"]["component"] == {
        "name": "mlflow-compress",
        "type": "library",
        "version": "0.1.0",
    }
    for wrong_bill in ({}, {"bomFormat": "SPDX"}, {**bill(), "metadata": {"component": {"name": "another"}}}):
        with pytest.raises(ValueError, match="not a bill of materials of mlflow-compress"):
            sbom.named(wrong_bill, "mlflow-compress", "0.1.0")
