"""Several teams log at once: a small part of `python -m benchmarks load`."""

from __future__ import annotations

import pytest

from benchmarks import load

pytestmark = pytest.mark.full


def test_nothing_is_lost_doubled_or_mixed_up() -> None:
    finding = load.find(quick=True)
    assert finding.met, finding.rows
    assert (finding.rows[0]["runs"], finding.rows[0]["numbers"]) == (20, 800)
