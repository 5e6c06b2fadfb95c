"""Classifiers of images, and pictures for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mlflow_compress import registry
from mlflow_compress.sockets import Family, Model


def loaded(
    source: str = "tiny", weights: str = "random", folder: Path = Path(), **options: Any
) -> tuple[Family, Model]:
    family: Family = registry.build("families", "image_classification", options)
    return family, family.load(source, weights, folder, 0)


def picture(path: Path, seed: int, size: tuple[int, int] = (40, 50)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize(size).save(path)
    return path
