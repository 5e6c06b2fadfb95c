"""The format compressed-tensors: what its readers support."""

from __future__ import annotations

import pytest

from mlflow_compress.networks.compressed_tensors_format import Scheme


@pytest.mark.parametrize(
    ("bits", "group_size", "unserved"),
    [(4, 128, ""), (4, None, ""), (8, 32, ""), (2, 64, "2 bits"), (4, 15, "groups of 15"), (8, 256, "groups of 256")],
)
def test_what_vllm_has_no_kernels_for_is_named(bits: int, group_size: int | None, unserved: str) -> None:
    assert Scheme(bits, group_size, is_symmetric=True).unserved == unserved
