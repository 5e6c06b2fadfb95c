"""Linear layers in int8, activations quantised on the fly."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from mlflow_compress.errors import Unsupported
from mlflow_compress.sockets import Family, Method, Model, State


@dataclass
class Int8Dynamic(Method):
    """Dynamic quantisation of every `nn.Linear`: int8 weights, packed; activations quantised at each call.

    Embeddings, convolutions and normalisation stay in float32. A head that is tied to an embedding gets weights of its
    own. The kernels (FBGEMM, oneDNN) run on the CPU only.

    torch marks this API as deprecated in favour of torchao, whose eager int8 is no faster than float32 on a CPU; this
    one is, and is what the field means by the name.

    Source: torch.ao.quantization.quantize_dynamic; Jacob et al., arXiv 1712.05877.

    Attributes:
        per_channel: one scale for each output channel rather than one for each matrix.
    """

    changes: ClassVar[Literal["architecture"]] = "architecture"
    takes: ClassVar[tuple[State, ...]] = ("float",)
    gives: ClassVar[State] = "packed"
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    excludes: ClassVar[Mapping[str, str]] = {"yolo": "it is made of convolutions, which have no dynamic int8 kernels"}

    per_channel: bool = False

    def compress(self, model: Model, family: Family) -> Model:
        """Quantise in place.

        Raises:
            Unsupported: there are no float32 linear layers.
        """
        import torch
        from torch.ao.quantization import default_dynamic_qconfig, per_channel_dynamic_qconfig, quantize_dynamic

        linear = [each for each in model.module.modules() if type(each) is torch.nn.Linear]
        if not linear:
            raise Unsupported("there is no linear layer to quantise, and convolutions have no dynamic int8 kernels")
        qconfig = per_channel_dynamic_qconfig if self.per_channel else default_dynamic_qconfig
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the deprecation, said above
            model.module = quantize_dynamic(model.module, {torch.nn.Linear: qconfig}, inplace=True)
        return model

    def rebuild(self, model: Model, family: Family) -> Model:
        """Put empty packed layers in the place of the linear ones, so that no float32 copy is ever held."""
        import torch

        for parent in list(model.module.modules()):
            for name, child in list(parent.named_children()):
                if type(child) is torch.nn.Linear:
                    setattr(parent, name, _packed(child))
        return model


def _packed(linear: Any) -> Any:
    import torch
    from torch.ao.nn.quantized.dynamic import Linear

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Linear(linear.in_features, linear.out_features, linear.bias is not None, dtype=torch.qint8)
