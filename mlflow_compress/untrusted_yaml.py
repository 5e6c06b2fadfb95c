"""Read untrusted YAML as plain data, with limits on its size, its depth and repetition by anchors, and no key twice."""

from __future__ import annotations

import functools
import reprlib
import stat
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_compress.errors import one_line
from mlflow_compress.plain_text import plain
from mlflow_compress.untrusted import Malformed

if TYPE_CHECKING:
    import yaml

MOST_BYTES = 256 * 2**10  # of a recipe; a recipe of a thousand models has 50 KiB
MOST_DEPTH = 20  # nested lists and mappings
MOST_VALUES = 50_000  # values repeated by anchors count each time
MOST_CHARACTERS = 10_000  # of one value
_MOST_BITS = 1023  # of an integer: every such number has a floating-point one
_SHOWN_CHARACTERS = 100
_MERGE = "<<"  # the key of what is merged into a mapping


def read_yaml(path: Path, most_bytes: int = MOST_BYTES) -> Any:
    """Return the data in a file.

    Raises:
        OSError: It can't be read.
        Malformed: It is not a file, is too large, or is not YAML of plain data within the limits.
    """
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(f"{path} is a folder")
    if not stat.S_ISREG(status.st_mode):  # reading a pipe would block
        raise Malformed("it is not a file")
    if status.st_size > most_bytes:
        size, limit = status.st_size / 2**10, most_bytes / 2**10
        raise Malformed(f"it has {size:,.0f} KiB; at most {limit:,.0f} KiB are allowed")
    try:
        return parse_yaml(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise Malformed(one_line(error)) from error


def parse_yaml(text: str) -> Any:
    """Return the data in a text, whose size the caller has limited.

    Raises:
        Malformed: It is not YAML of plain data within the limits.
    """
    import yaml

    try:
        return yaml.load(text, _loader())  # noqa: S506  (a safe one)
    except (ValueError, yaml.YAMLError, RecursionError) as error:  # ValueError: a date with 13 months
        raise Malformed(one_line(error)) from error


def shown(data: object) -> str:
    """Return a value as short text for a message, however large, deep or circular it is."""
    try:
        return plain(reprlib.repr(data), _SHOWN_CHARACTERS)
    except ValueError:  # Python's limit on the digits of a whole number
        return "a number of thousands of digits"


@functools.cache
def _loader() -> type[yaml.SafeLoader]:
    """Return a safe loader with limits. It is defined here because yaml is imported on demand."""
    import yaml

    class Loader(yaml.SafeLoader):
        def __init__(self, stream: str) -> None:
            super().__init__(stream)
            self._depth = self._values = 0
            self._sizes: dict[int, int] = {}  # values in each anchored node, by its id

        def compose_node(self, parent: Any, index: Any) -> Any:
            values_before, is_alias = self._values, self.check_event(yaml.AliasEvent)
            self._depth += 1
            if self._depth > MOST_DEPTH:
                raise yaml.YAMLError(f"it has more than {MOST_DEPTH} nested lists and mappings")
            node = super().compose_node(parent, index)
            self._depth -= 1
            if is_alias and id(node) not in self._sizes:
                raise yaml.YAMLError("it has an anchor that contains itself")
            self._values += self._sizes[id(node)] if is_alias else 1
            self._sizes[id(node)] = self._values - values_before
            if self._values > MOST_VALUES:
                raise yaml.YAMLError(f"it has more than {MOST_VALUES:,} values, including those repeated by anchors")
            if isinstance(node, yaml.ScalarNode) and len(node.value) > MOST_CHARACTERS:
                raise yaml.YAMLError(f"it has a text of more than {MOST_CHARACTERS:,} characters")
            if isinstance(node, yaml.MappingNode):
                keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
                if twice := [key for key, times in keys.items() if times > 1 and key != _MERGE]:
                    line = node.start_mark.line + 1
                    raise yaml.YAMLError(f"the mapping in line {line} has the key {shown(twice[0])} twice")
            return node

    def whole_number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
        number: int = loader.construct_yaml_int(node)
        if number.bit_length() > _MOST_BITS:
            raise yaml.YAMLError("it has a number with hundreds of digits")
        return number

    Loader.add_constructor("tag:yaml.org,2002:int", whole_number)
    return Loader
