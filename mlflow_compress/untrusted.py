"""Reads what others wrote: JSON with limits on size and depth, and made into the record that it claims to be.

Others are another team's runs and their files, a worker, an entry of the spool that another version left. Whatever
these hold, a reader gets data of the right types, or `Malformed`.
"""

from __future__ import annotations

import functools
import json
import math
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from mlflow_compress.plain_text import plain

if TYPE_CHECKING:
    import pydantic

MOST_BYTES = 64 * 2**20  # of JSON, unless a reader allows more: the samples of a long sweep take one of them
_LONGEST_NAME = 80  # characters of what is named in a sentence

_Record = TypeVar("_Record")


class Malformed(ValueError):  # noqa: N818  (says what is wrong without a suffix)
    """What another wrote is not what it is said to be. The message is one sentence, on one line, of plain text."""


def read_json(path: Path, most_bytes: int = MOST_BYTES, name: str = "", *, finite: bool = True) -> Any:
    """Read JSON data from a file, as `parse_json` does.

    Args:
        path: the file.
        most_bytes: a larger file is not opened.
        name: what the sentence calls it; empty: by its own name.
        finite: as `parse_json` takes it.

    Raises:
        OSError: the file can't be read.
        Malformed: it is no file, it is too large, or not such JSON.
    """
    name = name or path.name
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # a pipe would keep the reader waiting
        raise Malformed(f"{_named(name)} is not a file.")
    check_size(name, status.st_size, most_bytes)
    with path.open("rb") as file:
        return parse_json(file.read(most_bytes + 1), name, most_bytes, finite=finite)  # it may grow meanwhile


def parse_json(text: str | bytes, name: str, most_bytes: int = MOST_BYTES, *, finite: bool = True) -> Any:
    """Return the data that a text in JSON holds.

    It is JSON as its standard has it: UTF-8, no NaN, no infinity, and at most some 200 brackets within brackets.

    Args:
        text: the text, or its bytes.
        name: what the sentence calls it.
        most_bytes: it may have.
        finite: whether NaN and infinity are refused, as the standard has it; Python writes them.

    Raises:
        Malformed: it is too large, too deep, or not such JSON.
    """
    import pydantic_core

    check_size(name, len(text), most_bytes)
    try:
        encoded = text.encode() if isinstance(text, str) else text
        check_size(name, len(encoded), most_bytes)
        pydantic_core.from_json(encoded)  # has limits, where Python's own parser exhausts the stack
        if not finite:
            return json.loads(encoded)
        return json.loads(encoded, parse_constant=_no_number, parse_float=_finite)
    except Malformed as error:
        raise Malformed(f"{_named(name)} {error}") from None
    except UnicodeError:  # half a character, as Python's texts may hold
        raise Malformed(f"{_named(name)} is not in UTF-8.") from None
    except ValueError as error:
        raise Malformed(f"{_named(name)} is not JSON: {plain(str(error))}.") from None


def record(kind: type[_Record], data: object, name: str) -> _Record:
    """Make a record of data, as its annotations say.

    What is missing gets the field's default. A key that the record has no field for is refused: it was written by a
    newer version, and may change what the others mean.

    Args:
        kind: a dataclass, whose fields are text, numbers, records, and lists and mappings of these.
        data: what its JSON held.
        name: what the sentence calls it.

    Raises:
        Malformed: a key is missing or unknown, or a value of another type; or a number that is not finite.
    """
    import pydantic
    import pydantic_core

    try:
        # As JSON, where a list may stand for a tuple though the types are strict.
        (made,) = _schema(cast(Any, kind)).validate_json(pydantic_core.to_json([data], inf_nan_mode="constants"))
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = _named(".".join(map(str, (name, *first["loc"][1:]))))
        if first["type"] == "unexpected_keyword_argument":
            raise Malformed(f"{place} is not known to this version of mlflow-compress: is it of a newer one?") from None
        raise Malformed(f"{place}: {plain(first['msg'])}.") from None
    except (ValueError, RecursionError) as error:  # half a character; data that no JSON of ours held
        raise Malformed(f"{_named(name)}: {plain(str(error))}.") from None
    return cast(_Record, made)


@functools.cache
def _schema(kind: Any) -> pydantic.TypeAdapter[tuple[Any]]:
    """Return what checks a list of one record. A dataclass of Python's has no settings of its own to be strict by."""
    import pydantic

    settings = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)
    return pydantic.TypeAdapter(tuple[kind], config=settings)


def check_size(name: str, size: int, most: int) -> None:
    """Refuse what takes more bytes than it may.

    Args:
        name: what the sentence calls it.
        size: how many bytes it takes.
        most: how many it may take.

    Raises:
        Malformed: it takes more.
    """
    if size > most:
        raise Malformed(f"{_named(name)} takes {size / 2**20:,.1f} MiB, more than the {most / 2**20:,.1f} it may.")


def _named(name: str) -> str:
    return plain(name, _LONGEST_NAME)


def _no_number(text: str) -> NoReturn:
    raise Malformed(f"holds {text}, which is not a number.")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise Malformed("holds a number that is too large.")
    return number
