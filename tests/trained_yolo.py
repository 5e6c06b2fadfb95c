"""Files of models that ultralytics trained and saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np

_SIDE = 32
_NETS = {
    "detect": "yolo11n.yaml",
    "segment": "yolo11n-seg.yaml",
    "classify": "yolo11n-cls.yaml",
    "pose": "yolo11n-pose.yaml",
    "obb": "yolo11n-obb.yaml",
}
_BOX, _CORNERS = "0.5 0.5 0.6 0.6", "0.2 0.2 0.8 0.2 0.8 0.8 0.2 0.8"
_SHAPES = {"detect": _BOX, "segment": _CORNERS, "obb": _CORNERS, "pose": f"{_BOX} 0.3 0.3 2 0.7 0.7 2"}


def trained(task: str, folder: Path) -> dict[str, Path]:
    """Train a model on a few images, and return its files by kind."""
    from ultralytics.models import YOLO
    from ultralytics.utils import LOGGER
    from ultralytics.utils.callbacks import mlflow as logging

    LOGGER.setLevel("ERROR")
    data = _pictures_in_folders(folder) if task == "classify" else _pictures_with_shapes(folder, _SHAPES[task])
    net: Any = YOLO(_NETS[task], task=task)
    with patch.dict(logging.callbacks, clear=True):
        net.train(
            data=str(data), epochs=1, imgsz=_SIDE, batch=2, workers=0, device="cpu", plots=False, verbose=False,
            amp=False, project=str(folder), name="run", exist_ok=True,
        )  # fmt: skip
    net.save(str(folder / "saved.pt"))
    weights = folder / "run" / "weights"
    return {"best": weights / "best.pt", "last": weights / "last.pt", "saved": folder / "saved.pt"}


def _picture(seed: int) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (_SIDE, _SIDE, 3), dtype=np.uint8)


def _pictures_in_folders(folder: Path) -> Path:
    for split in ("train", "val"):
        for label in ("cat", "dog"):
            label_folder = folder / "data" / split / label
            label_folder.mkdir(parents=True)
            for index in range(2):
                cv2.imwrite(str(label_folder / f"{index}.png"), _picture(index))
    return folder / "data"


def _pictures_with_shapes(folder: Path, shape: str) -> Path:
    for split in ("train", "val"):
        for part in ("images", "labels"):
            (folder / "data" / part / split).mkdir(parents=True)
        for index in range(2):
            cv2.imwrite(str(folder / "data" / "images" / split / f"{index}.png"), _picture(index))
            (folder / "data" / "labels" / split / f"{index}.txt").write_text(f"{index} {shape}\n", encoding="utf-8")
    names = "names: {0: cat, 1: dog}"
    lines = [f"path: {folder / 'data'}", "train: images/train", "val: images/val", names]
    if shape == _SHAPES["pose"]:
        lines.append("kpt_shape: [2, 3]")
    (folder / "data.yaml").write_text("\n".join(lines), encoding="utf-8")
    return folder / "data.yaml"
