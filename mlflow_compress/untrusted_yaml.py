"""Reads YAML that others wrote, as plain data, with limits on its size, its depth and what anchors repeat."""

from __future__ import annotations

import reprlib
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_compress.errors import one_line
from mlflow_compress.plain_text import plain
from mlflow_compress.untrusted import Malformed

if TYPE_CHECKING:
    import yaml

MOST_BYTES = 256 * 2**10  # of a recipe; one of a thousand models takes 50 KiB
MOST_DEPTH = 20  # lists and mappings within each other
MOST_VALUES = 50_000  # what an anchor names counts as often as it is repeated
MOST_CHARACTERS = 10_000  # of one value
_MOST_BITS = 1024  # of a whole number: no floating-point number is larger
_SHOWN_CHARACTERS = 100


def read_yaml(path: Path, most_bytes: int = MOST_BYTES) -> Any:
    """Return the data in a file.

    Raises:
        OSError: it can't be read.
        Malformed: it is no file, too large, or no YAML of plain data within the limits.
    """
    import yaml

    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(f"{path} is a folder")
    if not stat.S_ISREG(status.st_mode):  # a pipe would keep the reader waiting
        raise Malformed("it is not a file")
    if status.st_size > most_bytes:
        raise Malformed(f"it takes {status.st_size / 2**10:,.0f} KiB, more than the {most_bytes / 2**10:,.0f} it may")
    try:
        return yaml.load(path.read_text(encoding="utf-8-sig"), _loader())  # noqa: S506  (a safe one)
    except (ValueError, yaml.YAMLError, RecursionError) as error:  # ValueError: not UTF-8, or a date with 13 months
        raise Malformed(one_line(error)) from error


def shown(data: object) -> str:
    """Return a value as a sentence shows it: however large, deep or circular it is."""
    try:
        return plain(reprlib.repr(data), _SHOWN_CHARACTERS)
    except ValueError:  # Python's limit on the digits of a whole number
        return "a number of thousands of digits"


def _loader() -> type[yaml.SafeLoader]:
    """Return a safe loader that counts. It is made here, since the import of yaml waits until it is needed."""
    import yaml

    class Loader(yaml.SafeLoader):
        def __init__(self, stream: str) -> None:
            super().__init__(stream)
            self._depth = self._values = 0
            self._sizes: dict[int, int] = {}  # values in each anchored node, by its id

        def compose_node(self, parent: Any, index: Any) -> Any:
            before, is_alias = self._values, self.check_event(yaml.AliasEvent)
            self._depth += 1
            if self._depth > MOST_DEPTH:
                raise yaml.YAMLError(f"it holds more than {MOST_DEPTH} lists and mappings within each other")
            node = super().compose_node(parent, index)
            self._depth -= 1
            if is_alias and id(node) not in self._sizes:
                raise yaml.YAMLError("it holds an anchor that is repeated within itself")
            self._values += self._sizes[id(node)] if is_alias else 1
            self._sizes[id(node)] = self._values - before
            if self._values > MOST_VALUES:
                raise yaml.YAMLError(f"it holds more than {MOST_VALUES:,} values, those counted that anchors repeat")
            if isinstance(node, yaml.ScalarNode) and len(node.value) > MOST_CHARACTERS:
                raise yaml.YAMLError(f"it holds a text of more than {MOST_CHARACTERS:,} characters")
            return node

    def whole_number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
        number: int = loader.construct_yaml_int(node)
        if number.bit_length() > _MOST_BITS:
            raise yaml.YAMLError("it holds a number of hundreds of digits")
        return number

    Loader.add_constructor("tag:yaml.org,2002:int", whole_number)
    return Loader
