from __future__ import annotations

from pathlib import Path

import pytest

from mlflow_compress.errors import RecipeError
from mlflow_compress.planning.own_file import look


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.py"
    path.write_text(text, encoding="utf-8")
    return path


def test_what_a_file_defines_is_read_and_not_run(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "import os\nfrom data import samples\nif True:\n    def batch(size): ...\nelse:\n    model = 1\n"
        f"open({str(tmp_path / 'ran')!r}, 'w')\nmetrics = ['f1', 'accuracy']\n",
    )
    file = look(path)
    assert file.names == {"os", "samples", "batch", "model", "metrics"}
    assert file.metrics == ("f1", "accuracy")
    assert file.own_data == "own"
    assert not (tmp_path / "ran").exists()


def test_methods_of_a_class_are_not_names_of_the_file(tmp_path: Path) -> None:
    file = look(written(tmp_path, "class Data:\n    def samples(self): ...\n"))
    assert file.names == {"Data"}
    assert file.metrics == ()
    assert file.own_data is None


def test_annotated_values_are_read(tmp_path: Path) -> None:
    file = look(written(tmp_path, "metrics: list[str] = ['f1']\nsamples: object = 1\nmodel: object\n"))
    assert file.names == {"metrics", "samples"}
    assert file.metrics == ("f1",)


@pytest.mark.full
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "def model():\n    return nn.Linear(1, 1\n",
            r"mine\.py, line 2 is not valid Python: '\(' was never closed",
        ),
        (
            "x = 1\nmetrics = names()\n",
            r'mine\.py, line 2: metrics must be a literal list of names, such as \["accuracy"\]',
        ),
        ("metrics = [1]", "line 1: metrics must be a literal list"),
        ("x = '\0'", "not valid Python|can't be read as Python"),
    ],
)
def test_errors_are_reported_with_their_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        look(written(tmp_path, text))


def test_files_too_large_for_code_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"has 5\.0 MiB, which is too large for code"):
        look(written(tmp_path, "#" * 5 * 2**20))
