"""`repository_files`: shows a file of the repository as a page of the site."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]
PREFIX = "repository/"
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".json": "json", ".txt": "text"}
_MOST_CHARACTERS = 60_000  # of a file that is shown


def shown_file(path: Path) -> str:
    """Return a page that shows a file, or lists a folder.

    Args:
        path: its path, relative to the repository.
    """
    full_path = ROOT / path
    if full_path.is_dir():
        names = sorted(f"{child.name}/" if child.is_dir() else child.name for child in full_path.iterdir())
        listing = "\n".join(name for name in names if not name.startswith("__pycache__"))
        return f"# {path.as_posix()}/\n\n```text\n{listing}\n```\n"
    text = full_path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return text
    fence = "`" * 4
    return f"# {path.as_posix()}\n\n{fence}{_LANGUAGES.get(path.suffix, 'text')}\n{text[:_MOST_CHARACTERS]}\n{fence}\n"
