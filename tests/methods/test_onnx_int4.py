"""ONNX Runtime's blocks of few bits: `onnx_int4`, and `onnx_int8` of models that generate."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exported import compress, forward, own, text
from tiny import tiny_model

from mlflow_compress.compression import onnx_blocks
from mlflow_compress.compression.onnx_blocks import Blocks
from mlflow_compress.compression.onnx_graphs import Session, change
from mlflow_compress.errors import Unsupported
from mlflow_compress.meters import size
from mlflow_compress.networks import generation_check, stored_weights
from mlflow_compress.networks.stored_weights import held

pytest.importorskip("onnxruntime")
import onnx
from onnx import TensorProto, helper, numpy_helper

pytestmark = pytest.mark.usefixtures("exported_once")

WIDE = {"hidden_size": 96, "intermediate_size": 128, "num_attention_heads": 3, "num_key_value_heads": 3}
ALONE = """
import json, sys, numpy, onnxruntime
folder = sys.argv[1]
given = numpy.load(folder + "/given.npz")
session = onnxruntime.InferenceSession(folder + "/model.onnx", providers=["CPUExecutionProvider"])
made = session.run(["logits"], {each.name: given[each.name] for each in session.get_inputs()})[0]
numpy.save(folder + "/made.npy", made)
print(json.dumps([name for name in sys.modules if name.split(".")[0] in ("mlflow_compress", "torch", "onnx")]))
"""


def tied() -> tuple[Any, Any, Any]:
    """Return a model with a tied table: a lookup by ids, a product with another matrix, and one with the table."""
    generator = np.random.default_rng(0)
    table, matrix = (generator.normal(size=shape).astype(np.float32) for shape in ((40, 64), (64, 64)))
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("MatMul", ["rows", "matrix"], ["hidden"]),
        helper.make_node("Transpose", ["table"], ["head"], perm=[1, 0]),
        helper.make_node("MatMul", ["hidden", "head"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tied",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, [2, "tokens"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [2, "tokens", 40])],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(matrix, "matrix")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), table, matrix


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("embeddings", [True, False])
def test_a_tied_table_is_held_once_where_both_are_quantised(
    bits: int, symmetric: bool, embeddings: bool, tmp_path: Path
) -> None:
    model, table, matrix = tied()
    onnx.save(model, str(tmp_path / "plain.onnx"))
    blocks = Blocks(bits, 32, symmetric, 4)
    count = change(
        tmp_path / "plain.onnx", tmp_path / "few.onnx", lambda graph: onnx_blocks.quantise(graph, blocks, embeddings)
    )
    assert (count.products, count.lengths) == (64 * 64 + 40 * 64, {32: 2})
    assert (count.shared, count.tied) == ((2560, 0) if embeddings else (0, 2560))
    session = Session(tmp_path / "few.onnx", ())
    ids = torch.tensor([[3, 39, 0], [1, 1, 20]])
    want = torch.from_numpy(table[ids.numpy()] @ matrix @ table.T)
    assert stored_weights.distance(session(ids)[0], want) < (0.2 if bits == 4 else 0.02)
    parts = [part for part in held(session) if part.parameters]
    assert sum(part.parameters for part in parts) == 4096 + 2560 * (1 if embeddings else 2)
    codes = sum(part.tensor.nbytes for part in parts if part.tensor.dtype == torch.uint8)
    assert codes == (4096 + 2560) * bits // 8
    assert all(0.8 * part.parameters < part.nonzero() <= part.parameters for part in parts)


def test_zeros_are_counted_as_zeros(tmp_path: Path) -> None:
    model, _, _ = tied()
    matrix = numpy_helper.to_array(model.graph.initializer[1]).copy()
    matrix[:, ::2] = 0
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(matrix, "matrix"))
    onnx_blocks.quantise(model, Blocks(4, 16, True, 4), embeddings=False)
    onnx.save(model, str(tmp_path / "few.onnx"))
    halved = [part for part in held(Session(tmp_path / "few.onnx", ())) if part.parameters == 4096]
    assert len(halved) == 1
    assert 0.4 * 4096 < halved[0].nonzero() <= 0.5 * 4096


@pytest.mark.parametrize("transposed", [0, 1])
def test_a_gemm_is_a_product_too(transposed: int, tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    matrix, bias = generator.normal(size=(64, 32)).astype(np.float32), np.arange(32, dtype=np.float32)
    stored = matrix.T if transposed else matrix
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "b", "c"], ["y"], transB=transposed)],
        "gemm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 32])],
        [numpy_helper.from_array(np.ascontiguousarray(stored), "b"), numpy_helper.from_array(bias, "c")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    assert onnx_blocks.quantise(model, Blocks(8, 64, True, 4), embeddings=False).products == 2048
    onnx.save(model, str(tmp_path / "few.onnx"))
    x = torch.randn(5, 64)
    (y,) = Session(tmp_path / "few.onnx", ())(x)
    assert stored_weights.distance(y, x @ torch.from_numpy(matrix) + torch.from_numpy(bias)) < 0.01


@pytest.mark.parametrize(
    ("chain", "allowed"),
    [
        ("onnx_int4", 0.2),
        ("onnx_int4:block_size=16,symmetric=false", 0.2),
        ("onnx_int4:accuracy_level=1", 0.2),
        ("onnx_int4:embeddings=true,accuracy_level=0", 0.2),
        ("onnx_int8", 0.02),
    ],
)
def test_a_language_model_generates_with_its_past(chain: str, allowed: float) -> None:
    family, model = tiny_model("causal_lm", WIDE)
    batch = family.batch(model, 2, 0)
    want = forward(family, model, batch)
    total = sum(parameter.numel() for parameter in model.module.parameters())
    model = compress(chain, family, model)
    assert stored_weights.distance(forward(family, model, batch), want) < allowed
    for continuation in generation_check.generate(family, model):
        assert generation_check.agrees(continuation, 0.05)
    bits = 4 if "int4" in chain else 8
    assert f"in {bits} bits" in model.facts["weights"]
    assert model.facts["reached"].endswith("weights")
    counted = size.in_memory(model.module)["size/params"]
    # equal norms are stored once; the head has its own weights where the exporter separated it from the embedding
    assert total - 4 * 96 <= counted <= total + 300 * 96


def test_shorter_blocks_are_recorded() -> None:
    family, model = tiny_model("causal_lm", WIDE)
    model = compress("onnx_int4:block_size=128", family, model)
    assert "blocks of 128 (of 32 in 13 of 15 matrices: 128 does not divide their inputs)" in model.facts["weights"]


def test_what_no_block_divides_is_refused(tmp_path: Path) -> None:
    code = "import torch\nmodel = lambda: torch.nn.Linear(20, 64)\nbatch = lambda size: torch.rand(size, 20)\n"
    with pytest.raises(
        Unsupported, match="no block of 16, 32 weights divides the inputs of a layer: their lengths are 20"
    ):
        compress("onnx_int4", *own(tmp_path, code))


def test_a_classifier_still_uses_its_mask() -> None:
    family, model = text()
    batch = {"input_ids": torch.randint(0, 300, (4, 12)), "attention_mask": torch.ones(4, 12, dtype=torch.long)}
    batch["attention_mask"][:, 6:] = 0
    want = forward(family, model, batch)
    model = compress("onnx_int4", family, model)
    assert stored_weights.distance(forward(family, model, batch), want) < 0.3
    assert "MatMulNBits" in _operators(model)


def _operators(model: Any) -> set[str]:
    return {node.op_type for path in Path(model.files.name).glob("*.onnx") for node in onnx.load(str(path)).graph.node}


@pytest.mark.parametrize("family_name", ["asr", "seq2seq"])
@pytest.mark.parametrize("chain", ["onnx_int4", "onnx_int8"])
def test_encoders_and_decoders(family_name: str, chain: str) -> None:
    family, model = tiny_model(family_name)
    batch = family.batch(model, 2, 0)
    want = forward(family, model, batch)
    model = compress(chain, family, model)
    assert stored_weights.distance(forward(family, model, batch), want) < (0.3 if "int4" in chain else 0.03)
    assert "MatMulNBits" in _operators(model)
    for continuation in generation_check.generate(family, model):
        assert generation_check.agrees(continuation, 0.05)


@pytest.mark.parametrize("mode", ["static", "dynamic"])
def test_one_scale_for_all_activations_of_a_decoder_has_a_caution(mode: str) -> None:
    family, model = tiny_model("causal_lm", WIDE)
    model = compress(f"onnx_int8:mode={mode},samples=2", family, model)
    (caution,) = [caution for caution in model.cautions if caution.code == "one_scale_for_all"]
    assert "mode=weights" in caution.advice
    assert "MatMulNBits" not in _operators(model)


def test_a_classifier_keeps_ranges_found_at_each_call() -> None:
    model = compress("onnx_int8", *text())
    assert model.facts["activations"] == "ranges found at each call"
    assert not [caution for caution in model.cautions if caution.code == "one_scale_for_all"]


@pytest.mark.parametrize("chain", ["onnx", "onnx_int8", "onnx_int4"])
def test_bfloat16_is_exported_as_float32(chain: str) -> None:
    family, model = tiny_model("causal_lm", WIDE)
    model.module.bfloat16()
    batch = family.batch(model, 2, 0)
    want = forward(family, model, batch)
    model = compress(chain, family, model)
    assert model.facts["widened"] == "ONNX takes float32: the weights were cast from bfloat16"
    assert stored_weights.distance(forward(family, model, batch), want) < (0.2 if "int4" in chain else 0.03)
    assert model.module.dtype == torch.float32
    assert all(continuation.logits.dtype == torch.float32 for continuation in generation_check.generate(family, model))


@pytest.mark.parametrize("chain", ["onnx", "onnx_int4:embeddings=true", "onnx_int8"])
def test_onnx_runtime_opens_the_file_without_this_package(chain: str, tmp_path: Path) -> None:
    family, model = tiny_model("causal_lm", WIDE)
    model = compress(chain, family, model)
    assert model.files is not None
    inputs: dict[str, Any] = {"input_ids": np.array([[5, 6, 7, 8]]), "kept": np.arange(4)}
    for layer in range(2):
        for kind in ("key", "value"):
            inputs[f"past_{kind}_{layer}"] = np.zeros((1, 3, 0, 32), np.float32)
    np.savez(tmp_path / "given.npz", **inputs)
    (tmp_path / "model.onnx").write_bytes((Path(model.files.name) / "model.onnx").read_bytes())
    ran = subprocess.run([sys.executable, "-c", ALONE, str(tmp_path)], capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout.splitlines()[-1]) == []
    want = forward(family, model, torch.from_numpy(inputs["input_ids"]))
    assert stored_weights.distance(torch.from_numpy(np.load(tmp_path / "made.npy")).flatten(), want) < 1e-5


def test_two_hundred_tokens_take_no_more_and_more_memory() -> None:
    """Each output is the next call's input and is freed with it; outputs still in use do not change."""
    import psutil

    family, model = tiny_model("causal_lm", WIDE)
    model = compress("onnx_int4", family, model)
    ids = torch.full((1, 1), 7)
    process = psutil.Process()

    def continued(tokens: int) -> list[torch.Tensor]:
        past, outputs = model.module.empty_past(1), []
        for token in range(tokens):
            logits, *past = model.module.calls["model"](ids, torch.arange(1), *past)
            outputs.append(logits)
            assert past[0].shape[2] == token + 1
        return outputs

    with torch.inference_mode():
        first = continued(200)
        copies = [tensor.clone() for tensor in first]
        before = process.memory_info().rss
        for _ in range(5):
            continued(200)
        grown = process.memory_info().rss - before
    assert all(torch.equal(output, copy) for output, copy in zip(first, copies, strict=True))
    assert grown < 20 * 2**20
    assert len(list(held(model.module))) > 10
