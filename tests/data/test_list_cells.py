"""Lists in the cells of a table."""

from __future__ import annotations

import time

import pytest

from mlflow_compress.data.list_cells import items_of


@pytest.mark.parametrize(
    ("cell", "items"),
    [
        ('["EU", "rejects"]', ["EU", "rejects"]),
        ("['EU', 'rejects']", ["EU", "rejects"]),
        ("['EU' 'rejects'\n 'call']", ["EU", "rejects", "call"]),
        ("('EU', 'rejects')", ["EU", "rejects"]),
        (r"""["it's", 'a "b"', 'c\'d']""", ["it's", 'a "b"', "c'd"]),
        ("[3, 0, 7]", ["3", "0", "7"]),
        ("[3 0 7]", ["3", "0", "7"]),
        (" ['ünï', '🙂'] ", ["ünï", "🙂"]),
        ("[]", []),
        ("['[', ']', ',']", ["[", "]", ","]),
    ],
)
def test_lists_are_read_as_they_are_printed(cell: str, items: list[str]) -> None:
    assert items_of(cell) == items


@pytest.mark.parametrize(
    "cell", ["EU rejects", "[ applause ]", "[EU] rejects", "", "[1, [2]]", "['a'] ['b']", "[x, y]"]
)
def test_other_texts_are_not_lists(cell: str) -> None:
    assert items_of(cell) is None


@pytest.mark.parametrize("cell", ["[" + "1" * 4000 + "x", "[" + "1." * 4000 + "x", "[" + "-1" * 4000 + "x"])
def test_a_cell_that_is_nearly_a_list_takes_no_time(cell: str) -> None:
    start = time.monotonic()
    assert items_of(cell) is None
    assert time.monotonic() - start < 5
