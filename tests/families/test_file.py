"""Ready files of each runtime: their numbers, their scores, and what a file of another version gets."""

from __future__ import annotations

import io
import json
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from runtime_models import (
    BIAS,
    WEIGHT,
    expected,
    litert_file,
    onnx_file,
    openvino_file,
    program_file,
    torchscript_file,
)

from mlflow_compress import registry
from mlflow_compress.compression import runtime_files
from mlflow_compress.errors import MachineLacks, RecipeError, UnknownName, Unsupported, WeightsError, WorkerError
from mlflow_compress.measuring import quality, worker
from mlflow_compress.meters import size
from mlflow_compress.networks import model_folder
from mlflow_compress.planning import chains, recipe
from mlflow_compress.planning.recognise import Recognised, recognise
from mlflow_compress.records import Variant
from mlflow_compress.sockets import Family, Model

WRITERS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "model.onnx": ("onnxruntime", onnx_file),
    "model.tflite": ("ai_edge_litert", litert_file),
    "model.xml": ("openvino", openvino_file),
    "model.pt2": ("torch", program_file),
    "model.ts": ("torch", torchscript_file),
}
DESCRIBED = {"model.ts": {"inputs": "float32 batch 4"}}  # TorchScript states no shapes
INPUTS = np.array([[1, 2, 3, 4], [0, 0, 5, 0], [0, 7, 0, 0.5], [0.25, 0, 0, 0]], dtype=np.float32)


def opened(path: Path, **options: Any) -> tuple[Family, Model]:
    family: Family = registry.build("families", "file", options)
    return family, family.load(path.name, "auto", path.parent, 0)


def written(name: str, folder: Path) -> Path:
    needed, write = WRITERS[name]
    pytest.importorskip(needed)
    return write(folder / name)


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_gives_its_own_numbers_before_and_after_it_is_saved(name: str, tmp_path: Path) -> None:
    family, model = opened(written(name, tmp_path), **DESCRIBED.get(name, {}))
    outputs = np.stack(family.predict(model, list(INPUTS)))
    assert np.allclose(outputs, expected(INPUTS), atol=1e-5)
    variant = Variant("m", "original", "t", "file", name, "auto", options=DESCRIBED.get(name, {}), folder=str(tmp_path))
    worker.prepare(variant, tmp_path, worker.Report(io.StringIO()))
    restored = model_folder.restore(tmp_path / worker.MODEL_FOLDER)
    assert np.array_equal(np.stack(restored.family.predict(restored.model, list(INPUTS))), outputs)
    numbers = size.in_memory(restored.model.module)
    assert numbers["size/params"] == WEIGHT.size + BIAS.size
    assert numbers["size/weights_mib"] == 4 * (WEIGHT.size + BIAS.size) / 2**20
    with torch.inference_mode():
        [scores] = family.run(model, family.batch(model, 1, 0), lambda stage: None)
    assert scores.shape == (1, 3)
    with pytest.raises(Unsupported, match="CPU only here") if name[6:] not in ("pt2", "ts") else _nothing():
        restored.model.module.to("cpu" if name[6:] in ("pt2", "ts") else "cuda")


class _nothing:  # noqa: N801  (a context manager that expects no error)
    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        pass


@pytest.mark.parametrize("name", WRITERS)
def test_accuracy_of_arrays_is_that_of_the_known_scores(name: str, tmp_path: Path) -> None:
    path = written(name, tmp_path)
    labels = expected(INPUTS).argmax(1)
    labels[0] = 2  # one of four is wrong
    np.savez(tmp_path / "data.npz", x_test=INPUTS, y_test=labels)
    family, model = opened(path, **DESCRIBED.get(name, {}))
    samples = family.samples(model, "data.npz", tmp_path, None, 0)
    answers = family.answers(model, [sample.inputs for sample in samples])
    metric = registry.build("metrics", "accuracy")
    assert metric.compute([sample.reference for sample in samples], answers) == 0.75
    assert answers[1] == ["2", "0", "1"]
    assert model.facts["data_name"] == "data"


def test_a_run_scores_a_file_and_refuses_methods(tmp_path: Path) -> None:
    written("model.onnx", tmp_path)
    np.savez(tmp_path / "data.npz", input=INPUTS, label=expected(INPUTS).argmax(1))
    variant = Variant(
        "m", "original", "t", "file", "model.onnx", "auto", data="data.npz", metrics=("accuracy",),
        chain=chains.parse_chain("original"), folder=str(tmp_path),
    )  # fmt: skip
    part = worker.prepare(variant, tmp_path, worker.Report(io.StringIO()))
    assert part.facts["packed"] == "ONNX float32"
    restored = model_folder.restore(tmp_path / worker.MODEL_FOLDER)
    scored = quality.score(restored.family, restored.model, variant, tmp_path, lambda *numbers: None)
    assert scored.measurements["quality/accuracy"] == 1
    changed = Variant(
        "m", "fp16", "t", "file", "model.onnx", "auto", chain=chains.parse_chain("fp16"), folder=str(tmp_path)
    )
    with pytest.raises(Unsupported, match="compress the model that it was exported from"):
        worker.prepare(changed, tmp_path, worker.Report(io.StringIO()))


def test_a_quantised_file_takes_floats_and_gives_floats(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    family, model = opened(litert_file(tmp_path / "small.tflite", is_quantised=True))
    assert model.facts["packed"] == "LiteRT int8"
    outputs = np.stack(family.predict(model, list(INPUTS)))
    assert np.allclose(outputs, expected(INPUTS), atol=0.07)  # half a step of the output
    [batch] = family.batch(model, 2, 0)
    assert (batch.dtype, batch.shape) == (torch.int8, (2, 4))
    assert size.in_memory(model.module)["size/weights_mib"] == (WEIGHT.size + 4 * BIAS.size) / 2**20


def test_a_file_takes_the_number_of_samples_that_it_was_exported_for(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    family, model = opened(onnx_file(tmp_path / "two.onnx", batch=2))
    with pytest.raises(RecipeError, match="takes 2 samples in a call, not 1: use --batch-size 2"):
        family.batch(model, 1, 0)
    assert np.allclose(np.stack(family.predict(model, list(INPUTS[:3]))), expected(INPUTS[:3]))


def test_open_lengths_are_asked_for(tmp_path: Path) -> None:
    path = torchscript_file(tmp_path / "net.pt")
    with pytest.raises(RecipeError, match=r'inputs="input: float32 batch ...'):
        opened(path)
    with pytest.raises(RecipeError, match=r"'float32 4x3' is not NAME: TYPE LENGTHS .*\(input\)"):
        opened(path, inputs="float32 4x3")
    family, model = opened(path, inputs="input: float32 batch 4")
    assert family.batch(model, 3, 0)[0].shape == (3, 4)
    pytest.importorskip("onnxruntime")
    with pytest.raises(RecipeError, match="the file's input x is x: float32 batch 4"):
        opened(onnx_file(tmp_path / "m.onnx"), inputs="float32 batch 5")


def test_a_file_of_a_newer_runtime_names_what_to_do(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(WeightsError, match=r"IR version.*pip install -U onnxruntime, or export the model again"):
        opened(onnx_file(tmp_path / "new.onnx", ir_version=99))
    path = written("model.xml", tmp_path)
    path.write_text(path.read_text().replace('version="opset1"', 'version="opset99"'))
    with pytest.raises(WeightsError, match=r"openvino .* can't load .*pip install -U openvino"):
        opened(path)
    (tmp_path / "model.bin").unlink()
    with pytest.raises(WeightsError, match=r"There is no model.bin beside"):
        opened(path)
    for name in ("model.pt2", "bad.tflite", "bad.ts", "bad.onnx"):
        (tmp_path / name).write_bytes(b"version https://git-lfs.github.com/spec/v1")
        with pytest.raises(WeightsError, match="git lfs pull"):
            opened(tmp_path / name)
        (tmp_path / name).write_bytes(b"damaged")
        with pytest.raises((WeightsError, MachineLacks)):
            opened(tmp_path / name)


def test_an_operator_that_litert_lacks_is_named(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    with pytest.raises(Unsupported, match=r"LiteRT [\d.]+ does not run the operator Erfinv of model.tflite"):
        opened(litert_file(tmp_path / "model.tflite", operator="Custom:Erfinv"))


def test_without_its_runtime_a_file_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_files, "installed", lambda distribution: None)
    (tmp_path / "m.tflite").write_bytes(struct.pack("<I", 28) + b"TFL3")
    with pytest.raises(MachineLacks, match=r'ai-edge-litert, which is not installed: pip install "mlflow-compress'):
        opened(tmp_path / "m.tflite")


class FakeTensorrt(SimpleNamespace):
    """TensorRT with one engine that doubles its input, on the CPU."""

    def __init__(self, is_readable: bool) -> None:
        engine = SimpleNamespace(
            num_io_tensors=2,
            get_tensor_name=["x", "y"].__getitem__,
            get_tensor_mode={"x": "in", "y": "out"}.get,
            get_tensor_shape=lambda name: (-1, 4),
            get_tensor_dtype=lambda name: np.float32,
            create_execution_context=lambda: None,
        )
        runtime = SimpleNamespace(deserialize_cuda_engine=lambda content: engine if is_readable else None)
        super().__init__(
            Runtime=lambda logger: runtime,
            Logger=type("Logger", (), {"ERROR": 1, "__init__": lambda self, level=0: None}),
            TensorIOMode=SimpleNamespace(INPUT="in"),
            nptype=lambda dtype: dtype,
        )


def test_an_engine_needs_a_gpu_and_its_own_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.engine"
    path.write_bytes(b"engine")
    monkeypatch.setattr(runtime_files, "installed", lambda distribution: "10.1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MachineLacks, match="runs on an NVIDIA GPU only"):
        opened(path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "tensorrt", FakeTensorrt(is_readable=False))
    with pytest.raises(
        WeightsError, match=r"the version of TensorRT and the GPU that it was built for. Build it again"
    ):
        opened(path)
    monkeypatch.setitem(sys.modules, "tensorrt", FakeTensorrt(is_readable=True))
    family, model = opened(path)
    assert family.batch(model, 3, 0)[0].shape == (3, 4)
    assert size.in_memory(model.module) == {}  # an engine's weights can't be read
    with pytest.raises(Unsupported, match="runs on an NVIDIA GPU only"):
        model.module.to("cpu")


def test_code_in_a_file_needs_trust(tmp_path: Path) -> None:
    (tmp_path / "model.engine").write_bytes(b"engine")
    family: Family = registry.build("families", "file")
    assert "compiled code for a GPU" in family.code("model.engine", "auto", tmp_path)
    torchscript_file(tmp_path / "plain.ts")
    assert family.code("plain.ts", "auto", tmp_path) == ""
    torch.jit.save(torch.jit.script(_Printing()), str(tmp_path / "loud.ts"))
    assert "print" in family.code("loud.ts", "auto", tmp_path)
    plan = recipe.read(str(tmp_path / "loud.ts"))
    with pytest.raises(RecipeError, match="holds TorchScript code with print"):
        recipe.plan(plan, plan.variants, recipe.Settings())


class _Printing(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        print("seen")  # noqa: T201
        return x


@pytest.mark.parametrize("name", ["a.onnx", "a.tflite", "a.xml", "a.pt2", "a.ts", "a.torchscript", "a.engine"])
def test_a_file_is_recognised_by_its_suffix(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    assert recognise(str(path)) is None
    path.write_bytes(b"")
    assert recognise(str(path)) == Recognised("a", "file", str(path))


def test_torchscript_in_a_pt_file_is_not_a_checkpoint(tmp_path: Path) -> None:
    path = torchscript_file(tmp_path / "net.pt")
    assert recognise(str(path)) == Recognised("net", "file", str(path))
    with pytest.raises(RecipeError, match="the family causal_lm measures it"):
        registry.build("families", "file").load("m.gguf", "auto", tmp_path, 0)


def test_the_data_names_its_arrays(tmp_path: Path) -> None:
    path = written("model.ts", tmp_path)
    family, model = opened(path, inputs="float32 batch 4", labels=["a", "b", "c"])
    one_hot = np.eye(3)[expected(INPUTS).argmax(1)]
    np.savez(tmp_path / "data.npz", features=INPUTS, answer=one_hot)
    with pytest.raises(RecipeError, match=r"no array for input; it has features, answer. Name it: input=ARRAY"):
        family.samples(model, "data.npz", tmp_path, None, 0)
    with pytest.raises(UnknownName, match="pixels"):
        family.samples(model, "data.npz:pixels=features", tmp_path, None, 0)
    samples = family.samples(model, "data.npz:input=features,label=answer", tmp_path, 2, 0)
    assert len(samples) == 2
    assert {sample.reference for sample in samples} <= {"a", "b", "c"}
    np.savez(tmp_path / "short.npz", x=INPUTS, y=[1, 2])
    with pytest.raises(RecipeError, match="one entry for each sample, but have: x 4, y 2"):
        family.samples(model, "short.npz", tmp_path, None, 0)
    np.savez(tmp_path / "pickled.npz", x=INPUTS, y=np.array([{}, {}, {}, {}], dtype=object))
    with pytest.raises(RecipeError, match="can't be read as arrays"):
        family.samples(model, "pickled.npz", tmp_path, None, 0)
    with pytest.raises(RecipeError, match=r"gone.npz can't be read as arrays"):
        family.samples(model, "gone.npz", tmp_path, None, 0)
    np.savez(tmp_path / "other.npz", x=INPUTS, y=[1, 2, 3, 4])
    with pytest.raises(RecipeError, match=r"other.npz, sample 2: the label '3' is not one of the model's"):
        family.samples(model, "other.npz", tmp_path, None, 0)


class _Brightness(torch.nn.Module):
    """Scores pictures [batch, 3, 2, 2]: the mean of red, green and blue."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


def test_pictures_are_scaled_to_the_input(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(_Brightness(), torch.zeros(1, 3, 2, 2)), str(tmp_path / "net.ts"))
    colours = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 204)}
    for name, colour in colours.items():
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("RGB", (8, 6), colour).save(tmp_path / "data" / name / "1.png")
    options = {"inputs": "float32 batch 3 2 2", "labels": list(colours)}
    family, model = opened(tmp_path / "net.ts", **options)
    samples = family.samples(model, "data", tmp_path, None, 0)
    answers = family.answers(model, [sample.inputs for sample in samples])
    assert [answer[0] for answer in answers] == [sample.reference for sample in samples]
    [scores] = family.predict(model, [tmp_path / "data" / "blue" / "1.png"])
    assert np.allclose(scores, [0, 0, 0.8], atol=1e-6)
    family, model = opened(tmp_path / "net.ts", **options, mean=[0.5, 0.5, 0.5], std=[0.25, 0.5, 0.5], resize=4)
    [scores] = family.predict(model, [tmp_path / "data" / "blue" / "1.png"])
    assert np.allclose(scores, [-2, -1, 0.6], atol=1e-6)
    family, model = opened(tmp_path / "net.ts", **options, mean=[0.5, 0.5])
    with pytest.raises(RecipeError, match=r"options.mean has 2 numbers; the input has 3 channels"):
        family.predict(model, [tmp_path / "data" / "blue" / "1.png"])
    family, model = opened(tmp_path / "net.ts", **options | {"labels": ["a"]})
    with pytest.raises(RecipeError, match="names 1 classes; the file has 3"):
        family.samples(model, "data", tmp_path, None, 0)


def test_a_class_map_gives_folders_the_classes_of_a_file(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(_Brightness(), torch.zeros(1, 3, 2, 2)), str(tmp_path / "net.ts"))
    for folder, colour in (("n00000003", (255, 0, 0)), ("n00000001", (0, 0, 204))):
        (tmp_path / "data" / folder).mkdir(parents=True)
        Image.new("RGB", (8, 6), colour).save(tmp_path / "data" / folder / "1.png")
    (tmp_path / "classes.json").write_text('{"n00000003": 0, "n00000002": 1, "n00000001": 2}')
    family, model = opened(tmp_path / "net.ts", inputs="float32 batch 3 2 2")
    samples = family.samples(model, "data:class_map=classes.json", tmp_path, None, 0)
    answers = family.answers(model, [sample.inputs for sample in samples])
    assert sorted(sample.reference for sample in samples) == ["0", "2"]
    assert [answer[0] for answer in answers] == [sample.reference for sample in samples]
    with pytest.raises(RecipeError, match="is a synset of WordNet"):
        family.samples(model, "data", tmp_path, None, 0)


def test_an_export_copies_the_file_alone(tmp_path: Path) -> None:
    written("model.onnx", tmp_path)
    chain = chains.parse_chain("original")
    variant = Variant("m", "original", "t", "file", "model.onnx", "auto", chain=chain, folder=str(tmp_path))
    worker.prepare(variant, tmp_path, worker.Report(io.StringIO()))
    saved = tmp_path / worker.MODEL_FOLDER
    target = tmp_path / "exported"
    target.mkdir()
    _, published = model_folder.publish(saved, target)
    assert [path.name for path in target.iterdir()] == ["model.onnx"]
    assert published.code == 'import onnxruntime; onnxruntime.InferenceSession("FOLDER/model.onnx")'
    assert model_folder.native_flavor(saved).name == "onnx"
    assert json.loads((saved / "manifest.json").read_text())["family"] == "file"


def test_an_archive_that_ends_early_is_not_trusted_but_reported(tmp_path: Path) -> None:
    for name, write in (("model.pt2", program_file), ("model.ts", torchscript_file)):
        path = write(tmp_path / name)
        path.write_bytes(path.read_bytes()[:900])
        family: Family = registry.build("families", "file", {})
        with pytest.raises(WeightsError, match=r"is damaged, or torch did not write it: File is not a zip file"):
            family.code(name, "auto", tmp_path)


def test_inputs_that_do_not_fit_are_reported_before_measuring(tmp_path: Path) -> None:
    path = torchscript_file(tmp_path / "net.ts")
    with pytest.raises(RecipeError, match=r"net\.ts can't run with such inputs: mat1 and mat2 shapes cannot"):
        opened(path, inputs="float32 batch 5")
    for lengths in ("batch batch", "0 4", "batch 0"):
        with pytest.raises(RecipeError, match="is not NAME: TYPE LENGTHS"):
            opened(path, inputs=f"float32 {lengths}")


def onnx_identity(path: Path, kind: int, output: Any = None) -> Path:
    import onnx
    from onnx import helper

    operator = "Identity" if output is None else "SequenceConstruct"
    given = helper.make_tensor_value_info("x", kind, ["batch", 4])
    output = helper.make_tensor_value_info("y", kind, ["batch", 4]) if output is None else output
    graph = helper.make_graph([helper.make_node(operator, ["x"], ["y"])], "g", [given], [output])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), str(path))
    return path


def test_onnx_values_that_are_not_numbers_are_named(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper

    with pytest.raises(Unsupported, match=r"its input x is a tensor\(string\), not a tensor of numbers"):
        opened(onnx_identity(tmp_path / "a.onnx", TensorProto.STRING))
    sequence = helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)
    with pytest.raises(Unsupported, match=r"its output y is a seq\(tensor\(float\)\), not a tensor of numbers"):
        opened(onnx_identity(tmp_path / "a.onnx", TensorProto.FLOAT, sequence))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output": 5}, "has no output 5: its outputs are 0 to 0"),
        ({"output": -1}, "has no output -1"),
        ({"output": "7"}, "has no output 7"),
        ({"labels": ["a", "a", "b"]}, "names 'a' twice"),
    ],
)
def test_options_that_do_not_fit_the_outputs_are_reported(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    np.savez(tmp_path / "data.npz", x=INPUTS, y=[0, 0, 0, 0])
    family, model = opened(written("model.onnx", tmp_path), **options)
    with pytest.raises(RecipeError, match=message):
        family.samples(model, "data.npz", tmp_path, None, 0)


@pytest.mark.parametrize("options", [{"scale": float("nan")}, {"mean": [float("inf")]}, {"std": [0]}, {"resize": 0}])
def test_numbers_that_no_picture_can_be_scaled_by_are_rejected(options: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=r"file: option .* is invalid"):
        registry.build("families", "file", options)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"PK\3\4zzz", "not a zip file"), (b"", "No data left"), (b"none", "pickled")],
)
def test_a_file_without_arrays_is_reported(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "data.npz").write_bytes(content)
    family, model = opened(written("model.onnx", tmp_path))
    with pytest.raises(RecipeError, match=rf"can't be read as arrays: .*{message}"):
        family.samples(model, "data.npz", tmp_path, None, 0)


def test_arrays_of_text_are_not_inputs_but_labels(tmp_path: Path) -> None:
    family, model = opened(written("model.onnx", tmp_path), labels=["a", "b", "c"])
    np.savez(tmp_path / "data.npz", x=INPUTS, y=[b"a", b"b", b"c", b"a"])
    assert [sample.reference for sample in family.samples(model, "data.npz", tmp_path, None, 0)] == [*"abca"]
    with pytest.raises(RecipeError, match="takes numbers, not an array of type <U1"):
        family.answers(model, [np.array(["a"] * 4)])


class _Counts(torch.nn.Module):
    """Scores whole numbers [batch, 2] of a type: itself."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.float()


@pytest.mark.parametrize(
    ("dtype", "values", "wrong"),
    [
        ("uint8", np.array([0.5, 1], np.float32), "0.5"),
        ("uint8", np.array([1, 300]), "300"),
        ("uint8", np.array([1, -1]), "-1"),
        ("int64", np.array([12.5, 1]), "12.5"),
        ("int32", np.array([1, 2**40]), str(2**40)),
        ("int64", np.array([1, np.nan]), "nan"),
        ("bool", np.array([1, 2]), "2"),
        ("float32", np.array([1, 1e300]), "1e\\+300"),
        ("uint8", np.array([0, 255]), ""),
        ("int32", np.array([-7, 2**31 - 1]), ""),
        ("int64", np.array([3.0, -2.0]), ""),
        ("float32", np.array([0.1, np.inf]), ""),
        ("float32", np.array([1, 7]), ""),
    ],
)
def test_an_array_keeps_its_values_or_is_refused(dtype: str, values: Any, wrong: str, tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(_Counts(), torch.ones(1, 2)), str(tmp_path / "net.ts"))
    family, model = opened(tmp_path / "net.ts", inputs=f"x: {dtype} batch 2")
    if wrong:
        with pytest.raises(RecipeError, match=rf"The input x takes {dtype}, which can't hold {wrong} in an array"):
            family.predict(model, [values])
    else:
        assert np.array_equal(family.predict(model, [values])[0], values.astype(np.float32))


def test_pixels_that_an_integer_input_can_not_hold_are_refused(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(_Counts(), torch.zeros(1, 3, 2, 2)), str(tmp_path / "net.ts"))
    family, model = opened(tmp_path / "net.ts", inputs="x: int8 batch 3 2 2")
    with pytest.raises(RecipeError, match="takes int8, which can't hold 200"):
        family.predict(model, [Image.new("RGB", (2, 2), (200, 0, 0))])
    [pixels] = family.predict(model, [Image.new("RGB", (2, 2), (100, 0, 0))])
    assert pixels[0].tolist() == [[100, 100], [100, 100]]


def bounded_program(path: Path, least: int, most: int) -> Path:
    from runtime_models import torch_module

    lengths = ({0: torch.export.Dim("batch", min=least, max=most)},)
    program = torch.export.export(torch_module(), (torch.zeros(most, 4),), dynamic_shapes=lengths)
    torch.export.save(program, path)
    return path


def test_a_file_for_some_numbers_of_samples_names_them(tmp_path: Path) -> None:
    family, model = opened(bounded_program(tmp_path / "a.pt2", 1, 8))
    with pytest.raises(RecipeError, match="takes 1 to 8 samples in a call, not 16: use --batch-size 8"):
        family.batch(model, 16, 0)
    assert [family.batch(model, size, 0)[0].shape[0] for size in (1, 8)] == [1, 8]
    family, model = opened(bounded_program(tmp_path / "b.pt2", 3, 6))
    with pytest.raises(RecipeError, match="takes 3 to 6 samples in a call, not 2: use --batch-size 3"):
        family.batch(model, 2, 0)
    assert np.allclose(np.stack(family.predict(model, list(INPUTS))), expected(INPUTS))
    family, model = opened(program_file(tmp_path / "any.pt2"))
    assert [family.batch(model, size, 0)[0].shape[0] for size in (1, 1000)] == [1, 1000]


def test_openvino_states_its_numbers_of_samples_too(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    from runtime_models import torch_module

    shape = [(openvino.Dimension(2, 8), 4)]
    converted = openvino.convert_model(torch_module(), example_input=torch.zeros(2, 4), input=shape)
    openvino.save_model(converted, str(tmp_path / "model.xml"))
    family, model = opened(tmp_path / "model.xml")
    for wrong in (1, 9):
        with pytest.raises(RecipeError, match=f"takes 2 to 8 samples in a call, not {wrong}"):
            family.batch(model, wrong, 0)


class _Table(torch.nn.Module):
    """Looks up two rows of ten: [batch, 2] to [batch, 2, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = torch.nn.Embedding(10, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.rows(ids).sum(1)
        return scores


@pytest.mark.parametrize("suffix", ["onnx", "ts", "pt2"])
def test_a_sample_that_a_file_can_not_compute_is_named(suffix: str, tmp_path: Path) -> None:
    path, ids = tmp_path / f"net.{suffix}", torch.ones(1, 2, dtype=torch.int64)
    if suffix == "onnx":
        pytest.importorskip("onnxruntime")
        torch.onnx.export(_Table(), (ids,), str(path), input_names=["ids"])
    elif suffix == "ts":
        torch.jit.save(torch.jit.trace(_Table(), ids), str(path))
    else:
        torch.export.save(torch.export.export(_Table(), (ids,)), path)
    family, model = opened(path, **({"inputs": "ids: int64 batch 2"} if suffix == "ts" else {}))
    np.savez(tmp_path / "data.npz", ids=[[1, 2], [3, 9], [4, 10]], label=[0, 1, 2])
    samples = family.samples(model, "data.npz:input=ids", tmp_path, None, 0)
    assert len(family.answers(model, [sample.inputs for sample in samples[:2]])) == 2
    with pytest.raises(RecipeError, match=rf"net\.{suffix} can't compute data\.npz, sample 2: ind.* out of "):
        family.answers(model, [sample.inputs for sample in samples])


def test_scores_that_are_not_numbers_have_no_quality_but_a_reason(tmp_path: Path) -> None:
    written("model.ts", tmp_path)
    inputs = INPUTS.copy()
    inputs[[0, 2]] = np.nan
    np.savez(tmp_path / "data.npz", input=inputs, label=expected(INPUTS).argmax(1))
    variant = Variant(
        "m", "original", "t", "file", "model.ts", "auto", data="data.npz", metrics=("accuracy",),
        options=DESCRIBED["model.ts"], folder=str(tmp_path),
    )  # fmt: skip
    family, model = opened(tmp_path / "model.ts", **DESCRIBED["model.ts"])
    with pytest.raises(WorkerError, match=r"scores of 2 of 4 samples are not finite numbers \(NaN or infinity\)"):
        quality.score(family, model, variant, tmp_path, lambda *numbers: None)


def test_one_array_is_no_data(tmp_path: Path) -> None:
    family, model = opened(written("model.ts", tmp_path), **DESCRIBED["model.ts"])
    np.save(tmp_path / "data.npy", INPUTS)
    with pytest.raises(RecipeError, match=r"data\.npy holds one array without labels: save both in a \.npz file"):
        family.samples(model, "data.npy", tmp_path, None, 0)


def test_what_an_archive_of_torch_holds_is_named(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(2)}, tmp_path / "weights.pt")
    program_file(tmp_path / "graph.ts")
    torchscript_file(tmp_path / "script.pt2")
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as archive:
        archive.writestr("notes.txt", "nothing")
    family: Family = registry.build("families", "file")
    for name, message in {
        "weights.pt": r"is not TorchScript: it holds only weights .*give the Python file .* as --weights",
        "graph.ts": r"is not TorchScript: it holds a graph of torch\.export\. Rename it to \.pt2",
        "script.pt2": r"is not a graph of torch\.export: it holds TorchScript\. Rename it to \.ts",
        "other.pt": "is an archive, but not one that torch wrote",
    }.items():
        with pytest.raises(WeightsError, match=message):
            family.code(name, "auto", tmp_path)
        with pytest.raises(WeightsError, match=message):
            opened(tmp_path / name)
