"""NF4 of bitsandbytes: its values, and its saved codes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from quantised import compressed, stack
from torch import nn

from mlflow_compress import registry
from mlflow_compress.meters import size
from mlflow_compress.sockets import Model


@pytest.mark.parametrize("double", [True, False])
def test_nf4_takes_the_nearest_of_its_16_values(double: bool) -> None:
    import bitsandbytes

    torch.manual_seed(0)
    module = stack(nn.Linear(64, 16))
    weight = module[0].weight.detach().clone()
    layer = compressed(module, "bnb_nf4", double=double).module[0]
    values = bitsandbytes.functional.get_4bit_type("nf4", device="cpu")
    largest = weight.abs().amax(1, keepdim=True)
    expected = values[(weight[..., None] / largest[..., None] - values).abs().argmin(-1)] * largest
    unpacked = bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    assert torch.allclose(unpacked, expected, atol=0.01 if double else 1e-5)
    assert size.in_memory(module)["size/params_nonzero"] == int(expected.count_nonzero()) + 16


@pytest.fixture
def packing_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make bitsandbytes treat this CPU as one with AVX512-BF16, with a kernel that computes the same."""
    import bitsandbytes
    from bitsandbytes import functional

    unpacked = getattr(functional, "_convert_weight_packed_for_cpu_inverse", None)
    if unpacked is None:
        pytest.skip("this bitsandbytes has no kernel for AVX512-BF16")
    multiply = bitsandbytes.matmul_4bit

    def kernel(inputs: Any, weight: Any, quant_state: Any, bias: Any = None) -> Any:
        if not getattr(quant_state, "packing_format_for_cpu", False):
            return multiply(inputs, weight, quant_state, bias=bias)
        codes, state = unpacked(weight.data.clone(), copy.deepcopy(quant_state))
        return nn.functional.linear(inputs, functional.dequantize_4bit(codes, state).to(inputs.dtype), bias)

    monkeypatch.setattr(bitsandbytes.nn.modules, "has_avx512bf16", lambda: True)
    monkeypatch.setattr(bitsandbytes, "matmul_4bit", kernel)


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize(
    ("shape", "is_packed"), [((64, 32), True), ((128, 96), True), ((64, 16), False), ((32, 32), False)]
)
def test_nf4_is_saved_as_quantised_where_the_cpu_packs_it(
    shape: tuple[int, int], is_packed: bool, double: bool, packing_cpu: None
) -> None:
    torch.manual_seed(0)
    module = compressed(stack(nn.Linear(*shape)), "bnb_nf4", double=double).module
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    inputs = torch.randn(3, shape[0])
    with torch.inference_mode():
        first = module(inputs)
        assert getattr(module[0].weight.quant_state, "packing_format_for_cpu", False) is is_packed
        numbers = size.in_memory(module)
        assert numbers["size/params"] == shape[0] * shape[1] + shape[1]
        after = module.state_dict()
        assert {name: tensor.tolist() for name, tensor in after.items()} == {
            name: tensor.tolist() for name, tensor in before.items()
        }
        restored = registry.build("methods", "bnb_nf4", {"double": double}).rebuild(
            Model(stack(nn.Linear(*shape))), registry.build("families", "python")
        )
        restored.module.load_state_dict(after, assign=True)
        assert torch.equal(restored.module.eval()(inputs), first)
