"""Our knowledge of MLflow's private parts fits the installed version."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import mlflow
import pytest
from flask import Flask

from mlflow_compress.errors import StoreError
from mlflow_compress.tracking import private_mlflow
from mlflow_compress.tracking.database import open_database
from mlflow_compress.tracking.private_mlflow import SCHEMAS
from mlflow_compress.tracking.query import find

from .filled_stores import EVERYTHING


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    yield
    mlflow.set_tracking_uri("")


def test_the_schema_of_the_installed_mlflow_is_known(tracking_uri: str) -> None:
    with sqlite3.connect(tracking_uri.removeprefix("sqlite:///")) as database:
        assert database.execute("SELECT version_num FROM alembic_version").fetchone()[0] in SCHEMAS


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0 and then nonsense"])
def test_a_file_that_is_no_store_of_mlflow_is_neither_read_nor_changed(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "notes.db"
    file.write_bytes(content)
    assert open_database(f"sqlite:///{file}") is None
    with pytest.raises(StoreError, match="is not an MLflow tracking store"):
        find(["query 1"], EVERYTHING, [f"sqlite:///{file}"])
    assert file.read_bytes() == content


def test_another_programs_database_is_not_changed(tmp_path: Path) -> None:
    file = tmp_path / "bookmarks.db"
    with sqlite3.connect(file) as database:
        database.execute("CREATE TABLE experiments (experiment_id INTEGER, name TEXT)")
    with pytest.raises(StoreError, match="is not an MLflow tracking store"):
        find(["query 1"], EVERYTHING, [f"sqlite:///{file}"])
    with sqlite3.connect(file) as database:
        assert [name for (name,) in database.execute("SELECT name FROM sqlite_master")] == ["experiments"]


def test_a_password_is_checked_once_for_all_that_a_page_asks_and_again_for_the_next() -> None:
    checked: list[tuple[str, str]] = []

    def check(username: str, password: str) -> bool:
        checked.append((username, password))
        return password == "right"

    check_once = private_mlflow._remembering(check)
    app = Flask("mlflow")
    app.before_request(partial(private_mlflow._begin_to_remember, {"/compress"}))

    @app.get("/compress", endpoint="page")
    @app.get("/api", endpoint="api")
    def page() -> str:
        return str([check_once(*login) for login in (("ann", "right"), ("ann", "wrong"), ("bob", "right")) * 3])

    client = app.test_client()
    assert client.get("/compress").text == str([True, False, True] * 3)
    assert checked == [("ann", "right"), ("ann", "wrong"), ("bob", "right")]
    client.get("/compress")
    assert len(checked) == 6, "nothing is kept for the next request"
    client.get("/api")
    assert len(checked) == 15, "MLflow's own pages check as they did"
    assert check_once("ann", "right"), "outside of a request it is checked as ever"


def test_requirements_are_compared_without_a_list_of_all_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib_metadata
    from mlflow.utils import requirements_utils

    listed = requirements_utils._init_packages_to_modules_map
    modules_before = requirements_utils._PACKAGES_TO_MODULES
    monkeypatch.setattr(requirements_utils, "_MODULES_TO_PACKAGES", None)
    monkeypatch.setattr(importlib_metadata, "packages_distributions", lambda: pytest.fail("it takes seconds"))
    with private_mlflow.by_names_alone():
        assert requirements_utils._check_requirement_satisfied("pytest") is None
        mismatch = requirements_utils._check_requirement_satisfied("pytest==0.1")
        missing = requirements_utils._check_requirement_satisfied("a-distribution-that-nobody-has")
    assert str(mismatch) == f"pytest (current: {pytest.__version__}, required: pytest==0.1)"
    assert "uninstalled" in str(missing)
    assert requirements_utils._init_packages_to_modules_map is listed
    assert requirements_utils._PACKAGES_TO_MODULES is modules_before
