"""Which process this is, so that another one on the same machine can tell later whether it still lives.

A process id alone tells nothing: it is given again after its owner's death, and every container counts from 1.
"""

from __future__ import annotations

import functools
import hashlib
import os
import socket
import uuid
from pathlib import Path

TAG = "compress.process"  # of a run: the process that logs it
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_START = 19  # of the fields behind the name in /proc/<pid>/stat: clock ticks between the boot and the start


def mine() -> str:
    """Name this process: machine, boot, namespace of process ids, process id, start, with colons between them."""
    return ":".join((machine(), _boot(), _namespace(), str(os.getpid()), _started(os.getpid()) or ""))


def is_dead(process: str) -> bool:
    """Return whether a process that `mine` named is known to have ended.

    Args:
        process: its name. One of another machine or container, or that is no such name, is not known to have ended.
    """
    fields = process.split(":")
    if len(fields) != 5 or fields[0] != machine() or not fields[3].isdecimal():
        return False
    _, boot, namespace, pid, started = fields
    if boot != _boot():
        return True
    return namespace == _namespace() and _started(int(pid)) != started


@functools.cache
def machine() -> str:
    """Name this machine, in 16 characters that tell nothing else about it."""
    try:
        known = Path("/etc/machine-id").read_text().strip()
    except OSError:
        known = ""
    return hashlib.sha256(f"{known} {socket.gethostname()} {uuid.getnode()}".encode()).hexdigest()[:16]


@functools.cache
def _boot() -> str:
    try:
        return _BOOT.read_text().strip()
    except OSError:
        import psutil

        return str(round(psutil.boot_time()))


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink()).partition("[")[2].rstrip("]")
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """Return when a process started, on a clock that nobody sets; None where there is none."""
    try:
        # behind the name, which may hold anything
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[_START]
    except OSError:
        pass
    if Path("/proc/self/stat").exists():
        return None
    import psutil

    try:
        return str(round(psutil.Process(pid).create_time()))
    except psutil.Error:
        return None
