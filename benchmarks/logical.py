"""Several logical machines on this machine: a real Ray cluster, for tests and benchmarks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType

from benchmarks.children import PROGRAMS

_STOP_SECONDS = 30


class LogicalNodes:
    """A Ray cluster that exists during a `with` block.

    Args:
        count: number of logical machines that measure.

    Attributes:
        address: address of the cluster.
        folder: folder with the spool and cache of each machine: `node0`, `node1`, ...
    """

    def __init__(self, count: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="nodes"))  # short: Ray puts sockets into it
        environment = {**os.environ, "RAY_TMPDIR": str(self.folder), "RAY_USAGE_STATS_ENABLED": "0"}
        environment |= {"RAY_worker_niceness": "0"}
        with (self.folder / "cluster.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(PROGRAMS / "logical_nodes.py"), str(self.folder), str(count)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                text=True,
            )
        self.address = self._answer()

    def __enter__(self) -> LogicalNodes:
        """Return the cluster."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the cluster, and everything that it started."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def add(self) -> None:
        """Add a machine."""
        self._say("add")

    def kill(self, number: int) -> None:
        """Remove a machine like a power cut does.

        Args:
            number: number of the machine, from 0.
        """
        self._say(f"kill {number}")

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        answer = self._process.stdout.readline().strip()
        if not answer:
            raise RuntimeError(f"the cluster did not start:\n{(self.folder / 'cluster.log').read_text()[-3000:]}")
        return answer
