"""Poll something in a separate thread while a `with` block runs."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self  # of typing from Python 3.11 on


class Watcher(ABC):
    """Polls something while the `with` block runs; subclasses define what."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        """Start polling."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop polling, and wait until the last poll is done."""
        self._over.set()
        self._thread.join()

    @abstractmethod
    def _watch(self) -> None:
        """Poll until `_over` is set, in the thread. Wait for `_over` between two polls."""
