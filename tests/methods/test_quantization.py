"""Quantisation: which layers are rounded and how well, the size on disk, and restoring."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from quantised import BRANCHED, Vectors, compressed, round_trip, stack
from tiny import TINY
from torch import nn

from mlflow_compress import registry
from mlflow_compress.errors import RecipeError, Unsupported, WeightsError
from mlflow_compress.meters import size
from mlflow_compress.networks import kernels, model_folder, stored_weights
from mlflow_compress.planning import chains
from mlflow_compress.sockets import Family, Model

METHODS = ("int8_weight_only", "int4_weight_only", "int8_static", "gptq", "awq", "bnb_int8", "bnb_nf4")


DIGITS = Path(__file__).parents[2] / "recipes"


MIB = 2**20


WIDE = """
import torch
from tiny import TINY
from torch import nn

def model():
    return nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 256))

def batch(size):
    return torch.randn(size, 256)
"""


ENCODER = """
import torch
from tiny import TINY
from torch import nn

def model():
    layer = nn.TransformerEncoderLayer(32, 2, 64, batch_first=True)
    return nn.Sequential(nn.Linear(32, 32), nn.TransformerEncoder(layer, 2), nn.Linear(32, 32))

def batch(size):
    return torch.randn(size, 5, 32)
"""


LLAMA: dict[str, Any] = {
    **TINY["causal_lm"]["architecture"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
}


def require_same_size(before: Any, after: Any) -> None:
    """Compare sizes; kernels pad small layers and widen zero points, so they may take a little more."""
    restored, saved = size.in_memory(after.module), size.in_memory(before.module)
    if kernels.rounds_inputs(after.module):
        assert restored["size/params"] == saved["size/params"]
        assert restored["size/weights_mib"] < saved["size/weights_mib"] + 64 / 1024
    else:
        assert restored == saved


@pytest.mark.parametrize("name", METHODS)
def test_what_has_no_layer_to_quantise_is_skipped(name: str) -> None:
    with pytest.raises(Unsupported, match="layer"):
        compressed(stack(nn.BatchNorm1d(4), nn.ReLU()), name)


@pytest.mark.parametrize("name", METHODS)
def test_a_single_layer_is_a_model_too(name: str) -> None:
    layer = compressed(nn.Linear(64, 64), name).module
    assert type(layer) is not nn.Linear or type(layer.weight) is not nn.Parameter
    assert size.in_memory(layer)["size/params"] == 64 * 64 + 64


@pytest.mark.parametrize("name", METHODS)
def test_torchs_own_transformer_layers_still_work(name: str, tmp_path: Path) -> None:
    before, after = round_trip(tmp_path, name, ENCODER)
    assert type(after.module[0]) is not nn.Linear or type(after.module[0].weight) is not nn.Parameter
    require_same_size(before, after)


@pytest.mark.parametrize("name", METHODS)
def test_shared_and_unused_layers_are_restored(name: str, tmp_path: Path) -> None:
    before, after = round_trip(tmp_path, name, BRANCHED)
    require_same_size(before, after)
    parameters = 4 * 8 * 3 + 8 + 3 * 16 * 16 + 4 * 16
    assert size.in_memory(after.module)["size/params"] == parameters


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", METHODS)
def test_a_language_models_head_is_not_quantised(name: str, tied: bool, tmp_path: Path) -> None:
    architecture = {**LLAMA, "tie_word_embeddings": tied}
    before, after = round_trip(tmp_path, name, family="causal_lm", prompt_tokens=8, architecture=architecture)
    require_same_size(before, after)
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
    (file,) = (*tmp_path.glob("model/model.safetensors"), *tmp_path.glob("model/weights.*"))
    least = weights * bits // 8 + 4 * (256 + 512)
    assert least < file.stat().st_size < least + weights * 1.1 / 8 + 10_000  # scales, names
    numbers = size.in_memory(after.module)
    assert numbers["size/params"] == weights + 256 + 512
    assert 0.6 < numbers["size/params_nonzero"] / numbers["size/params"] <= 1
    widened = weights * max(0, 4 - bits) // 8  # the kernel's codes have at least 4 bits
    assert least < numbers["size/weights_mib"] * MIB < least + widened + weights * 1.1 / 8 + 10_000


@pytest.mark.parametrize(
    ("name", "file"),
    [(name, "weights.pt" if name in ("int8_weight_only", "int8_static") else "model.safetensors") for name in METHODS],
)
def test_no_file_holds_code(name: str, file: str, tmp_path: Path) -> None:
    round_trip(tmp_path, name, WIDE)
    files = (*tmp_path.glob("model/*.safetensors"), *tmp_path.glob("model/weights*"))
    assert [path.name for path in files] == [file]
    stored_weights.read_state(tmp_path / "model" / file)  # which loads no pickled code


@pytest.mark.parametrize("name", METHODS)
def test_a_damaged_file_is_an_error(name: str, tmp_path: Path) -> None:
    round_trip(tmp_path, name, WIDE)
    (file,) = (*tmp_path.glob("model/model.safetensors"), *tmp_path.glob("model/weights.*"))
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
        chains.parse_chain(option)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", [name for name in METHODS if name != "int8_static"])
def test_half_precision_models_are_quantised_too(name: str, dtype: torch.dtype) -> None:
    module = stack(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8)).to(dtype).requires_grad_(False)
    inputs = torch.randn(4, 64).to(dtype)
    plain = module(inputs).float()
    family = Vectors()
    family.mix = family.mix.to(dtype)
    family.calibration = lambda model, count, seed, size=1: [inputs]  # type: ignore[method-assign]
    quantised = registry.build("methods", name).compress(Model(module), family).module
    with torch.inference_mode():
        output = quantised(inputs)
    assert output.dtype == dtype
    assert stored_weights.distance(output.float(), plain) < 0.2


@pytest.mark.parametrize("name", ["int8_weight_only", "int4_weight_only"])
@pytest.mark.parametrize("tied", [True, False])
def test_embeddings_and_the_head_may_be_rounded_too(name: str, tied: bool, tmp_path: Path) -> None:
    architecture = {**LLAMA, "tie_word_embeddings": tied}
    before, after = round_trip(
        tmp_path, f"{name}:embeddings=true", family="causal_lm", prompt_tokens=8, architecture=architecture
    )
    assert before.facts["layers"].startswith("9 of 9")
    numbers = size.in_memory(after.module)
    require_same_size(before, after)
    plain = registry.build("families", "causal_lm", {"architecture": architecture}).load("t", "random", tmp_path, 0)
    assert numbers["size/params"] == size.in_memory(plain.module)["size/params"]
    assert numbers["size/weights_mib"] < 0.3 * size.in_memory(plain.module)["size/weights_mib"]
    if tied:
        assert after.module.lm_head.packed is after.module.model.embed_tokens.packed


@pytest.mark.parametrize("chain", ["int4_weight_only", "gptq:bits=2,group_size=32", "awq:bits=3", "int8_static"])
def test_accuracy_on_digits_is_kept(chain: str, digits: Callable[[str], float]) -> None:
    assert digits(chain) > digits("original") - 0.03


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], float]]:
    """Return a function that gives the accuracy of the digits network after a chain of methods."""

    def accuracy(chain: str) -> float:
        model = family.load("digits_cnn.py", "auto", DIGITS, 0)
        for method in model_folder.methods_of(chains.parse_chain(chain)):
            model = method.compress(model, family)
        samples = family.samples(model, "own", DIGITS, None, 0)
        predictions = family.predict(model, [sample.inputs for sample in samples])
        is_right = [bool(label == sample.reference) for label, sample in zip(predictions, samples, strict=True)]
        return sum(is_right) / len(is_right)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        family: Family = registry.build("families", "python", {})
        yield accuracy
