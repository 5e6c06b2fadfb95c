"""Quantisation: what is rounded and how well, what is left, what the disk holds, and what is restored."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mlflow_compress import registry
from mlflow_compress.compression.calibration import Inputs
from mlflow_compress.compression.packing import Grid, Packed, PackedLinear, nearest
from mlflow_compress.errors import RecipeError, Unsupported, WeightsError
from mlflow_compress.meters import size
from mlflow_compress.methods.awq import best_scale
from mlflow_compress.methods.gptq import rounded
from mlflow_compress.networks import model_folder, stored_weights
from mlflow_compress.planning import recipe
from mlflow_compress.records import Variant
from mlflow_compress.sockets import Family, Model

METHODS = ("int8_weight_only", "int4_weight_only", "int8_static", "gptq", "awq", "bnb_int8", "bnb_nf4")
DIGITS = Path(__file__).parents[2] / "recipes"
MIB = 2**20
WIDE = """
import torch
from torch import nn

def model():
    return nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 256))

def batch(size):
    return torch.randn(size, 256)
"""
ENCODER = """
import torch
from torch import nn

def model():
    layer = nn.TransformerEncoderLayer(32, 2, 64, batch_first=True)
    return nn.Sequential(nn.Linear(32, 32), nn.TransformerEncoder(layer, 2), nn.Linear(32, 32))

def batch(size):
    return torch.randn(size, 5, 32)
"""
BRANCHED = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.used, self.unused = nn.Conv1d(4, 8, 3, padding=1), nn.Linear(16, 16), nn.Linear(16, 16)
        self.shared = nn.Linear(16, 16)
        self.shared_too = nn.Linear(16, 16)
        self.shared_too.weight = self.shared.weight

    def forward(self, inputs):
        return self.shared_too(self.shared(self.used(self.body(inputs))))

def model():
    return Net()

def batch(size):
    return torch.randn(size, 4, 16)
"""
LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "bos_token_id": 1,
    "eos_token_id": 1,
}


def stack(*layers: nn.Module) -> Any:
    return nn.Sequential(*layers)


def compressed(module: Any, name: str, **options: Any) -> Model:
    """Compress a module that is fed random vectors of 64, as its family gives them."""
    model = Model(module.eval().requires_grad_(False))
    made: Model = registry.build("methods", name, options).compress(model, Vectors())
    return made


class Vectors:
    """Stands for a family: its calibration data are correlated vectors."""

    def __init__(self, width: int = 64) -> None:
        self.mix: torch.Tensor = torch.linalg.qr(torch.randn(width, width))[0] * (1 / torch.arange(1, width + 1))

    def calibration(self, model: Model, count: int, seed: int, size: int = 1) -> list[Any]:
        return [torch.randn(size, len(self.mix)) @ self.mix.T for _ in range(count)]

    def forward(self, model: Model, batch: Any) -> Any:
        return model.module(batch)


def round_trip(folder: Path, chain: str, code: str = "", family: str = "python", **options: Any) -> tuple[Any, Any]:
    """Compress, save and restore; gives the model before saving and the one after, checked to do the same."""
    if code:
        (folder / "own.py").write_text(code)
    made = registry.build("families", family, options)
    source = "own.py" if code else "tiny"
    variant = Variant(
        family,
        chain,
        "t",
        family,
        source,
        "random",
        chain=recipe.parse_chain(chain),
        options=options,
        folder=str(folder),
    )
    model = made.load(source, "random", folder, 0)
    methods = model_folder.methods_of(variant.chain)
    for method in methods:
        model = method.compress(model, made)
    (folder / "model").mkdir()
    model_folder.save(model, made, methods, variant, folder / "model")
    restored = model_folder.restore(folder / "model").model
    with torch.inference_mode():
        batch = made.batch(model, 2, 1)
        one, other = (stored_weights.flat(made.forward(each, batch)) for each in (model, restored))
    assert stored_weights.distance(one, other) < 1e-5
    return model, restored


def correlated(rows: int, width: int) -> torch.Tensor:
    """Give vectors of which a few directions hold the most, as activations are."""
    torch.manual_seed(1)
    return torch.randn(rows, width) @ Vectors(width).mix.T


def error(weight: torch.Tensor, other: torch.Tensor, inputs: torch.Tensor) -> float:
    return float(((other - weight) @ inputs.T).norm() / (weight @ inputs.T).norm())


# what is true of all


@pytest.mark.parametrize("name", METHODS)
def test_what_has_no_layer_to_quantise_is_skipped(name: str) -> None:
    with pytest.raises(Unsupported, match="layer"):
        compressed(stack(nn.BatchNorm1d(4), nn.ReLU()), name)


@pytest.mark.parametrize("name", METHODS)
def test_a_single_layer_is_a_model_too(name: str) -> None:
    made = compressed(nn.Linear(64, 64), name).module
    assert type(made) is not nn.Linear or type(made.weight) is not nn.Parameter
    assert size.in_memory(made)["size/params"] == 64 * 64 + 64


@pytest.mark.parametrize("name", METHODS)
def test_torchs_own_transformer_layers_still_work(name: str, tmp_path: Path) -> None:
    before, after = round_trip(tmp_path, name, ENCODER)
    assert type(after.module[0]) is not nn.Linear or type(after.module[0].weight) is not nn.Parameter
    assert size.in_memory(before.module) == size.in_memory(after.module)


@pytest.mark.parametrize("name", METHODS)
def test_shared_and_unused_layers_are_restored(name: str, tmp_path: Path) -> None:
    before, after = round_trip(tmp_path, name, BRANCHED)
    assert size.in_memory(after.module) == size.in_memory(before.module)
    parameters = 4 * 8 * 3 + 8 + 3 * 16 * 16 + 4 * 16
    assert size.in_memory(after.module)["size/params"] == parameters


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", METHODS)
def test_a_language_models_head_is_left_alone(name: str, tied: bool, tmp_path: Path) -> None:
    architecture = {**LLAMA, "tie_word_embeddings": tied}
    before, after = round_trip(tmp_path, name, family="causal_lm", prompt_tokens=8, architecture=architecture)
    assert size.in_memory(after.module) == size.in_memory(before.module)
    for model in (before, after):
        head = model.module.lm_head
        assert type(head) is nn.Linear
        assert (head.weight is model.module.model.embed_tokens.weight) is tied
    assert before.facts["layers"].startswith("7 of ")


@pytest.mark.parametrize(
    ("chain", "bits"),
    [
        ("int8_weight_only", 8),
        ("int4_weight_only", 4),
        ("int4_weight_only:group_size=32", 4),
        ("gptq", 4),
        ("gptq:bits=3,group_size=64", 3),
        ("awq", 4),
        ("awq:bits=2", 2),
        ("int8_static:samples=2", 8),
        ("bnb_int8", 8),
        ("bnb_nf4", 4),
        ("bnb_nf4:double=false,block_size=256", 4),
    ],
)
def test_the_disk_holds_so_many_bits_a_weight(chain: str, bits: int, tmp_path: Path) -> None:
    weights = 2 * 256 * 512
    _, after = round_trip(tmp_path, chain, WIDE)
    (file,) = tmp_path.glob("model/weights.*")
    least = weights * bits // 8 + 4 * (256 + 512)
    assert least < file.stat().st_size < least + weights * 1.1 / 8 + 10_000  # scales, names
    found = size.in_memory(after.module)
    assert found["size/params"] == weights + 256 + 512
    assert 0.6 < found["size/params_nonzero"] / found["size/params"] <= 1
    assert least < found["size/weights_mib"] * MIB < file.stat().st_size


@pytest.mark.parametrize(
    ("name", "file"),
    [
        (name, "weights.pt" if name in ("int8_weight_only", "int8_static") else "weights.safetensors")
        for name in METHODS
    ],
)
def test_no_file_holds_code(name: str, file: str, tmp_path: Path) -> None:
    round_trip(tmp_path, name, WIDE)
    assert [path.name for path in tmp_path.glob("model/weights*")] == [file]
    stored_weights.read_state(tmp_path / "model" / file)  # which believes no pickle


@pytest.mark.parametrize("name", METHODS)
def test_a_damaged_file_is_told(name: str, tmp_path: Path) -> None:
    round_trip(tmp_path, name, WIDE)
    (file,) = tmp_path.glob("model/weights.*")
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(WeightsError, match=file.name):
        model_folder.restore(tmp_path / "model")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("gptq:bits=1", "greater than or equal to 2"),
        ("gptq:bits=9", "less than or equal to 8"),
        ("gptq:damping=0", "greater than 0"),
        ("gptq:group_size=4", "greater than or equal to 8"),
        ("gptq:samples=0", "greater than or equal to 1"),
        ("awq:steps=1", "greater than or equal to 2"),
        ("int4_weight_only:group_size=0", "greater than or equal to 8"),
        ("int8_static:samples=0", "greater than or equal to 1"),
        ("bnb_int8:threshold=-1", "greater than or equal to 0"),
        ("bnb_nf4:block_size=32", "greater than or equal to 64"),
        ("bnb_nf4:block_size=100", "is_power_of_two"),
    ],
)
def test_options_out_of_range_are_refused(option: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe.parse_chain(option)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", [name for name in METHODS if name != "int8_static"])
def test_half_precision_models_are_quantised_too(name: str, dtype: torch.dtype) -> None:
    module = stack(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8)).to(dtype).requires_grad_(False)
    inputs = torch.randn(4, 64).to(dtype)
    plain = module(inputs).float()
    family = Vectors()
    family.mix = family.mix.to(dtype)
    family.calibration = lambda model, count, seed, size=1: [inputs]  # type: ignore[method-assign]
    made = registry.build("methods", name).compress(Model(module), family).module
    with torch.inference_mode():
        output = made(inputs)
    assert output.dtype == dtype
    assert stored_weights.distance(output.float(), plain) < 0.2


# rounding to the nearest


def test_int4_serves_linear_and_convolution_layers() -> None:
    module = stack(nn.Conv1d(16, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 62, 4))
    convolution, linear = (module[index].weight.detach().clone() for index in (0, 3))
    made = compressed(module, "int4_weight_only", group_size=32)
    assert torch.equal(made.module[0].packed().view(8, -1), nearest(convolution.view(8, -1), 4, 32))
    assert torch.equal(made.module[3].packed(), nearest(linear, 4, 32))
    assert made.facts["layers"] == "2 of 2 linear, convolution and embedding layers"


@pytest.mark.parametrize("name", ["int8_weight_only", "int4_weight_only"])
@pytest.mark.parametrize("tied", [True, False])
def test_embeddings_and_the_head_may_be_rounded_too(name: str, tied: bool, tmp_path: Path) -> None:
    architecture = {**LLAMA, "tie_word_embeddings": tied}
    before, after = round_trip(
        tmp_path, f"{name}:embeddings=true", family="causal_lm", prompt_tokens=8, architecture=architecture
    )
    assert before.facts["layers"].startswith("9 of 9")
    found = size.in_memory(after.module)
    assert found == size.in_memory(before.module)
    plain = registry.build("families", "causal_lm", {"architecture": architecture}).load("t", "random", tmp_path, 0)
    assert found["size/params"] == size.in_memory(plain.module)["size/params"]
    assert found["size/weights_mib"] < 0.3 * size.in_memory(plain.module)["size/weights_mib"]
    if tied:
        assert after.module.lm_head.packed.codes.data_ptr() == after.module.model.embed_tokens.packed.codes.data_ptr()


def test_int8_rounds_to_one_of_255_steps_of_each_output_channel() -> None:
    module = stack(nn.Linear(64, 16))
    weight = module[0].weight.detach().clone()
    made = compressed(module, "int8_weight_only").module
    steps = weight.abs().amax(1, keepdim=True) / 127.5
    assert (made[0].weight.dequantize() - weight).abs().max() <= steps.max() / 2 * 1.01
    inputs = torch.randn(3, 64)
    assert stored_weights.distance(made(inputs), inputs @ weight.T + module[0].bias) < 0.01


# GPTQ


def plain_gptq(weight: torch.Tensor, gram: torch.Tensor, bits: int, group_size: int, damping: float) -> torch.Tensor:
    """Algorithm 1 of the paper, one weight's error after the other, in double precision and without blocks."""
    left = weight.double().clone()
    hessian = gram.double() + torch.eye(len(gram)) * damping * gram.diagonal().double().mean()
    inverse = torch.linalg.inv(hessian)
    result = torch.zeros_like(left)
    for column in range(left.shape[1]):
        if column % group_size == 0:
            grid = Grid.over(left[:, column : column + group_size].float(), bits)
        result[:, column] = grid.decode(grid.encode(left[:, column, None].float()))[:, 0]
        wrong = (left[:, column] - result[:, column]) / inverse[0, 0]
        left[:, column + 1 :] -= wrong[:, None] * inverse[0, 1:]
        # take the column out of the problem: Gaussian elimination of the inverse (equation 3)
        inverse = inverse[1:, 1:] - inverse[1:, :1] @ inverse[:1, 1:] / inverse[0, 0]
    return result.float()


@pytest.mark.parametrize(("width", "group_size"), [(24, 8), (20, 8), (24, 1000), (150, 140)])
def test_gptq_is_the_papers_algorithm(width: int, group_size: int) -> None:
    torch.manual_seed(0)
    weight, inputs = torch.randn(6, width), correlated(500, width)
    gram = inputs.T @ inputs / 500
    mine = rounded(weight, gram, 4, group_size, 0.01)()
    plain = plain_gptq(weight, gram, 4, min(group_size, width), 0.01)
    same = torch.isclose(mine, plain, rtol=0, atol=1e-5).float().mean()
    assert same > 0.97  # a tie that falls to the other side moves its neighbours
    assert error(weight, mine, inputs) == pytest.approx(error(weight, plain, inputs), rel=0.1)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_gptq_errs_less_than_the_nearest_on_data_it_has_not_seen(bits: int) -> None:
    torch.manual_seed(0)
    weight, inputs = torch.randn(32, 96), correlated(4000, 96)
    gram = inputs[:2000].T @ inputs[:2000] / 2000
    made = rounded(weight, gram, bits, 32, 0.01)()
    assert error(weight, made, inputs[2000:]) < 0.7 * error(weight, nearest(weight, bits, 32), inputs[2000:])


def test_gptq_rounds_to_the_nearest_where_inputs_have_nothing_to_do_with_each_other() -> None:
    weight = torch.randn(8, 40)
    assert torch.equal(rounded(weight, torch.eye(40), 4, 16, 0.01)(), nearest(weight, 4, 16))
    assert torch.equal(rounded(weight, torch.zeros(40, 40), 4, 16, 0.01)(), nearest(weight, 4, 16))


def test_gptq_does_not_take_few_inputs_for_a_rule() -> None:
    torch.manual_seed(0)
    module = stack(nn.Linear(64, 64))
    weight, fresh = module[0].weight.detach().clone(), torch.randn(1000, 64)
    family = Vectors()
    family.mix = torch.eye(64)  # nothing to be learnt
    made = registry.build("methods", "gptq", {"samples": 16}).compress(Model(module), family).module
    assert error(weight, made[0].packed(), fresh) < 1.3 * error(weight, nearest(weight, 4, 128), fresh)


# AWQ


def with_outliers(rows: int, width: int) -> torch.Tensor:
    inputs = torch.randn(rows, width)
    inputs[:, ::24] *= 30
    return inputs


def test_awq_errs_less_than_the_nearest_where_some_channels_are_strong() -> None:
    torch.manual_seed(0)
    weight, inputs = torch.randn(32, 96), with_outliers(4000, 96)
    scale = best_scale(weight, Inputs.of(inputs[:2000]), 4, 32, 20)
    assert set(scale.argsort()[-4:].tolist()) == {0, 24, 48, 72}
    made = nearest(weight * scale, 4, 32) / scale
    assert error(weight, made, inputs[2000:]) < 0.7 * error(weight, nearest(weight, 4, 32), inputs[2000:])


def test_awq_scales_nothing_where_no_channel_is_stronger() -> None:
    inputs = Inputs(1, torch.eye(16), torch.ones(16))
    assert torch.equal(best_scale(torch.randn(4, 16), inputs, 4, 8, 20), torch.ones(16))


def test_awq_takes_the_scale_that_errs_least() -> None:
    torch.manual_seed(0)
    weight, rows = torch.randn(8, 48), with_outliers(500, 48)
    inputs = Inputs.of(rows)
    found = best_scale(weight, inputs, 3, 16, 5)
    errors = {}
    for step in range(5):
        scale = inputs.magnitude ** (step / 5)
        scale = scale / (scale.max() * scale.min()).sqrt()
        errors[error(weight, nearest(weight * scale, 3, 16) / scale, rows)] = scale
    assert torch.allclose(found, errors[min(errors)])


def test_awq_multiplies_inputs_by_what_weights_are_divided_by() -> None:
    torch.manual_seed(0)
    module, family = stack(nn.Linear(64, 16)), Vectors()
    weight = module[0].weight.detach().clone()
    layer = compressed(module, "awq", samples=64).module[0]
    assert isinstance(layer, PackedLinear)
    assert layer.input_scale is not None
    assert torch.equal(layer.packed(), Packed.of(weight / layer.input_scale, 4, 128)())
    inputs = family.calibration(Model(None), 1, 0, 50)[0]
    assert error(weight, layer.weight, inputs) < 0.2


# static int8


def test_static_int8_layers_are_those_of_torch() -> None:
    from torch.ao.nn import quantized

    module = stack(
        nn.Linear(64, 64), nn.Unflatten(1, (4, 16)), nn.Conv1d(4, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(112, 4)
    )
    made = compressed(module, "int8_static", samples=4)
    kinds = [type(made.module[index].module) for index in (0, 2, 5)]
    assert kinds == [quantized.Linear, quantized.Conv1d, quantized.Linear]
    assert {each.dtype for each in (made.module[0].module.weight(), made.module[2].module.weight())} == {torch.qint8}
    assert made.facts["layers"] == "3 of 3 linear and convolution layers"
    assert made.module[2].stride == (1,)


def test_static_int8_steps_are_those_that_the_data_ask_for() -> None:
    torch.manual_seed(0)
    module = stack(nn.Linear(64, 8))
    weight, bias = module[0].weight.detach().clone(), module[0].bias.detach().clone()
    family = Vectors()
    family.mix = torch.eye(64)
    made = registry.build("methods", "int8_static", {"samples": 50}).compress(Model(module), family).module
    inputs = torch.randn(200, 64).clamp(-2, 2)
    step = float(made[0].quant.scale)
    assert 4 / 127 < step < 10 / 127  # 7 bits, over about 4 to 10 standard deviations
    assert stored_weights.distance(made(inputs), inputs @ weight.T + bias) < 0.05


@pytest.mark.parametrize(
    "layer",
    [nn.Conv2d(4, 8, 3, padding="same"), nn.Conv2d(4, 8, 3, padding=1, padding_mode="circular"), nn.Conv2d(1, 2, 2)],
)
def test_convolutions_without_an_int8_kernel_or_a_gain_are_left(layer: nn.Module) -> None:
    with pytest.raises(Unsupported, match="to quantise"):
        compressed(layer, "int8_static")


def test_layers_that_were_never_called_have_no_scales(tmp_path: Path) -> None:
    before, after = round_trip(tmp_path, "int8_static:samples=2", BRANCHED)
    for model in (before, after):
        assert type(model.module.unused) is nn.Linear
        assert type(model.module.shared) is nn.Linear
        assert type(model.module.used) is not nn.Linear
    assert before.facts["layers"] == "2 of 5 linear and convolution layers"


# bitsandbytes


def test_llm_int8_rounds_each_output_channel_to_127_steps() -> None:
    torch.manual_seed(0)
    module = stack(nn.Linear(64, 16))
    weight, bias = module[0].weight.detach().half().float(), module[0].bias.detach().clone()
    layer = compressed(module, "bnb_int8").module[0]
    largest = weight.abs().amax(1)
    assert torch.allclose(layer.scales, largest)
    assert (layer.weight.float() - weight / largest[:, None] * 127).abs().max() <= 0.51
    inputs = torch.randn(5, 64)
    with torch.inference_mode():
        assert stored_weights.distance(layer(inputs), inputs @ weight.T + bias) < 0.03


def test_llm_int8_keeps_outliers_in_floating_point() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(5, 64)
    inputs[:, 3] = 200
    found = {}
    for threshold in (0.0, 6.0):
        torch.manual_seed(1)
        module = stack(nn.Linear(64, 16))
        with torch.inference_mode():
            plain = module(inputs)
            made = compressed(module, "bnb_int8", threshold=threshold).module
            found[threshold] = stored_weights.distance(made(inputs), plain)
    assert found[6.0] < found[0.0] / 2


@pytest.mark.parametrize("double", [True, False])
def test_nf4_takes_the_nearest_of_its_16_values(double: bool) -> None:
    import bitsandbytes

    torch.manual_seed(0)
    module = stack(nn.Linear(64, 16))
    weight = module[0].weight.detach().clone()
    layer = compressed(module, "bnb_nf4", double=double).module[0]
    values = bitsandbytes.functional.get_4bit_type("nf4", device="cpu")
    largest = weight.abs().amax(1, keepdim=True)
    wanted = values[(weight[..., None] / largest[..., None] - values).abs().argmin(-1)] * largest
    made = bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    assert torch.allclose(made, wanted, atol=0.01 if double else 1e-5)
    found = size.in_memory(module)
    assert found["size/params_nonzero"] == int(wanted.count_nonzero()) + 16


@pytest.fixture
def packing_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have bitsandbytes take this CPU for one with AVX512-BF16, with a kernel that computes what that CPU's does."""
    import bitsandbytes
    from bitsandbytes import functional

    unpacked = getattr(functional, "_convert_weight_packed_for_cpu_inverse", None)
    if unpacked is None:
        pytest.skip("this bitsandbytes knows no CPU with AVX512-BF16")
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


# real accuracy


@pytest.mark.parametrize("chain", ["int4_weight_only", "gptq:bits=2,group_size=32", "awq:bits=3", "int8_static"])
def test_digits_are_still_told_apart(chain: str, digits: Callable[[str], float]) -> None:
    assert digits(chain) > digits("original") - 0.03


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], float]]:
    """Give the share of right answers that a chain of methods leaves the digits' network with."""

    def accuracy(chain: str) -> float:
        model = family.load("digits_cnn.py", "auto", DIGITS, 0)
        for method in model_folder.methods_of(recipe.parse_chain(chain)):
            model = method.compress(model, family)
        samples = family.samples(model, "own", DIGITS, None, 0)
        found = family.predict(model, [each.inputs for each in samples])
        right = [bool(one == each.reference) for one, each in zip(found, samples, strict=True)]
        return sum(right) / len(right)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        family: Family = registry.build("families", "python", {})
        yield accuracy
