"""The format `compressed-tensors`, in which transformers (with the package of that name) and vLLM read integer weights.

A rounded linear layer `NAME` is stored as `NAME.weight_packed` (codes packed into int32 along a row) or `NAME.weight`
(int8), with `NAME.weight_scale`, `NAME.weight_shape`, and, if it is not symmetric, `NAME.weight_zero_point`, packed
along the rows. `quantization_config` in `config.json` says which layers have which form.

Source: compressed_tensors.compressors (pack_quantized, int_quantized); vLLM reads the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_compress.networks.stored_weights import write_shards

_CONFIG, _FIELD = "config.json", "quantization_config"
PACKED_BITS = (2, 4, 8)  # other widths cross word boundaries, and versions of the package pack those differently
SERVED_BITS, _SERVED_GROUPS = (4, 8), (None, 32, 64, 128)  # of vLLM's weight-only kernels (Marlin)


@dataclass(frozen=True)
class Scheme:
    """How the weights of some layers are rounded.

    Attributes:
        bits: bits per weight.
        group_size: how many weights of a row share a scale; None: the whole row.
        is_symmetric: whether there are no zero points.
        rounds_inputs: whether each call rounds its inputs to 8 bits, with a scale for each token.
    """

    bits: int
    group_size: int | None
    is_symmetric: bool
    rounds_inputs: bool = False

    @property
    def form(self) -> str:
        """The name of the format."""
        return "int-quantized" if self.rounds_inputs else "pack-quantized"

    @property
    def unserved(self) -> str:
        """What vLLM has no kernels for, such as `2 bits`; empty if it has them."""
        if self.bits not in SERVED_BITS:
            return f"{self.bits} bits"
        return "" if self.group_size in _SERVED_GROUPS else f"groups of {self.group_size}"

    def described(self, layers: Sequence[str]) -> dict[str, Any]:
        """Return the entry in `config.json` for layers with this scheme."""
        weights = {
            "num_bits": self.bits,
            "type": "int",
            "symmetric": self.is_symmetric,
            "strategy": "channel" if self.group_size is None else "group",
            "group_size": self.group_size,
            "dynamic": False,
        }
        inputs = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True}
        return {
            "targets": list(layers),
            "weights": weights,
            "input_activations": inputs if self.rounds_inputs else None,
            "output_activations": None,
            "format": self.form,
        }


def packed(scheme: Scheme, codes: Any, scales: Any, zeros: Any) -> dict[str, Any]:
    """Return the tensors of a layer with rounded weights and float inputs, by their names in the layer.

    Args:
        scheme: how the weights are rounded.
        codes: integers from 0 to 2^bits - 1: uint8 [out, in].
        scales: scales [out, groups].
        zeros: codes of the weight 0: uint8 [out, groups]; not used if the scheme is symmetric.
    """
    import torch

    tensors = {
        "weight_packed": words(codes, scheme.bits),
        "weight_scale": scales.contiguous(),
        "weight_shape": torch.tensor(codes.shape),
    }
    if not scheme.is_symmetric:
        tensors["weight_zero_point"] = words(zeros.T, scheme.bits).T.contiguous()
    return tensors


def words(codes: Any, bits: int) -> Any:
    """Pack integers into words of 32 bits, the first in the lowest bits; each row starts a new word.

    Args:
        codes: integers from 0 to 2^bits - 1: uint8 [rows, columns].
        bits: 2, 4 or 8.

    Returns:
        int32 [rows, ceil(columns * bits / 32)].
    """
    import torch

    in_word = 32 // bits
    filled = torch.nn.functional.pad(codes, (0, -codes.shape[1] % in_word)).view(len(codes), -1, in_word)
    packed_words = torch.zeros(filled.shape[:2], dtype=torch.int32)
    for index in range(in_word):
        packed_words |= filled[:, :, index].to(torch.int32) << bits * index
    return packed_words


def write(tensors: Mapping[str, Any], scheme: Scheme, others: Sequence[str], folder: Path) -> None:
    """Write weights beside a `config.json`, and describe in it how they are rounded.

    Args:
        tensors: all tensors of the model, by name.
        scheme: the scheme of the rounded linear layers.
        others: names of the linear layers that are not rounded.
        folder: the folder with `config.json`.
    """
    write_shards(tensors, folder, {"format": "pt"})
    config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    config[_FIELD] = {
        "quant_method": "compressed-tensors",
        "format": scheme.form,
        "quantization_status": "compressed",
        "config_groups": {"group_0": scheme.described(["Linear"])},
        "ignore": list(others),
        "kv_cache_scheme": None,
    }
    if not scheme.is_symmetric:  # otherwise transformers 5 allocates zero points that are not packed
        config[_FIELD]["dequantize"] = True
    (folder / _CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
