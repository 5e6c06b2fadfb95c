"""`interrupts_wait`: Ctrl-C waits for the end of what must not be left half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Have the first Ctrl-C take effect when the block is over; the second one does so at once.

    Only the main thread is interrupted, so in others this does nothing; nor does it where Ctrl-C is ignored.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before in (signal.SIG_IGN, None):
        yield
        return
    is_waiting = False

    def wait(number: int, frame: object) -> None:
        nonlocal is_waiting
        is_waiting = True
        signal.signal(number, before)

    signal.signal(signal.SIGINT, wait)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if is_waiting and callable(before):
            before(signal.SIGINT, None)
        elif is_waiting:
            signal.raise_signal(signal.SIGINT)
