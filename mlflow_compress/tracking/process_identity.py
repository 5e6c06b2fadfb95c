"""Identifies this process, so that another process on the same machine can tell later whether it is still alive.

A process id alone is not enough: it is reused after the process ends, and every container counts from 1.
"""

from __future__ import annotations

import functools
import hashlib
import os
import socket
import uuid
from pathlib import Path

TAG = "compress.process"  # tag of a run: the process that logs it
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_START = 19  # field after the name in /proc/<pid>/stat: clock ticks between boot and start


def mine() -> str:
    """Return this process's identity: machine, boot, process namespace, process id and start, separated by colons."""
    return ":".join((machine(), _boot(), _namespace(), str(os.getpid()), _started(os.getpid()) or ""))


def is_dead(process: str) -> bool:
    """Return whether a process is known to have ended.

    Args:
        process: its identity, from `mine`. A process of another machine or container, or an invalid text, is not known
                to have ended.
    """
    fields = process.split(":")
    if len(fields) != 5 or fields[0] != machine() or not fields[3].isdecimal():
        return False
    _, boot, namespace, pid, started = fields
    if boot != _boot():
        return True
    return namespace == _namespace() and not _is_same(_started(int(pid)), started)


@functools.cache
def machine() -> str:
    """Return an identity of this machine: 16 characters that reveal nothing else about it."""
    try:
        machine_id = Path("/etc/machine-id").read_text().strip()
    except OSError:
        machine_id = ""
    return hashlib.sha256(f"{machine_id} {socket.gethostname()} {uuid.getnode()}".encode()).hexdigest()[:16]


@functools.cache
def _boot() -> str:
    """Return an identity of the time since the machine was started; empty on systems without one.

    The time of the start does not identify it: it changes when macOS sets its clock, and differs between processes
    on Windows. There, a process is identified by its id and its own start.
    """
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""


def _is_same(now: str | None, then: str) -> bool:
    """Return whether two starts are of the same process: equal, or seconds that differ by rounding."""
    if now == then or now is None:
        return now == then
    return not _BOOT.exists() and now.isdecimal() and then.isdecimal() and abs(int(now) - int(then)) <= 1


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink()).partition("[")[2].rstrip("]")
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """Return the start of a process, on a clock that can't be changed; None where there is no such process."""
    try:
        # after the name, which may contain any character
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
