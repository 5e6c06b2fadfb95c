"""Provide a user name and writable folders for libraries if the system has none for this process.

A container may run with a user id that is not in the password database, without HOME, or with a read-only home. MLflow,
torch and others then fail when they need the user's name, home or cache. They read environment variables: missing or
unusable ones are set here, for this process and all processes that it starts.
"""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Mapping
from pathlib import Path

_NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")  # where Python looks for the user's name
_HUB_NAMES = ("HF_HOME", "HUGGINGFACE_HUB_CACHE")  # if the user sets one of these, it defines the hub's cache
_FILLED: Mapping[str, str] = {  # useful content that a read-only cache may have
    "HF_HUB_CACHE": "huggingface/hub",
    "HF_TOKEN_PATH": "huggingface/token",
    "HF_DATASETS_CACHE": "huggingface/datasets",
    "TORCH_HOME": "torch",
}
_SETTINGS: Mapping[str, str] = {  # folders of libraries outside the cache folder
    "MPLCONFIGDIR": ".config/matplotlib",
    "YOLO_CONFIG_DIR": ".config",
    "TRITON_HOME": "",
}


@functools.cache
def settle() -> str:
    """Set what the environment lacks: the user's name, a home, a writable cache folder.

    The replacement for the home is a temporary folder of this user, the same for every command.

    Returns:
        A sentence about what is missing and what is used instead; empty if nothing is missing.
    """
    if os.name != "posix":
        return ""
    name_user()
    home = _home()
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path(home or "/", ".cache"))
    has_home, has_caches = bool(home) and _may_be_there(Path(home)), _can_hold(caches)
    if has_home and has_caches:
        return ""
    try:
        folder = _stand_in()
    except OSError:  # temporary folders are not writable either: code that needs one will report it
        return ""
    if not has_home:
        os.environ["HOME"] = str(folder)
    if not has_caches:
        _move_caches(caches, folder)
    problem = f"the cache folder {caches} can't be written to" if has_home else "this user has no home folder"
    return f"{problem}; {folder} is used instead"


def name_user() -> None:
    """Set the user's name in the environment if neither it nor the password database has one."""
    if os.name == "posix" and not any(os.environ.get(name) for name in _NAMES) and not _entry():
        os.environ["USER"] = f"uid-{os.getuid()}"


def user_name() -> str:
    """Return the user's name, or a substitute."""
    import getpass

    name_user()
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # on Windows
        return "unknown"


def _entry() -> tuple[str, str] | None:
    """Return the user's name and home from the password database."""
    import pwd

    try:
        entry = pwd.getpwuid(os.getuid())
    except KeyError:
        return None
    return entry.pw_name, entry.pw_dir


def _home() -> str:
    """Return the user's home; empty if there is none."""
    if home := os.environ.get("HOME"):
        return home
    entry = _entry() if "HOME" not in os.environ else None
    return entry[1] if entry else ""


def _may_be_there(folder: Path) -> bool:
    """Return whether a folder exists or can be created."""
    return folder.is_dir() or _can_hold(folder)


def _can_hold(folder: Path) -> bool:
    """Return whether files can be written to a folder, which is created on demand."""
    try:
        nearest = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    except (OSError, StopIteration):
        return False
    as_it_runs = os.access in os.supports_effective_ids
    return nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK, effective_ids=as_it_runs)


def _move_caches(caches: Path, folder: Path) -> None:
    """Move the caches of libraries to a new folder, but keep reading existing content of the old ones."""
    for name, subfolder in _FILLED.items():
        has_hub = name.startswith("HF_") and any(variable in os.environ for variable in _HUB_NAMES)
        has_place = name in os.environ or has_hub
        if not has_place and (caches / subfolder).exists():
            os.environ[name] = str(caches / subfolder)
    for name, subfolder in _SETTINGS.items():
        os.environ.setdefault(name, str(folder / subfolder))
    os.environ["XDG_CACHE_HOME"] = str(folder / ".cache")


def _stand_in() -> Path:
    """Return a folder that belongs to this user only.

    Raises:
        OSError: It can't be created.
    """
    import tempfile

    folder = Path(tempfile.gettempdir(), f"mlflow-compress-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077
    return folder if is_ours else Path(tempfile.mkdtemp(prefix="mlflow-compress-"))
