"""Dynamic int8: one scale per token, the head in float, recurrent layers too, and restoring from codes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from quantised import round_trip
from tiny import TINY, tiny_model
from torch import nn

from mlflow_compress.compression import int8_layers
from mlflow_compress.compression.int8_layers import Int8Linear, Int8Recurrent, quantise_rows
from mlflow_compress.errors import Unsupported
from mlflow_compress.meters import size
from mlflow_compress.methods.int8_dynamic import Int8Dynamic
from mlflow_compress.networks import kernels, stored_weights
from mlflow_compress.registry import build
from mlflow_compress.sockets import Model

RECURRENT = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.read, self.say = nn.{kind}(16, 32, 2, batch_first=True, bidirectional=True), nn.Linear(64, 3)

    def forward(self, inputs):
        return self.say(self.read(inputs)[0][:, -1])

def model():
    return Net()

def batch(size):
    return torch.randn(size, 5, 16)
"""


def test_linear_layers_are_replaced_and_nothing_else() -> None:
    family, model = tiny_model("text_classification")
    batch = family.batch(model, 2, 0)
    with torch.no_grad():
        before = stored_weights.flat(family.forward(model, batch))
        model = Int8Dynamic().compress(model, family)
        after = stored_weights.flat(family.forward(model, batch))
    assert sum(isinstance(layer, Int8Linear) for layer in model.module.modules()) == 2 * 6 + 2
    assert not any(type(layer) is nn.Linear for layer in model.module.modules())
    assert model.module.distilbert.embeddings.word_embeddings.weight.dtype == torch.float32
    assert stored_weights.distance(after, before) < 0.03


def test_an_outlier_token_costs_the_others_nothing() -> None:
    layer = nn.Linear(64, 32).requires_grad_(False)
    inputs = torch.randn(8, 64)
    inputs[0] *= 1000  # one scale for all would leave the others two or three codes
    quantised = Int8Linear.of(layer.weight, layer.bias)
    assert stored_weights.distance(quantised(inputs)[1:], layer(inputs)[1:]) < 0.02


def test_an_output_channel_has_a_scale_of_its_own() -> None:
    weight = torch.randn(4, 64) * torch.tensor([[0.001], [1.0], [1000.0], [1.0]])
    quantised = Int8Linear.of(weight, None)
    assert torch.allclose(quantised.scales, weight.abs().amax(1) / 127)
    assert torch.equal(quantised.weight.abs().amax(1), torch.full((4,), 127, dtype=torch.int8))
    of_tensor = Int8Linear.of(weight, None, per_channel=False)
    assert torch.allclose(of_tensor.scales, (weight.abs().max() / 127).expand(4))
    assert not of_tensor.weight[0].any()


@pytest.mark.parametrize("rows", [0, 1, 5])
@pytest.mark.parametrize("multiply", [int8_layers._product, int8_layers._product_in_float])
def test_sums_are_exact_on_any_cpu(multiply: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], rows: int) -> None:
    codes, weight = (torch.randint(-127, 128, (count, 3000), dtype=torch.int8) for count in (rows, 7))
    extreme = torch.full((1, 3000), 127, dtype=torch.int8)
    with torch.autocast("cpu"):
        product = multiply(torch.cat([codes, -extreme, extreme]), torch.cat([weight, extreme]))
    assert product.dtype == torch.int32
    expected = torch.cat([codes, -extreme, extreme]).long() @ torch.cat([weight, extreme]).long().T
    assert torch.equal(product.long(), expected)


@pytest.mark.parametrize("is_fast", [True, False])
def test_the_row_says_whether_an_integer_kernel_runs(is_fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8_layers, "_has_fast_integers", lambda: is_fast)
    module = nn.Sequential(Int8Linear.of(torch.randn(4, 8), None), nn.ReLU())
    kernel = "torch._int_mm" if is_fast else "no kernel"
    assert kernels.kernels_of(module) == f"{kernel}, 1 of 1 linear layers"
    assert kernels.bits_without_kernel(module) == ([] if is_fast else [8])
    assert not kernels.rounds_inputs(module)


def test_rows_of_zeros_are_zeros() -> None:
    codes, scales = quantise_rows(torch.zeros(2, 3))
    assert not codes.any()
    assert torch.isfinite(scales).all()
    assert Int8Linear.of(torch.randn(2, 3), None)(torch.zeros(0, 3)).shape == (0, 2)


@pytest.mark.parametrize("tied", [True, False])
def test_a_language_models_head_stays_in_float_and_is_held_once(tied: bool, tmp_path: Path) -> None:
    architecture = {**TINY["causal_lm"]["architecture"], "tie_word_embeddings": tied}
    before, after = round_trip(tmp_path, "int8_dynamic", family="causal_lm", prompt_tokens=8, architecture=architecture)
    plain = build("families", "causal_lm", {"architecture": architecture}).load("t", "random", tmp_path, 0)
    for model in (before, after):
        assert type(model.module.lm_head) is nn.Linear
        assert (model.module.lm_head.weight is model.module.model.embed_tokens.weight) is tied
        assert size.in_memory(model.module)["size/params"] == size.in_memory(plain.module)["size/params"]


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_recurrent_layers_are_int8_and_restored(kind: str, tmp_path: Path) -> None:
    before, after = round_trip(tmp_path, "int8_dynamic", RECURRENT.replace("{kind}", kind))
    plain = build("families", "python").load("own.py", "random", tmp_path, 0)
    assert isinstance(after.module.read, Int8Recurrent)
    parameters = size.in_memory(plain.module)
    assert (
        before.facts["reached"]
        == f"reached {parameters['size/params']:,.0f} of {parameters['size/params']:,.0f} weights"
    )
    assert size.in_memory(after.module)["size/params"] == parameters["size/params"]
    assert size.in_memory(after.module)["size/weights_mib"] < 0.35 * parameters["size/weights_mib"]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize(
    "options", [{}, {"bias": False}, {"num_layers": 2, "bidirectional": True, "batch_first": True}]
)
def test_recurrent_layers_take_what_torchs_take(kind: type, options: dict[str, object]) -> None:
    layer = kind(16, 24, **options).requires_grad_(False)
    quantised = Int8Recurrent.of(layer)
    inputs = torch.randn(5, 3, 16)
    is_first = bool(options.get("batch_first"))
    lengths = [1, 3, 2, 2, 3] if is_first else [2, 4, 1]
    sequences = nn.utils.rnn.pack_padded_sequence(inputs, lengths, is_first, enforce_sorted=False)
    for arguments in ((inputs,), (inputs[:, 0],), (sequences,), (inputs, layer(inputs)[1])):
        output, state = quantised(*arguments)
        expected, expected_state = layer(*arguments)
        if isinstance(output, nn.utils.rnn.PackedSequence):
            output, expected = output.data, expected.data
        assert stored_weights.distance(output, expected) < 0.05
        assert stored_weights.distance(stored_weights.flat(state), stored_weights.flat(expected_state)) < 0.05


def test_gpt2s_transposed_linear_layers_are_quantised() -> None:
    from transformers.pytorch_utils import Conv1D

    layer = Conv1D(12, 8).requires_grad_(False)
    inputs = torch.randn(3, 8)
    expected = layer(inputs)
    quantised = Int8Dynamic().compress(Model(nn.Sequential(layer)), build("families", "python")).module
    assert isinstance(quantised[0], Int8Linear)
    assert stored_weights.distance(quantised(inputs), expected) < 0.03


def test_a_rebuilt_model_has_layers_of_the_same_shapes() -> None:
    family, model = tiny_model("text_classification")
    _, empty = tiny_model("text_classification")
    quantised, rebuilt = Int8Dynamic().compress(model, family), Int8Dynamic().rebuild(empty, family)
    shapes = [
        [layer.weight.shape for layer in variant.module.modules() if isinstance(layer, Int8Linear)]
        for variant in (quantised, rebuilt)
    ]
    assert shapes[0] == shapes[1]
    assert len(shapes[0]) == 14


def test_without_linear_layers_it_is_unsupported() -> None:
    family, _ = tiny_model("text_classification")
    with pytest.raises(Unsupported, match="no linear or recurrent layer to quantise"):
        Int8Dynamic().compress(Model(nn.Conv2d(3, 3, 1)), family)
