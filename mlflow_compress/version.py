"""The version of this package, available without importing the whole package, and versions of installed ones."""

from __future__ import annotations

__version__ = "0.2.0"

_OTHER_BUILDS = {"onnxruntime": ("onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")}


def installed(distribution: str) -> str | None:
    """Return the version of an installed distribution; None if it is not installed.

    Another build of the same modules counts too: `onnxruntime-gpu` for `onnxruntime`.

    Returns:
        The version; empty if the installation is damaged: its METADATA is missing, or has no version.
    """
    versions = map(_installed, (distribution, *_OTHER_BUILDS.get(distribution, ())))
    return next((version for version in versions if version is not None), None)


def _installed(distribution: str) -> str | None:
    from importlib import metadata  # its imports would take a third of the time of `--help`

    from packaging.version import InvalidVersion, Version

    try:
        return str(Version(metadata.version(distribution)))
    except metadata.PackageNotFoundError:
        return None
    except (InvalidVersion, KeyError, OSError, TypeError):
        return ""
