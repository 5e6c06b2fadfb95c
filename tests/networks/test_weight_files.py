"""Problems of a folder of weights are found by its files, and reported in one sentence with advice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mlflow_compress import registry
from mlflow_compress.errors import RecipeError, WeightsError
from mlflow_compress.networks import weight_files
from mlflow_compress.planning import recipe
from mlflow_compress.planning.recognise import recognise
from mlflow_compress.sockets import Family

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 268435456\n"


def folder(place: Path, *names: str, config: bool = True) -> Path:
    for name in (*names, *(["config.json"] if config else [])):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("{}")
    return place


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model-00001-of-00002.bin", "tokenizer.json"])
def test_a_pointer_of_git_lfs_is_called_that(tmp_path: Path, name: str) -> None:
    (folder(tmp_path, "model.safetensors") / name).write_text(POINTER)
    with pytest.raises(WeightsError, match=rf"{name} is a Git LFS pointer.*git lfs pull"):
        weight_files.require_whole(tmp_path)


def test_a_configuration_that_is_a_pointer_is_called_that(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(POINTER)
    with pytest.raises(WeightsError, match=r"config\.json is a Git LFS pointer"):
        recognise(str(tmp_path))


@pytest.mark.parametrize("name", ["best.pt", "small.gguf"])
def test_a_file_that_is_a_pointer_is_called_that(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(POINTER)
    with pytest.raises(WeightsError, match=rf"{name} is a Git LFS pointer"):
        recipe.read(str(tmp_path / name))
    yolo: Family = registry.build("families", "yolo", {})
    with pytest.raises(WeightsError, match="Git LFS pointer"):
        yolo.code("yolo11n.pt", name, tmp_path)


def test_a_shard_that_is_not_there_is_named(tmp_path: Path) -> None:
    shards = [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
    index = folder(tmp_path, shards[1]) / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict(zip("abc", shards, strict=True))}))
    with pytest.raises(WeightsError, match=f"incomplete: {index.name} names {shards[0]} and 1 more files"):
        weight_files.require_whole(tmp_path)
    folder(tmp_path, *shards)
    weight_files.require_whole(tmp_path)
    index.write_text("[]")
    with pytest.raises(WeightsError, match="is not an index of weights"):
        weight_files.require_whole(tmp_path)


@pytest.mark.parametrize(
    ("index", "read"),
    [
        ("pytorch_model.bin.index.json", "model.safetensors"),
        ("model.safetensors.index.json", "model.safetensors"),
        ("pytorch_model.bin.index.json", "pytorch_model.bin"),
    ],
)
def test_an_index_that_is_not_read_may_name_what_is_not_there(tmp_path: Path, index: str, read: str) -> None:
    shards = json.dumps({"weight_map": {"a": "gone-00001-of-00002.bin"}})
    (folder(tmp_path) / index).write_text(shards)
    with pytest.raises(WeightsError, match="is incomplete"):
        weight_files.require_whole(tmp_path)
    weight_files.require_whole(folder(tmp_path, read))


def test_of_two_indices_that_of_safetensors_is_read(tmp_path: Path) -> None:
    shard = "model-00001-of-00001.safetensors"
    (folder(tmp_path, shard) / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"a": "gone.bin"}}))
    weight_files.require_whole(tmp_path)
    (tmp_path / shard).unlink()
    with pytest.raises(WeightsError, match=r"model\.safetensors\.index\.json names"):
        weight_files.require_whole(tmp_path)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("tf_model.h5", r"TensorFlow weights \(tf_model\.h5\)"),
        ("flax_model.msgpack", "Flax weights"),
        ("onnx/model.onnx", r"an exported ONNX graph \(model\.onnx\)"),
        ("openvino_model.xml", "an OpenVINO graph"),
        ("consolidated.00.pth", "weights in their authors' own format"),
    ],
)
def test_weights_of_other_libraries_are_named(tmp_path: Path, file: str, message: str) -> None:
    folder(tmp_path / "with", file, "training_args.bin", "._model.safetensors")
    with pytest.raises(WeightsError, match=f"There are no PyTorch weights in .*, only {message}"):
        weight_files.require_whole(tmp_path / "with")
    folder(tmp_path / "without", file, config=False)
    with pytest.raises(RecipeError, match=rf"There is no config\.json in .*, only {message}"):
        recognise(str(tmp_path / "without"))


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("best.pth", "PyTorch weights without a description of their model.*compress-bench init"),
        ("model.safetensors", r"Put the model's config\.json beside them"),
        ("checkpoint-500/config.json", "but in checkpoint-500: give that folder"),
        ("modules.json", "a sentence-transformers model whose encoder is in its own folder.*--family text_embedding"),
        ("model_index.json", "a diffusers pipeline"),
        ("notes.txt", "give a folder that save_pretrained wrote"),
    ],
)
def test_a_folder_without_a_configuration_says_what_it_holds(tmp_path: Path, file: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recognise(str(folder(tmp_path, file, config=False)))


def test_an_encoder_of_sentence_transformers_is_recognised(tmp_path: Path) -> None:
    config = {"architectures": ["BertModel"], "model_type": "bert"}
    (folder(tmp_path, "modules.json") / "config.json").write_text(json.dumps(config))
    (tmp_path / "modules.json").write_text("[]")
    recognised = recognise(str(tmp_path))
    assert recognised is not None
    assert recognised.family == "text_embedding"


def test_a_variant_is_taken_where_there_is_nothing_else(tmp_path: Path) -> None:
    assert weight_files.variant_in(folder(tmp_path, "model.fp16.safetensors")) == "fp16"
    folder(tmp_path, "pytorch_model.bf16-00001-of-00002.bin")
    with pytest.raises(WeightsError, match="several variants of the weights: bf16, fp16"):
        weight_files.variant_in(tmp_path)
    assert weight_files.variant_in(folder(tmp_path, "model.safetensors")) == ""


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_type_of_most_numbers_is_returned(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {
        "weight": torch.ones(8, 8, dtype=dtype),
        "scale": torch.ones(1),
        "ids": torch.ones(99, dtype=torch.int64),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    assert weight_files.dtype_in(tmp_path) == str(dtype).removeprefix("torch.")


def test_the_type_is_that_of_the_files_that_are_read(tmp_path: Path) -> None:
    for name, dtype in (("model", torch.float32), ("model.fp16", torch.float16), ("model.bf16", torch.bfloat16)):
        save_file({"weight": torch.ones(8, dtype=dtype)}, tmp_path / f"{name}.safetensors")
    save_file({"weight": torch.ones(99, dtype=torch.float64)}, tmp_path / "model-00001-of-00001.safetensors")
    assert [weight_files.dtype_in(tmp_path, name) for name in ("", "fp16", "bf16")] == [
        "float32",
        "float16",
        "bfloat16",
    ]


def test_a_damaged_file_is_of_no_type(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 20)
    assert weight_files.dtype_in(tmp_path) == ""


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        ({"dtype": "F32", "shape": ["x"]}, "describes no tensor under 'a'"),
        ({"dtype": "F32", "shape": 5}, "describes no tensor"),
        ({"dtype": "F32", "shape": [-4, 10]}, "describes no tensor"),
        ({"dtype": ["F32"], "shape": [1]}, "describes no tensor"),
        ({"dtype": "F32", "shape": [10**15]}, "1000000000000000 numbers of type F32, more than fit"),
    ],
)
def test_a_lying_header_is_refused(tmp_path: Path, tensor: object, message: str) -> None:
    header = json.dumps({"__metadata__": {"format": "pt"}, "a": tensor}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(WeightsError, match=rf"model\.safetensors can't be read: .*{message}"):
        weight_files.numbers_in(tmp_path)


def test_a_header_of_deep_lists_is_of_no_type(tmp_path: Path) -> None:
    header = b"[" * 100_000
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    assert weight_files.dtype_in(tmp_path) == ""
