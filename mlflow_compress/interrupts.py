"""`interrupts_wait`: delay Ctrl-C until an operation that must not be interrupted is done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Delay the first Ctrl-C until the end of the block; the second one takes effect at once.

    Only the main thread is interrupted: in other threads, and if Ctrl-C is ignored, this does nothing.
    """
    old_handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or old_handler in (signal.SIG_IGN, None):
        yield
        return
    is_waiting = False

    def wait(number: int, frame: object) -> None:
        nonlocal is_waiting
        is_waiting = True
        signal.signal(number, old_handler)

    signal.signal(signal.SIGINT, wait)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, old_handler)
        if is_waiting and callable(old_handler):
            old_handler(signal.SIGINT, None)
        elif is_waiting:
            signal.raise_signal(signal.SIGINT)
