"""Reads what others wrote: JSON with limits on size and depth, and made into the record that it claims to be.

Others are another team's runs and their files, a worker, an entry of the spool that another version left. Whatever
these hold, a reader gets data of the right types, or `Unreadable`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import reprlib
import stat
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeGuard, TypeVar, Union, cast

from mlflow_compress.plain_text import plain

MOST_BYTES = 64 * 2**20  # of JSON, unless a reader allows more: the samples of a long sweep take one of them
MOST_DEPTH = 64  # brackets within brackets: our own records have ten
MOST_ITEMS = 5_000_000  # of one list or object of a record
_LARGEST = 2**63  # whole numbers beyond it are no counts, and no float holds those of 310 digits
_LONGEST_NAME = 80  # characters of what is named in a sentence

_Record = TypeVar("_Record")
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_ALL_BUT_BRACKETS = bytes(sorted(set(range(256)) - set(_STEPS)))
_CHUNK = 2**20
_KINDS: Mapping[object, str] = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


class Unreadable(ValueError):  # noqa: N818  (says what is wrong without a suffix)
    """What another wrote is not what it is said to be. The message is one sentence, on one line, of plain text."""


def read_json(path: Path, most_bytes: int = MOST_BYTES, name: str = "") -> Any:
    """Read JSON data from a file, as `parse_json` does.

    Args:
        path: the file.
        most_bytes: a larger file is not opened.
        name: what the sentence calls it; empty: by its own name.

    Raises:
        OSError: the file can't be read.
        Unreadable: it is no file, it is too large, or not such JSON.
    """
    name = name or path.name
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # a pipe would keep the reader waiting
        raise Unreadable(f"{_named(name)} is no file.")
    if status.st_size > most_bytes:
        _refuse_size(name, status.st_size, most_bytes)
    with path.open("rb") as file:
        return parse_json(file.read(most_bytes + 1), name, most_bytes)  # it may grow meanwhile


def parse_json(text: str | bytes, name: str, most_bytes: int = MOST_BYTES) -> Any:
    """Return the data that a text in JSON holds.

    It is JSON as its standard has it: UTF-8, no key twice in an object, no NaN or infinity. Brackets are counted before
    anything is parsed, so no depth of them can exhaust the stack.

    Args:
        text: the text, or its bytes.
        name: what the sentence calls it.
        most_bytes: it may have.

    Raises:
        Unreadable: it is too large, too deep, or not such JSON.
    """
    if len(text) > most_bytes:
        _refuse_size(name, len(text), most_bytes)
    try:
        encoded, decoded = (text.encode(), text) if isinstance(text, str) else (text, text.decode())
    except UnicodeError:
        raise Unreadable(f"{_named(name)} is not in UTF-8.") from None
    if len(encoded) > most_bytes:
        _refuse_size(name, len(encoded), most_bytes)
    if any(depth > MOST_DEPTH for depth in _depths(encoded)):
        raise Unreadable(f"{_named(name)} holds more than {MOST_DEPTH} brackets within brackets.")
    try:
        return json.loads(decoded, object_pairs_hook=_object, parse_constant=_no_number, parse_float=_finite)
    except Unreadable as error:
        raise Unreadable(f"{_named(name)} {error}") from None
    except json.JSONDecodeError as error:
        raise Unreadable(f"{_named(name)} is not JSON: {error.msg} at line {error.lineno}.") from None
    except ValueError:  # Python's limit on the digits of a whole number
        raise Unreadable(f"{_named(name)} holds a number of thousands of digits.") from None


def record(kind: type[_Record], data: object, name: str) -> _Record:
    """Make a record of data, as its annotations say.

    What is missing gets the field's default. A key that the record has no field for is refused: it was written by a
    newer version, and may change what the others mean.

    Args:
        kind: a dataclass, whose fields are text, numbers, records, and lists and mappings of these.
        data: what its JSON held.
        name: what the sentence calls it.

    Raises:
        Unreadable: a key is missing or unknown, or a value of another type; or a number that is not finite.
    """
    return cast(_Record, _as_record(kind, data, name))


def _refuse_size(name: str, size: int, most: int) -> NoReturn:
    raise Unreadable(f"{_named(name)} takes {size / 2**20:,.1f} MiB, more than the {most / 2**20:,.1f} it may.")


def _named(name: str) -> str:
    return plain(name, _LONGEST_NAME)


def _depths(text: bytes) -> Iterable[int]:
    """Yield how many brackets are open at most in each part of a text; those within strings are none."""
    text = text.replace(b"\\\\", b"").replace(b'\\"', b"")  # what is left of quotation marks begins or ends a string
    depth = within = 0
    for start in range(0, len(text), _CHUNK):
        pieces = text[start : start + _CHUNK].split(b'"')
        outside = b"".join(pieces[within::2]).translate(None, _ALL_BUT_BRACKETS)
        within ^= (len(pieces) - 1) % 2
        depths = [*accumulate(map(_STEPS.__getitem__, outside), initial=depth)]
        yield max(depths)
        depth = depths[-1]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise Unreadable("holds a key twice in one object.")
    return made


def _no_number(text: str) -> NoReturn:
    raise Unreadable(f"holds {text}, which is no number.")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise Unreadable("holds a number that is too large.")
    return number


@functools.cache
def _hints(kind: Any) -> Mapping[str, Any]:
    return typing.get_type_hints(kind)


def _as_record(kind: type[Any], data: object, where: str) -> Any:
    if not isinstance(data, Mapping):
        _refuse(where, data, "an object")
    hints = _hints(cast(Any, kind))
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for key in data:
        if key not in fields:
            raise Unreadable(
                f"{where} has the key {plain(reprlib.repr(key))}, which this version of mlflow-compress does not know: "
                "it may be of a newer one."
            )
    for name, field in fields.items():
        has_default = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if name not in data and not has_default:
            raise Unreadable(f"{where} lacks {name}.")
    return kind(**{name: _as(hints[name], value, f"{where}.{name}") for name, value in data.items()})


def _as(hint: Any, value: object, where: str) -> Any:
    """Return a value as a type has it.

    Raises:
        Unreadable: it is none of that type.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _as_record(hint, value, where)
    if origin is Literal:
        if not isinstance(value, str) or value not in arguments:
            _refuse(where, value, f"one of {', '.join(map(repr, arguments))}")
        return value
    if origin in (Union, types.UnionType):
        return _as_one_of(arguments, value, where)
    if origin in (list, tuple):
        return _as_sequence(origin, arguments, value, where)
    if origin is not None and issubclass(origin, Mapping):
        return _as_mapping(arguments[1], value, where)
    return _as_scalar(hint, value, where)


def _as_one_of(hints: Sequence[Any], value: object, where: str) -> Any:
    for hint in hints:
        try:
            return _as(hint, value, where)
        except Unreadable as error:
            if dataclasses.is_dataclass(hint) and value is not None:
                raise  # it says more than that none of them fits
            last = error
    if len(hints) == 2 and hints[-1] is types.NoneType:
        return _as(hints[0], value, where)
    raise last


def _as_sequence(kind: type[Any], hints: Sequence[Any], value: object, where: str) -> Any:
    if not isinstance(value, (list, tuple)):
        _refuse(where, value, "a list")
    _check_length(value, where)
    if kind is tuple and Ellipsis not in hints:
        if len(value) != len(hints):
            _refuse(where, value, f"a list of {len(hints)}")
        return tuple(
            _as(hint, item, f"{where}[{at}]") for at, (hint, item) in enumerate(zip(hints, value, strict=True))
        )
    if hints[0] is float and set(map(type, value)) <= {float} and all(map(math.isfinite, value)):
        return kind(value)  # samples are many
    return kind(_as(hints[0], item, f"{where}[{at}]") for at, item in enumerate(value))


def _as_mapping(hint: Any, value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        _refuse(where, value, "an object")
    _check_length(value, where)
    return {
        _as_scalar(str, key, f"a key of {where}"): _as(hint, item, f"{where}[{plain(reprlib.repr(key))}]")
        for key, item in value.items()
    }


def _as_scalar(hint: Any, value: object, where: str) -> Any:
    if hint is float and _is_number(value):
        return float(value)
    is_whole_number = hint is int and isinstance(value, int) and _is_number(value)
    is_text = hint is str and isinstance(value, str) and _is_whole(value)
    if not (is_whole_number or is_text or (hint in (bool, types.NoneType) and isinstance(value, hint))):
        _refuse(where, value, _KINDS.get(hint, "nothing"))
    return value


def _is_number(value: object) -> TypeGuard[int | float]:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _is_whole(text: str) -> bool:
    """Return whether UTF-8 can hold a text: half a character can't be written anywhere."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_length(items: Sequence[Any] | Mapping[Any, Any], where: str) -> None:
    if len(items) > MOST_ITEMS:
        raise Unreadable(f"{where} holds {len(items):,} items, more than the {MOST_ITEMS:,} it may.")


def _refuse(where: str, value: object, wanted: str) -> NoReturn:
    raise Unreadable(f"{where} is {plain(reprlib.repr(value), _LONGEST_NAME)}, not {wanted}.")
