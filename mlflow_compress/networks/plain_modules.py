"""Prepares a user's module for methods: without wrappers, and with all parameters initialised."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlflow_compress.errors import RecipeError, Unsupported, named_line


def unwrapped(module: Any) -> tuple[Any, bool]:
    """Remove wrappers of a module and its parts: torch.compile, and wrappers for several devices.

    Returns:
        The module, and whether it was compiled.

    Raises:
        Unsupported: it is a TorchScript module.
    """
    import torch

    is_compiled = False
    while (inner := _inner(module)) is not None:
        is_compiled |= _is_compiled(module)
        module = inner
    if isinstance(module, torch.jit.ScriptModule):
        raise Unsupported("it is a TorchScript module, whose parts can't be changed: give the original module")
    if getattr(module, "_compiled_call_impl", None) is not None:  # by module.compile()
        module._compiled_call_impl = None
        is_compiled = True
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if _inner(child) is not None:
                part, was_compiled = unwrapped(child)
                parent._modules[name] = part
                is_compiled |= was_compiled
    return module, is_compiled


def make_real(module: Any, run: Callable[[Any], object]) -> None:
    """Initialise lazy layers with a first batch.

    Args:
        module: the module.
        run: runs the module, without its wrappers, on a batch.

    Raises:
        RecipeError: the call failed, or a layer is still not initialised.
    """
    import torch

    if not _lazy(module):
        return
    mode = module.training
    try:
        with torch.no_grad():
            run(unwrapped(module)[0].eval())
    except RecipeError:
        raise
    except Exception as error:
        raise RecipeError(
            f"The module's lazy layers need a first batch, but the call on batch(1) failed: {named_line(error, 300)}"
        ) from error
    module.train(mode)
    if left := _lazy(module):
        raise RecipeError(
            f"{left[0]} still has no size after a call on batch(1): that call does not reach this lazy layer."
        )


def _lazy(module: Any) -> list[str]:
    from torch.nn.parameter import is_lazy

    tensors = [*module.named_parameters(), *module.named_buffers()]
    return [name for name, tensor in tensors if is_lazy(tensor)]


def _inner(module: Any) -> Any:
    """Return the module inside a wrapper; None if it is not a wrapper."""
    import torch

    if _is_compiled(module):
        return module._orig_mod
    parallel = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
    return module.module if isinstance(module, parallel) else None


def _is_compiled(module: Any) -> bool:
    return type(module).__name__ == "OptimizedModule" and hasattr(module, "_orig_mod")
