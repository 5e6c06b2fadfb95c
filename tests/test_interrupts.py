"""Ctrl-C waits for what must not be left half done."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest

from mlflow_compress.interrupts import interrupts_wait

pytestmark = pytest.mark.usefixtures("_ctrl_c_raises")


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


_KILLED = """
import signal
from mlflow_compress.interrupts import interrupts_wait
signal.signal(signal.SIGINT, getattr(signal, "{how}"))
with interrupts_wait():
    signal.raise_signal(signal.SIGINT)
    print("all of it", flush=True)
print("more", flush=True)
"""


@pytest.mark.parametrize(("how", "said"), [("SIG_DFL", "all of it\n"), ("SIG_IGN", "all of it\nmore\n")])
def test_a_process_that_ctrl_c_kills_ends_when_it_is_done_and_one_that_ignores_it_goes_on(how: str, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _KILLED.format(how=how)], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout, done.stderr) == (said, "")
    assert (done.returncode == 0) == (how == "SIG_IGN")
