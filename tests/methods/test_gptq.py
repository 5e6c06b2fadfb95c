"""GPTQ: the paper's algorithm, and less error than rounding to the nearest."""

from __future__ import annotations

import pytest
import torch
from quantised import Vectors, error, stack
from torch import nn

from mlflow_compress import registry
from mlflow_compress.compression.weight_groups import Grid, nearest
from mlflow_compress.methods.gptq import rounded
from mlflow_compress.sockets import Model


def correlated(rows: int, width: int) -> torch.Tensor:
    """Return vectors in which a few directions dominate, as in activations."""
    torch.manual_seed(1)
    return torch.randn(rows, width) @ Vectors(width).mix.T


def plain_gptq(weight: torch.Tensor, gram: torch.Tensor, bits: int, group_size: int, damping: float) -> torch.Tensor:
    """Round by algorithm 1 of the paper, strong inputs first, in double precision and without blocks."""
    hessian = gram.double() + torch.eye(len(gram)) * damping * gram.diagonal().double().mean()
    remaining, result = weight.double().clone(), torch.zeros(weight.shape)
    left = sorted(range(weight.shape[1]), key=lambda column: -float(gram[column, column]))
    while left:
        inverse = torch.linalg.inv(hessian[left][:, left])
        column = left[0]
        start = column - column % group_size
        grid = Grid.over(weight[:, start : start + group_size], bits)
        result[:, column] = grid.decode(grid.encode(remaining[:, column, None].float()))[:, 0]
        scaled_error = (remaining[:, column] - result[:, column]) / inverse[0, 0]
        remaining[:, left] -= scaled_error[:, None] * inverse[0]
        left = left[1:]
    return result


@pytest.mark.parametrize(("width", "group_size"), [(24, 8), (24, 1000), (300, 150)])
def test_gptq_is_the_papers_algorithm(width: int, group_size: int) -> None:
    torch.manual_seed(0)
    weight, inputs = torch.randn(6, width), correlated(500, width)
    gram = inputs.T @ inputs / 500
    blocked = rounded(weight, gram, 4, group_size, 0.01)()
    plain = plain_gptq(weight, gram, 4, min(group_size, width), 0.01)
    equal_share = torch.isclose(blocked, plain, rtol=0, atol=1e-5).float().mean()
    assert equal_share > 0.97  # a tie rounded the other way changes its neighbours
    assert error(weight, blocked, inputs) == pytest.approx(error(weight, plain, inputs), rel=0.1)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_gptq_has_less_error_than_the_nearest_on_unseen_data(bits: int) -> None:
    torch.manual_seed(0)
    weight, inputs = torch.randn(32, 96), correlated(4000, 96)
    gram = inputs[:2000].T @ inputs[:2000] / 2000
    result = rounded(weight, gram, bits, 32, 0.01)()
    assert error(weight, result, inputs[2000:]) < 0.7 * error(weight, nearest(weight, bits, 32), inputs[2000:])


def test_gptq_rounds_to_the_nearest_for_uncorrelated_inputs() -> None:
    weight = torch.randn(8, 40)
    assert torch.equal(rounded(weight, torch.eye(40), 4, 16, 0.01)(), nearest(weight, 4, 16))
    assert torch.equal(rounded(weight, torch.zeros(40, 40), 4, 16, 0.01)(), nearest(weight, 4, 16))


def test_gptq_does_not_overfit_few_inputs() -> None:
    torch.manual_seed(0)
    module = stack(nn.Linear(64, 64))
    weight, fresh = module[0].weight.detach().clone(), torch.randn(1000, 64)
    family = Vectors()
    family.mix = torch.eye(64)  # no correlations
    compressed = registry.build("methods", "gptq", {"samples": 16}).compress(Model(module), family).module
    assert error(weight, compressed[0].packed(), fresh) < 1.3 * error(weight, nearest(weight, 4, 128), fresh)
