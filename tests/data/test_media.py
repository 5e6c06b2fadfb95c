from __future__ import annotations

import io
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mlflow_compress.data.media import RATE_HZ, Picture, Sound, decode, decode_some, resample
from mlflow_compress.errors import RecipeError


def tone(hertz: float, seconds: float = 0.5, rate: int = RATE_HZ) -> Any:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def level_db(samples: Any, hertz: float) -> float:
    """Return the level of one frequency, in dB relative to a sine of amplitude 0.5, without the ends."""
    inner = samples[len(samples) // 4 : -len(samples) // 4].astype(np.float64) * np.hanning(len(samples) // 2)
    wave = np.exp(-2j * np.pi * hertz * np.arange(len(inner)) / RATE_HZ)
    return 20 * math.log10(max(abs(inner @ wave) / (0.25 * np.hanning(len(inner)).sum()), 1e-12))


@pytest.mark.parametrize(("suffix", "error"), [(".wav", 1e-4), (".flac", 1e-4), (".ogg", 0.05), (".mp3", 0.2)])
def test_sounds_are_decoded(tmp_path: Path, suffix: str, error: float) -> None:
    path = tmp_path / f"a{suffix}"
    soundfile.write(path, tone(440), RATE_HZ)
    samples = decode(path)
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    if suffix != ".mp3":  # whose encoder adds silence
        assert np.abs(samples - tone(440)).max() < error
    assert level_db(samples, 440) == pytest.approx(0, abs=0.3)
    assert Sound.at(path).seconds == pytest.approx(0.5, abs=0.1)


def test_channels_are_averaged(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.stack([tone(440), np.zeros(8000, np.float32)], axis=1), RATE_HZ)
    assert np.abs(decode(tmp_path / "a.wav") - tone(440) / 2).max() < 1e-4


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 24000, 44100, 48000, 96000])
def test_rates_become_16_khz(rate: int) -> None:
    samples = resample(tone(1000, rate=rate), rate)
    assert samples.dtype == np.float32
    assert len(samples) == pytest.approx(8000, abs=1)
    inner = slice(400, -400)
    assert np.abs(samples[: len(tone(1000))] - tone(1000)[: len(samples)])[inner].max() < 1e-3


@pytest.mark.parametrize("rate", [22050, 44100, 48000])
def test_frequencies_above_the_limit_are_removed(rate: int) -> None:
    filtered = resample(tone(9000, rate=rate), rate)
    assert np.abs(filtered[800:-800]).max() < 0.5 * 10 ** (-80 / 20)
    assert level_db(resample(tone(7000, rate=rate), rate), 7000) == pytest.approx(0, abs=0.1)


def test_sounds_are_decoded_when_they_are_used(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(440), RATE_HZ)
    opened = []

    def open_it() -> Any:
        opened.append(1)
        return (tmp_path / "a.wav").open("rb")

    sound = Sound("a.wav", open_it)
    assert not opened
    assert np.asarray(sound, dtype=np.float64).dtype == np.float64
    assert np.asarray(sound).shape == (8000,)
    assert len(opened) == 2


def broken(tmp_path: Path) -> dict[str, bytes]:
    soundfile.write(tmp_path / "good.flac", tone(440, 2), RATE_HZ)
    flac = (tmp_path / "good.flac").read_bytes()
    empty = io.BytesIO()
    soundfile.write(empty, np.zeros(0, np.float32), RATE_HZ, format="WAV")
    strange = io.BytesIO()
    soundfile.write(strange, np.array([0, np.nan], np.float32), RATE_HZ, format="WAV", subtype="FLOAT")
    return {
        "text.wav": b"this is no sound",
        "nothing.wav": b"",
        "empty.wav": empty.getvalue(),
        "nan.wav": strange.getvalue(),
        "cut.flac": flac[: len(flac) // 2],
        "holed.flac": flac[:200] + bytes(400) + flac[600:],
    }


@pytest.mark.parametrize("name", ["text.wav", "nothing.wav", "empty.wav", "nan.wav", "cut.flac", "holed.flac"])
def test_a_broken_sound_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(broken(tmp_path)[name])
    with pytest.raises(RecipeError, match=f"{name} can't be read as sound: .*skip_bad=true") as caught:
        decode(path)
    assert "BufferedReader" not in str(caught.value)
    assert ".." not in str(caught.value)
    if name not in ("nan.wav", "cut.flac", "holed.flac"):  # their headers are valid
        with pytest.raises(RecipeError, match=name):
            Sound.at(path).check()


def test_a_missing_sound_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"gone\.wav"):
        decode(tmp_path / "gone.wav")


PIXELS = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".webp"])
def test_pictures_are_decoded(tmp_path: Path, suffix: str) -> None:
    options: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {}
    Image.fromarray(PIXELS).save(tmp_path / f"a{suffix}", **options)
    picture = Picture.at(tmp_path / f"a{suffix}")
    picture.check()
    assert np.array_equal(np.asarray(picture), PIXELS)


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGBA", "CMYK", "LA"])
def test_pictures_become_rgb(tmp_path: Path, mode: str) -> None:
    Image.fromarray(PIXELS).convert(mode).save(tmp_path / "a.tiff")
    pixels = Picture.at(tmp_path / "a.tiff").decode()
    assert (pixels.dtype, pixels.shape) == (np.uint8, (5, 7, 3))


def test_pictures_are_rotated_according_to_exif(tmp_path: Path) -> None:
    image = Image.fromarray(PIXELS)
    exif = image.getexif()
    exif[0x0112] = 6  # a quarter to the right
    image.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(Picture.at(tmp_path / "a.png").decode(), np.rot90(PIXELS, -1))


def test_a_broken_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_bytes(b"no picture")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(tmp_path / "good.jpg")
    content = (tmp_path / "good.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "deep.tiff")
    for name, has_header in (("text.png", False), ("cut.jpg", True), ("deep.tiff", False), ("gone.png", False)):
        picture = Picture.at(tmp_path / name)
        if has_header:
            picture.check()
        else:
            with pytest.raises(RecipeError, match=name):
                picture.check()
        with pytest.raises(RecipeError, match=f"{name} can't be read as a picture: .*skip_bad=true"):
            np.asarray(picture)


@given(st.integers(1, 3000), st.sampled_from([4000, 8000, 16000, 44100, 48000, 192000]))
@settings(max_examples=40, deadline=None)
def test_any_length_is_resampled(length: int, rate: int) -> None:
    samples = resample(np.ones(length, np.float32), rate)
    assert len(samples) == math.ceil(length * RATE_HZ / rate)
    assert np.isfinite(samples).all()


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_a_truncated_picture_is_found_before_it_is_used(tmp_path: Path, form: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    noise.save(tmp_path / "a", form)
    (tmp_path / "b").write_bytes((tmp_path / "a").read_bytes()[:1500])
    complete, cut = Picture.at(tmp_path / "a"), Picture.at(tmp_path / "b")
    cut.check()  # the header is complete
    decode_some(["a text", complete], 60)
    with pytest.raises(RecipeError, match=r"b can't be read as a picture: .*truncated.*skip_bad=true"):
        decode_some([complete, cut], 60)
    decode_some([complete, cut], 0)  # no time for the second


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_sounds_of_any_depth_and_channels_are_the_same(tmp_path: Path, subtype: str, channels: int) -> None:
    soundfile.write(tmp_path / "a.wav", np.stack([tone(440)] * channels, axis=1), RATE_HZ, subtype=subtype)
    samples = decode(tmp_path / "a.wav")
    assert samples.shape == (8000,)
    assert np.abs(samples - tone(440)).max() < (0.01 if subtype == "PCM_U8" else 1e-4)


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("L", 90, [90, 90, 90]),
        ("LA", (90, 0), [90, 90, 90]),
        ("1", 1, [255, 255, 255]),
        ("RGBA", (200, 10, 20, 0), [200, 10, 20]),
        ("I;16", 0x5A7F, [90, 90, 90]),
        ("I;16", 65_535, [255, 255, 255]),
    ],
)
def test_pictures_of_any_colours_are_red_green_and_blue(
    tmp_path: Path, mode: str, colour: Any, expected: list[int]
) -> None:
    Image.new(mode, (3, 2), colour).save(tmp_path / "a.png")
    pixels = np.asarray(Picture.at(tmp_path / "a.png"))
    assert (pixels.shape, pixels[0, 0].tolist()) == ((2, 3, 3), expected)


def test_the_first_picture_of_an_animation_is_read(tmp_path: Path) -> None:
    first, second = (Image.new("RGB", (3, 2), colour) for colour in ("red", "lime"))
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    assert np.asarray(Picture.at(tmp_path / "a.gif"))[0, 0].tolist() == [255, 0, 0]


def test_a_picture_is_equal_to_itself(tmp_path: Path) -> None:
    assert Picture.at(tmp_path / "a.png") == Picture.at(tmp_path / "a.png")
    assert len({Picture.at(tmp_path / "a.png"), Picture.at(tmp_path / "b.png")}) == 2


@pytest.mark.parametrize("suffix", [".tiff", ".jpg"])
def test_the_colours_of_printing_become_red_green_and_blue(tmp_path: Path, suffix: str) -> None:
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / f"a{suffix}", quality=100)  # TIFF ignores the quality
    assert np.asarray(Picture.at(tmp_path / f"a{suffix}"))[8, 8].tolist() == pytest.approx([255, 0, 0], abs=3)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.pgm", b"P5\n2 1\n65535\n" + bytes([0x5A, 0x7F, 0xFF, 0xFF])),
        ("a.pgm", b"P5\n2 1\n1023\n" + bytes([1, 0x69, 3, 0xFF])),
    ],
)
def test_16_bits_of_grey_are_those_of_the_format(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert np.asarray(Picture.at(tmp_path / name))[0].tolist() == [[90] * 3, [255] * 3]


def test_16_bits_are_rotated_and_may_begin_with_white(tmp_path: Path) -> None:
    levels = (np.arange(6, dtype=np.uint16) * 0x1000).reshape(2, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter to the right
    Image.fromarray(levels).save(tmp_path / "a.png", exif=exif)
    expected = np.rot90((levels >> 8).astype(np.uint8), -1)
    assert np.array_equal(np.asarray(Picture.at(tmp_path / "a.png"))[..., 0], expected)
    Image.fromarray(levels).save(tmp_path / "white.tiff")
    tag = struct.Struct("<HHIH")
    content = (tmp_path / "white.tiff").read_bytes()
    assert content.count(tag.pack(262, 3, 1, 1)) == 1
    (tmp_path / "white.tiff").write_bytes(content.replace(tag.pack(262, 3, 1, 1), tag.pack(262, 3, 1, 0)))
    assert np.array_equal(np.asarray(Picture.at(tmp_path / "white.tiff"))[..., 0], 255 - (levels >> 8))


def test_a_stereo_mp3_of_48_khz_is_read(tmp_path: Path) -> None:
    left = tone(1000, seconds=1, rate=48_000)
    soundfile.write(tmp_path / "a.mp3", np.stack([left, np.zeros_like(left)], axis=1), 48_000)
    samples = decode(tmp_path / "a.mp3")
    assert len(samples) == pytest.approx(RATE_HZ, abs=2000)
    assert level_db(samples[:RATE_HZ], 1000) == pytest.approx(-6, abs=0.5)


@pytest.mark.parametrize("rate", [1, 655_357, 2_147_483_647])
def test_a_sound_that_would_take_too_much_memory_is_named(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", tone(440), rate)
    sound = Sound.at(tmp_path / "a.wav")
    with pytest.raises(RecipeError, match=rf"its sampling rate is {rate:,} Hz; use a usual one"):
        sound.check()
    with pytest.raises(RecipeError, match="its sampling rate is"):
        sound.decode()
