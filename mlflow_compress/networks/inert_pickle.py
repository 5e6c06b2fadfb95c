"""Pickles read as data: what one would look up and call is written down, and nothing is looked up or called."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

_MOST_BYTES = 64 * 2**20  # the pickle of a network of a thousand layers takes one
_MOST_NAMES = 2_000
_LONGEST_NAME = 500  # characters
# Those that take what they give from outside the pickle, or as much memory as it says.
_REFUSED = (pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER)


class Made:
    """What a pickle would have got by a call.

    Attributes:
        name: what it would have called: `module name`, as the pickle says it.
        calls: what each call of that was given.
        arguments: what it would have been called with.
        state: what its attributes would have been; None where the pickle says nothing of them.
        items: what would have been put into it as into a list or a set.
        entries: what would have been put into it as into a dictionary.
    """

    name: ClassVar[str] = ""
    calls: ClassVar[list[tuple[Any, ...]]] = []

    arguments: tuple[Any, ...]
    state: Any
    items: list[Any]
    entries: dict[Any, Any]

    def __new__(cls, *arguments: Any, **named: Any) -> Made:
        """Keep what it would have been called with."""
        made = super().__new__(cls)
        made.arguments, made.state, made.items, made.entries = (*arguments, *named.items()), None, [], {}
        cls.calls.append(made.arguments)
        return made

    def __setstate__(self, state: Any) -> None:
        """Keep what its attributes would have been."""
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        """Keep what would have been put into a dictionary."""
        self.entries[key] = value

    def append(self, item: Any) -> None:
        """Keep what would have been put into a list."""
        self.items.append(item)

    def extend(self, items: list[Any]) -> None:
        """Keep what would have been put into a list."""
        self.items.extend(items)

    add = append


@dataclass(frozen=True)
class Elsewhere:
    """What a pickle keeps outside of itself: of torch's files, a storage.

    Attributes:
        key: what the pickle says of where it is.
    """

    key: Any


@dataclass(frozen=True)
class Inert:
    """A pickle that was read.

    Attributes:
        content: what it holds: plain data, `Made`, classes that `name` what would have been looked up, `Elsewhere`.
        calls: what each call of what it would have looked up (`module name`) would have been given.
    """

    content: Any
    calls: Mapping[str, Sequence[tuple[Any, ...]]]


def read(data: bytes) -> Inert:
    """Read a pickle of any protocol.

    Raises:
        ValueError: it is none, or does what none that is honest does.
    """
    if len(data) > _MOST_BYTES:
        raise ValueError(f"a pickle of {len(data) >> 20} MiB, which is too large")
    reader = _Reader(io.BytesIO(data))
    try:
        content = reader.load()
    except Exception as error:  # what is no pickle breaks its reader in any way
        raise ValueError(f"a pickle that can't be read ({type(error).__name__})") from error
    return Inert(content, {name: kind.calls for name, kind in reader.looked_up.items()})


class _Reader(pickle._Unpickler):  # Python's own in Python: that in C keeps as much memory as a pickle says
    dispatch: ClassVar[dict[int, Callable[[pickle.Unpickler], None]]] = {
        code: step for code, step in pickle._Unpickler.dispatch.items() if bytes([code]) not in _REFUSED
    }

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.looked_up: dict[str, type[Made]] = {}

    def find_class(self, module: str, name: str) -> type[Made]:
        if len(module) + len(name) > _LONGEST_NAME:
            raise pickle.UnpicklingError("a name with too many characters")
        full = f"{module} {name}"
        if full not in self.looked_up:
            if len(self.looked_up) == _MOST_NAMES:
                raise pickle.UnpicklingError("too many names")
            self.looked_up[full] = type("Made", (Made,), {"name": full, "calls": []})
        return self.looked_up[full]

    def persistent_load(self, pid: Any) -> Elsewhere:
        return Elsewhere(pid)
