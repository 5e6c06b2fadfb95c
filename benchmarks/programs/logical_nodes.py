"""`python logical_nodes.py FOLDER COUNT`: a Ray cluster of several logical machines on this machine.

The head node offers no processors. Every other node has one processor, and its own lock, spool and cache. The program
prints the address, then reads commands from standard input (`add`, `kill NUMBER`, like a power cut), and ends with it.
"""

import os
import sys
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

_STORE_BYTES = 80 * 2**20


def main() -> None:
    """Run the cluster."""
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    head = {"num_cpus": 0, "object_store_memory": _STORE_BYTES, "include_dashboard": False}
    cluster: Any = Cluster(initialize_head=True, head_node_args=head)
    nodes: list[Any] = []

    def add() -> None:
        node = folder / f"node{len(nodes)}"
        paths = {"COMPRESS_LOCK": node / "lock", "COMPRESS_SPOOL": node / "spool", "COMPRESS_CACHE": node / "cache"}
        node.mkdir(parents=True)
        variables = {name: str(path) for name, path in paths.items()} | {"NODE": str(len(nodes))}
        nodes.append(cluster.add_node(num_cpus=1, object_store_memory=_STORE_BYTES, env_vars=variables))

    for _ in range(count):
        add()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # Ray prints to standard output
    print(cluster.address, file=answers)
    for line in sys.stdin:
        word, _, number = line.strip().partition(" ")
        if word == "add":
            add()
        elif word == "kill":
            cluster.remove_node(nodes[int(number)], allow_graceful=False)
        print("done", file=answers)
    cluster.shutdown()


if __name__ == "__main__":
    main()
