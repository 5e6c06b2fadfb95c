"""Wanda: its formula, its patterns, and its error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pruned import groups, loaded, method
from torch import nn

from mlflow_compress.compression import pruning
from mlflow_compress.networks.own_code import OwnCode


@pytest.mark.parametrize("samples", [1, 5])
def test_wanda_is_the_formula(samples: int, tmp_path: Path) -> None:
    """Repeat it with loops: |W_ij| ||X_j||, the lowest scores of each output."""
    family, model = loaded(tmp_path)
    layers: list[Any] = pruning.learned(model.module)
    recorded: dict[Any, list[torch.Tensor]] = {layer: [] for layer in layers}
    hooks = [layer.register_forward_pre_hook(lambda layer, args: recorded[layer].append(args[0])) for layer in layers]
    with torch.no_grad():
        for batch in family.calibration(model, samples, 0):
            family.forward(model, batch)
    for hook in hooks:
        hook.remove()
    before = [layer.weight.clone() for layer in layers]
    method("wanda", sparsity=0.4, samples=samples).compress(model, family)
    for layer, weight in zip(layers, before, strict=True):
        inputs = torch.cat(recorded[layer])
        columns: Any = (inputs,)
        if layer.weight.dim() == 4:  # each group's filters see their own channels
            unfolded = nn.functional.unfold(inputs, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
            columns = unfolded.movedim(1, -1).reshape(-1, unfolded.shape[1]).split(weight[0].numel(), 1)
        for output, (pruned, dense) in enumerate(zip(layer.weight.flatten(1), weight.flatten(1), strict=True)):
            features = columns[output * len(columns) // len(weight)]
            scores = torch.tensor([abs(dense[index]) * features[:, index].norm() for index in range(len(dense))])
            is_kept = pruned != 0
            assert int((~is_kept).sum()) == int(0.4 * len(dense))
            assert torch.equal(pruned[is_kept], dense[is_kept])
            assert scores[~is_kept].max() <= scores[is_kept].min() * (1 + 1e-5)
        assert not layer._forward_pre_hooks


@pytest.mark.parametrize("pattern", ["2:4", "4:8"])
def test_wanda_keeps_the_pattern_along_the_input(pattern: str, tmp_path: Path) -> None:
    family, model = loaded(tmp_path)
    method("wanda", pattern=pattern).compress(model, family)
    keep, of = (int(number) for number in pattern.split(":"))
    for layer in pruning.learned(model.module)[1:]:
        if layer.weight.shape[1] % of == 0:
            assert (groups(layer.weight, of) != 0).sum(1).eq(keep).all()


def test_wanda_loses_less_than_magnitude_where_inputs_have_outliers(tmp_path: Path) -> None:
    code = (
        "import torch\n"
        "def model():\n    torch.manual_seed(0)\n    return torch.nn.Sequential(torch.nn.Linear(256, 256))\n"
        "def training():\n    torch.manual_seed(1)\n    scales = torch.ones(256)\n    scales[::16] = 30\n"
        "    return torch.randn(300, 256) * scales\n"
    )
    errors = {}
    for name in ("prune_magnitude", "wanda"):
        family, model = loaded(tmp_path, code)
        inputs = model.data_as(OwnCode).code.training()
        before = model.module(inputs)
        method(name).compress(model, family)
        errors[name] = float((model.module(inputs) - before).norm() / before.norm())
    assert errors["wanda"] < 0.3 * errors["prune_magnitude"]
