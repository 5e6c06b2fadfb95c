"""Untrusted YAML is plain data within limits, or is rejected with one sentence."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlflow_compress.untrusted import Malformed
from mlflow_compress.untrusted_yaml import MOST_CHARACTERS, MOST_DEPTH, MOST_VALUES, read_yaml, shown

_LAUGHS = "\n".join(
    ["a0: &a0 [x]", *(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 9))]
)
_MERGES = "\n".join(
    ["a0: &a0 {x: 1}", *(f"a{level}: &a{level} {{<<: [*a{level - 1}, *a{level - 1}]}}" for level in range(1, 30))]
)


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("", None),
        ("a: [1, 2.5, text, null, true]", {"a": [1, 2.5, "text", None, True]}),
        ("\ufeffa: 1", {"a": 1}),
        ("a: &x [1, 2]\nb: *x\nc: {d: *x}", {"a": [1, 2], "b": [1, 2], "c": {"d": [1, 2]}}),
        ("a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}", {"a": {"b": 1, "c": 2}, "d": {"b": 1, "c": 3}}),
        (
            "a: &x {b: 1}\nc: &y {d: 2}\ne: {<<: *x, <<: *y, b: 3}",
            {"a": {"b": 1}, "c": {"d": 2}, "e": {"b": 3, "d": 2}},
        ),
        ("1: a\n'2': b", {1: "a", "2": "b"}),
        ("[" * MOST_DEPTH + "]" * MOST_DEPTH, None),
        (f"a: {'x' * MOST_CHARACTERS}", {"a": "x" * MOST_CHARACTERS}),
    ],
)
def test_what_people_write_is_read(tmp_path: Path, text: str, data: Any) -> None:
    (tmp_path / "a.yaml").write_text(text)
    parsed = read_yaml(tmp_path / "a.yaml")
    assert parsed == data or text.startswith("[[")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[" * 5000 + "]" * 5000, f"it has more than {MOST_DEPTH} nested lists and mappings"),
        ("{a: " * 5000 + "}" * 5000, f"it has more than {MOST_DEPTH} nested lists and mappings"),
        (_LAUGHS, f"it has more than {MOST_VALUES:,} values, including those repeated by anchors"),
        (_MERGES, f"it has more than {MOST_VALUES:,} values, including those repeated by anchors"),
        ("a: &x [1, *x]", "it has an anchor that contains itself"),
        ("&x {a: *x}", "it has an anchor that contains itself"),
        (f"a: {'x' * (MOST_CHARACTERS + 1)}", f"it has a text of more than {MOST_CHARACTERS:,} characters"),
        (f"a: 0x{'f' * 6000}", "it has a number with hundreds of digits"),
        ("a: 1\nb:\n  c: 1\n  'c': 2", "the mapping in line 3 has the key 'c' twice"),
        ("x" * 300_000, "it has 293 KiB; at most 256 KiB are allowed"),
    ],
)
def test_what_nobody_means_is_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(Malformed) as raised:
        read_yaml(tmp_path / "a.yaml")
    assert str(raised.value) == sentence


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "a: 1\n---\nb: 2",
        "? [1, 2]\n: x",
        "a: 2020-13-01",
        "a: " + "9" * 5000,
        "a: \0",
        "\udcff",
        "!!python/object/apply:os.mkdir ['canary']",
        "a: !!python/name:os.system",
    ],
)
def test_what_is_no_plain_data_is_refused_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(Malformed, match=r"^[^\n]{10,400}$"):
        read_yaml(tmp_path / "a.yaml")
    assert not (tmp_path / "canary").exists()


@pytest.mark.posix
@pytest.mark.parametrize("make", [getattr(os, "mkfifo", None), lambda path: path.symlink_to("/dev/zero")])
def test_what_never_ends_is_not_opened(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "a.yaml")
    with pytest.raises(Malformed, match=r"^it is not a file$"):
        read_yaml(tmp_path / "a.yaml")


def test_what_cannot_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_yaml(tmp_path / "a.yaml")
    with pytest.raises(IsADirectoryError, match=r"is a folder$"):
        read_yaml(tmp_path)


def test_a_value_in_a_sentence_is_short() -> None:
    circular: list[Any] = []
    circular.append(circular)
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    assert shown({"a": "x\x1b"}) == r"{'a': 'x\x1b'}"
    for value in (circular, deep, ["x" * 1000] * 1000, "y" * 10**6, 16**5000):
        assert len(shown(value)) <= 100
