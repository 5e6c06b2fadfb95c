"""Sounds and pictures that are decoded only when they are used."""

from __future__ import annotations

import functools
import hashlib
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from mlflow_compress.errors import RecipeError, one_line

RATE_HZ = 16_000
ADVICE = "Fix it, remove it, or add skip_bad=true."  # what to do about a sample that can't be read
_UNKNOWN_PICTURE = "it is empty, damaged, or in a format that Pillow can't read"
_UNKNOWN_SOUND = "it is empty, damaged, or in a format that libsndfile can't read (it reads WAV, FLAC, OGG and MP3)"
_ORIENTATION = 0x0112  # EXIF tag: from 5 on, width and height are swapped
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # TIFF tags
_BITS = 8
_SLOWEST_HZ, _MOST_STEPS = 1_000, 50_000  # of a sound, and of the filter that resamples it
_ZERO_CROSSINGS, _ROLLOFF, _BETA = 64, 0.9475937167399596, 14.769656459379492


def without_advice(error: RecipeError) -> str:
    """Return why a sample can't be read, without the advice to skip it."""
    return str(error).removesuffix(ADVICE).rstrip()


@dataclass(frozen=True)
class _File:
    """A callable that opens a file; equal to another one for the same file."""

    path: Path

    def __call__(self) -> BinaryIO:
        return self.path.open("rb")


@dataclass(frozen=True)
class Medium(ABC):
    """A file, or a part of one, that `numpy.asarray` decodes.

    Attributes:
        name: its name in messages.
        open: opens it for reading, any number of times.
        suffixes: suffixes of its files.
        seldom_read: suffixes that few machines can read, or none: such files are reported, not ignored.
    """

    suffixes: ClassVar[frozenset[str]]
    seldom_read: ClassVar[frozenset[str]]

    name: str
    open: Callable[[], BinaryIO]

    @classmethod
    def at(cls, path: Path, name: str = "") -> Any:
        """Return the medium in a file."""
        return cls(name or str(path), _File(path))

    @abstractmethod
    def check(self) -> None:
        """Read the header.

        Raises:
            RecipeError: it can't be read, or it is empty.
        """

    @abstractmethod
    def decode(self) -> Any:
        """Return it as an array.

        Raises:
            RecipeError: it can't be read.
        """

    def digest(self) -> str:
        """Return the SHA-256 of its bytes."""
        with self.open() as file:
            return hashlib.sha256(file.read()).hexdigest()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """Decode it, for numpy."""
        return self.decode().astype(dtype, copy=False) if dtype else self.decode()

    def _unreadable(self, kind: str, error: Exception | str) -> RecipeError:
        text = str(getattr(error, "error_string", error))  # libsndfile's message, without the repr of the open file
        text = _UNKNOWN_SOUND if "not recogni" in text else text
        message = one_line(text, most=200).rstrip(".") or type(error).__name__
        return RecipeError(f"{self.name} can't be read as {kind}: {message}. {ADVICE}")


class Sound(Medium):
    """A sound: float32 [samples], mono, 16 kHz, in [-1, 1]."""

    seldom_read = frozenset({".m4a", ".aac", ".mp4", ".wma", ".webm", ".amr"})  # libsndfile can't read them
    suffixes = seldom_read | {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64"}

    @property
    def seconds(self) -> float:
        """Its length in seconds, from its header.

        Raises:
            RecipeError: it can't be read, or it is empty.
        """
        import soundfile

        try:
            with self.open() as file, soundfile.SoundFile(file) as sound:
                _require_usual(sound.samplerate)
                seconds = sound.frames / sound.samplerate
        except Exception as error:  # errors of libsndfile, the system, and the function that opens it
            raise self._unreadable("sound", error) from error
        if not seconds:
            raise self._unreadable("sound", "it is empty")
        return float(seconds)

    def check(self) -> None:
        """Read the header (see `Medium.check`)."""
        _ = self.seconds

    def decode(self) -> Any:
        """Return the mean of all channels at 16 kHz: float32 [samples]."""
        import numpy as np
        import soundfile

        try:
            with self.open() as file:
                samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
            _require_usual(rate)
        except Exception as error:  # as above
            raise self._unreadable("sound", error) from error
        if not len(samples):
            raise self._unreadable("sound", "it is empty")
        if not np.isfinite(samples).all():
            raise self._unreadable("sound", "it has samples that are not numbers")
        return resample(samples.mean(axis=1), rate)


def _require_usual(rate: int) -> None:
    """Check that a sound can be resampled to 16 kHz in little time and memory.

    Raises:
        ValueError: it can't.
    """
    if rate < _SLOWEST_HZ or max(_steps(rate)) > _MOST_STEPS:
        raise ValueError(f"its sampling rate is {rate:,} Hz; use a usual one, such as 8, 16, 44.1 or 48 kHz")


class Picture(Medium):
    """A picture: uint8 [height, width, 3], red, green and blue, rotated according to its EXIF data.

    Of 16 bits the upper 8 are used, as OpenCV and Pillow do for colours.
    """

    seldom_read = frozenset({".avif", ".heic", ".heif"})  # not every Pillow can read them
    suffixes = seldom_read | {
        *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jp2")
    }

    def check(self) -> None:
        """Read the header (see `Medium.check`)."""
        self._read(lambda image: None)

    @property
    def size(self) -> tuple[int, int]:
        """Its width and height from its header, rotated according to its EXIF data.

        Raises:
            RecipeError: it can't be read.
        """
        return self._read(lambda image: image.size[::-1] if image.getexif().get(_ORIENTATION, 1) > 4 else image.size)  # type: ignore[no-any-return]

    def decode(self) -> Any:
        """Return the pixels: uint8 [height, width, 3]."""
        import numpy as np
        from PIL import ImageOps

        def pixels(image: Any) -> Any:
            depth, is_inverted = _grey_levels(image)
            rotated = ImageOps.exif_transpose(image)
            if depth <= _BITS:
                return np.asarray(rotated.convert("RGB"))
            levels = (np.asarray(rotated) >> (depth - _BITS)).astype(np.uint8)
            return np.repeat((~levels if is_inverted else levels)[..., None], 3, axis=2)

        return self._read(pixels)

    def _read(self, use: Callable[[Any], Any]) -> Any:
        from PIL import Image

        try:
            with self.open() as file, Image.open(file) as image:
                if image.mode.startswith(("I", "F")) and _grey_levels(image)[0] <= _BITS:  # converting would clip
                    raise ValueError(
                        f"its pixels have mode {image.mode}, whose range is unknown; use 8 or 16 bits without sign"
                    )
                return use(image)
        except Exception as error:  # errors of PIL, the codecs, the system
            raise self._unreadable("a picture", picture_fault(error)) from error


def picture_fault(error: Exception) -> Exception | str:
    """Return why Pillow can't read a picture: its error, unless that only names an open file."""
    from PIL import UnidentifiedImageError

    # once imported, ultralytics tries another reader for unknown formats, whose error hides PIL's
    is_unknown = any(isinstance(cause, UnidentifiedImageError) for cause in (error, error.__context__))
    return _UNKNOWN_PICTURE if is_unknown else error


def _grey_levels(image: Any) -> tuple[int, bool]:
    """Return the bits of a grey level, and whether 0 is white; (8, False) where Pillow converts to RGB or can't.

    The formats define the range of 16 (in TIFF also 12) bits without sign: 0 is black, and the largest number is white.
    """
    if image.mode.startswith("I;16") and image.format == "TIFF":
        return int(image.tag_v2.get(_BITS_PER_SAMPLE, (16,))[0]), image.tag_v2.get(_PHOTOMETRIC) == 0
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return 16, False
    return _BITS, False


def decode_some(inputs: Sequence[Any], seconds: float) -> None:
    """Decode sounds and pictures among inputs for the given number of seconds, to find truncated ones.

    Raises:
        RecipeError: one can't be read.
    """
    end = time.monotonic() + seconds
    for medium in inputs:
        if isinstance(medium, Medium):
            medium.decode()
        if time.monotonic() > end:
            return


def decode(path: Path) -> Any:
    """Read a sound (WAV, FLAC, OGG, MP3) as float32 [samples], mono, 16 kHz.

    Raises:
        RecipeError: it can't be read.
    """
    return Sound.at(path).decode()


def resample(samples: Any, rate: int) -> Any:
    """Resample to 16 kHz with a polyphase filter.

    Source: the filter (a sinc of 64 zero crossings under a Kaiser window) is that of Smith's resampy, `kaiser_best`.

    Args:
        samples: float32 [samples].
        rate: sampling rate in Hz.
    """
    import numpy as np
    from scipy.signal import resample_poly

    if rate == RATE_HZ:
        return samples
    up, down = _steps(rate)
    return resample_poly(samples, up, down, window=_lowpass(max(up, down))).astype(np.float32)


def _steps(rate: int) -> tuple[int, int]:
    """Return the factors by which a rate is multiplied and divided to get 16 kHz."""
    common = math.gcd(rate, RATE_HZ)
    return RATE_HZ // common, rate // common


@functools.cache
def _lowpass(factor: int) -> Any:
    from scipy.signal import firwin

    return firwin(2 * _ZERO_CROSSINGS * factor + 1, _ROLLOFF / factor, window=("kaiser", _BETA))
