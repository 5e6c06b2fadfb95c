"""Gives libraries a user's name, and folders to write to, where the system has none for this process.

A container may run as a user id that no password database knows, without HOME, or with a home that can't be written to.
MLflow, torch and others then raise where they ask for the user's name or home, or keep a cache. They ask the
environment: what has no right value there gets one, in this process and so in all that it starts.
"""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Mapping
from pathlib import Path

_NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")  # where Python looks for the user's name
_HUB_NAMES = ("HF_HOME", "HUGGINGFACE_HUB_CACHE")  # who sets one of these has said where the hub's cache is
_FILLED: Mapping[str, str] = {  # what may be in a cache that can only be read, and is worth it
    "HF_HUB_CACHE": "huggingface/hub",
    "HF_TOKEN_PATH": "huggingface/token",
    "HF_DATASETS_CACHE": "huggingface/datasets",
    "TORCH_HOME": "torch",
}
_SETTINGS: Mapping[str, str] = {  # what libraries keep outside of the cache folder
    "MPLCONFIGDIR": ".config/matplotlib",
    "YOLO_CONFIG_DIR": ".config",
    "TRITON_HOME": "",
}


@functools.cache
def settle() -> str:
    """Set what the environment lacks: the user's name, a home, a cache folder that can be written to.

    What stands in for the home is a folder of this user's among the temporary ones, the same for every command.

    Returns:
        What was lacking, and what is used instead, in a sentence; empty where nothing was.
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
    except OSError:  # no temporary folder can be written to either: who needs one will say so
        return ""
    if not has_home:
        os.environ["HOME"] = str(folder)
    if not has_caches:
        _move_caches(caches, folder)
    lacking = f"the cache folder {caches} can't be written to" if has_home else "this user has no home folder"
    return f"{lacking}; {folder} is used instead"


def name_user() -> None:
    """Give the user a name in the environment, where neither that nor the password database knows one."""
    if os.name == "posix" and not any(os.environ.get(name) for name in _NAMES) and not _entry():
        os.environ["USER"] = f"uid-{os.getuid()}"


def user_name() -> str:
    """Return the user's name, or what stands in for it."""
    import getpass

    name_user()
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # on Windows
        return "unknown"


def _entry() -> tuple[str, str] | None:
    """Return the user's name and home as the password database has them."""
    import pwd

    try:
        entry = pwd.getpwuid(os.getuid())
    except KeyError:
        return None
    return entry.pw_name, entry.pw_dir


def _home() -> str:
    """Return the user's home; empty for none."""
    if home := os.environ.get("HOME"):
        return home
    entry = _entry() if "HOME" not in os.environ else None
    return entry[1] if entry else ""


def _may_be_there(folder: Path) -> bool:
    """Return whether a folder exists, or can be made."""
    return folder.is_dir() or _can_hold(folder)


def _can_hold(folder: Path) -> bool:
    """Return whether files can be written to a folder, which is made when it is needed."""
    try:
        nearest = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    except (OSError, StopIteration):
        return False
    as_it_runs = os.access in os.supports_effective_ids
    return nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK, effective_ids=as_it_runs)


def _move_caches(caches: Path, folder: Path) -> None:
    """Have libraries keep their caches elsewhere, but read what is in the old ones already."""
    for name, below in _FILLED.items():
        has_place = name in os.environ or (name.startswith("HF_") and any(each in os.environ for each in _HUB_NAMES))
        if not has_place and (caches / below).exists():
            os.environ[name] = str(caches / below)
    for name, below in _SETTINGS.items():
        os.environ.setdefault(name, str(folder / below))
    os.environ["XDG_CACHE_HOME"] = str(folder / ".cache")


def _stand_in() -> Path:
    """Return a folder that is this user's alone.

    Raises:
        OSError: there can be none.
    """
    import tempfile

    folder = Path(tempfile.gettempdir(), f"mlflow-compress-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077
    return folder if is_ours else Path(tempfile.mkdtemp(prefix="mlflow-compress-"))
