"""onnx, onnx_fp16, onnx_int8, openvino, openvino_int8: the module's numbers, from files, in another runtime."""

from __future__ import annotations

import os
import weakref
from pathlib import Path

import pytest
import torch
from exported import PARAMETERS, SUFFIX, WEIGHTS, Running, compress, forward, opened, own, text
from torch import nn

from mlflow_compress.compression import exporting, onnx_graphs, openvino_graphs
from mlflow_compress.errors import RecipeError, Unsupported, WeightsError
from mlflow_compress.meters import size
from mlflow_compress.networks import model_folder, stored_weights
from mlflow_compress.networks.export_graphs import graph
from mlflow_compress.planning.chains import parse_chain
from mlflow_compress.records import Variant
from mlflow_compress.sockets import Method

pytest.importorskip("onnxruntime")


pytest.importorskip("nncf")


@pytest.mark.parametrize("chain", ["onnx", "openvino", "openvino:precision=default"])
def test_a_text_of_any_length_and_padding_gives_the_modules_numbers(chain: str) -> None:
    family, model = text()
    batches = []
    for size_, tokens, padded in ((1, 12, 0), (3, 12, 4), (2, 30, 11), (1, 1, 0)):
        ids, mask = torch.randint(0, 300, (size_, tokens)), torch.ones(size_, tokens, dtype=torch.long)
        mask[0, tokens - padded :] = 0
        batches.append({"input_ids": ids, "attention_mask": mask})
    want = [forward(family, model, batch) for batch in batches]
    model = compress(chain, family, model)
    allowed = 0.02 if "default" in chain else 1e-3  # `default` uses bfloat16 if the CPU has it
    for batch, expected in zip(batches, want, strict=True):
        assert stored_weights.distance(forward(family, model, batch), expected) < allowed


@pytest.mark.parametrize("chain", ["onnx_int8", "openvino_int8", "onnx_int8:per_channel=false,reduce_range=false"])
def test_int8_of_convolutions(chain: str, tmp_path: Path) -> None:
    family, model = own(tmp_path)
    batch = family.batch(model, 8, 5)
    want = forward(family, model, batch)
    model = compress(chain, family, model)
    assert stored_weights.distance(forward(family, model, batch), want) < 0.07
    parts = list(stored_weights.held(model.module))
    integers = sum(part.parameters for part in parts if part.tensor.dtype == torch.int8)
    assert integers in (WEIGHTS, WEIGHTS + 24)  # a shift in integers can't be distinguished from a weight
    assert sum(part.parameters for part in parts) - PARAMETERS in (0, 24)
    assert sum(part.tensor.nbytes for part in parts) < 0.3 * 4 * PARAMETERS
    assert model.facts["reached"].endswith("weights")
    assert not model.cautions


@pytest.mark.parametrize("chain", ["onnx_int8", "onnx_int8:mode=dynamic", "openvino_int8"])
def test_int8_of_a_transformer_still_uses_the_mask(chain: str) -> None:
    """Calibration has no padding, so that a quantised mask would not hide padding."""
    family, model = text()
    total = sum(parameter.numel() for parameter in model.module.parameters())
    batch = {"input_ids": torch.randint(0, 300, (4, 12)), "attention_mask": torch.ones(4, 12, dtype=torch.long)}
    batch["attention_mask"][:, 6:] = 0
    padded_otherwise = {**batch, "input_ids": torch.cat([batch["input_ids"][:, :6], torch.randint(0, 300, (4, 6))], 1)}
    want = forward(family, model, batch)
    model = compress(chain, family, model)
    outputs = forward(family, model, batch)
    assert stored_weights.distance(outputs, want) < 0.2
    # the ranges of activations do depend on padding
    assert stored_weights.distance(forward(family, model, padded_otherwise), outputs) < 0.01
    numbers = size.in_memory(model.module)
    assert numbers["size/params"] == total
    assert numbers["size/weights_mib"] < 0.4 * total * 4 / 2**20  # rows of 32 need many scales


@pytest.mark.parametrize("chain", ["onnx", "onnx_fp16", "onnx_int8", "openvino", "openvino_int8"])
def test_saved_and_restored(chain: str, tmp_path: Path) -> None:
    family, model = own(tmp_path)
    batch = family.batch(model, 5, 5)
    plain = sum(parameter.nbytes for parameter in model.module.parameters())
    steps = parse_chain(chain)
    methods: list[Method] = model_folder.methods_of(steps)
    model = methods[0].compress(model, family)
    want = forward(family, model, batch)
    variant = Variant("own", chain, "t", "python", "own.py", "random", chain=steps, folder=str(tmp_path))
    target = tmp_path / "model"
    target.mkdir()
    model_folder.save(model, family, methods, variant, target)
    restored = model_folder.restore(target)
    assert torch.equal(forward(restored.family, restored.model, batch), want)
    graphs = sum(file.stat().st_size for file in target.glob("model.[!px]*"))
    share = {"onnx_fp16": 0.5, "onnx_int8": 0.25, "openvino_int8": 0.25}.get(chain, 1.0)
    assert share * plain < graphs < share * plain + 26_000
    why = "has no CUDAExecutionProvider" if chain.startswith("onnx") else "runs on cpu only"
    with pytest.raises(Unsupported, match=why):
        model_folder.restore(target, "cuda")
    (target / "graphs.json").unlink()
    with pytest.raises(WeightsError, match="no exported graphs"):
        model_folder.restore(target)


@pytest.mark.parametrize("runtime", SUFFIX)
def test_outputs_stay_while_they_are_held(runtime: str, tmp_path: Path) -> None:
    step = Running()
    call = opened(runtime, graph(lambda parts, x: parts.step(x), {"x": torch.ones(2, 8)}, ["y"], step=step), tmp_path)
    totals = [torch.zeros(2, 8)]
    for _ in range(4):
        totals += call(totals[-1])
    for times, total in enumerate(totals):
        assert torch.equal(total, times * step.step.detach().expand(2, 8))
    view = call(totals[-1])[0][1:, 2:4]  # a view of a deleted output
    call(totals[0])
    assert torch.equal(view, torch.tensor([[10.0, 15.0]]))


@pytest.mark.parametrize("runtime", SUFFIX)
def test_inputs_and_outputs_are_not_copied(runtime: str, tmp_path: Path) -> None:
    adder = graph(
        lambda parts, x: parts.step(x), {"x": torch.ones(2, 8)}, ["y"], {"x": {0: "n"}, "y": {0: "n"}}, step=Running()
    )
    call = opened(runtime, adder, tmp_path)
    inputs = torch.ones(2, 8)
    assert exporting.array(inputs).ctypes.data == inputs.data_ptr()
    (output,) = call(inputs)
    assert call(torch.ones(8, 8)[::2])[0].tolist() == call(torch.ones(4, 8))[0].tolist()  # any strides
    assert call(torch.ones(0, 8))[0].shape == (0, 8)
    assert output.tolist() == (1 + torch.arange(8.0)).expand(2, 8).tolist()
    reference = weakref.ref(output)
    del output
    assert reference() is None


@pytest.mark.parametrize("runtime", SUFFIX)
def test_it_takes_torchs_number_of_threads(runtime: str, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    adder = graph(lambda parts, x: parts.step(x), {"x": torch.ones(2, 8)}, ["y"], step=Running())
    try:
        torch.set_num_threads(1)
        call = opened(runtime, adder, tmp_path)
    finally:
        torch.set_num_threads(before)
    if runtime == "onnx":
        options = call._session.get_session_options()
        assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)
    else:
        assert call._compiled.get_property("INFERENCE_NUM_THREADS") == 1
        assert call._compiled.get_property("NUM_STREAMS") == 1


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        ("onnx_int8:samples=0", "greater than or equal to 1"),
        ("onnx_int8:mode=qat", "'auto', 'weights', 'static' or 'dynamic'"),
        ("openvino_int8:preset=best", "'mixed' or 'performance'"),
        ("openvino:precision=f8", "'f32' or 'default'"),
    ],
)
def test_options_out_of_range(chain: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        model_folder.methods_of(parse_chain(chain))


@pytest.mark.parametrize("runtime", SUFFIX)
def test_the_arithmetic_after_the_last_layers_is_found(runtime: str, tmp_path: Path) -> None:
    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1)
            self.mean = nn.Conv2d(8, 1, 1, bias=False)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
            return (self.mean(self.head(torch.sigmoid(self.body(x))).softmax(1)) * 3.5,)

    opened(
        runtime, graph(lambda parts, x: parts.net(x), {"x": torch.ones(2, 3, 8, 8)}, ["y"], net=Detector()), tmp_path
    )
    if runtime == "onnx":
        import onnx

        converted = onnx.load(str(tmp_path / "model.onnx"))
        kinds = {node.name: node.op_type for node in converted.graph.node}
        arithmetic = [kinds[name] for name in onnx_graphs.final_arithmetic(converted)]
        assert onnx_graphs.is_convolutional(converted)
    else:
        import openvino

        converted = openvino.Core().read_model(str(tmp_path / "model.xml"))
        kinds = {node.get_friendly_name(): node.get_type_name() for node in converted.get_ops()}
        arithmetic = [kinds[name] for name in openvino_graphs.final_arithmetic(converted)]
        assert openvino_graphs.is_convolutional(converted)
    assert {"Mul", "Softmax", "Conv"} >= set(arithmetic) - {"Multiply", "SoftMax", "Convolution", "Add"}
    assert sum(kind in ("Conv", "Convolution") for kind in arithmetic) == 1
    assert not any("igmoid" in kind for kind in arithmetic)


def test_restoring_needs_neither_the_code_nor_the_exporter(tmp_path: Path) -> None:
    """Restoring runs in a separate process, without the packages that only exporting needs."""
    family, model = text()
    chain = parse_chain("onnx")
    methods = model_folder.methods_of(chain)
    model = methods[0].compress(model, family)
    variant = Variant("t", "onnx", "t", "text_classification", "tiny", "random", chain=chain, options={"tokens": 12})
    model_folder.save(model, family, methods, variant, tmp_path)
    code = (
        "import sys, torch; before = set(sys.modules); "
        "from pathlib import Path; from mlflow_compress.networks import model_folder; "
        f"model_folder.restore(Path({str(tmp_path)!r})); "
        "loaded = {'onnx', 'onnxscript', 'transformers.models.distilbert.modeling_distilbert'}"
        " & set(sys.modules) - before; print(sorted(loaded))"
    )
    assert os.popen(f'{__import__("sys").executable} -c "{code}"').read().strip() == "[]"
