"""Files are kept in the platform's cache folder, and those of the first release are found."""

from __future__ import annotations

import sys
from pathlib import Path

import platformdirs
import pytest

from mlflow_compress.cache_folders import cache_folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    return tmp_path


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux")
def test_on_linux_it_is_where_it_always_was(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder("spool") == home / ".cache" / "mlflow-compress" / "spool"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_folder("parcels") == home / ".cache" / "mlflow-compress" / "parcels"
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "elsewhere"))
    assert cache_folder("weights") == home / "elsewhere" / "mlflow-compress" / "weights"


@pytest.mark.parametrize("has_xdg", [True, False])
def test_elsewhere_what_the_first_release_kept_is_found(
    home: Path, monkeypatch: pytest.MonkeyPatch, has_xdg: bool
) -> None:
    own = home / "Library" / "Caches" / "mlflow-compress"
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda *args, **kwargs: own)
    if has_xdg:
        monkeypatch.setenv("XDG_CACHE_HOME", str(home / "xdg"))
    assert cache_folder("spool") == own / "spool"
    first = home / ("xdg" if has_xdg else ".cache") / "mlflow-compress" / "spool"
    first.mkdir(parents=True)
    assert cache_folder("spool") == own / "spool"
    (first / "entry").mkdir()
    assert cache_folder("spool") == first
    assert cache_folder("parcels") == own / "parcels"
    (first / "entry").rmdir()
    assert cache_folder("spool") == own / "spool"
