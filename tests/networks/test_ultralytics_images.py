"""Photos become the input of ultralytics models, and boxes are mapped back into the photo."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from mlflow_compress.data.media import Picture
from mlflow_compress.errors import RecipeError
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


def test_a_file_that_is_not_an_image_is_reported(tmp_path: Path) -> None:
    for content in (b"no image", b""):
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(FileNotFoundError, match=r"a\.png can't be read as an image"):
            ultralytics_images.read_photo(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tiff"])
def test_a_photo_is_turned_once_as_its_exif_says(tmp_path: Path, suffix: str) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # to be rotated by 90 degrees
    Image.fromarray(PHOTO).save(tmp_path / f"a{suffix}", exif=turned)
    assert ultralytics_images.read_photo(tmp_path / f"a{suffix}").shape == (80, 40, 3)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1"])
def test_photos_of_any_colours_have_three(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (6, 4)).save(tmp_path / "a.png")
    assert ultralytics_images.read_photo(tmp_path / "a.png").shape == (4, 6, 3)


def test_the_first_picture_of_an_animation_is_taken(tmp_path: Path) -> None:
    first, second = (Image.new("RGB", (6, 4), colour) for colour in ("red", "lime"))
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    assert ultralytics_images.read_photo(Picture.at(tmp_path / "a.gif"))[0, 0].tolist() == [0, 0, 255]


def test_a_picture_of_a_data_set_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(RecipeError, match=r"a\.png can't be read as a picture: it is empty, damaged.*skip_bad=true"):
        ultralytics_images.read_photo(Picture.at(tmp_path / "a.png"))


def test_a_tensor_is_rgb_and_channels_first() -> None:
    tensor = ultralytics_images.as_tensor([PHOTO, PHOTO])
    assert (tensor.shape, tensor.dtype) == ((2, 3, 40, 80), torch.uint8)
    assert tensor[1, :, 5, 7].tolist() == PHOTO[5, 7, ::-1].tolist()


@pytest.mark.parametrize("side", [32, 64, 160])
def test_boxes_of_a_fitted_photo_come_back(side: int) -> None:
    fitted = ultralytics_images.fit(PHOTO, side)
    assert fitted.image.shape == (side, side, 3)
    # the photo is twice as wide as high: it fills the width, with borders of a quarter of the height above and below
    corners = torch.tensor([[0.0, side / 4, side, 3 * side / 4]])
    assert fitted.back(corners).tolist() == [pytest.approx([0, 0, 80, 40], abs=1.3)]


def test_a_letterbox_is_grey_beside_the_photo() -> None:
    boxed = ultralytics_images.letterbox(PHOTO, 80)
    assert np.array_equal(boxed[20:60], PHOTO)
    assert (boxed[:20] == 114).all()
    inside = torch.tensor([[8.0, 28.0, 16.0, 36.0]])
    assert ultralytics_images.in_photo(inside, 80, PHOTO).tolist() == [[8.0, 8.0, 16.0, 16.0]]


def raw(*boxes: tuple[float, ...]) -> Any:
    """Make raw boxes [1, 4 + classes, anchors] from centres, sizes and scores."""
    return torch.tensor(boxes).T[None]


def test_of_boxes_that_overlap_the_best_stays() -> None:
    output = raw((10, 10, 8, 8, 0.9, 0.1), (11, 10, 8, 8, 0.8, 0.1), (40, 40, 8, 8, 0.1, 0.6), (50, 10, 4, 4, 0.2, 0.1))
    (best,) = ultralytics_images.suppress(output, 0.25, 0.5, 0)
    assert best[:, :4].tolist() == [[6, 6, 14, 14], [36, 36, 44, 44]]
    assert best[:, 4:].tolist() == [pytest.approx([0.9, 0]), pytest.approx([0.6, 1])]
    (boxes,) = ultralytics_images.suppress(output, 0.05, 0.5, 0, multi_label=True)
    assert sorted(boxes[:, 5].tolist()) == [0, 0, 0, 1, 1, 1]
    assert ultralytics_images.boxes_of((output, "prototypes")) is output


def test_a_detector_has_no_masks() -> None:
    assert ultralytics_images.masks(raw((1, 1, 1, 1, 0.5)), 0, torch.zeros(1, 6), 64) is None
