"""A data set of one image with boxes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np


def write(folder: Path, labels: str | None = "0 0.5 0.5 0.2 0.4", more: str = "") -> Path:
    (folder / "images").mkdir()
    (folder / "labels").mkdir()
    cv2.imwrite(str(folder / "images" / "a.png"), np.zeros((40, 80, 3), dtype=np.uint8))
    if labels is not None:
        (folder / "labels" / "a.txt").write_text(labels)
    (folder / "d.yaml").write_text(f"val: images\nnames: [cat, dog]\n{more}")
    return folder
