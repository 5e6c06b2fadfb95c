from __future__ import annotations

import random
import zlib
from pathlib import Path

import pytest

from mlflow_compress.meters import size

MIB = 2**20


def test_all_files_of_a_folder_are_counted(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "weights.bin").write_bytes(random.Random(0).randbytes(3 * MIB))
    (tmp_path / "deep" / "er" / "config.json").write_bytes(b"x" * MIB)
    (tmp_path / "empty").touch()
    sizes = size.on_disk(tmp_path)
    assert sizes["size/disk_mib"] == 4
    assert sizes["size/disk_gzip_mib"] == pytest.approx(3, abs=0.01)


def test_an_empty_folder_has_no_size(tmp_path: Path) -> None:
    assert size.on_disk(tmp_path) == {"size/disk_mib": 0, "size/disk_gzip_mib": 0}


def test_zeros_are_compressed_away_and_noise_is_not(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(9 * MIB))  # more than one chunk
    zeros = size.on_disk(tmp_path)
    assert zeros["size/disk_mib"] == 9
    assert 0 < zeros["size/disk_gzip_mib"] < 0.05
    (tmp_path / "weights.bin").write_bytes(random.Random(0).randbytes(9 * MIB))
    assert 9 <= size.on_disk(tmp_path)["size/disk_gzip_mib"] < 9.1


def test_half_of_the_weights_set_to_zero_show(tmp_path: Path) -> None:
    generator = random.Random(0)
    words = [bytes(4) if generator.random() < 0.5 else generator.randbytes(4) for _ in range(2**17)]
    (tmp_path / "weights.bin").write_bytes(b"".join(words))
    assert 0.25 < size.on_disk(tmp_path)["size/disk_gzip_mib"] < 0.4


def test_one_chunk_is_as_zlib_packs_it(tmp_path: Path) -> None:
    content = b"all work and no play " * 1000
    (tmp_path / "text").write_bytes(content)
    assert size.on_disk(tmp_path)["size/disk_gzip_mib"] == len(zlib.compress(content, 6)) / MIB


def test_of_large_folders_evenly_spaced_chunks_are_deflated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, values in (("noise", random.Random(0).randbytes(5 * MIB)), ("zeros", bytes(5 * MIB))):
        (tmp_path / name).write_bytes(values)
    exact = size.on_disk(tmp_path)["size/disk_gzip_mib"]
    monkeypatch.setattr(size, "_CHUNK_BYTES", MIB // 4)
    monkeypatch.setattr(size, "_MOST_DEFLATED_BYTES", 10 * MIB // 4)
    sampled = size.on_disk(tmp_path)
    assert sampled["size/disk_mib"] == 10
    assert sampled["size/disk_gzip_mib"] == pytest.approx(exact, rel=0.01)
