"""Versions: this package's, for whoever needs it without importing the package, and those of what is installed."""

from __future__ import annotations

__version__ = "0.2.0"


def installed(distribution: str) -> str | None:
    """Return the version of an installed distribution; None where it is not installed.

    Returns:
        Empty where an installation is damaged: its METADATA is gone, or says no version.
    """
    from importlib import metadata  # with its imports a third of what `--help` takes

    from packaging.version import InvalidVersion, Version

    try:
        return str(Version(metadata.version(distribution)))
    except metadata.PackageNotFoundError:
        return None
    except (InvalidVersion, KeyError, OSError, TypeError):
        return ""
