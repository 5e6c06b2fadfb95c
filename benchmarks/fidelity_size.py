"""Our sizes against sizes worked out by hand from the architectures, and against the files themselves.

Each small model goes the tool's whole way: prepared in one process, restored and measured in another. What its weights
must weigh follows from its architecture alone: the tensors are written down below, layer by layer, without torch.

* tied weights (LLaMA's and Whisper's head is their embedding) count once;
* dynamic int8 keeps one byte for each weight of a linear layer, and 4 for everything else; a tied head gets weights of
  its own;
* int4 in groups of 32 keeps half a byte for each weight of a linear layer, and for each group a scale (2 bytes) and a
  zero point (1 byte);
* half precision keeps 2 bytes of everything;
* pruning keeps the bytes, and its zeros show in the number of nonzero parameters;
* clustering keeps the bytes in memory, and on disk half a byte for each weight of two axes, and 16 values for each such
  tensor.

For plain models the file's own header says the same again: the tensors in it add up to our figure.
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
    """One tensor of a freshly made model.

    Attributes:
        count: its elements.
        linear: whether it is the matrix of a linear layer.
        zeros: how many of its elements are zero from the start: biases are, and the row of the padding token.
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
    width, mels, heard, said = _WHISPER["d_model"], 80, 1500, 448
    for inputs in (mels, width):  # two convolutions of width 3
        yield from (Weights(inputs * width * 3), Weights(width, zeros=width))
    yield Weights(heard * width, zeros=width // 2)  # sinusoids, and sin(0) = 0
    yield Weights(_WHISPER["vocab_size"] * width, zeros=width, tied=True)  # the row of the padding token
    yield Weights(said * width)
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
        compared = pool.map(lambda each: list(_compare(*each)), _VARIANTS[:3] if quick else _VARIANTS)
        rows = [row for rows in compared for row in rows]
    return Finding(
        name="fidelity_size",
        goal=f"weights, parameters and bytes on disk are exact; compressed, within {_GZIP_TOLERANCE:.0%} of gzip.",
        met=all(row["as it must be"] == "yes" for row in rows),
        rows=rows,
    )


def _compare(model: str, method: str) -> Iterator[dict[str, Cell]]:
    """Give a row for each size of one model."""
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
    found = [
        ("bytes of weights", bytes_held, hand["bytes"], "by hand"),
        ("parameters", round(measured["size/params"]), hand["parameters"], "by hand"),
        ("bytes on disk", round(prepared["size/disk_mib"] * _MIB), on_disk, "sum of the files"),
    ]
    if "nonzero" in hand:
        found.append(("nonzero parameters", round(measured["size/params_nonzero"]), hand["nonzero"], "by hand"))
    if in_compact_file is not None:
        found.append(("bytes of tensors on disk", in_compact_file, hand["compact"], "by hand"))
    if in_file is not None:
        found.append(("bytes of weights", bytes_held, in_file, "the file's header"))
    for what, ours, true, source in found:
        yield _row(model, method, what, ours, true, source, ours == true)
    ours = round(prepared["size/disk_gzip_mib"] * _MIB)
    close = abs(ours / packed - 1) <= _GZIP_TOLERANCE
    yield _row(model, method, "bytes on disk, compressed", ours, packed, "gzip -6", close)


def _row(model: str, method: str, what: str, ours: int, true: int, source: str, well: bool) -> dict[str, Cell]:
    return {
        "model": model,
        "method": method,
        "what": what,
        "ours": ours,
        "true": true,
        "from": source,
        "as it must be": "yes" if well else "NO",
    }


def _by_hand(tensors: list[Weights], method: str) -> dict[str, int]:
    """Work out what a method makes of a model's tensors."""
    parameters = sum(each.count for each in tensors)
    nonzero = sum(each.count - each.zeros for each in tensors)
    if method == "int8_dynamic":
        head = sum(each.count for each in tensors if each.tied)
        linear = sum(each.count for each in tensors if each.linear) + head
        # small weights round to zero in int8: how many are left depends on the random numbers
        return {"bytes": 4 * (parameters + head - linear) + linear, "parameters": parameters + head}
    if method.startswith("int4_weight_only"):
        linear = sum(each.count for each in tensors if each.linear)
        packed = linear // 2 + linear // _GROUP * 3
        return {"bytes": 4 * (parameters - linear) + packed, "parameters": parameters}
    if method.startswith("cluster"):
        shared = [each.count for each in tensors if each.linear or each.tied]
        compact = 4 * (parameters - sum(shared)) + sum(count // 2 + 4 * _CENTROIDS for count in shared)
        return {"bytes": 4 * parameters, "parameters": parameters, "compact": compact}
    if method.startswith("prune_magnitude"):
        pruned = [each for each in tensors if each.linear or each.tied]
        nonzero -= sum(max(round(each.count / 2) - each.zeros, 0) for each in pruned)
    width = 2 if method in ("fp16", "bf16") else 4
    return {"bytes": width * parameters, "parameters": parameters, "nonzero": nonzero}


def _in_file(path: Path) -> int | None:
    """Add up the tensors that a safetensors file's header lists; None when there is no such file.

    Source: the format's description, https://github.com/huggingface/safetensors#format
    """
    if not path.is_file():
        return None
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: dict[str, Any] = json.loads(file.read(length))
    spans: list[tuple[int, int]] = [entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"]
    return sum(end - begin for begin, end in spans)
