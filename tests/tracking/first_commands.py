"""Many first commands at once: `first_commands.py URI WRITERS READERS`; each prints its result.

They are separate processes, forked from one that has imported MLflow already, so that they start together.
"""

from __future__ import annotations

import os
import sys

import mlflow.store.tracking.sqlalchemy_store  # noqa: F401  (so that nobody has to wait for its import)

from mlflow_compress.errors import StoreError
from mlflow_compress.tracking import reading, writing
from mlflow_compress.tracking.connection import open_store


def write(uri: str, number: int) -> str:
    store = open_store(uri)
    experiment_id = writing.experiment_id(store, "hw1")
    return f"wrote {writing.claim(store, experiment_id, f'result {number}', 'a run', {'team': str(number)})}"


def read(uri: str, number: int) -> str:
    try:
        return f"read {sorted(reading.experiments(open_store(uri, create=False)))}"
    except StoreError as error:
        return f"refused: {error}"


def main(uri: str, writers: int, readers: int) -> int:
    children = []
    for number, verb in enumerate([write] * writers + [read] * readers):
        if not (pid := os.fork()):
            try:
                os.write(1, f"{verb(uri, number)}\n".encode())
            except BaseException as error:
                os.write(1, f"failed: {type(error).__name__}: {error}\n".encode())
            os._exit(0)
        children.append(pid)
    return max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
