"""Reads pickles as data: records what a pickle would look up and call, and looks up and calls nothing."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

_MOST_BYTES = 64 * 2**20  # the pickle of a network with a thousand layers takes one MiB
_MOST_NAMES = 2_000
_LONGEST_NAME = 500  # characters
# Opcodes that use data from outside the pickle, or allocate as much memory as it demands.
_REFUSED = (pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER)


class Made:
    """Stands for the result of a call that a pickle would make.

    Attributes:
        name: what the pickle would call: `module name`, as written in the pickle.
        calls: arguments of each call of that name.
        arguments: arguments of this call.
        state: the attributes that the object would get; None if the pickle sets none.
        items: the items that would be added to it as a list or a set.
        entries: the entries that would be added to it as a dictionary.
    """

    name: ClassVar[str] = ""
    calls: ClassVar[list[tuple[Any, ...]]] = []

    arguments: tuple[Any, ...]
    state: Any
    items: list[Any]
    entries: dict[Any, Any]

    def __new__(cls, *arguments: Any, **keywords: Any) -> Made:
        """Record the arguments of the call."""
        instance = super().__new__(cls)
        instance.arguments, instance.state, instance.items, instance.entries = (
            (*arguments, *keywords.items()),
            None,
            [],
            {},
        )
        cls.calls.append(instance.arguments)
        return instance

    def __setstate__(self, state: Any) -> None:
        """Record the attributes."""
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        """Record an entry of a dictionary."""
        self.entries[key] = value

    def append(self, item: Any) -> None:
        """Record an item of a list."""
        self.items.append(item)

    def extend(self, items: list[Any]) -> None:
        """Record items of a list."""
        self.items.extend(items)

    add = append


@dataclass(frozen=True)
class Elsewhere:
    """An object outside the pickle: in torch's files, a storage.

    Attributes:
        key: the persistent id in the pickle.
    """

    key: Any


@dataclass(frozen=True)
class Inert:
    """A pickle that was read.

    Attributes:
        content: its content: plain data, `Made` objects, classes whose `name` would be looked up, `Elsewhere`.
        calls: the arguments of each call, by what would be looked up (`module name`).
    """

    content: Any
    calls: Mapping[str, Sequence[tuple[Any, ...]]]


def read(data: bytes) -> Inert:
    """Read a pickle of any protocol.

    Raises:
        ValueError: it is not a pickle, or does what no honest pickle does.
    """
    if len(data) > _MOST_BYTES:
        raise ValueError(f"a pickle of {len(data) >> 20} MiB, which is too large")
    reader = _Reader(io.BytesIO(data))
    try:
        content = reader.load()
    except Exception as error:  # other data makes the reader raise anything
        raise ValueError(f"a pickle that can't be read ({type(error).__name__})") from error
    return Inert(content, {name: kind.calls for name, kind in reader.looked_up.items()})


class _Reader(pickle._Unpickler):  # the reader in Python: the one in C allocates as much memory as a pickle demands
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
