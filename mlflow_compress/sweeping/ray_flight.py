"""`Flight`: a variant that is measured on a machine of a Ray cluster, and the files that arrive from there."""

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
        variant: The variant as it was in the queue; `Placing` knows this object.
        placed: The same variant with the devices of the node; the result is for this one.
        digest: Digest of `placed` on the node.
        at: The node.
        entry: Spool entry for the files.
        stack: Closes the entry.

    Attributes:
        generator: Yields progress and files; None before it starts.
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
        """Return the variant's name for messages."""
        return who(self.variant)

    def take(self, name: str, chunk: bytes) -> None:
        """Write a chunk of a file. The chunks of one file arrive in sequence.

        Raises:
            OSError: It can't be written, or would be outside the entry.
        """
        if self._file is None or self._file[0] != name:
            self.finish()
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or not path.parts:
                raise OSError(f"{self.at.name} sent a file with the invalid name {name!r}")
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
        """Close the last file and the entry. The entry is removed unless its result is kept."""
        self.finish()
        self._stack.close()


def who(variant: Variant) -> str:
    """Return a variant's name for messages."""
    return f"{variant.model}, {variant.label}"
