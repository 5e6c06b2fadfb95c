"""The checks of a compressed model before it is saved: did it change, does it run, did it grow?"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mlflow_compress.compression.exporting import FEWER_WEIGHTS
from mlflow_compress.errors import Unsupported
from mlflow_compress.measuring import compression_check
from mlflow_compress.measuring.compression_check import State
from mlflow_compress.sockets import Model


def net() -> Model:
    return Model(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)))


def test_a_method_that_changes_nothing_is_refused() -> None:
    model = net()
    before = State.of(model)
    model.facts["layers"] = "none at all"
    with pytest.raises(Unsupported, match=r"^bf16 changed nothing in this model"):
        compression_check.require_change(before, model, "bf16")


@pytest.mark.parametrize("change", ["a weight", "a type", "a layer", "a number", "a hook"])
def test_any_change_by_a_method_is_detected(change: str) -> None:
    model = net()
    before = State.of(model)
    if change == "a weight":
        model.module[0].weight.data[0, 0] += 1e-6
    elif change == "a type":
        model.module.to(torch.bfloat16)
    elif change == "a layer":
        model.module[1] = nn.Tanh()
    elif change == "a number":
        model.module[0].in_features = 7
    else:
        model.module.register_forward_hook(lambda module, inputs, output: output)
    assert compression_check.require_change(before, model, "m") != before


def test_a_model_of_another_runtime_has_changed() -> None:
    model = net()
    before = State.of(model)
    model.module = lambda inputs: inputs
    assert compression_check.require_change(before, model, "onnx").size == 0


@pytest.mark.parametrize("tensor", [torch.zeros(0, 3), torch.tensor(True), torch.randn(3, dtype=torch.complex64)])
def test_odd_tensors_have_a_checksum(tensor: torch.Tensor) -> None:
    model = net()
    model.module.register_buffer("odd", tensor)
    before = State.of(model)
    with pytest.raises(Unsupported):
        compression_check.require_change(before, model, "m")


def test_a_model_that_no_longer_runs_is_skipped_with_the_root_cause_in_one_line() -> None:
    def call() -> None:
        try:
            raise AttributeError("\x1b[31m'Int8Linear' object has no attribute 'weight'\x1b[0m\nand much more")
        except AttributeError as error:
            raise RuntimeError("forward failed") from error

    with pytest.raises(Unsupported) as raised:
        compression_check.tried(call, "int8_dynamic")
    assert str(raised.value) == (
        "the model does not run after int8_dynamic: its code uses an attribute that no longer exists: "
        "'Int8Linear' object has no attribute 'weight'"
    )


@pytest.mark.parametrize(("cause", "is_named"), [("the same dtype, but got Float and Half", True), ("a shape", False)])
def test_what_no_method_can_convert_is_named_if_types_differ(cause: str, is_named: bool) -> None:
    def call() -> None:
        raise RuntimeError(cause)

    module = net().module
    module.shift, module.layers, module.known = torch.ones(3), [nn.Linear(2, 2)], [module[0]]
    with pytest.raises(Unsupported) as raised:
        compression_check.tried(call, "fp16", module)
    hint = ". Not registered with torch, so no method can convert it: shift, layers" if is_named else ""
    assert str(raised.value) == f"the model does not run after fp16: {cause}{hint}"


@pytest.mark.parametrize("error", [MemoryError(), ArithmeticError("NaN"), RuntimeError("std::bad_alloc")])
def test_an_error_unrelated_to_the_pair_stays_a_failure(error: Exception) -> None:
    def call() -> None:
        raise error

    with pytest.raises(type(error)):
        compression_check.tried(call, "m")


@pytest.mark.parametrize(
    ("size", "parameters", "removes", "code", "text"),
    [
        (400, 100, False, "", ""),
        (404, 100, False, "", ""),
        (500, 100, False, "grew", "it has 500 bytes, the original has 400"),
        (200, 150, True, "grew", "it has 150 parameters, the original has 100"),
        (30, 7, False, "not_all_held", "the model has 7 parameters, the original has 100"),
        (30, 7, True, "", ""),
        (0, 0, False, "", ""),
    ],
)
def test_what_a_model_claims_is_checked_against_the_original(
    size: int, parameters: int, removes: bool, code: str, text: str
) -> None:
    cautions = compression_check.cautions(State({}, {}, 400, 100), State({}, {}, size, parameters), removes)
    assert [caution.code for caution in cautions] == ([code] if code else [])
    assert all(text in caution.message for caution in cautions)


def test_weights_that_an_export_says_it_leaves_out_are_reported_once() -> None:
    of_export = [FEWER_WEIGHTS.of(kept="7", given="100")]
    before = State({}, {}, 400, 100)
    assert compression_check.cautions(before, State({}, {}, 30, 7), False, of_export) == []
    grown = compression_check.cautions(before, State({}, {}, 500, 7), False, of_export)
    assert [caution.code for caution in grown] == ["grew"]
