"""The site builds without warnings and refers to no other host; a wrong name on a page fails the build."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from website import repository

pytestmark = pytest.mark.full
pytest.importorskip("material")
pytest.importorskip("mkdocstrings")

FETCHED = re.compile(r"""<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=["']?(https?:)?//""")


def build(root: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=1200)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    process = build(repository.ROOT, folder)
    assert process.returncode == 0, process.stderr
    return folder


def test_pages_are_there_with_what_is_made_from_the_code(site: Path) -> None:
    assert 'id="int8_dynamic"' in (site / "reference/methods/index.html").read_text(encoding="utf-8")
    assert "--all-methods" in (site / "reference/commands/index.html").read_text(encoding="utf-8")
    assert 'id="mlflow_compress.sockets.Method"' in (site / "reference/sockets/index.html").read_text(encoding="utf-8")
    assert (site / "ru/index.html").exists()


def test_nothing_is_fetched_from_another_host(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert not FETCHED.search(page.read_text(encoding="utf-8")), page


def test_a_wrong_name_on_a_page_fails_the_build(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    ignored = shutil.ignore_patterns(".git", "tests", "__pycache__", ".*_cache", "site")
    shutil.copytree(repository.ROOT, root, ignore=ignored, symlinks=True)
    with (root / "README.md").open("a", encoding="utf-8") as file:
        file.write("\n`compress-bench run digits_cnn --method int9_dynamic`\n")
    process = build(root, tmp_path / "site")
    assert process.returncode != 0
    assert "Unknown method 'int9_dynamic'" in process.stderr
