"""Read untrusted JSON, with limits on size and depth, and convert it to a record.

Untrusted data are runs and files of other teams, the output of a worker, or spool entries of another version. A reader
gets data of the right types, or `Malformed`.
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

MOST_BYTES = 64 * 2**20  # of JSON, unless a reader allows more: the samples of a long sweep take 1 MiB
_LONGEST_NAME = 80  # characters of a name in a message

_Record = TypeVar("_Record")


class Malformed(ValueError):  # noqa: N818  (says what is wrong without a suffix)
    """Untrusted data is invalid. The message is one line of plain text."""


def read_json(path: Path, most_bytes: int = MOST_BYTES, name: str = "", *, finite: bool = True) -> Any:
    """Read JSON data from a file (see `parse_json`).

    Args:
        path: The file.
        most_bytes: Maximum size; a larger file is not opened.
        name: Name in error messages; empty: the name of the file.
        finite: See `parse_json`.

    Raises:
        OSError: The file can't be read.
        Malformed: It is not a file, is too large, or is not valid JSON.
    """
    name = name or path.name
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # reading a pipe would block
        raise Malformed(f"{_named(name)} is not a file.")
    check_size(name, status.st_size, most_bytes)
    with path.open("rb") as file:
        return parse_json(file.read(most_bytes + 1), name, most_bytes, finite=finite)  # it may have grown


def parse_json(text: str | bytes, name: str, most_bytes: int = MOST_BYTES, *, finite: bool = True) -> Any:
    """Parse JSON text.

    It must be standard JSON: UTF-8, without NaN and infinity, and with at most about 200 nested brackets.

    Args:
        text: The text, or its bytes.
        name: Name in error messages.
        most_bytes: Maximum size.
        finite: Whether NaN and infinity are rejected, as in the standard; Python writes them.

    Raises:
        Malformed: It is too large, nested too deeply, or not valid JSON.
    """
    import pydantic_core

    check_size(name, len(text), most_bytes)
    try:
        encoded = text.encode() if isinstance(text, str) else text
        check_size(name, len(encoded), most_bytes)
        pydantic_core.from_json(encoded)  # has limits; Python's own parser could exhaust the stack
        if not finite:
            return json.loads(encoded)
        return json.loads(encoded, parse_constant=_no_number, parse_float=_finite)
    except Malformed as error:
        raise Malformed(f"{_named(name)} {error}") from None
    except UnicodeError:  # a surrogate, which Python strings may contain
        raise Malformed(f"{_named(name)} is not in UTF-8.") from None
    except ValueError as error:
        raise Malformed(f"{_named(name)} is not JSON: {plain(str(error))}.") from None


def record(kind: type[_Record], data: object, name: str) -> _Record:
    """Convert data to a record, checked against its annotations.

    Missing keys get the field's default. Unknown keys are rejected: a newer version wrote them, and they may change the
    meaning of others.

    Args:
        kind: A dataclass whose fields are text, numbers, records, and lists and mappings of these.
        data: Parsed JSON data.
        name: Name in error messages.

    Raises:
        Malformed: A key is missing or unknown, a value has the wrong type, or a number is not finite.
    """
    import pydantic
    import pydantic_core

    try:
        # From JSON, a list is valid for a tuple even with strict types.
        (result,) = _schema(cast(Any, kind)).validate_json(pydantic_core.to_json([data], inf_nan_mode="constants"))
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        field = _named(".".join(map(str, (name, *first["loc"][1:]))))
        if first["type"] == "unexpected_keyword_argument":
            raise Malformed(f"{field} is unknown to this version of mlflow-compress. Is it from a newer one?") from None
        raise Malformed(f"{field}: {plain(first['msg'])}.") from None
    except (ValueError, RecursionError) as error:  # a surrogate; data that did not come from our JSON
        raise Malformed(f"{_named(name)}: {plain(str(error))}.") from None
    return cast(_Record, result)


@functools.cache
def _schema(kind: Any) -> pydantic.TypeAdapter[tuple[Any]]:
    """Return the type adapter for a list of one record: a plain dataclass has no strict mode of its own."""
    import pydantic

    settings = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)
    return pydantic.TypeAdapter(tuple[kind], config=settings)


def check_size(name: str, size: int, most: int) -> None:
    """Check the size of untrusted data.

    Args:
        name: Name in error messages.
        size: Size in bytes.
        most: Maximum size in bytes.

    Raises:
        Malformed: It is too large.
    """
    if size > most:
        raise Malformed(f"{_named(name)} has {size / 2**20:,.1f} MiB; at most {most / 2**20:,.1f} MiB are allowed.")


def _named(name: str) -> str:
    return plain(name, _LONGEST_NAME)


def _no_number(text: str) -> NoReturn:
    raise Malformed(f"contains {text}, which is not a number.")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise Malformed("contains a number that is too large.")
    return number
