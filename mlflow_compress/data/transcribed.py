"""Sounds with their transcripts, on which recognisers are scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow_compress.data.datasets import Row, draw, scored
from mlflow_compress.data.media import RATE_HZ, Sound
from mlflow_compress.errors import RecipeError
from mlflow_compress.records import CautionKind
from mlflow_compress.sockets import Model

SILENT_SOUNDS = CautionKind(
    "silent_sounds",
    short={"en": "some transcripts are empty", "ru": "часть расшифровок пуста"},
    message={
        "en": "{silent} of {all} sounds have an empty transcript: every word recognised in them counts as an error",
        "ru": "записей с пустой расшифровкой: {silent} из {all}; каждое распознанное в них слово считается ошибкой",
    },
    advice={
        "en": "This is correct for silence and noise; add the words for sounds with speech.",
        "ru": "Для тишины и шума это верно; для записей с речью добавьте слова.",
    },
)
_ROLES = ("audio", "text")


def transcribed(model: Model, data: str, folder: Path, limit: int | None, seed: int) -> list[Row]:
    """Read sounds and their transcripts, and record them with the model (see `datasets.scored`).

    Raises:
        RecipeError: the data can't be read, or all transcripts are empty.
    """
    rows = scored(model, data, folder, _ROLES, limit, seed)
    if silent := sum(not str(row.values["text"]).strip() for row in rows):
        if silent == len(rows):
            raise RecipeError(
                f"{data}: all {silent} transcripts are empty, and an error rate needs spoken words. Add sounds "
                "with words."
            )
        model.cautions.append(SILENT_SOUNDS.of(silent=silent, all=len(rows)))
    return rows


def unscored(model: Model, count: int, seed: int) -> list[Any]:
    """Draw sounds that are not scored: float32 arrays [samples]; empty if there are none (see `datasets.draw`)."""
    import numpy as np

    return [np.asarray(sound, dtype=np.float32) for sound in draw(model, _ROLES, count, seed)]


def how_long_ones_are_heard(rows: Sequence[Row], seconds: float, overlap: float) -> str:
    """Return how sounds that are longer than a window are recognised; empty if there are none."""
    if all(row.values["audio"].seconds <= seconds for row in rows):
        return ""
    return f"sounds longer than {seconds:g} s in windows that overlap by {overlap:g} s"


def factor_over(sounds: Sequence[Any], seconds: float) -> Mapping[str, float]:
    """Return the real-time factor over scored sounds: the time to transcribe them divided by their length.

    Args:
        sounds: the sounds, which are `Sound`s or samples at 16 kHz.
        seconds: time that their transcription took, with reading and decoding their files.
    """
    length = sum(sound.seconds if isinstance(sound, Sound) else len(sound) / RATE_HZ for sound in sounds)
    return {"real_time_factor_scored": seconds / length} if length else {}
