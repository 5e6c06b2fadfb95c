"""Photos into the input of ultralytics' models, and boxes back into the photo."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from mlflow_compress.networks import ultralytics_images

PHOTO = np.random.default_rng(0).integers(0, 256, (40, 80, 3), dtype=np.uint8)


def test_a_path_an_opened_file_and_an_array_are_the_same_photo(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), PHOTO)

    class Opened:
        def open(self) -> io.BytesIO:
            return io.BytesIO(path.read_bytes())

    for image in (path, str(path), Opened(), PHOTO, PHOTO.tolist()):
        assert np.array_equal(ultralytics_images.read_photo(image), PHOTO)


def test_what_is_no_image_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(FileNotFoundError, match=r"a\.png can't be read as an image"):
        ultralytics_images.read_photo(tmp_path / "a.png")


def test_a_tensor_is_rgb_and_channels_first() -> None:
    tensor = ultralytics_images.as_tensor([PHOTO, PHOTO])
    assert (tensor.shape, tensor.dtype) == ((2, 3, 40, 80), torch.uint8)
    assert tensor[1, :, 5, 7].tolist() == PHOTO[5, 7, ::-1].tolist()


@pytest.mark.parametrize("side", [32, 64, 160])
def test_boxes_of_a_fitted_photo_come_back(side: int) -> None:
    fitted = ultralytics_images.fit(PHOTO, side)
    assert fitted.image.shape == (side, side, 3)
    # the photo is twice as wide as high: it fills the width, and a quarter of the height is beside it, above and below
    corners = torch.tensor([[0.0, side / 4, side, 3 * side / 4]])
    assert fitted.back(corners).tolist() == [pytest.approx([0, 0, 80, 40], abs=1.3)]


def test_a_letterbox_is_grey_beside_the_photo() -> None:
    boxed = ultralytics_images.letterbox(PHOTO, 80)
    assert np.array_equal(boxed[20:60], PHOTO)
    assert (boxed[:20] == 114).all()
    inside = torch.tensor([[8.0, 28.0, 16.0, 36.0]])
    assert ultralytics_images.in_photo(inside, 80, PHOTO).tolist() == [[8.0, 8.0, 16.0, 16.0]]


def raw(*boxes: tuple[float, ...]) -> Any:
    """Make raw boxes [1, 4 + classes, anchors] of middles, sizes and scores."""
    return torch.tensor(boxes).T[None]


def test_of_boxes_that_overlap_the_best_stays() -> None:
    output = raw((10, 10, 8, 8, 0.9, 0.1), (11, 10, 8, 8, 0.8, 0.1), (40, 40, 8, 8, 0.1, 0.6), (50, 10, 4, 4, 0.2, 0.1))
    (best,) = ultralytics_images.suppress(output, 0.25, 0.5, 0)
    assert best[:, :4].tolist() == [[6, 6, 14, 14], [36, 36, 44, 44]]
    assert best[:, 4:].tolist() == [pytest.approx([0.9, 0]), pytest.approx([0.6, 1])]
    (both,) = ultralytics_images.suppress(output, 0.05, 0.5, 0, multi_label=True)
    assert sorted(both[:, 5].tolist()) == [0, 0, 0, 1, 1, 1]
    assert ultralytics_images.boxes_of((output, "prototypes")) is output


def test_a_detector_has_no_masks() -> None:
    assert ultralytics_images.masks(raw((1, 1, 1, 1, 0.5)), 0, torch.zeros(1, 6), 64) is None
