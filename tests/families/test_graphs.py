"""Models as graphs: the same numbers as the module, also at other sizes than the example's, and attached again."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny import INPUTS, OWN, SOURCE, TINY

from mlflow_compress import registry
from mlflow_compress.errors import Unsupported
from mlflow_compress.networks import export_graphs, stored_weights, value_trees
from mlflow_compress.networks.transformers_models import companions
from mlflow_compress.sockets import Family, Graph, Model

MISTRAL = {
    "prompt_tokens": 8,
    "new_tokens": 4,
    "architecture": {**TINY["causal_lm"]["architecture"], "model_type": "mistral", "sliding_window": 4, "head_dim": 4},
}
FAMILIES = {**TINY, "mistral": MISTRAL}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    (folder / "own.py").write_text(OWN)
    return folder


def loaded(name: str, folder: Path) -> tuple[Family, Model]:
    plugin = "causal_lm" if name == "mistral" else name
    family: Family = registry.build("families", plugin, FAMILIES[name])
    return family, family.load(SOURCE.get(name, "tiny"), "random", folder, 0)


def attached(family: Family, model: Model) -> Model:
    """Attach the graphs' modules instead of the model's, as a method of another runtime does."""
    model.batch_size = 2
    calls = {name: graph.module for name, graph in family.graphs(model).items()}
    detached = dataclasses.replace(model, module=None)
    return family.attach(detached, calls)


def custom(code: str, folder: Path) -> tuple[Family, Model]:
    (folder / "own.py").write_text("import torch\nfrom torch import nn\n" + code)
    family: Family = registry.build("families", "python")
    return family, family.load("own.py", "random", folder, 0)


def is_close(outputs: Any, expected: Any) -> bool:
    return stored_weights.distance(stored_weights.flat(outputs), stored_weights.flat(expected)) < 1e-5


@pytest.mark.parametrize("name", FAMILIES)
def test_a_graph_declares_its_inputs_and_outputs(name: str, folder: Path) -> None:
    family, model = loaded(name, folder)
    for graph in family.graphs(model).values():
        with torch.no_grad():
            outputs = graph.module(*graph.inputs.values())
            by_name = graph.module(**graph.inputs)
        assert isinstance(outputs, tuple)
        assert len(outputs) == len(graph.outputs)
        assert is_close(outputs, by_name)
        sizes = {"batch": 2, "tokens": graph.inputs.get("input_ids", torch.zeros(0, 0)).shape[1]}
        for tensor, key in zip((*graph.inputs.values(), *outputs), (*graph.inputs, *graph.outputs), strict=True):
            for axis, axis_name in graph.dynamic.get(key, {}).items():
                assert tensor.shape[axis] == sizes.setdefault(axis_name, tensor.shape[axis]), (key, axis_name)
        assert not graph.module.training


@pytest.mark.parametrize("name", FAMILIES)
def test_an_attached_graph_replaces_the_module(name: str, folder: Path) -> None:
    family, model = loaded(name, folder)
    exported = attached(family, model)
    for size in (1, 3):
        batch, stages, exported_stages = family.batch(model, size, 1), list[str](), list[str]()
        with torch.inference_mode():
            assert is_close(family.forward(exported, batch), family.forward(model, batch))
            assert is_close(
                family.run(exported, batch, exported_stages.append), family.run(model, batch, stages.append)
            )
        assert exported_stages == stages
        assert all(tensor.dtype != torch.float64 for tensor in value_trees.tensors(family.batch(exported, size, 1)))
    inputs = INPUTS["causal_lm" if name == "mistral" else name]
    assert value_trees.is_equal(family.predict(exported, inputs), family.predict(model, inputs))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_original_is_left_as_it_was(name: str, folder: Path) -> None:
    family, model = loaded(name, folder)
    batch = family.batch(model, 1, 1)
    with torch.inference_mode():
        before = stored_weights.flat(family.forward(model, batch))
    names = {key: type(part) for key, part in model.module.named_modules()}
    weights = {id(parameter) for parameter in model.module.parameters()}
    exported = family.graphs(model)
    with torch.no_grad():
        for graph in exported.values():
            torch.jit.trace(graph.module, tuple(graph.inputs.values()), check_trace=False)
    assert {key: type(part) for key, part in model.module.named_modules()} == names
    assert {id(weight) for graph in exported.values() for weight in graph.module.parameters()} <= weights, "shared"
    with torch.inference_mode():
        assert torch.equal(stored_weights.flat(family.forward(model, batch)), before)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_trace_takes_every_length(name: str, folder: Path) -> None:
    family, model = loaded(name, folder)
    sizes = [
        {"batch": 1, "tokens": 1, "past": 6, "kept": 1},
        {"batch": 3, "tokens": 4, "past": 0, "kept": 4},
        {"batch": 1, "tokens": 1, "past": 0, "kept": 1},
    ]
    for graph in family.graphs(model).values():
        with torch.no_grad():
            traced = torch.jit.trace(graph.module, tuple(graph.inputs.values()), check_trace=False)
            for size in sizes:
                inputs = resized(graph, size)
                assert is_close(traced(*inputs), graph.module(*inputs)), size


def resized(graph: Graph, sizes: dict[str, int]) -> list[torch.Tensor]:
    """Create other inputs of a graph, with axes of these lengths."""
    generator, inputs = torch.Generator().manual_seed(0), []
    for name, tensor in graph.inputs.items():
        axes = graph.dynamic.get(name, {})
        shape = [sizes.get(axes.get(axis, ""), length) for axis, length in enumerate(tensor.shape)]
        if tensor.is_floating_point():
            inputs.append(torch.rand(shape, generator=generator))
        else:
            inputs.append(
                torch.zeros(shape, dtype=tensor.dtype) if name == "kept" else torch.ones(shape, dtype=tensor.dtype)
            )
    return inputs


def test_recognition_begins_with_the_detected_language(folder: Path) -> None:
    family, model = loaded("asr", folder)
    generation = companions(model).generation
    generation.lang_to_id = {"<|en|>": 40, "<|fr|>": 41, "<|ru|>": 42}
    generation.task_to_id = {"transcribe": 50, "translate": 51}
    generation.is_multilingual, generation.no_timestamps_token_id = True, 60
    generation.suppress_tokens, generation.begin_suppress_tokens = [3, 4, 5], [70]
    exported = attached(family, model)
    features = family._features(model, family.batch(model, 1, 0))  # type: ignore[attr-defined]
    tokens = [
        recogniser.module.generate(**features, max_new_tokens=8, do_sample=False).tolist()
        for recogniser in (model, exported)
    ]
    assert tokens[0] == tokens[1]


def test_a_continuation_ends_as_in_the_config(folder: Path) -> None:
    family, model = loaded("causal_lm", folder)
    exported = attached(family, model)
    ids = torch.tensor([[5, 6, 7]])
    free = model.module.generate(input_ids=ids, max_new_tokens=5, do_sample=False, eos_token_id=None)
    stop = free[0, 4].item()
    tokens = [
        decoder.module.generate(input_ids=ids, max_new_tokens=5, do_sample=False, eos_token_id=stop, pad_token_id=0)
        for decoder in (model, exported)
    ]
    assert tokens[0].tolist() == tokens[1].tolist()
    assert tokens[0][0, -1] == stop


def test_an_exported_decoder_ignores_the_cache_settings_of_the_model(folder: Path) -> None:
    family, model = loaded("causal_lm", folder)
    companions(model).generation.cache_implementation = "static"
    exported = attached(family, model)
    batch = family.batch(model, 2, 0)
    with torch.inference_mode():
        tokens = [family.run(decoder, batch, lambda stage: None).tolist() for decoder in (model, exported)]
    assert tokens[0] == tokens[1]


@pytest.mark.parametrize(
    ("gives", "names"),
    [
        ("(y, 2 * y)", ("output_0", "output_1")),
        ("{'boxes': y, 'scores': y + 1}", ("output_0", "output_1")),
        ("(y,)", ("output",)),
    ],
)
def test_an_exported_custom_module_returns_the_same(gives: str, names: tuple[str, ...], tmp_path: Path) -> None:
    family, model = custom(
        f"""
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)
    def forward(self, image, index):
        y = self.layer(image) + index[:, None]
        return {gives}

def model():
    return Net()

def batch(size):
    return torch.rand(size, 4), torch.arange(size)
""",
        tmp_path,
    )
    graph = family.graphs(model)["model"]
    assert tuple(graph.inputs) == ("image", "index")
    assert graph.outputs == names
    assert graph.dynamic == {name: {0: "batch"} for name in ("image", "index", *names)}
    batch = family.batch(model, 3, 0)
    want = family.run(model, batch, lambda stage: None)
    family.attach(model, {"model": graph.module})
    target = tmp_path / "saved"
    target.mkdir()
    family.save(model, target)
    restored = family.attach(family.restore_assets(target), {"model": graph.module})
    outputs = family.run(restored, batch, lambda stage: None)
    assert type(outputs) is type(want)
    assert is_close(outputs, want)
    if isinstance(outputs, dict):
        assert list(outputs) == list(want)


def test_a_module_for_one_batch_size_has_no_dynamic_axis(tmp_path: Path) -> None:
    family, model = custom(
        """
class Net(nn.Module):
    def forward(self, x):
        return x.reshape(4, 6)

def model():
    return Net()

def batch(size):
    return torch.rand(size, 6)
""",
        tmp_path,
    )
    model.batch_size = 4
    graph = family.graphs(model)["model"]
    assert graph.dynamic == {}
    assert graph.inputs["x"].shape == (4, 6)


def test_arguments_without_names_get_some(tmp_path: Path) -> None:
    family, model = custom(
        """
class Net(nn.Module):
    def forward(self, *tensors):
        return sum(tensors)

def model():
    return Net()

def batch(size):
    return torch.rand(size, 6), torch.rand(1, 6)
""",
        tmp_path,
    )
    graph = family.graphs(model)["model"]
    assert tuple(graph.inputs) == ("input_0", "input_1")
    assert graph.dynamic == {"input_0": {0: "batch"}, "output": {0: "batch"}}


def test_modules_without_tensor_outputs_are_not_exported(tmp_path: Path) -> None:
    family, model = custom(
        """
class Net(nn.Module):
    def forward(self, x):
        return [None, 3]

def model():
    return Net()

def batch(size):
    return torch.rand(size, 6)
""",
        tmp_path,
    )
    with pytest.raises(Unsupported, match="returns no tensor but a list"):
        family.graphs(model)


@pytest.mark.parametrize("name", ["asr", "causal_lm"])
def test_caches_have_the_heads_that_pruning_left(name: str, folder: Path) -> None:
    family, model = loaded(name, folder)
    model = registry.build("methods", "prune_structured").compress(model, family)
    exported = attached(family, model)
    with torch.inference_mode():
        batch = family.batch(model, 2, 1)
        assert is_close(family.forward(exported, batch), family.forward(model, batch))
        assert is_close(family.run(exported, batch, lambda stage: None), family.run(model, batch, lambda stage: None))


def test_another_decoders_layers_are_not_guessed(folder: Path) -> None:
    family, model = loaded("asr", folder)
    for layer in model.module.get_decoder().layers:
        layer.encoder_attn = torch.nn.Identity()
    with pytest.raises(Unsupported, match="only decoders built like Whisper's"):
        family.graphs(model)


def test_weights_are_those_of_all_calls_and_inputs_of_their_type() -> None:
    def call(dtype: torch.dtype) -> Any:
        tensor = torch.ones(2, dtype=dtype)
        return SimpleNamespace(held_weights=lambda: [(tensor, True)], dtype=dtype)

    attached = export_graphs.Attached({"a": call(torch.bfloat16), "b": call(torch.bfloat16)})
    assert len(list(stored_weights.held(attached))) == 2
    assert export_graphs.dtype_of(attached) == torch.bfloat16
    assert export_graphs.dtype_of(export_graphs.Attached({"a": lambda: ()})) == torch.float32
    assert export_graphs.dtype_of(torch.nn.ReLU()) is None
