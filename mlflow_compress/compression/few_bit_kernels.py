"""Which kernel of torch serves a packed weight on its device: that of 4 bits, that of 8, or none."""

from __future__ import annotations

from torch import Tensor

from mlflow_compress.compression.int4_kernel import Int4Kernel, int4_kernel
from mlflow_compress.compression.int8_kernel import Int8Kernel, int8_kernel


def kernel_for(
    codes: Tensor, scales: Tensor, zeros: Tensor, bits: int, group_size: int
) -> Int4Kernel | Int8Kernel | None:
    """Return the kernel for a weight, with the weight in it, or None where its device has none for it.

    Up to 4 bits run as 4. From 5 on they run as 8 where a row has one scale; torch has no kernel for groups of 8 bits.

    Args:
        codes: uint8 [out, in].
        scales: bfloat16 [out, groups].
        zeros: codes of the weight 0, uint8 [out, groups].
        bits: of a code.
        group_size: weights of a group.
    """
    if bits <= 4:
        return int4_kernel(codes, scales, zeros, bits, group_size)
    return int8_kernel(codes, scales, zeros, bits) if scales.shape[1] == 1 else None
