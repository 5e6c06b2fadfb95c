"""`read`: read and check the part that a worker wrote: the model's own code ran there and could write anything.

A valid part can be logged: MLflow rejects a whole result for one invalid name.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path

from mlflow_compress.errors import WorkerError
from mlflow_compress.plain_text import plain
from mlflow_compress.records import Outcome, Part
from mlflow_compress.untrusted import Malformed, read_json

MOST_BYTES = 256 * 2**20  # millions of samples
RESULT_BYTES = 3 * MOST_BYTES  # of a result, made from the parts of preparing and two devices
_MOST_ITEMS = 2000  # numbers, names of samples, facts, cautions: a measurement has about a hundred
_MOST_CHARACTERS = 2000  # of a reason
_NAME = re.compile(r"(?=.{1,200}\Z)[\w-][\w. -]*(/[\w-][\w. -]*)*")
_DATA_FACTS = {"data_name": 500, "data_source": 5000, "data_digest": 36}  # most characters in MLflow


def read(path: Path) -> Part:
    """Read a part.

    Raises:
        FileNotFoundError: There is no file.
        WorkerError: The file is not a valid part.
    """
    try:
        part = Part.from_json(read_json(path, MOST_BYTES))
        _check(part)
    except FileNotFoundError:
        raise
    except (Malformed, OSError) as error:
        raise WorkerError(f"wrote no valid result: {plain(str(error), _MOST_CHARACTERS)}") from None
    return dataclasses.replace(
        part, outcome=_cut(part.outcome), quality=None if part.quality is None else _cut(part.quality)
    )


def _check(part: Part) -> None:
    """Check that MLflow can store a part.

    Raises:
        Malformed: It can't.
    """
    mappings = {
        "measurements": part.measurements,
        "samples": part.samples,
        "environment": part.environment,
        "facts": part.facts,
    }
    for field, items in {**mappings, "cautions": part.cautions}.items():
        if len(items) > _MOST_ITEMS:
            raise Malformed(f"The part has {len(items):,} {field}; at most {_MOST_ITEMS:,} are allowed.")
    for field, items in mappings.items():
        _check_names(field, items)
    if "data_digest" in part.facts:
        for name, max_length in _DATA_FACTS.items():
            if not 0 < len(part.facts.get(name, "")) <= max_length:
                raise Malformed(f"The part's {name} must have 1 to {max_length} characters.")


def _check_names(field: str, names: Iterable[str]) -> None:
    for name in names:
        if not _NAME.fullmatch(name):
            raise Malformed(f"A name in the part's {field} is not valid in MLflow: {plain(repr(name), 80)}.")


def _cut(outcome: Outcome) -> Outcome:
    return dataclasses.replace(outcome, reason=outcome.reason[:_MOST_CHARACTERS])
