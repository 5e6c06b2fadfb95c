"""Measure models before and after compression, all the same way, on an MLflow tracking server.

In a notebook, for a model in memory:

    import mlflow_compress as mc

    mc.benchmark(model, batch, team="alpha")
    mc.benchmark(mc.compress(model, "int8_dynamic"), batch, team="alpha", method="int8_dynamic")
    mc.compare("Default")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlflow_compress.version import __version__

if TYPE_CHECKING:
    from mlflow_compress.notebook import benchmark, compare, compress

__all__ = ["__version__", "benchmark", "compare", "compress"]


def __getattr__(name: str) -> Any:
    """Import the notebook functions on first use: MLflow's plugins import this package whenever MLflow is imported."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mlflow_compress import notebook

    return getattr(notebook, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
