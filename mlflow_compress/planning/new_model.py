"""`write`: create the files of a new custom model from the package's templates."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from mlflow_compress.errors import RecipeError
from mlflow_compress.plain_text import plain

KINDS = ("module", "sequence", "image", "detector", "language-model")
_TEMPLATES = Path(__file__).parents[1] / "templates"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_SUFFIXES = (".py", ".yaml")


def write(name: str, kind: str, force: bool = False) -> Iterator[str]:
    """Write the files of a new model, and return the lines that tell the user what to do next.

    Args:
        name: the model's name, or a path that ends with it. `my_model.py` means `my_model`.
        kind: one of `KINDS`.
        force: whether to overwrite existing files.

    Raises:
        RecipeError: the name is not a valid file name, the folder does not exist, or a file exists already. Nothing is
            written then.
    """
    path = Path(name).with_suffix("") if Path(name).suffix in _SUFFIXES else Path(name)
    if not _NAME.fullmatch(path.name):
        raise RecipeError(f"{plain(name, 200)!r} can't name a model: use letters, digits and _, such as my_model.")
    if not path.parent.is_dir():
        raise RecipeError(f"There is no folder {path.parent} to write {path.name} into.")
    texts = {f"{path}{suffix}": text for suffix, text in _texts(kind, path.name).items()}
    existing = [file for file in texts if Path(file).exists()]
    if existing and not force:
        raise RecipeError(f"{' and '.join(existing)} would be overwritten. Choose another name, or add --force.")
    for file, text in texts.items():
        Path(file).write_text(text, encoding="utf-8")
    return _next(path, list(texts))


def _texts(kind: str, name: str) -> dict[str, str]:
    """Return the files of a kind by suffix, with the model's name instead of the template's."""
    paths = [_TEMPLATES / f"{kind}{suffix}" for suffix in _SUFFIXES]
    return {
        path.suffix: path.read_text("utf-8").replace(f"{kind}.py", f"{name}.py") for path in paths if path.is_file()
    }


def _next(path: Path, files: list[str]) -> Iterator[str]:
    """Yield what was written, and the next commands."""
    has_code = f"{path}.py" in files
    trust = " --trust" if has_code else ""
    yield f"Wrote {' and '.join(files)}. Measure the example first to see how it works; then replace its model."
    yield f"  compress-bench check {path}.yaml{trust or ' --deep'}"
    yield f"  compress-bench sweep {path}.yaml{trust} --experiment hw1"
    if has_code:
        yield f"--trust: the recipe runs {path.name}.py, and you know who wrote it."
