"""Any pickle in any zip that is let through calls none of the functions that it names."""

from __future__ import annotations

import contextlib
import io
import pickle
import resource
import struct
import sys
import tempfile
import types
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlflow_compress.errors import CompressError
from mlflow_compress.networks import inert_pickle, ultralytics_models
from mlflow_compress.networks.exported_program_scan import require_tensors
from mlflow_compress.networks.pickle_scan import code_in

FIRED: list[Any] = []


class Canary:
    """Records when it is created, called, or accessed."""

    def __init__(self, *arguments: Any) -> None:
        FIRED.append(arguments)

    def __setstate__(self, state: Any) -> None:
        FIRED.append(state)

    @staticmethod
    def method(*arguments: Any) -> None:
        FIRED.append(arguments)


def fire(*arguments: Any) -> None:
    FIRED.append(arguments)


@pytest.fixture(autouse=True)
def canary(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    module = types.ModuleType("canary")
    module.fire, module.Canary = fire, Canary  # type: ignore[attr-defined]
    for name in ("canary", "torch.canary", "torch.nn.modules.canary"):
        monkeypatch.setitem(sys.modules, name, module)
    FIRED.clear()
    yield
    assert not FIRED


@contextlib.contextmanager
def little_memory() -> Iterator[None]:
    """Make allocations of gigabytes fail, because a pickle may request any size and would end the test process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**31, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


HOSTILE = [
    ("canary", "fire"),
    ("canary", "Canary"),
    ("canary", "Canary.method"),
    ("torch.canary", "fire"),
    ("torch.nn.modules.canary", "Canary.method"),
    ("torch", "canary.fire"),
]
PLAIN = [
    ("collections", "OrderedDict"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch", "FloatStorage"),
    ("torch", "Size"),
    ("torch", "float32"),
    ("__builtin__", "set"),
]


def name_of(pair: tuple[str, str]) -> bytes:
    return b"".join(text.encode() + b"\n" for text in pair)


def text_of(text: str) -> bytes:
    return pickle.SHORT_BINUNICODE + bytes([len(text)]) + text.encode()


def steps(names: list[tuple[str, str]]) -> st.SearchStrategy[bytes]:
    """Return pieces of pickles: one operation, or several that belong together."""
    pairs, places = st.sampled_from(names), st.integers(0, 5)
    alone = (
        pickle.MARK, pickle.POP, pickle.POP_MARK, pickle.DUP, pickle.NONE, pickle.NEWTRUE, pickle.TUPLE, pickle.TUPLE1,
        pickle.TUPLE2, pickle.TUPLE3, pickle.EMPTY_TUPLE, pickle.EMPTY_LIST, pickle.EMPTY_DICT, pickle.EMPTY_SET,
        pickle.LIST, pickle.DICT, pickle.FROZENSET, pickle.ADDITEMS, pickle.APPEND, pickle.APPENDS, pickle.SETITEM,
        pickle.SETITEMS, pickle.REDUCE, pickle.BUILD, pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.OBJ, pickle.STACK_GLOBAL,
        pickle.MEMOIZE, pickle.BINPERSID, pickle.STOP, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER,
    )  # fmt: skip
    return st.one_of(
        st.sampled_from(alone),
        pairs.map(lambda pair: pickle.GLOBAL + name_of(pair)),
        pairs.map(lambda pair: pickle.GLOBAL + name_of(pair) + pickle.EMPTY_TUPLE + pickle.REDUCE),
        pairs.map(lambda pair: pickle.GLOBAL + name_of(pair) + pickle.EMPTY_TUPLE + pickle.NEWOBJ),
        pairs.map(lambda pair: pickle.MARK + pickle.INST + name_of(pair)),
        pairs.map(lambda pair: text_of(pair[0]) + text_of(pair[1]) + pickle.STACK_GLOBAL),
        st.binary(max_size=8).map(lambda content: pickle.SHORT_BINBYTES + bytes([len(content)]) + content),
        st.integers(0, 255).map(lambda number: pickle.BININT1 + bytes([number])),
        st.integers(0, 5).map(lambda number: pickle.PROTO + bytes([number])),
        st.integers(0, 300).map(lambda length: pickle.FRAME + struct.pack("<Q", length)),
        st.integers(0, 2**31 - 1).map(lambda number: pickle.LONG_BINPUT + struct.pack("<I", number)),
        st.integers(1, 255).map(lambda code: pickle.EXT1 + bytes([code])),
        places.map(lambda place: pickle.BINPUT + bytes([place])),
        places.map(lambda place: pickle.BINGET + bytes([place])),
        st.just(pickle.PERSID + b"0\n"),
    )


def pickles(names: list[tuple[str, str]]) -> st.SearchStrategy[bytes]:
    return st.lists(steps(names), max_size=25).map(lambda parts: b"".join(parts) + pickle.STOP)


class Zips:
    """Puts pickles into files: as torch does, and in invalid ways."""

    @staticmethod
    def plain(
        *contents: bytes, folder: str = "archive/", method: int = zipfile.ZIP_STORED, comment: bytes = b""
    ) -> bytes:
        file = io.BytesIO()
        with warnings.catch_warnings(), zipfile.ZipFile(file, "w", method) as archive:
            warnings.simplefilter("ignore")
            for content in contents:
                archive.writestr(f"{folder}data.pkl", content)
            archive.writestr(f"{folder}version", "3\n")
            archive.writestr(f"{folder}byteorder", "little")
            archive.comment = comment
        return file.getvalue()

    @staticmethod
    def large(content: bytes) -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            with archive.open("archive/data.pkl", "w", force_zip64=True) as entry:
                entry.write(content)
            archive.writestr("archive/version", "3\n")
        return file.getvalue()


LAYOUTS: dict[str, Callable[[bytes, bytes], bytes]] = {
    "as torch writes it": lambda content, extra: Zips.plain(content),
    "two of one name": lambda content, extra: Zips.plain(content, extra),
    "compressed": lambda content, extra: Zips.plain(content, method=zipfile.ZIP_DEFLATED),
    "without a folder": lambda content, extra: Zips.plain(content, folder=""),
    "in many folders": lambda content, extra: Zips.plain(content, folder="a/b/c/"),
    "a zip in front": lambda content, extra: Zips.plain(content) + Zips.plain(extra),
    "a zip in the comment": lambda content, extra: Zips.plain(content, comment=Zips.plain(extra)),
    "an end in the comment": lambda content, extra: Zips.plain(content, comment=Zips.plain(extra)[-22:]),
    "a pickle in front": lambda content, extra: content + Zips.plain(extra),
    "a pickle behind": lambda content, extra: Zips.plain(content) + extra,
    "with 64 bits": lambda content, extra: Zips.large(content),
    "no zip": lambda content, extra: content,
}
ANY = pickles(HOSTILE + PLAIN)
FILES = {"layout": st.sampled_from(sorted(LAYOUTS)), "content": ANY, "extra": ANY}
CALL = pickle.GLOBAL + name_of(("canary", "fire")) + pickle.EMPTY_TUPLE + pickle.REDUCE + pickle.STOP
PLAIN_PICKLE = pickle.dumps({}, protocol=2)


@given(pickles(HOSTILE + PLAIN) | st.binary(max_size=200))
@example(CALL)
def test_reading_a_pickle_as_data_calls_nothing(content: bytes) -> None:
    with contextlib.suppress(ValueError):
        read = inert_pickle.read(content)
        assert all(name.count(" ") for name in read.calls)


@given(**FILES)
@example("a pickle in front", CALL, PLAIN_PICKLE)
@example("two of one name", CALL, PLAIN_PICKLE)
@example("two of one name", PLAIN_PICKLE, CALL)
@example("a zip in front", CALL, PLAIN_PICKLE)
@example("an end in the comment", PLAIN_PICKLE, CALL)
def test_a_checkpoint_is_loaded_without_a_call(layout: str, content: bytes, extra: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "model.pt")
        path.write_bytes(LAYOUTS[layout](content, extra))
        code_in(path)
        with contextlib.suppress(CompressError):
            ultralytics_models.load(path.name, "auto", path.parent)


@settings(max_examples=300)
@given(layout=FILES["layout"], content=pickles(PLAIN) | ANY, extra=ANY)
@example("a pickle in front", CALL, PLAIN_PICKLE)
@example("two of one name", CALL, PLAIN_PICKLE)
@example("two of one name", PLAIN_PICKLE, CALL)
@example("a zip in front", CALL, PLAIN_PICKLE)
@example("a zip in front", PLAIN_PICKLE, CALL)
@example("a zip in the comment", PLAIN_PICKLE, CALL)
@example("an end in the comment", PLAIN_PICKLE, CALL)
def test_tensors_that_are_let_through_are_unpickled_without_a_call(layout: str, content: bytes, extra: bytes) -> None:
    record = LAYOUTS[layout](content, extra)
    try:
        require_tensors(record, "model.pt")
    except Exception:  # any error counts as a refusal
        return
    with warnings.catch_warnings(), contextlib.suppress(Exception), little_memory():
        warnings.simplefilter("ignore")
        torch.load(io.BytesIO(record), weights_only=False)


def test_the_canary_detects_a_call() -> None:
    torch.load(io.BytesIO(Zips.plain(CALL)), weights_only=False)
    assert FIRED == [()]
    FIRED.clear()
