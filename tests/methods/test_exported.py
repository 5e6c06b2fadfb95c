"""onnx, onnx_fp16, onnx_int8, openvino, openvino_int8: the numbers of the module, from files, in another runtime."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mlflow_compress import registry
from mlflow_compress.compression import exporting, onnx_graphs, openvino_graphs
from mlflow_compress.compression.onnx_graphs import Session
from mlflow_compress.compression.openvino_graphs import Compiled
from mlflow_compress.errors import RecipeError, Unsupported, WeightsError, WorkerError
from mlflow_compress.meters import size
from mlflow_compress.networks import model_folder, stored_weights
from mlflow_compress.networks.export_graphs import graph
from mlflow_compress.planning.recipe import parse_chain
from mlflow_compress.records import Variant
from mlflow_compress.sockets import Family, Graph, Method, Model

pytest.importorskip("onnxruntime")
pytest.importorskip("nncf")

SUFFIX = {"onnx": ".onnx", "openvino": ".xml"}
NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1), nn.SiLU(), nn.Conv2d(32, 64, 3, padding=1), nn.SiLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
        )
        self.register_buffer("shift", torch.linspace(-1, 1, 24).reshape(1, 3, 8, 1))
        self.scale = torch.linspace(1, 2, 10)
    def forward(self, x):
        return self.layers(x + self.shift) * self.scale

def model():
    return Net()

def batch(size):
    return torch.rand(size, 3, 8, 8)

def training():
    return torch.rand(64, 3, 8, 8)
"""
WEIGHTS = 32 * 27 + 64 * 288 + 640
PARAMETERS = WEIGHTS + 32 + 64 + 10
TEXT = {"model_type": "distilbert", "vocab_size": 300, "dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 2}


class Running(nn.Module):
    """Adds a vector of weights to a sum that is fed back."""

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Parameter(torch.arange(8.0))

    def forward(self, total: torch.Tensor) -> tuple[torch.Tensor]:
        return (total + self.step,)


@dataclass
class Summing(Family):
    """A family of two graphs; one is called many times in a timed call, and gets its own output."""

    timed = "two graphs"

    def load(self, source: str, weights: str, folder: Path, seed: int) -> Model:
        return Model({"start": nn.Linear(8, 8), "step": Running()})

    def batch(self, model: Model, size: int, seed: int) -> Any:
        return torch.full((size, 8), float(seed))

    def run(self, model: Model, batch: Any, mark: Callable[[str], None]) -> Any:
        (total,) = model.module["start"](batch)
        for _ in range(5):
            (total,) = model.module["step"](total)
        return total

    def graphs(self, model: Model) -> Mapping[str, Graph]:
        axes = {"x": {0: "batch"}, "y": {0: "batch"}}
        start = graph(
            lambda parts, x: (parts.start(x),), {"x": torch.ones(2, 8)}, ["y"], axes, start=model.module["start"]
        )
        step = graph(lambda parts, x: parts.step(x), {"x": torch.ones(2, 8)}, ["y"], axes, step=model.module["step"])
        return {"start": start, "step": step}

    def attach(self, model: Model, calls: Mapping[str, Callable[..., tuple[Any, ...]]]) -> Model:
        model.module = calls
        return model

    def predict(self, model: Model, inputs: Any) -> list[Any]:
        return []

    def save(self, model: Model, folder: Path) -> None:
        pass

    def restore(self, folder: Path) -> Model:
        return self.load("", "random", folder, 0)


@dataclass
class Unexportable(Summing):
    """A family without graphs."""

    def graphs(self, model: Model) -> Mapping[str, Graph]:
        raise Unsupported("no graphs here")


def opened(runtime: str, each: Graph, folder: Path, buffers: Any = ()) -> Any:
    path = folder / f"model{SUFFIX[runtime]}"
    if runtime == "onnx":
        onnx_graphs.write(each, path)
        return Session(path, buffers)
    openvino_graphs.write(each, path)
    return Compiled(path, buffers, "f32")


def own(folder: Path, code: str = NET) -> tuple[Family, Model]:
    (folder / "own.py").write_text(code)
    family: Family = registry.build("families", "python")
    return family, family.load("own.py", "random", folder, 0)


def text() -> tuple[Family, Model]:
    """A classifier all of whose weights differ: exporters keep equal ones once."""
    family: Family = registry.build("families", "text_classification", {"tokens": 12, "architecture": TEXT})
    model = family.load("tiny", "random", Path(), 0)
    torch.manual_seed(0)
    for parameter in model.module.parameters():
        parameter.data.normal_(0, 0.2)
    return family, model


def compress(chain: str, family: Family, model: Model) -> Model:
    for method in model_folder.methods_of(parse_chain(chain)):
        model = method.compress(model, family)
    return model


def forward(family: Family, model: Model, batch: Any) -> torch.Tensor:
    with torch.inference_mode():
        return torch.as_tensor(stored_weights.flat(family.forward(model, batch)))


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
    allowed = 0.02 if "default" in chain else 1e-3  # where the CPU has bfloat16, `default` takes it
    for batch, each in zip(batches, want, strict=True):
        assert stored_weights.distance(forward(family, model, batch), each) < allowed


@pytest.mark.parametrize("chain", ["onnx", "openvino"])
def test_all_parameters_are_counted_and_nothing_else(chain: str, tmp_path: Path) -> None:
    for (family, model), parameters in (((own(tmp_path)), PARAMETERS), (text(), None)):
        parameters = parameters or sum(each.numel() for each in model.module.parameters())
        numbers = size.in_memory(compress(chain, family, model).module)
        assert numbers["size/params"] == parameters
        assert numbers["size/weights_mib"] == parameters * 4 / 2**20


@pytest.mark.parametrize("chain", ["onnx", "openvino"])
def test_equal_tensors_are_kept_once(chain: str) -> None:
    family: Family = registry.build("families", "text_classification", {"tokens": 12, "architecture": TEXT})
    model = family.load("tiny", "random", Path(), 0)  # whose norms are all ones, and whose biases are all zeros
    distinct = {(each.shape, each.sum().item(), each.std().item()) for each in model.module.parameters()}
    least = sum(
        shape.numel() for shape, _, spread in distinct if spread
    )  # adding 0 and multiplying by 1 may be left out
    total = sum(each.numel() for each in model.module.parameters())
    assert least <= size.in_memory(compress(chain, family, model).module)["size/params"] < total


def test_fp16_halves_the_bytes(tmp_path: Path) -> None:
    family, model = text()
    batch = family.batch(model, 3, 5)
    want = forward(family, model, batch)
    total = sum(each.numel() for each in model.module.parameters())
    model = compress("onnx_fp16", family, model)
    assert stored_weights.distance(forward(family, model, batch), want) < 0.01
    numbers = size.in_memory(model.module)
    assert numbers["size/params"] == total
    assert numbers["size/weights_mib"] == total * 2 / 2**20


@pytest.mark.parametrize("chain", ["onnx_int8", "openvino_int8", "onnx_int8:per_channel=false,reduce_range=false"])
def test_int8_of_convolutions(chain: str, tmp_path: Path) -> None:
    family, model = own(tmp_path)
    batch = family.batch(model, 8, 5)
    want = forward(family, model, batch)
    model = compress(chain, family, model)
    assert stored_weights.distance(forward(family, model, batch), want) < 0.07
    held = list(stored_weights.held(model.module))
    integers = sum(each.parameters for each in held if each.tensor.dtype == torch.int8)
    assert integers in (WEIGHTS, WEIGHTS + 24)  # the shift, once it is in integers, is not told from a weight
    assert sum(each.parameters for each in held) - PARAMETERS in (0, 24)
    assert sum(each.tensor.nbytes for each in held) < 0.3 * 4 * PARAMETERS
    assert model.facts["integers"].endswith("parameters")
    assert not model.cautions


@pytest.mark.parametrize("chain", ["onnx_int8", "onnx_int8:mode=dynamic", "openvino_int8"])
def test_int8_of_a_transformer_still_heeds_the_mask(chain: str) -> None:
    """It is calibrated without padding, so that a quantised mask would let padding through."""
    family, model = text()
    total = sum(each.numel() for each in model.module.parameters())
    batch = {"input_ids": torch.randint(0, 300, (4, 12)), "attention_mask": torch.ones(4, 12, dtype=torch.long)}
    batch["attention_mask"][:, 6:] = 0
    other = {**batch, "input_ids": torch.cat([batch["input_ids"][:, :6], torch.randint(0, 300, (4, 6))], 1)}
    want = forward(family, model, batch)
    model = compress(chain, family, model)
    got = forward(family, model, batch)
    assert stored_weights.distance(got, want) < 0.2
    # Of activations, the ranges do see padding.
    assert stored_weights.distance(forward(family, model, other), got) < 0.01
    numbers = size.in_memory(model.module)
    assert numbers["size/params"] == total
    assert numbers["size/weights_mib"] < 0.4 * total * 4 / 2**20  # scales are many where rows are of 32


def test_dynamic_int8_needs_matrix_products(tmp_path: Path) -> None:
    code = "import torch\nmodel = lambda: torch.nn.Conv2d(3, 8, 3)\nbatch = lambda size: torch.rand(size, 3, 8, 8)\n"
    with pytest.raises(Unsupported, match="no layer that it quantises"):
        compress("onnx_int8:mode=dynamic", *own(tmp_path, code))


@pytest.mark.parametrize("chain", ["onnx", "onnx_fp16", "onnx_int8", "openvino", "openvino_int8"])
def test_saved_and_restored(chain: str, tmp_path: Path) -> None:
    family, model = own(tmp_path)
    batch = family.batch(model, 5, 5)
    plain = sum(each.nbytes for each in model.module.parameters())
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
    with pytest.raises(Unsupported, match="runs on cpu only"):
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
    view = call(totals[-1])[0][1:, 2:4]  # of an output that itself is gone
    call(totals[0])
    assert torch.equal(view, torch.tensor([[10.0, 15.0]]))


def test_the_memory_of_outputs_is_used_again(tmp_path: Path) -> None:
    call = opened(
        "openvino", graph(lambda parts, x: parts.step(x), {"x": torch.ones(2, 8)}, ["y"], step=Running()), tmp_path
    )
    total = torch.zeros(2, 8)
    for _ in range(6):
        (total,) = call(total)
    assert len(call._requests) == 2  # one holds the input, the other the output


@pytest.mark.parametrize("runtime", SUFFIX)
def test_inputs_and_outputs_are_not_copied(runtime: str, tmp_path: Path) -> None:
    each = graph(
        lambda parts, x: parts.step(x), {"x": torch.ones(2, 8)}, ["y"], {"x": {0: "n"}, "y": {0: "n"}}, step=Running()
    )
    call = opened(runtime, each, tmp_path)
    given = torch.ones(2, 8)
    assert exporting.array(given).ctypes.data == given.data_ptr()
    (output,) = call(given)
    assert call(torch.ones(8, 8)[::2])[0].tolist() == call(torch.ones(4, 8))[0].tolist()  # any strides
    assert call(torch.ones(0, 8))[0].shape == (0, 8)
    assert output.tolist() == (1 + torch.arange(8.0)).expand(2, 8).tolist()
    gone = weakref.ref(output)
    del output
    assert gone() is None


@pytest.mark.parametrize("runtime", SUFFIX)
def test_it_takes_torchs_number_of_threads(runtime: str, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    each = graph(lambda parts, x: parts.step(x), {"x": torch.ones(2, 8)}, ["y"], step=Running())
    try:
        torch.set_num_threads(1)
        call = opened(runtime, each, tmp_path)
    finally:
        torch.set_num_threads(before)
    if runtime == "onnx":
        options = call._session.get_session_options()
        assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)
    else:
        assert call._compiled.get_property("INFERENCE_NUM_THREADS") == 1
        assert call._compiled.get_property("NUM_STREAMS") == 1


@pytest.mark.parametrize("chain", ["onnx", "openvino", "onnx_int8:samples=3", "openvino_int8:samples=3"])
def test_any_number_of_graphs(chain: str, tmp_path: Path) -> None:
    family = Summing()
    model = family.load("", "random", tmp_path, 0)
    modules = model.module
    want = modules["start"](torch.full((3, 8), 2.0)) + 5 * torch.arange(8.0)
    model.module = {"start": lambda x: (modules["start"](x),), "step": modules["step"]}
    torch_graphs = Summing.graphs(family, Model(modules))
    family.graphs = lambda model: torch_graphs  # type: ignore[method-assign]
    method: Method = model_folder.methods_of(parse_chain(chain))[0]
    held_before = stored_weights.held

    def held(module: Any) -> Any:
        for call in module.values():
            yield from held_before(call)

    exporting.held, kept = held, exporting.held  # type: ignore[attr-defined]
    try:
        model = method.compress(model, family)
    finally:
        exporting.held = kept  # type: ignore[attr-defined]
    got = family.run(model, torch.full((3, 8), 2.0), lambda stage: None)
    assert stored_weights.distance(got, want.detach()) < (0.05 if "int8" in chain else 1e-5)


def test_each_graph_is_calibrated_on_what_it_gets() -> None:
    family = Summing()
    model = family.load("", "random", Path(), 0)
    start, step = model.module["start"], model.module["step"]
    seen = exporting.record(model, family, {"start": lambda x: (start(x),), "step": step}, 3)
    assert [float(inputs[0][0, 0]) for inputs in seen["start"]] == [1.0, 2.0, 3.0]
    assert len(seen["step"]) == 6  # the first and the last of five, three times
    first, last = (inputs[0] for inputs in seen["step"][:2])
    assert torch.allclose(first, start(torch.ones(1, 8)))
    assert torch.allclose(last - first, 4 * torch.arange(8.0).expand(1, 8))
    assert [caution.code for caution in model.cautions] == ["random_calibration"]


def test_without_graphs_there_is_nothing_to_export(tmp_path: Path) -> None:
    for name in ("onnx_fp16", "onnx_int8", "openvino_int8"):
        with pytest.raises(Unsupported, match="no graphs here"):
            registry.build("methods", name).compress(Unexportable().load("", "random", tmp_path, 0), Unexportable())


def test_what_tracing_would_freeze_is_found_out(tmp_path: Path) -> None:
    code = """
import torch

class Net(torch.nn.Linear):
    def forward(self, x):
        return super().forward(x) * float(x.shape[0])

def model():
    return Net(8, 8)

def batch(size):
    return torch.rand(size, 8)
"""
    with pytest.raises(WorkerError, match="outputs differ by 100"):
        compress("openvino", *own(tmp_path, code))


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        ("onnx_int8:samples=0", "greater than or equal to 1"),
        ("onnx_int8:mode=qat", "'static' or 'dynamic'"),
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
        found = [kinds[name] for name in onnx_graphs.final_arithmetic(converted)]
        assert onnx_graphs.is_convolutional(converted)
    else:
        import openvino

        converted = openvino.Core().read_model(str(tmp_path / "model.xml"))
        kinds = {node.get_friendly_name(): node.get_type_name() for node in converted.get_ops()}
        found = [kinds[name] for name in openvino_graphs.final_arithmetic(converted)]
        assert openvino_graphs.is_convolutional(converted)
    assert {"Mul", "Softmax", "Conv"} >= set(found) - {"Multiply", "SoftMax", "Convolution", "Add"}
    assert sum(kind in ("Conv", "Convolution") for kind in found) == 1
    assert not any("igmoid" in kind for kind in found)


def test_restoring_needs_neither_the_code_nor_the_exporter(tmp_path: Path) -> None:
    """What restores runs in a process of its own, without what only exporting takes."""
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


@pytest.mark.parametrize(("chain", "bytes_each"), [("ncnn", 4), ("ncnn:precision=fp16", 2)])
def test_ncnn_takes_networks_of_one_input_of_one_size(chain: str, bytes_each: int, tmp_path: Path) -> None:
    pytest.importorskip("ncnn")
    family, model = own(tmp_path)
    batch = family.batch(model, 3, 5)
    want = forward(family, model, batch)
    model = compress(chain, family, model)
    assert stored_weights.distance(forward(family, model, batch), want) < 1e-3
    numbers = size.in_memory(model.module)
    assert numbers["size/params"] == PARAMETERS
    assert 0 <= numbers["size/weights_mib"] * 2**20 - PARAMETERS * bytes_each < 2_000  # marks, and what follows weights
    with pytest.raises(Unsupported, match="one input of one size"):
        compress(chain, *text())
