"""Long sounds in overlapping windows: where each window lies, and how the texts of neighbours are joined.

Source: transformers' pipeline for speech recognition with `chunk_length_s`, whose windows overlap by a sixth of their
length on each side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

SHARE = 6  # a window overlaps each neighbour by twice this part of its length: both drop one half
_LONG_MATCHES_FIRST = 10_000  # a longer overlap wins among equal shares of agreement


@dataclass(frozen=True)
class Window:
    """A part of a sound, in samples.

    Attributes:
        start, end: its position in the sound.
        left, right: lengths of its ends that belong to its neighbours; 0 at the ends of the sound.
    """

    start: int
    end: int
    left: int
    right: int

    def frames(self, hop: int) -> slice:
        """Return its frames that no neighbour has; there is one frame for every `hop` samples."""
        return slice(self.left // hop, (self.end - self.start - self.right) // hop if self.right else None)


def windows(length: int, window: int, hop: int = 1) -> Iterator[Window]:
    """Cut a sound into windows; a sound that is not longer than one window is not cut.

    Args:
        length: length of the sound, in samples.
        window: length of a window, in samples.
        hop: samples in one frame of the model's output; windows begin and end between two frames.
    """
    if length <= window:
        yield Window(0, length, 0, 0)
        return
    window = max(window // hop, SHARE) * hop
    overlap = window // SHARE // hop * hop
    for start in range(0, length, window - 2 * overlap):
        end = min(start + window, length)
        yield Window(start, end, overlap if start else 0, 0 if end == length else overlap)
        if end == length:
            break


def joined(parts: Sequence[Sequence[int]]) -> list[int]:
    """Join the tokens of overlapping windows where the end of one agrees best with the beginning of the next.

    Of two parts that agree, the first half is taken from the left one, and the second half from the right one. Parts
    that agree in less than two tokens are put side by side.

    Source: `_find_longest_common_sequence` of transformers' Whisper tokenizer.
    """
    tokens: list[int] = []
    left = list(parts[0])
    for right in map(list, parts[1:]):
        best = 0.0
        left_end, right_start = len(left), 0
        for shift in range(1, len(left) + len(right)):
            in_left = range(max(0, len(left) - shift), min(len(left), len(left) + len(right) - shift))
            in_right = range(max(0, shift - len(left)), min(len(right), shift))
            matches = sum(left[one] == right[other] for one, other in zip(in_left, in_right, strict=True))
            agreement = matches / shift + shift / _LONG_MATCHES_FIRST
            if matches > 1 and agreement > best:
                best = agreement
                left_end = (in_left.start + in_left.stop) // 2
                right_start = (in_right.start + in_right.stop) // 2
        tokens += left[:left_end]
        left = right[right_start:]
    return tokens + left
