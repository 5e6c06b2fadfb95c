"""Ctrl-C waits until an operation that must not be interrupted is done."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from mlflow_compress.interrupts import interrupts_wait


def _work(interrupts: int, log: list[str], ctrl_c: Callable[[], None]) -> None:
    with interrupts_wait():
        for _ in range(interrupts):
            ctrl_c()
        log.append("all of it")


@pytest.mark.parametrize(("interrupts", "expected"), [(1, ["all of it"]), (2, [])])
def test_the_first_waits_and_the_second_does_not(
    interrupts: int, expected: list[str], ctrl_c: Callable[[], None]
) -> None:
    log: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        _work(interrupts, log, ctrl_c)
    assert log == expected


def test_ctrl_c_works_as_before_afterwards(ctrl_c: Callable[[], None]) -> None:
    old_handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(ValueError, match="its own"), interrupts_wait():
        raise ValueError("its own")
    assert signal.getsignal(signal.SIGINT) is old_handler
    with pytest.raises(KeyboardInterrupt):
        ctrl_c()


@pytest.mark.usefixtures("ctrl_c")
def test_in_another_thread_it_does_nothing() -> None:
    old_handler, handlers = signal.getsignal(signal.SIGINT), []

    def look() -> None:
        with interrupts_wait():
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert handlers == [old_handler]


_REAL_SIGNAL = """
import signal
from mlflow_compress.interrupts import interrupts_wait
signal.signal(signal.SIGINT, signal.{how})
with interrupts_wait():
    signal.raise_signal(signal.SIGINT)
    print("all of it", flush=True)
print("more", flush=True)
"""


@pytest.mark.parametrize(
    ("how", "stdout", "error", "code"),
    [
        ("default_int_handler", "all of it\n", "KeyboardInterrupt", -signal.SIGINT),
        ("SIG_DFL", "all of it\n", "", -signal.SIGINT),
        ("SIG_IGN", "all of it\nmore\n", "", 0),
    ],
)
def test_a_process_ends_when_it_is_done_and_one_that_ignores_ctrl_c_goes_on(
    how: str, stdout: str, error: str, code: int
) -> None:
    process = subprocess.run(
        [sys.executable, "-c", _REAL_SIGNAL.format(how=how)], capture_output=True, text=True, check=False, timeout=60
    )
    assert (process.stdout, process.returncode) == (stdout, code)
    assert error in process.stderr
    assert bool(process.stderr) == bool(error)
