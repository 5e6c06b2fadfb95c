"""The precision in which originals are loaded, and methods on a model in half precision."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TINY, tiny_model

from mlflow_compress import registry
from mlflow_compress.errors import Unsupported
from mlflow_compress.measuring import worker
from mlflow_compress.networks import model_folder, native_precision
from mlflow_compress.networks.transformers_models import companions
from mlflow_compress.planning import chains
from mlflow_compress.records import Variant

OWN = """
import torch

def model():
    return torch.nn.Linear(4, 2).half()

def batch(size):
    return torch.rand(size, 4)
"""


def dtypes(name: str, **options: Any) -> set[torch.dtype]:
    _, model = tiny_model(name, **options)
    return {parameter.dtype for parameter in model.module.parameters()}


def test_random_weights_of_a_language_model_are_in_the_precision_of_their_architecture() -> None:
    assert dtypes("causal_lm") == {torch.float32}
    assert dtypes("causal_lm", architecture={"dtype": "bfloat16"}) == {torch.bfloat16}
    assert dtypes("causal_lm", architecture={"torch_dtype": "float16"}) == {torch.float16}  # the field of older configs
    assert dtypes("causal_lm", architecture={"dtype": "bfloat16"}, dtype="float32") == {torch.float32}


@pytest.mark.parametrize("name", ["asr", "text_classification", "image_classification", "seq2seq"])
def test_other_families_are_in_float32_by_default(name: str) -> None:
    assert dtypes(name, architecture={"dtype": "bfloat16"}) == {torch.float32}
    assert dtypes(name, architecture={"dtype": "bfloat16"}, dtype="native") == {torch.bfloat16}
    assert dtypes(name, dtype="float16") == {torch.float16}


@pytest.mark.parametrize(
    ("dtype", "expected"), [("auto", torch.bfloat16), ("native", torch.bfloat16), ("float32", torch.float32)]
)
def test_a_checkpoint_is_loaded_as_it_is_or_as_wanted(tmp_path: Path, dtype: str, expected: torch.dtype) -> None:
    _, model = tiny_model("causal_lm", architecture={"dtype": "bfloat16"})
    model.module.save_pretrained(tmp_path)
    companions(model).tokenizer.save_pretrained(tmp_path)
    loader = registry.build("families", "causal_lm", {**TINY["causal_lm"], "dtype": dtype})
    loaded = loader.load(str(tmp_path), "auto", tmp_path, 0)
    assert loaded.module.lm_head.weight.dtype == expected
    assert torch.equal(loaded.module.lm_head.weight.bfloat16(), model.module.lm_head.weight)


def test_a_model_of_ones_own_stays_as_it_is_unless_another_precision_is_named(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    for dtype, expected in (("auto", "float16"), ("native", "float16"), ("bfloat16", "bfloat16")):
        family = registry.build("families", "python", {"dtype": dtype})
        model = family.load("own.py", "random", tmp_path, 0)
        native_precision.settle(model, family)
        assert model.facts["dtype"] == expected
        assert str(model.module.weight.dtype) == f"torch.{expected}"


@pytest.mark.parametrize("field", ["dtype", "torch_dtype"])
def test_what_a_config_names_is_a_floating_point_type_or_nothing(field: str) -> None:
    assert native_precision.of_config({field: "bfloat16"}) == torch.bfloat16
    assert native_precision.of_config({field: "torch.float16"}) == torch.float16
    for odd in ("int8", "load", "nn", 7, None, "auto"):
        assert native_precision.of_config({field: odd}) == torch.float32


WIDENED = ("int8_static", "int8_dynamic_torch", "onnx", "openvino")
KEPT = (
    "gptq",
    "awq:samples=2",
    "int4_weight_only",
    "int8_dynamic",
    "wanda",
    "prune_magnitude",
    "low_rank",
    "torchscript",
)


@pytest.mark.parametrize("chain", [*WIDENED, *KEPT])
def test_methods_work_on_an_original_in_half_precision(chain: str, tmp_path: Path) -> None:
    options = {**TINY["causal_lm"], "dtype": "bfloat16"}
    variant = Variant("m", chain, "t", "causal_lm", "tiny", "random", chain=chains.parse_chain(chain), options=options)
    part = worker.prepare(variant, tmp_path, worker.Report(io.StringIO()))
    assert part.facts["dtype"] == "bfloat16"  # the original's
    assert ("widened" in part.facts) == (chain in WIDENED)
    restored = model_folder.restore(tmp_path / worker.MODEL_FOLDER)
    with torch.inference_mode():
        logits = restored.family.forward(restored.model, torch.arange(5, 13)[None])
    assert logits.dtype == (torch.float32 if chain in WIDENED else torch.bfloat16)
    assert logits.isfinite().all()


def test_an_original_in_bfloat16_is_not_cast_to_it(tmp_path: Path) -> None:
    _, model = tiny_model("causal_lm", architecture={"dtype": "bfloat16"})
    family = registry.build("families", "causal_lm", TINY["causal_lm"])
    with pytest.raises(Unsupported, match="already bfloat16"):
        registry.build("methods", "bf16").compress(model, family)
