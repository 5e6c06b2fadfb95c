"""`Flight`: a variant on its way to a machine of a Ray cluster, and what arrives of it."""

from __future__ import annotations

import contextlib
from pathlib import Path, PurePosixPath
from typing import IO, Any

from mlflow_compress.records import Variant
from mlflow_compress.sweeping.placement import Node
from mlflow_compress.tracking.spool import Entry


class Flight:
    """A variant that is measured on a node, and whose files arrive in an entry of the spool.

    Args:
        variant: as it waited in the queue, and is known to `Placing`.
        placed: the same, with the devices that the node has: what its result is of.
        digest: of what is placed, on the node.
        at: the node.
        entry: takes the files.
        stack: closes the entry.

    Attributes:
        generator: gives what arrives; None before it starts.
    """

    def __init__(
        self, variant: Variant, placed: Variant, digest: str, at: Node, entry: Entry, stack: contextlib.ExitStack
    ) -> None:
        self.variant, self.placed, self.digest, self.at = variant, placed, digest, at
        self.entry = entry
        self.generator: Any = None
        self._stack = stack
        self._file: tuple[str, IO[bytes]] | None = None

    @property
    def who(self) -> str:
        """Name the variant in a message."""
        return who(self.variant)

    def take(self, name: str, chunk: bytes) -> None:
        """Write a piece of a file. The pieces of one file come in a row.

        Raises:
            OSError: it can't be written, or would lie outside the entry.
        """
        if self._file is None or self._file[0] != name:
            self.finish()
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or not path.parts:
                raise OSError(f"{self.at.name} sent a file called {name!r}")
            target = Path(self.entry.folder, *path.parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            self._file = name, target.open("wb")
        self._file[1].write(chunk)

    def finish(self) -> None:
        """Close the last file."""
        if self._file is not None:
            self._file[1].close()
            self._file = None

    def close(self) -> None:
        """Close the last file and the entry, which goes unless its result is kept."""
        self.finish()
        self._stack.close()


def who(variant: Variant) -> str:
    """Name a variant in a message."""
    return f"{variant.model}, {variant.label}"
