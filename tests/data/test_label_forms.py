"""The user's new names for labels apply to any spelling."""

from __future__ import annotations

import pytest

from mlflow_compress.data.label_forms import new_label


@pytest.mark.parametrize(
    ("label", "new_names", "expected"),
    [
        ("1.0", {"1": "NEGATIVE"}, "NEGATIVE"),
        ("1", {"1.0": "NEGATIVE"}, "NEGATIVE"),
        ("True", {"true": "NEGATIVE"}, "NEGATIVE"),
        ("True", {"0": "POSITIVE", "1": "NEGATIVE"}, "NEGATIVE"),
        ("Very_good", {"very good": "POSITIVE"}, "POSITIVE"),
        ("a", {"A": "POSITIVE", "a": "NEGATIVE"}, "NEGATIVE"),
        ("0.5", {"0": "NEGATIVE"}, None),
        ("B", {"A": "POSITIVE"}, None),
    ],
)
def test_new_labels_apply_to_any_spelling(label: str, new_names: dict[str, str], expected: str | None) -> None:
    assert new_label(label, new_names) == expected
