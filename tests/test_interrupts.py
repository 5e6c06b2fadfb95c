"""Ctrl-C waits for what must not be left half done."""

from __future__ import annotations

import signal
import threading

import pytest

from mlflow_compress.interrupts import interrupts_wait


def _work(interrupts: int, done: list[str]) -> None:
    with interrupts_wait():
        for _ in range(interrupts):
            signal.raise_signal(signal.SIGINT)
        done.append("all of it")


@pytest.mark.parametrize(("interrupts", "expected"), [(1, ["all of it"]), (2, [])])
def test_the_first_waits_and_the_second_does_not(interrupts: int, expected: list[str]) -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        _work(interrupts, done)
    assert done == expected


def test_ctrl_c_works_as_before_afterwards() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ValueError, match="its own"), interrupts_wait():
        raise ValueError("its own")
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_in_another_thread_it_does_nothing() -> None:
    before, seen = signal.getsignal(signal.SIGINT), []

    def look() -> None:
        with interrupts_wait():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [before]
