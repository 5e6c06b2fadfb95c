"""Who has a file locked, as far as the kernel tells: Linux names the process, other systems none."""

from __future__ import annotations

from pathlib import Path

_LOCKS = Path("/proc/locks")  # 1: FLOCK ADVISORY WRITE <pid> <major>:<minor>:<inode> 0 EOF


def holder(path: Path) -> str:
    """Return `process 123 (python)`, or `another process` where it is not known.

    Its arguments are not told: they may hold a password.
    """
    try:
        inode = str(path.stat().st_ino)
        held = [line.split() for line in _LOCKS.read_text(encoding="utf-8").splitlines()]
    except OSError:
        return "another process"
    # One who writes keeps more people waiting than one who reads. Process 0 is one of another container.
    pids = {kind: pid for _, _, _, kind, pid, file, *_ in _whole(held) if file.endswith(f":{inode}") and pid != "0"}
    pid = pids.get("WRITE") or pids.get("READ")
    return f"process {pid}{_name(pid)}" if pid else "another process"


def _whole(held: list[list[str]]) -> list[list[str]]:
    """Return the lines of locks that are held, less those that are waited for, which have an arrow in them."""
    return [fields for fields in held if len(fields) >= 8 and fields[1] != "->"]


def _name(pid: str) -> str:
    try:
        return f" ({Path('/proc', pid, 'comm').read_text(encoding='utf-8', errors='replace').strip()})"
    except OSError:
        return ""
