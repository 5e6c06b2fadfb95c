"""`write`: the files of a new model of the user's own, made of the templates that this package carries."""

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
    """Write the files of a new model, and say in lines what to do next.

    Args:
        name: what the model is called, or a path that ends so. `my_model.py` means `my_model`.
        kind: one of `KINDS`.
        force: whether to write over what is there.

    Raises:
        RecipeError: the name is none for a file, the folder does not exist, or a file is there already. Then nothing is
            written.
    """
    path = Path(name).with_suffix("") if Path(name).suffix in _SUFFIXES else Path(name)
    if not _NAME.fullmatch(path.name):
        raise RecipeError(f"{plain(name, 200)!r} can't name a model: give letters, digits and _, such as my_model.")
    if not path.parent.is_dir():
        raise RecipeError(f"There is no folder {path.parent} to write {path.name} into.")
    texts = {f"{path}{suffix}": text for suffix, text in _texts(kind, path.name).items()}
    there = [file for file in texts if Path(file).exists()]
    if there and not force:
        raise RecipeError(f"{' and '.join(there)} would be written over. Give another name, or --force.")
    for file, text in texts.items():
        Path(file).write_text(text, encoding="utf-8")
    return _next(path, list(texts))


def _texts(kind: str, name: str) -> dict[str, str]:
    """Return the files of a kind by their suffix, with the model's name in the place of the template's."""
    paths = [_TEMPLATES / f"{kind}{suffix}" for suffix in _SUFFIXES]
    return {
        path.suffix: path.read_text("utf-8").replace(f"{kind}.py", f"{name}.py") for path in paths if path.is_file()
    }


def _next(path: Path, files: list[str]) -> Iterator[str]:
    """Say what was written, and the next commands."""
    has_code = f"{path}.py" in files
    trust = " --trust" if has_code else ""
    yield f"Wrote {' and '.join(files)}. Measured as they are, they show how it works; then put your model in."
    yield f"  compress-bench check {path}.yaml{trust or ' --deep'}"
    yield f"  compress-bench sweep {path}.yaml{trust} --experiment hw1"
    if has_code:
        yield f"--trust: the recipe has {path.name}.py run, and you know who wrote that."
