"""Measure models before and after compression, all the same way, on an MLflow tracking server."""

__version__ = "0.1.0"
