"""Wrappers are removed from a user's module, and its lazy layers are initialised."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from mlflow_compress.errors import RecipeError, Unsupported
from mlflow_compress.networks.plain_modules import make_real, unwrapped


def net() -> Any:
    return nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.Linear(3, 2)))


def test_wrappers_are_taken_off() -> None:
    module = net()
    assert unwrapped(module) == (module, False)
    assert unwrapped(nn.DataParallel(module)) == (module, False)
    assert unwrapped(torch.compile(nn.DataParallel(module), backend="eager")) == (module, True)


def test_a_part_that_was_compiled_is_unwrapped_too() -> None:
    module = net()
    part = module[1]
    module[1] = torch.compile(part, backend="eager")
    assert unwrapped(module) == (module, True)
    assert module[1] is part
    module.compile(backend="eager")
    assert unwrapped(module) == (module, True)
    assert unwrapped(module) == (module, False)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning", "ignore:.*torch.jit.*:FutureWarning")
def test_a_program_of_torchscript_is_refused() -> None:
    with pytest.raises(Unsupported, match="it is a TorchScript module"):
        unwrapped(torch.jit.script(net()))


def test_lazy_layers_get_their_parameters_and_norms_stay_as_they_are() -> None:
    module: Any = nn.Sequential(nn.LazyLinear(3), nn.LazyBatchNorm1d(), nn.LazyLinear(2))
    make_real(module, lambda inner: inner(torch.rand(1, 5)))
    assert module[0].weight.shape == (3, 5)
    assert module.training
    assert module[1].running_mean.tolist() == [0, 0, 0]


def test_an_unreached_lazy_layer_or_a_failed_call_is_reported() -> None:
    module: Any = nn.ModuleDict({"used": nn.Linear(2, 2), "unused": nn.LazyLinear(3)})
    with pytest.raises(RecipeError, match=r"unused\.weight still has no size"):
        make_real(module, lambda inner: inner["used"](torch.rand(1, 2)))
    with pytest.raises(RecipeError, match=r"the call on batch\(1\) failed: ZeroDivisionError"):
        make_real(module, lambda inner: 1 / 0)
