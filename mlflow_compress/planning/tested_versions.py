"""Find installed libraries whose versions the test suite did not run with.

`constraints/oldest.txt` and `constraints/newest.txt` pin the two environments in which the whole suite runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from mlflow_compress.version import installed

_DISTRIBUTION = "mlflow-compress"
_OLDEST, _NEWEST = "oldest.txt", "newest.txt"
# These libraries change their interfaces within a major version, and the numbers depend on them.
DELICATE = ("mlflow", "nncf", "onnxruntime", "openvino", "torch", "torchao", "transformers", "ultralytics")


@dataclass(frozen=True)
class Untested:
    """An installed library outside the range of tested versions.

    Attributes:
        name: the distribution's name.
        installed: its version; empty if the installation does not state one.
        oldest, newest: the tested versions.
    """

    name: str
    installed: str
    oldest: str
    newest: str

    def __str__(self) -> str:
        """Return a text such as `transformers 5.30.0 (tested: 5.0.0 to 5.24.0)`."""
        library = f"{self.name} {self.installed}" if self.installed else f"{self.name}, whose installation is damaged"
        return f"{library} (tested: {self.oldest} to {self.newest})"


def untested(
    folder: Path | None = None, installed: Callable[[str], str | None] = installed, only: tuple[str, ...] = ()
) -> Iterator[Untested]:
    """Find the direct dependencies of this package that are older or newer than the tested versions.

    Another patch release of the newest version counts as tested.

    Args:
        folder: folder with `oldest.txt` and `newest.txt`; None: the one in the package.
        installed: returns the installed version of a distribution, as `version.installed` does.
        only: names to check; empty: all.
    """
    folder = folder or _folder()
    oldest, newest = read(folder / _OLDEST), read(folder / _NEWEST)
    for name in only or _required():
        if name not in oldest or name not in newest:
            continue
        version = installed(name)
        if version is not None and not (version and _is_between(Version(version), oldest[name], newest[name])):
            yield Untested(name, version, str(oldest[name]), str(newest[name]))


def read(path: Path) -> dict[str, Version]:
    """Read the pinned versions of a constraints file, by canonical name."""
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    pins = (line.partition("==") for line in lines if line)
    return {canonicalize_name(name): Version(version.partition(";")[0].strip()) for name, _, version in pins}


def _is_between(version: Version, oldest: Version, newest: Version) -> bool:
    return oldest <= version and version.release[:2] <= newest.release[:2]


_FOR_DEVELOPERS = ('"test"', '"dev"', '"docs"')  # extras, as markers name them


def _required() -> list[str]:
    """Return the names of the package's dependencies, with all extras except those for developing it."""
    requirements = [Requirement(line) for line in metadata.requires(_DISTRIBUTION) or ()]
    used = [
        requirement
        for requirement in requirements
        if not any(extra in str(requirement.marker) for extra in _FOR_DEVELOPERS)
    ]
    names = {canonicalize_name(requirement.name) for requirement in used}
    return sorted(names - {_DISTRIBUTION})


def _folder() -> Path:
    package = Path(__file__).parents[1]
    return next(path for path in (package / "constraints", package.parent / "constraints") if path.is_dir())
