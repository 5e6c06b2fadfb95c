"""The limits of a container, a batch system or a service: memory and CPU time.

The kernel limits groups of processes (control groups, version 1 or 2), and a group also has the limits of all its
parent groups. Inside a container the files of its own group are often at the top of the tree, whatever path the kernel
reports.

Source: https://docs.kernel.org/admin-guide/cgroup-v2.html, and cgroup-v1/memory.html beside it.

Covers: Linux. Does not cover: limits of groups that a container can't see; `ulimit`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/")
_NO_LIMIT = 2**60  # bytes: version 1 writes the largest possible number for no limit
_MOUNTED = Path("sys/fs/cgroup")


def memory_limit(root: Path = _ROOT) -> int | None:
    """Return the memory limit in bytes; None without a limit.

    Args:
        root: Folder with `proc` and `sys`; another one in tests.
    """
    limits = [limit for limit, _ in _memory(root)]
    return min(limits, default=None)


def memory_left(root: Path = _ROOT) -> int | None:
    """Return the bytes left below the memory limit; None without a limit.

    Memory that the kernel frees on demand (its file cache) counts as left.

    Args:
        root: Folder with `proc` and `sys`; another one in tests.
    """
    return min((max(0, limit - used) for limit, used in _memory(root)), default=None)


def core_limit(root: Path = _ROOT) -> float | None:
    """Return the CPU time limit, in cores; None without a limit.

    Args:
        root: Folder with `proc` and `sys`; another one in tests.
    """
    shares = [_text(folder / "cpu.max").partition(" ")[::2] for folder in _groups(root, "")]
    older = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    shares += [(_text(folder / older[0]), _text(folder / older[1])) for folder in _groups(root, "cpu")]
    limits = (_ratio(quota, period) for quota, period in shares)
    return min((limit for limit in limits if limit is not None), default=None)


def stopped(root: Path = _ROOT) -> int:
    """Return the number of periods in which this process's groups used up their CPU time and were paused.

    Args:
        root: Folder with `proc` and `sys`; another one in tests.
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
    """Return the bytes that a group uses, without the kernel's unused file cache."""
    cached = next((line for line in _text(folder / "memory.stat").splitlines() if line.startswith(f"{spare} ")), "")
    return (_count(_text(folder / file)) or 0) - (_count(cached.rpartition(" ")[2]) or 0)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of this process's group and of its parents.

    Args:
        root: Folder with `proc` and `sys`.
        controller: Controller of version 1 (`memory`, `cpu`); empty: version 2, which has a single tree.
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
    """Return the folder of a controller's tree; None if there is none."""
    if not controller:
        trees = (folder, folder / "unified")  # the second on a system with both versions
        return next((tree for tree in trees if (tree / "cgroup.controllers").is_file() or _is_limited(tree)), None)
    names = (controller, *(path.name for path in sorted(folder.glob("*,*")) if controller in path.name.split(",")))
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _is_limited(tree: Path) -> bool:
    """Return whether a folder is a version 2 group with a limit, as in a container that sees only its own group."""
    return (tree / "cpu.max").is_file() or (tree / "memory.max").is_file()


def _place(root: Path, controller: str) -> str:
    """Return the path of this process's group in a tree."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, group = [*line.split(":", 2), "", ""][:3]
        if controller in controllers.split(","):  # version 2 names none
            return group
    return "/"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _count(text: str) -> int | None:
    """Return a limit or usage in bytes; None if there is none."""
    return int(text) if text.isdecimal() and int(text) < _NO_LIMIT else None


def _ratio(quota: str, period: str) -> float | None:
    """Return a time limit divided by its period; None if there is no limit."""
    if not (quota.isdecimal() and period.isdecimal()) or not int(quota) or not int(period):
        return None
    return int(quota) / int(period)
