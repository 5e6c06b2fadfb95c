"""Identifies the files in a folder of weights by their names and first bytes, before a library reads them."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from mlflow_compress.errors import WeightsError
from mlflow_compress.networks.stored_weights import is_pointer, shards

SENTENCE_MODULES = "modules.json"  # sentence-transformers combines encoder and pooling there
_INDEX = ".index."
_PLAIN = re.compile(r"(model|pytorch_model)(-\d+-of-\d+)?\.(safetensors|bin)(\.index\.json)?")
_VARIANT = re.compile(r"(?:model|pytorch_model)\.([\w-]+?)(?:-\d+-of-\d+)?\.(?:safetensors|bin)(?:\.index\.[\w-]+)?")
_LEAST = 3  # characters in the name of a variant: fp16, bf16
_FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn"}
_BYTES = {"I64": 8, "U64": 8, "F64": 8, "I32": 4, "U32": 4, "F32": 4, "I16": 2, "U16": 2, "F16": 2, "BF16": 2}  # else 1
_METADATA = "__metadata__"
_LONGEST_HEADER = 100 * 2**20  # bytes, the limit of the library
_READ = (".safetensors", ".bin", ".json", ".model", ".txt", ".gguf", ".pt", ".pth", ".ckpt")
_OWN = "Measure it as a custom model: compress-bench init writes the Python file that builds it; set weights=PATH."
_SAVE = "Load it with the library that wrote it, and save it with save_pretrained."
_OTHERS = {  # files of other libraries: what they are, and what to do
    ("tf_model.h5", "*.h5", "saved_model.pb"): ("TensorFlow weights", _SAVE),
    ("flax_model.msgpack", "*.msgpack"): ("Flax weights", _SAVE),
    ("*.onnx", "onnx/*.onnx"): ("an exported ONNX graph", "Give the model it was exported from."),
    ("openvino_model.xml", "*.xml"): ("an OpenVINO graph", "Give the model it was exported from."),
    ("consolidated*.pth", "consolidated*.safetensors"): (
        "weights in their authors' own format",
        "Convert them to the format of transformers, or use the repository whose name ends in -hf.",
    ),
}
_NAMELESS = {  # files of torch that do not describe the model
    ("*.pt", "*.pth", "*.ckpt"): ("PyTorch weights without a description of their model", _OWN),
    ("*.safetensors", "*.bin"): (
        "weights without a description of their model",
        "Put the model's config.json beside them, or measure it as a custom model (compress-bench init).",
    ),
}


def require_whole(folder: Path) -> None:
    """Check that the files of a folder are complete, and have the format that their names say.

    Raises:
        WeightsError: a file is a Git LFS pointer, a shard is missing, or the weights belong to another library.
    """
    files = _files(folder)
    for path in files:
        require_no_pointer(path)
    names = {path.name for path in files}
    for index in (path for path in files if _is_read_index(path.name, names)):
        if missing := [name for name in shards(index) if not (folder / name).is_file()]:
            raise WeightsError(
                f"{folder} is incomplete: {index.name} names {missing[0]}"
                f"{f' and {len(missing) - 1} more files' if missing[1:] else ''}, which are not there."
            )
    if (folder / "config.json").is_file() and not has_weights(folder):
        content, advice = _recognised(folder, _OTHERS)
        if content:
            raise WeightsError(f"There are no PyTorch weights in {folder}, only {content}. {advice}")


def has_weights(folder: Path) -> bool:
    """Return whether a folder contains weights of torch, complete or not, with the names of save_pretrained."""
    return any(_is_of_torch(path.name) for path in _files(folder))


def variant_in(folder: Path) -> str:
    """Return the variant of a folder's weights (`fp16` of `model.fp16.safetensors`); empty if there are plain ones.

    Raises:
        WeightsError: it has several variants.
    """
    names = [path.name for path in _files(folder)]
    if any(_PLAIN.fullmatch(name) for name in names):
        return ""
    spellings = (match.group(1) for name in names if (match := _VARIANT.fullmatch(name)) is not None)
    variants = sorted({variant for variant in spellings if len(variant) >= _LEAST})
    if len(variants) > 1:
        raise WeightsError(f"{folder} holds several variants of the weights: {', '.join(variants)}. Keep only one.")
    return variants[0] if variants else ""


def without_config(folder: Path) -> str:
    """Return a message about the content of a folder without config.json."""
    if (folder / SENTENCE_MODULES).is_file():
        return (
            f"{folder} is a sentence-transformers model whose encoder is in its own folder: give that folder, with "
            "--family text_embedding and, if it is not the mean, -O pooling=KIND."
        )
    if (folder / "model_index.json").is_file():
        return f"{folder} is a diffusers pipeline, which no family measures. Measure a part of it as a custom model."
    content, advice = _recognised(folder, {**_OTHERS, **_NAMELESS})
    if content:
        return f"There is no config.json in {folder}, only {content}. {advice}"
    inner = sorted(path.parent.name for path in folder.glob("*/config.json") if not path.parent.name.startswith("."))
    if inner:
        return f"There is no config.json in {folder}, but in {', '.join(inner[:3])}: give that folder."
    return f"There is no config.json in {folder}: give a folder that save_pretrained wrote."


def require_no_pointer(path: Path) -> None:
    """Check that a file is not a Git LFS pointer.

    Raises:
        WeightsError: it is one.
    """
    if is_pointer(path):
        raise WeightsError(
            f"{path} is a Git LFS pointer, not the file itself: run git lfs pull in its folder, or download it again."
        )


def _recognised(folder: Path, kinds: Mapping[tuple[str, ...], tuple[str, str]]) -> tuple[str, str]:
    """Return the kind of other weights in a folder, and advice; empty if there are none."""
    for patterns, (kind, advice) in kinds.items():
        names = sorted(path.name for pattern in patterns for path in folder.glob(pattern) if path.name[0] != ".")
        if names:
            return f"{kind} ({names[0]})", advice
    return "", ""


def _files(folder: Path) -> list[Path]:
    """Return the files that a library may read, without the hidden files of macOS."""
    return sorted(path for path in folder.iterdir() if path.suffix in _READ and path.name[0] != "." and path.is_file())


def _is_of_torch(name: str) -> bool:
    return bool(_PLAIN.fullmatch(name) or _VARIANT.fullmatch(name))


def _is_read_index(name: str, names: Collection[str]) -> bool:
    """Return whether transformers would read this index in a folder.

    Source: `_get_resolved_checkpoint_files` of transformers: a single file first, and safetensors before pickles.
    """
    if _INDEX not in name or not _is_of_torch(name):
        return False
    order = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", name)
    return not _PLAIN.fullmatch(name) or next(candidate for candidate in order if candidate in names) == name


def dtype_in(folder: Path, variant: str = "") -> str:
    """Return the floating-point type of most numbers in the safetensors files that are read; empty: there are none.

    Args:
        folder: folder of the files.
        variant: variant of the files that is read (see `variant_in`); empty: the plain files.
    """
    counts = numbers_in(folder, variant)
    return counts.most_common(1)[0][0] if counts else ""


def numbers_in(folder: Path, variant: str = "") -> Counter[str]:
    """Count the floating-point numbers of each type in the safetensors files that are read, from their headers.

    Args:
        folder: folder of the files.
        variant: variant of the files that is read (see `variant_in`); empty: the plain files.

    Raises:
        WeightsError: a header contradicts its file.
    """
    counts: Counter[str] = Counter()
    for code, count in _counts(folder, variant).items():
        if code in _FLOATS:
            counts[_FLOATS[code]] += count
    return counts


def integer_bytes_in(folder: Path, variant: str = "") -> int:
    """Return the bytes of the numbers in the same files that `numbers_in` does not count, such as packed weights.

    Args:
        folder: folder of the files.
        variant: variant of the files that is read (see `variant_in`); empty: the plain files.

    Raises:
        WeightsError: a header contradicts its file.
    """
    counts = _counts(folder, variant)
    return sum(count * _BYTES.get(code, 1) for code, count in counts.items() if code not in _FLOATS)


def _counts(folder: Path, variant: str) -> Counter[str]:
    """Count the numbers of each type, by its code in the headers."""
    single_file = folder / (f"model.{variant}.safetensors" if variant else "model.safetensors")
    shards = [path for path in _files(folder) if path.suffix == ".safetensors" and _variant_of(path.name) == variant]
    counts: Counter[str] = Counter()
    for path in [single_file] if single_file.is_file() else shards:
        length = path.stat().st_size
        for name, tensor in _header(path).items():
            if name == _METADATA:
                continue
            code, shape = (tensor.get("dtype"), tensor.get("shape")) if isinstance(tensor, Mapping) else (None, None)
            is_shape = isinstance(shape, list) and all(type(size) is int and size >= 0 for size in shape)
            if not isinstance(code, str) or not is_shape:
                raise WeightsError(f"{path} can't be read: its header describes no tensor under {name!r:.80}.")
            assert isinstance(shape, list)
            count = math.prod(shape)
            if count * _BYTES.get(code, 0) > length:
                raise WeightsError(
                    f"{path} can't be read: its header says that {name!r:.80} has {count} numbers of type {code:.20}, "
                    f"more than fit into a file of {length} bytes. It is truncated, or its header is wrong."
                )
            counts[code] += count
    return counts


def _variant_of(name: str) -> str | None:
    """Return the variant of a weight file, empty if plain; None: it is not a weight file."""
    if _PLAIN.fullmatch(name):
        return ""
    match = _VARIANT.fullmatch(name)
    return match.group(1) if match else None


def _header(path: Path) -> Mapping[str, Any]:
    """Return the header of a safetensors file: the description of each tensor, by name.

    Source: https://huggingface.co/docs/safetensors, "Format".
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(min(length, _LONGEST_HEADER)))
        except (ValueError, RecursionError):  # reading the weights raises the error
            return {}
    return header if isinstance(header, dict) else {}
