"""Our sizes compared with sizes computed by hand from the architectures, and with the files themselves.

Each small model runs through the whole tool: prepared in one process, restored and measured in another. The size of its
weights follows from its architecture: the tensors are listed below, layer by layer, without torch.

* tied weights (the head of LLaMA and Whisper is their embedding) count once;
* dynamic int8 uses one byte for each weight of a linear layer, and 4 for everything else; a tied head gets its own
  weights;
* int4 in groups of 32 uses half a byte for each weight of a linear layer, and for each group a scale (2 bytes) and a
  zero point (1 byte);
* half precision uses 2 bytes for everything;
* pruning keeps the bytes, and its zeros reduce the number of nonzero parameters;
* clustering keeps the bytes in memory, and uses on disk half a byte for each weight of a matrix, and 16 values for each
  matrix.

For plain models the file's header confirms it: the sizes of its tensors add up to our figure.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.children import measure, plan, prepare
from benchmarks.finding import Cell, Finding

_MIB = 2**20
_GZIP_TOLERANCE = 0.01
_GROUP, _CENTROIDS = 32, 16


@dataclass(frozen=True)
class Weights:
    """One tensor of a newly built model.

    Attributes:
        count: number of its elements.
        linear: whether it is the matrix of a linear layer.
        zeros: number of elements that are initialised with zero: biases, and the row of the padding token.
        tied: whether a linear layer and an embedding share it.
    """

    count: int
    linear: bool = False
    zeros: int = 0
    tied: bool = False


_LLAMA = {
    "vocab_size": 2000,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
_WHISPER = {
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "vocab_size": 2000,
    "bos_token_id": 1,
    "eos_token_id": 1,
    "pad_token_id": 1,
    "decoder_start_token_id": 2,
}
_DISTILBERT = {"vocab_size": 2000, "dim": 64, "hidden_dim": 128, "n_layers": 2, "n_heads": 2}


def _linear(inputs: int, outputs: int, bias: bool = True) -> Iterator[Weights]:
    yield Weights(inputs * outputs, linear=True)
    if bias:
        yield Weights(outputs, zeros=outputs)


def _norm(width: int) -> Iterator[Weights]:
    yield Weights(width)
    yield Weights(width, zeros=width)


def _llama() -> Iterator[Weights]:
    hidden, inner = _LLAMA["hidden_size"], _LLAMA["intermediate_size"]
    pairs = hidden // _LLAMA["num_attention_heads"] * _LLAMA["num_key_value_heads"]
    yield Weights(_LLAMA["vocab_size"] * hidden, tied=True)
    for _ in range(_LLAMA["num_hidden_layers"]):
        for outputs in (hidden, pairs, pairs, hidden):  # query, key, value, output
            yield from _linear(hidden, outputs, bias=False)
        for _ in ("gate", "up", "down"):
            yield from _linear(hidden, inner, bias=False)
        yield from (Weights(hidden), Weights(hidden))
    yield Weights(hidden)


def _whisper() -> Iterator[Weights]:
    width, mels, source_positions, target_positions = _WHISPER["d_model"], 80, 1500, 448
    for inputs in (mels, width):  # two convolutions of width 3
        yield from (Weights(inputs * width * 3), Weights(width, zeros=width))
    yield Weights(source_positions * width, zeros=width // 2)  # sinusoids, and sin(0) = 0
    yield Weights(_WHISPER["vocab_size"] * width, zeros=width, tied=True)  # the row of the padding token
    yield Weights(target_positions * width)
    for part, inner, attentions in (("encoder", "encoder_ffn_dim", 1), ("decoder", "decoder_ffn_dim", 2)):
        for _ in range(_WHISPER[f"{part}_layers"]):
            for _ in range(attentions):
                for bias in (True, False, True, True):  # query, key, value, output
                    yield from _linear(width, width, bias)
                yield from _norm(width)
            yield from _linear(width, _WHISPER[inner])
            yield from _linear(_WHISPER[inner], width)
            yield from _norm(width)
        yield from _norm(width)


def _distilbert() -> Iterator[Weights]:
    width, inner = _DISTILBERT["dim"], _DISTILBERT["hidden_dim"]
    yield Weights(_DISTILBERT["vocab_size"] * width, zeros=width)  # the row of the padding token
    yield Weights(512 * width)
    yield from _norm(width)
    for _ in range(_DISTILBERT["n_layers"]):
        for _ in ("query", "key", "value", "output"):
            yield from _linear(width, width)
        yield from _norm(width)
        yield from _linear(width, inner)
        yield from _linear(inner, width)
        yield from _norm(width)
    yield from _linear(width, width)
    yield from _linear(width, 2)


_MODELS: dict[str, tuple[str, Mapping[str, int], Callable[[], Iterator[Weights]]]] = {
    "tiny llama": ("llama", _LLAMA, _llama),
    "tiny whisper": ("whisper_tiny", _WHISPER, _whisper),
    "tiny distilbert": ("distilbert", _DISTILBERT, _distilbert),
}
_VARIANTS = (
    ("tiny llama", "original"),
    ("tiny llama", "fp16"),
    ("tiny llama", "int8_dynamic"),
    ("tiny llama", f"int4_weight_only:group_size={_GROUP}"),
    ("tiny llama", "prune_magnitude:amount=0.5"),
    ("tiny llama", f"cluster:centroids={_CENTROIDS}"),
    ("tiny whisper", "original"),
    ("tiny whisper", "bf16"),
    ("tiny whisper", "int8_dynamic"),
    ("tiny distilbert", "int8_dynamic"),
    ("tiny distilbert", f"int4_weight_only:group_size={_GROUP}"),
    ("tiny distilbert", "prune_magnitude:amount=0.5"),
)


def find(quick: bool) -> Finding:
    """Measure small models and compare."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # nothing is timed here
        compared = pool.map(lambda variant: list(_compare(*variant)), _VARIANTS[:3] if quick else _VARIANTS)
        rows = [row for rows in compared for row in rows]
    return Finding(
        name="fidelity_size",
        goal=f"weights, parameters and bytes on disk are exact; compressed, within {_GZIP_TOLERANCE:.0%} of gzip.",
        met=all(row["as it must be"] == "yes" for row in rows),
        rows=rows,
    )


def _compare(model: str, method: str) -> Iterator[dict[str, Cell]]:
    """Yield a row for each size of one model."""
    recipe, shape, tensors = _MODELS[model]
    planned = plan(recipe, 6, method)
    architecture = {**planned.options["architecture"], **shape}
    options = {"new_tokens": 2} if "new_tokens" in planned.options else {}
    variant = dataclasses.replace(planned, options={**planned.options, **options, "architecture": architecture})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepared = prepare(variant, folder).measurements
        measured = measure(variant, folder).measurements
        files = [path for path in (folder / "model").rglob("*") if path.is_file()]
        on_disk = sum(file.stat().st_size for file in files)
        packed = sum(len(gzip.compress(file.read_bytes(), 6)) for file in files)
        in_file = _in_file(folder / "model" / "model.safetensors")
        in_compact_file = _in_file(folder / "model" / "compact.safetensors")

    hand = _by_hand(list(tensors()), method)
    bytes_held = round(measured["size/weights_mib"] * _MIB)
    sizes = [
        ("bytes of weights", bytes_held, hand["bytes"], "by hand"),
        ("parameters", round(measured["size/params"]), hand["parameters"], "by hand"),
        ("bytes on disk", round(prepared["size/disk_mib"] * _MIB), on_disk, "sum of the files"),
    ]
    if "nonzero" in hand:
        sizes.append(("nonzero parameters", round(measured["size/params_nonzero"]), hand["nonzero"], "by hand"))
    if in_compact_file is not None:
        sizes.append(("bytes of tensors on disk", in_compact_file, hand["compact"], "by hand"))
    if in_file is not None:
        sizes.append(("bytes of weights", bytes_held, in_file, "the file's header"))
    for quantity, ours, true, source in sizes:
        yield _row(model, method, quantity, ours, true, source, ours == true)
    ours = round(prepared["size/disk_gzip_mib"] * _MIB)
    close = abs(ours / packed - 1) <= _GZIP_TOLERANCE
    yield _row(model, method, "bytes on disk, compressed", ours, packed, "gzip -6", close)


def _row(model: str, method: str, quantity: str, ours: int, true: int, source: str, well: bool) -> dict[str, Cell]:
    return {
        "model": model,
        "method": method,
        "what": quantity,
        "ours": ours,
        "true": true,
        "from": source,
        "as it must be": "yes" if well else "NO",
    }


def _by_hand(tensors: list[Weights], method: str) -> dict[str, int]:
    """Compute the sizes of a model's tensors after a method."""
    parameters = sum(tensor.count for tensor in tensors)
    nonzero = sum(tensor.count - tensor.zeros for tensor in tensors)
    if method == "int8_dynamic":
        head = sum(tensor.count for tensor in tensors if tensor.tied)
        linear = sum(tensor.count for tensor in tensors if tensor.linear) + head
        # no nonzero count: int8 rounds small weights to zero, and their number is random
        return {"bytes": 4 * (parameters + head - linear) + linear, "parameters": parameters + head}
    if method.startswith("int4_weight_only"):
        linear = sum(tensor.count for tensor in tensors if tensor.linear)
        packed = linear // 2 + linear // _GROUP * 3
        return {"bytes": 4 * (parameters - linear) + packed, "parameters": parameters}
    if method.startswith("cluster"):
        shared = [tensor.count for tensor in tensors if tensor.linear or tensor.tied]
        compact = 4 * (parameters - sum(shared)) + sum(count // 2 + 4 * _CENTROIDS for count in shared)
        return {"bytes": 4 * parameters, "parameters": parameters, "compact": compact}
    if method.startswith("prune_magnitude"):
        pruned = [tensor for tensor in tensors if tensor.linear or tensor.tied]
        nonzero -= sum(max(round(tensor.count / 2) - tensor.zeros, 0) for tensor in pruned)
    width = 2 if method in ("fp16", "bf16") else 4
    return {"bytes": width * parameters, "parameters": parameters, "nonzero": nonzero}


def _in_file(path: Path) -> int | None:
    """Add up the sizes of the tensors in a safetensors file's header; None if there is no such file.

    Source: the format's description, https://github.com/huggingface/safetensors#format
    """
    if not path.is_file():
        return None
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: dict[str, Any] = json.loads(file.read(length))
    spans: list[tuple[int, int]] = [entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"]
    return sum(end - begin for begin, end in spans)
