"""A polling thread ends with its block, whatever happens in the block."""

from __future__ import annotations

import time

import pytest

from mlflow_compress.meters.watcher import Watcher


class Counter(Watcher):
    def __init__(self) -> None:
        super().__init__()
        self.looks = 0
        self.is_done = False

    def _watch(self) -> None:
        while not self._over.wait(0.001):
            self.looks += 1
        time.sleep(0.05)  # a last look that takes its time
        self.is_done = True


def test_it_looks_while_the_block_runs_and_is_done_behind_it() -> None:
    with Counter() as counter:
        while not counter.looks:
            time.sleep(0.001)
        assert not counter.is_done
    assert counter.is_done
    assert not counter._thread.is_alive()


def test_it_ends_where_the_block_fails() -> None:
    counter = Counter()
    with pytest.raises(ArithmeticError), counter:
        raise ArithmeticError
    assert counter.is_done


def test_one_that_never_begins_looks_at_nothing() -> None:
    assert Counter().looks == 0
