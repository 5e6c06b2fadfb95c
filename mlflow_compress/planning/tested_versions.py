"""Which installed libraries are other versions than those that the test suite ran with.

`constraints/oldest.txt` and `constraints/newest.txt` hold the two environments that the whole suite is run in.
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
# They change their own interfaces within a major version, and numbers depend on them.
DELICATE = ("mlflow", "nncf", "onnxruntime", "openvino", "torch", "torchao", "transformers", "ultralytics")


@dataclass(frozen=True)
class Untested:
    """An installed library outside of the tested versions.

    Attributes:
        name: the distribution's name.
        installed: its version; empty where what is installed does not say it.
        oldest, newest: the versions that were tested.
    """

    name: str
    installed: str
    oldest: str
    newest: str

    def __str__(self) -> str:
        """Return it in words: `transformers 5.30.0 (tested: 5.0.0 to 5.24.0)`."""
        what = f"{self.name} {self.installed}" if self.installed else f"{self.name}, whose installation is damaged"
        return f"{what} (tested: {self.oldest} to {self.newest})"


def untested(
    folder: Path | None = None, installed: Callable[[str], str | None] = installed, only: tuple[str, ...] = ()
) -> Iterator[Untested]:
    """Find the libraries that this package asks for itself and that are older or newer than those tested.

    Another patch release of the newest version counts as tested.

    Args:
        folder: where `oldest.txt` and `newest.txt` are; None takes those that came with the package.
        installed: gives the installed version of a distribution, as `version.installed` does.
        only: the names that are looked at; empty looks at all.
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
    """Read the versions that a constraints file pins, by canonical name."""
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    pins = (line.partition("==") for line in lines if line)
    return {canonicalize_name(name): Version(version.partition(";")[0].strip()) for name, _, version in pins}


def _is_between(version: Version, oldest: Version, newest: Version) -> bool:
    return oldest <= version and version.release[:2] <= newest.release[:2]


def _required() -> list[str]:
    """Return the names of what the package needs to run, with all of its extras but that for its tests."""
    requirements = [Requirement(each) for each in metadata.requires(_DISTRIBUTION) or ()]
    names = {canonicalize_name(each.name) for each in requirements if "test" not in str(each.marker or "")}
    return sorted(names - {_DISTRIBUTION})


def _folder() -> Path:
    package = Path(__file__).parents[1]
    return next(each for each in (package / "constraints", package.parent / "constraints") if each.is_dir())
