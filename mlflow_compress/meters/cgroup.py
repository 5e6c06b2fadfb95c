"""What a container, a batch system or a service may use of the machine: memory, and time of its cores.

The kernel limits groups of processes (control groups, version 1 or 2), and a group also has the limits of all that it
lies in. Inside a container the files of its own group are often at the top, wherever the kernel says that the group is.

Source: https://docs.kernel.org/admin-guide/cgroup-v2.html, and cgroup-v1/memory.html beside it.

Covers: Linux. Does not cover: limits of a group outside of what a container sees; `ulimit`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/")
_NO_LIMIT = 2**60  # bytes: version 1 writes the largest number that there is for none
_MOUNTED = Path("sys/fs/cgroup")


def memory_limit(root: Path = _ROOT) -> int | None:
    """Return how many bytes of memory may be used at most; None without a limit.

    Args:
        root: where `proc` and `sys` are; another folder in tests.
    """
    limits = [limit for limit, _ in _memory(root)]
    return min(limits, default=None)


def memory_left(root: Path = _ROOT) -> int | None:
    """Return how many bytes are left of what may be used; None without a limit.

    What the kernel would give back when it is needed (files that it keeps in memory) counts as left.

    Args:
        root: where `proc` and `sys` are; another folder in tests.
    """
    return min((max(0, limit - used) for limit, used in _memory(root)), default=None)


def core_limit(root: Path = _ROOT) -> float | None:
    """Return how many cores' worth of time may be used at most; None without a limit.

    Args:
        root: where `proc` and `sys` are; another folder in tests.
    """
    shares = [_text(folder / "cpu.max").partition(" ")[::2] for folder in _groups(root, "")]
    older = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    shares += [(_text(folder / older[0]), _text(folder / older[1])) for folder in _groups(root, "cpu")]
    limits = (_ratio(most, period) for most, period in shares)
    return min((limit for limit in limits if limit is not None), default=None)


def stopped(root: Path = _ROOT) -> int:
    """Return in how many periods this process's groups had used up their time, and were stopped until the next one.

    Args:
        root: where `proc` and `sys` are; another folder in tests.
    """
    folders = [*_groups(root, ""), *_groups(root, "cpu")]
    lines = (line for folder in folders for line in _text(folder / "cpu.stat").splitlines())
    return sum(_count(line.removeprefix("nr_throttled ")) or 0 for line in lines if line.startswith("nr_throttled "))


def _memory(root: Path) -> Iterator[tuple[int, int]]:
    """Yield the limit and the use of each group that has one, in bytes."""
    for folder in _groups(root, ""):
        for limit in (_count(_text(folder / name)) for name in ("memory.max", "memory.high")):
            if limit is not None:
                yield limit, _used(folder, "memory.current", "inactive_file")
    for folder in _groups(root, "memory"):
        limit = _count(_text(folder / "memory.limit_in_bytes"))
        if limit is not None:
            yield limit, _used(folder, "memory.usage_in_bytes", "total_inactive_file")


def _used(folder: Path, file: str, spare: str) -> int:
    """Return the bytes that a group uses, less files that the kernel only keeps because there is room."""
    kept = next((line for line in _text(folder / "memory.stat").splitlines() if line.startswith(f"{spare} ")), "")
    return (_count(_text(folder / file)) or 0) - (_count(kept.rpartition(" ")[2]) or 0)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of the group of this process and of all that it lies in.

    Args:
        root: where `proc` and `sys` are.
        controller: of version 1 (`memory`, `cpu`); empty: version 2, which has one tree for all.
    """
    mounted = _mounted(root / _MOUNTED, controller)
    if mounted is None:
        return
    inner = Path(_place(root, controller).lstrip("/"))
    for path in (inner, *inner.parents):
        folder = mounted / path
        if ".." not in path.parts and folder.is_dir():
            yield folder


def _mounted(folder: Path, controller: str) -> Path | None:
    """Return where a controller's tree is; None where there is none."""
    if not controller:
        trees = (folder, folder / "unified")  # the second where a system has both versions
        return next((tree for tree in trees if (tree / "cgroup.controllers").is_file() or _is_limited(tree)), None)
    names = (controller, *(path.name for path in sorted(folder.glob("*,*")) if controller in path.name.split(",")))
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _is_limited(tree: Path) -> bool:
    """Return whether a folder is a group of version 2 with a limit, as in a container that sees no more than that."""
    return (tree / "cpu.max").is_file() or (tree / "memory.max").is_file()


def _place(root: Path, controller: str) -> str:
    """Return which group of a tree this process is in."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, place = [*line.split(":", 2), "", ""][:3]
        if controller in controllers.split(","):  # version 2 names none
            return place
    return "/"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _count(text: str) -> int | None:
    """Read a limit or a use; None where there is none."""
    return int(text) if text.isdecimal() and int(text) < _NO_LIMIT else None


def _ratio(most: str, period: str) -> float | None:
    """Return a limit of time over the time that it is for; None where there is no limit."""
    if not (most.isdecimal() and period.isdecimal()) or not int(most) or not int(period):
        return None
    return int(most) / int(period)
