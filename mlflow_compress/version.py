"""The version of this package, for whoever needs it without importing the package."""

from __future__ import annotations

__version__ = "0.1.0"
