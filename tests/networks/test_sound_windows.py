"""Windows over long sounds: every frame belongs to exactly one window, and texts are joined as transformers does."""

from __future__ import annotations

import random

import pytest

from mlflow_compress.networks.sound_windows import Window, joined, windows


def test_a_sound_that_fits_is_not_cut() -> None:
    assert list(windows(480_000, 480_000)) == [Window(0, 480_000, 0, 0)]
    assert list(windows(1, 480_000)) == [Window(0, 1, 0, 0)]


def test_windows_overlap_by_a_sixth_on_each_side() -> None:
    assert list(windows(50, 30)) == [Window(0, 30, 0, 5), Window(20, 50, 5, 0)]
    assert list(windows(51, 30)) == [Window(0, 30, 0, 5), Window(20, 50, 5, 5), Window(40, 51, 5, 0)]


@pytest.mark.parametrize("hop", [1, 320, 1280])
@pytest.mark.parametrize("length", [480_001, 700_000, 1_000_001, 2_400_000])
def test_every_frame_counts_once(hop: int, length: int) -> None:
    frames = []
    for window in windows(length, 480_000, hop):
        assert window.start % hop == 0
        numbers = range(window.start // hop, window.end // hop)
        frames += list(numbers[window.frames(hop)])
    assert frames == list(range(length // hop))


def test_texts_are_joined_where_they_agree() -> None:
    assert joined([[1, 2, 3, 4, 5, 6]]) == [1, 2, 3, 4, 5, 6]
    assert joined([[1, 2, 3, 4, 5, 6], [4, 5, 6, 7, 8]]) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert joined([[1, 2, 3, 4, 9], [8, 3, 4, 5, 6], [5, 6, 7]]) == [1, 2, 3, 4, 5, 6, 7]
    assert joined([[1, 2], [3, 4]]) == [1, 2, 3, 4]
    assert joined([[], [3, 4], []]) == [3, 4]


def test_texts_are_joined_as_by_transformers() -> None:
    from transformers.models.whisper.tokenization_whisper import _find_longest_common_sequence

    chooser = random.Random(0)
    for _ in range(50):
        text = [chooser.randrange(20) for _ in range(60)]
        parts = [text[start : start + 25] for start in range(0, 50, 15)]
        for part in parts:  # a recogniser errs
            part[chooser.randrange(len(part))] = 99
        assert joined(parts) == _find_longest_common_sequence(parts)
