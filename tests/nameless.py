"""Run programs with a user id that is not in the password database, like containers."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

UID = 12345
# Libraries check for their own files with access(2), which ignores extra capabilities of the process.
_IS_NAMELESS = """
import os, pwd, sys
try: pwd.getpwuid(os.getuid())
except KeyError: print("nameless" if os.access(sys.prefix, os.X_OK) else "lost")
"""
_NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")


def run(words: Sequence[str], folder: Path, environment: Mapping[str, str | None]) -> subprocess.CompletedProcess[str]:
    """Run a program; skip the test if this system does not allow such a user.

    Args:
        words: the words of the command line.
        folder: the working folder.
        environment: changes to the environment; None removes a variable.
    """
    changed = {**os.environ, **dict.fromkeys(_NAMES), **environment}
    set_variables = {name: text for name, text in changed.items() if text is not None}
    command = [*_prefix(), *words]
    return subprocess.run(command, cwd=folder, env=set_variables, capture_output=True, text=True, check=False)


def folder_for_all(folder: Path) -> Path:
    """Create and return a folder that such a user may write to."""
    folder.mkdir()
    folder.chmod(0o777)
    return folder


@functools.cache
def _prefix() -> tuple[str, ...]:
    """Return the prefix of a command that runs as such a user: root may change its id, others may use a namespace."""
    may_read = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")  # Python may be in root's own home
    candidates = (
        ("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", *may_read),
        ("unshare", "--user", f"--map-user={UID}"),
    )
    for candidate in candidates:
        if shutil.which(candidate[0]):
            words = [*candidate, sys.executable, "-c", _IS_NAMELESS]
            process = subprocess.run(words, capture_output=True, text=True, check=False)
            if process.stdout == "nameless\n":
                return candidate
    pytest.skip("this system has no way to run as a user without a name who can read the environment of the tests")
