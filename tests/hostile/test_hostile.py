"""No hostile input runs code, crashes a reader, or keeps it for ever."""

from __future__ import annotations

import pytest

from mlflow_compress.networks.pickle_scan import code_in

from .harmless import assert_harmless, inputs


@pytest.mark.parametrize("name", inputs("checkpoints"))
def test_looking_into_a_checkpoint_is_harmless(name: str) -> None:
    assert_harmless(code_in, name)
