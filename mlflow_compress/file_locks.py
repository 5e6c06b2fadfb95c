"""Find the process that has locked a file. Only Linux reports it."""

from __future__ import annotations

from pathlib import Path

_LOCKS = Path("/proc/locks")  # 1: FLOCK ADVISORY WRITE <pid> <major>:<minor>:<inode> 0 EOF


def holder(path: Path) -> str:
    """Return `process 123 (python)`, or `another process` if it is unknown.

    Its arguments are not included: they may contain a password.
    """
    try:
        inode = str(path.stat().st_ino)
        locks = [line.split() for line in _LOCKS.read_text(encoding="utf-8").splitlines()]
    except OSError:
        return "another process"
    # A writer blocks more processes than a reader. Process 0 is in another container.
    pids = {kind: pid for _, _, _, kind, pid, file, *_ in _held(locks) if file.endswith(f":{inode}") and pid != "0"}
    pid = pids.get("WRITE") or pids.get("READ")
    return f"process {pid}{_name(pid)}" if pid else "another process"


def _held(locks: list[list[str]]) -> list[list[str]]:
    """Return the lines of held locks. Lines of waiting processes contain an arrow."""
    return [fields for fields in locks if len(fields) >= 8 and fields[1] != "->"]


def _name(pid: str) -> str:
    try:
        return f" ({Path('/proc', pid, 'comm').read_text(encoding='utf-8', errors='replace').strip()})"
    except OSError:
        return ""
