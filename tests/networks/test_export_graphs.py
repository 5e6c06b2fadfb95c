"""Graphs: pure functions of tensors that hold the weights of the modules they use."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import nn

from mlflow_compress.networks.export_graphs import Attached, TorchCall, dtype_of, graph, twin


def added(parts: Any, one: Any, two: Any) -> tuple[Any, ...]:
    return (parts.linear(one) + two,)


def test_a_graph_takes_its_inputs_by_position_or_name_and_holds_the_weights() -> None:
    linear = nn.Linear(2, 3)
    inputs = {"one": torch.rand(4, 2), "two": torch.rand(4, 3)}
    exported = graph(added, inputs, ["sum"], {"one": {0: "batch"}}, linear=linear)
    assert (exported.outputs, exported.dynamic, exported.module.training) == (("sum",), {"one": {0: "batch"}}, False)
    assert list(inspect.signature(type(exported.module).forward).parameters) == ["self", "one", "two"]
    (by_position,) = exported.module(*inputs.values())
    (by_name,) = exported.module(**inputs)
    assert torch.equal(by_position, by_name)
    assert torch.equal(by_position, linear(inputs["one"]) + inputs["two"])
    assert {id(weight) for weight in exported.module.parameters()} == {id(each) for each in linear.parameters()}
    with pytest.raises(TypeError):
        exported.module(inputs["one"])


def test_a_twin_shares_weights_and_can_be_changed() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    copy = twin(module)
    assert copy[0].weight is module[0].weight
    assert copy[1].running_mean is module[1].running_mean
    copy[0] = nn.Identity()
    assert isinstance(module[0], nn.Linear)


def test_what_is_attached_takes_the_type_of_its_graphs_and_holds_their_weights() -> None:
    half = nn.Linear(2, 2).half()
    attached = Attached({"model": TorchCall(half)})
    assert (attached.dtype, dtype_of(attached), dtype_of(half)) == (torch.float16,) * 3
    assert dtype_of(nn.ReLU()) is None
    assert TorchCall(nn.ReLU()).dtype == torch.float32
    weights = [part.tensor for part in TorchCall(half).held_weights()]
    assert {tensor.data_ptr() for tensor in weights} == {parameter.data_ptr() for parameter in half.parameters()}
    assert len(list(attached.held_weights())) == 2
