"""Versions of intact and damaged installations, with every metadata reader."""

from __future__ import annotations

import importlib
import importlib.metadata
from pathlib import Path

import pytest
import yaml

from mlflow_compress.version import __version__, installed

ROOT = Path(__file__).parents[1]

VERSIONLESS = "Metadata-Version: 2.1\nName: odd\n"


@pytest.mark.full
@pytest.mark.parametrize("described", [None, "", VERSIONLESS, f"{VERSIONLESS}Version: not-a-version!\n"])
@pytest.mark.parametrize("reader", ["importlib.metadata", "importlib_metadata"])
def test_a_damaged_installation_has_no_version(
    tmp_path: Path, described: str | None, reader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    importlib.import_module(reader)  # once imported, MLflow's `importlib_metadata` also reads for the standard library
    (tmp_path / "odd-9.0.dist-info").mkdir()
    if described is not None:
        (tmp_path / "odd-9.0.dist-info" / "METADATA").write_text(described)
    monkeypatch.syspath_prepend(tmp_path)
    assert installed("odd") == ""


def test_installed_distributions_have_one() -> None:
    assert installed("mlflow-compress") == __version__
    assert installed("nobody-has-this") is None


def test_another_build_of_the_same_modules_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name != "onnxruntime-gpu":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.31.1"

    monkeypatch.setattr("importlib.metadata.version", version)
    assert installed("onnxruntime") == "1.31.1"
    assert installed("onnx") is None


@pytest.mark.skipif(not (ROOT / "CITATION.cff").is_file(), reason="not from a checkout")
def test_a_release_has_one_version_and_one_date() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == __version__
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\n## [{__version__}] - {cited['date-released']}\n" in changes
