"""Something that is looked at again and again while a `with` block runs, from a thread of its own."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self  # of typing from Python 3.11 on


class Watcher(ABC):
    """Looks at something while the `with` block runs, as its subclass says."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        """Begin to look."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop looking, and wait until the last look is done."""
        self._over.set()
        self._thread.join()

    @abstractmethod
    def _watch(self) -> None:
        """Look until `_over` is set: the thread's work. Waiting for `_over` is the pause between two looks."""
