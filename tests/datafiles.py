"""Data files for tests, and their content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image

from mlflow_compress.data.datasets import Table

ROLES = ("text", "label")


HOSTILE = ['a "quoted" name', "naïve 🙂", "two\nlines", "comma, colon: x=1", "at@home", "back\\slash", " blank ", '"']


REVIEWS = "text,label\ngood,1\nbad,0\nfine,1\n"


SPEECH = ("audio", "text")


def values(table: Table, role: str = "text") -> list[Any]:
    return [row.values[role] for row in table.rows]


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def sound(path: Path, seconds: float = 0.1, rate: int = 16_000, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(seed).normal(0, 0.1, int(seconds * rate)), rate)
    return path


def picture(path: Path, grey: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 6, 3), grey, np.uint8)).save(path)
    return path
