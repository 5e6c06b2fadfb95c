"""Choice of torch's kernel for a packed weight on its device: 4 bits, 8 bits, or none."""

from __future__ import annotations

from torch import Tensor

from mlflow_compress.compression.int4_kernel import Int4Kernel, int4_kernel
from mlflow_compress.compression.int8_kernel import Int8Kernel, int8_kernel


def kernel_for(
    codes: Tensor, scales: Tensor, zeros: Tensor, bits: int, group_size: int
) -> Int4Kernel | Int8Kernel | None:
    """Return a kernel that holds the weight, or None if its device has no kernel for it.

    1 to 4 bits run as 4. 5 to 8 bits run as 8 if a row has one scale; torch has no kernel for groups of 8 bits.

    Args:
        codes: Codes, uint8 [out, in].
        scales: Scales, bfloat16 [out, groups].
        zeros: Codes of the weight 0, uint8 [out, groups].
        bits: Bits per code.
        group_size: Weights per group.
    """
    if bits <= 4:
        return int4_kernel(codes, scales, zeros, bits, group_size)
    return int8_kernel(codes, scales, zeros, bits) if scales.shape[1] == 1 else None
