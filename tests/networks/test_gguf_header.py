"""The header of a GGUF file is read strictly, and accepted only if it matches the file."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from mlflow_compress.errors import WeightsError
from mlflow_compress.networks.gguf_header import read_header

WIDTH, ROWS = 32, 40


def written(path: Path, name: str = "token_embd.weight", **fields: int) -> Path:
    """Write a small file: an embedding in float32 and a matrix in q8_0."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_embedding_length(WIDTH)
    writer.add_head_count(2)
    writer.add_array("tokenizer.ggml.tokens", ["a", "b", "ä"])
    for key, value in fields.items():
        writer.add_key_value(key.replace("__", "."), value, gguf.GGUFValueType.get_type(value))
    writer.add_tensor(name, np.ones((ROWS, WIDTH), dtype=np.float32))
    packed = gguf.quants.quantize(np.ones((8, WIDTH), dtype=np.float32), gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("blk.0.ffn_up.weight", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_true_header_is_read(tmp_path: Path) -> None:
    header = read_header(written(tmp_path / "model.gguf"))
    assert header.architecture == "llama"
    assert header.of_architecture("embedding_length") == WIDTH
    assert header.fields["tokenizer.ggml.tokens"] == ["a", "b", "ä"]
    embedding, packed = header.tensors
    assert (embedding.type, embedding.shape, embedding.bytes) == ("f32", (WIDTH, ROWS), 4 * WIDTH * ROWS)
    assert (packed.type, packed.elements, packed.bytes) == ("q8_0", 8 * WIDTH, 8 * 34)
    content = (tmp_path / "model.gguf").read_bytes()
    assert content[embedding.start : embedding.start + 4] == struct.pack("<f", 1)


def behind_name(content: bytes, name: bytes, behind: int) -> int:
    """Return the position after a name in a file."""
    return content.index(name) + len(name) + behind


def overwrite(place: Callable[[bytes], int], number: int, code: str = "Q") -> Callable[[bytes], bytes]:
    """Return a function that overwrites a position with a number."""

    def change(content: bytes) -> bytes:
        position = place(content)
        packed = struct.pack(f"<{code}", number)
        return content[:position] + packed + content[position + len(packed) :]

    return change


EMBEDDING, MATRIX = b"token_embd.weight", b"blk.0.ffn_up.weight"
LIES = {
    "no gguf": lambda content: b"PK\x03\x04" + content[4:],
    "empty": lambda content: b"",
    "version": overwrite(lambda content: 4, 4_000, "I"),
    "2^60 tensors": overwrite(lambda content: 8, 2**60),
    "one tensor more": overwrite(lambda content: 8, 3),
    "2^60 fields": overwrite(lambda content: 16, 2**60),
    "cut short": lambda content: content[:-40],
    "cut in the header": lambda content: content[:100],
    "long name": overwrite(lambda content: content.index(EMBEDDING) - 8, 2**62),
    "long key": overwrite(lambda content: content.index(b"llama.block_count") - 8, 2**40),
    "2^61 strings": overwrite(lambda content: behind_name(content, b"tokenizer.ggml.tokens", 8), 2**61),
    "unknown field": overwrite(lambda content: behind_name(content, b"llama.block_count", 0), 99, "I"),
    "no axes": overwrite(lambda content: behind_name(content, EMBEDDING, 0), 0, "I"),
    "2^31 axes": overwrite(lambda content: behind_name(content, EMBEDDING, 0), 2**31, "I"),
    "empty axis": overwrite(lambda content: behind_name(content, EMBEDDING, 4), 0),
    "shape that overflows": overwrite(lambda content: behind_name(content, EMBEDDING, 4), 2**62),
    "more rows than there are": overwrite(lambda content: behind_name(content, EMBEDDING, 12), 4000),
    "unknown type": overwrite(lambda content: behind_name(content, EMBEDDING, 20), 4000, "I"),
    "broken block": overwrite(lambda content: behind_name(content, MATRIX, 4), 31),
    "offset outside": overwrite(lambda content: behind_name(content, MATRIX, 24), 2**40),
    "offset aside": overwrite(lambda content: behind_name(content, MATRIX, 24), 7),
    "overlapping": overwrite(lambda content: behind_name(content, MATRIX, 24), 32),
    "2^31 layers": overwrite(lambda content: behind_name(content, b"llama.block_count", 4), 2**31, "I"),
    "no heads": overwrite(lambda content: behind_name(content, b"llama.attention.head_count", 4), 0, "I"),
    "other width": overwrite(lambda content: behind_name(content, b"llama.embedding_length", 4), 64, "I"),
}


@pytest.mark.parametrize("lie", LIES)
def test_an_invalid_header_is_rejected_with_a_message(lie: str, tmp_path: Path) -> None:
    path = written(tmp_path / "model.gguf")
    path.write_bytes(LIES[lie](path.read_bytes()))
    with pytest.raises(WeightsError) as caught:
        read_header(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("key", "value"), [("split__count", 3), ("general__alignment", 3), ("general__alignment", 0)])
def test_fields_that_lead_elsewhere_are_refused(key: str, value: int, tmp_path: Path) -> None:
    fields: dict[str, Any] = {key: value}
    with pytest.raises(WeightsError, match=r"one part of a split model|alignment"):
        read_header(written(tmp_path / "model.gguf", **fields))


def test_two_tensors_of_one_name_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "model.gguf", name="blk.0.ffn_do.weight")
    path.write_bytes(path.read_bytes().replace(b"blk.0.ffn_do.weight", b"blk.0.ffn_up.weight"))
    with pytest.raises(WeightsError, match="two tensors with the same name"):
        read_header(path)
