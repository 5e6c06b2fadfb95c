"""Linear and convolution layers in int8, activations too, with calibrated scales."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge

from mlflow_compress.compression.calibration import require_data_to_score
from mlflow_compress.compression.coverage import note
from mlflow_compress.compression.layers import called, count, replace
from mlflow_compress.errors import Unsupported
from mlflow_compress.networks.native_precision import widen
from mlflow_compress.networks.plain_layers import make_plain
from mlflow_compress.networks.stored_weights import TORCH, Held, fill, read_state, save_weights
from mlflow_compress.sockets import Family, Method, Model, State

_FEWEST_WEIGHTS = 32  # smaller layers gain nothing, such as YOLO's constant layer that decodes distances


@dataclass
class Int8Static(Method):
    """Static quantisation of every linear and convolution layer: int8 weights and activations, scales from data.

    Weights have one scale per output channel; a layer's inputs and outputs have one each, from their histograms on
    calibration data. Between the layers, activations are float32. Embeddings, normalisation, layers that are never
    called on the data, and a language model's head stay in float32. The kernels (FBGEMM, oneDNN) run only on the CPU;
    activations use 7 of 8 bits, so that no sum overflows on a CPU without VNNI.

    torch marks this API as deprecated in favour of torchao's, whose int8 graphs must be compiled with C++ by
    `torch.compile` in each process to be faster than float32.

    Source: Jacob et al., arXiv 1712.05877; torch.ao.quantization.QuantWrapper, prepare and convert.

    Attributes:
        samples: Calibration samples.
        seed: Seed for the choice of samples.
    """

    changes: ClassVar[Literal["storage"]] = "storage"
    takes: ClassVar[tuple[State, ...]] = ("float",)
    gives: ClassVar[State] = "packed"
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    revision: ClassVar[int] = 2

    samples: Annotated[int, Ge(1)] = 16
    seed: Annotated[int, Ge(0)] = 0

    def compress(self, model: Model, family: Family) -> Model:
        """Calibrate and quantise in place.

        Raises:
            Unsupported: There is no linear or convolution layer, or no data for trained weights.
        """
        import torch
        from torch.ao.quantization import get_default_qconfig

        make_plain(model)
        widen(model, "torch.ao")
        layers, total = _layers(model.module), count(model.module, *_kinds())
        if not layers:
            raise Unsupported("there is no linear or convolution layer to quantise")
        require_data_to_score(model, family)
        qconfig = get_default_qconfig("x86")
        observers = {layer: (qconfig.activation(), qconfig.activation()) for layer in layers}

        def observe(layer: Any, inputs: tuple[Any, ...], output: Any) -> None:
            if inputs:  # positional only: the int8 layers take no keyword arguments
                observers[layer][0](inputs[0])
                observers[layer][1](output)

        hooks = [layer.register_forward_hook(observe) for layer in layers]
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the deprecation is documented above
            for batch in family.calibration(model, self.samples, self.seed):
                family.forward(model, batch)
            for hook in hooks:
                hook.remove()
            calibrated = {layer: pair for layer, pair in observers.items() if pair[0].min_val.isfinite()}
            quantized = {layer: _quantized(layer, qconfig, *pair) for layer, pair in calibrated.items()}
        note(model, [parameter for layer in quantized for parameter in layer.parameters(recurse=False)])
        model.module = replace(model.module, quantized)
        model.facts["layers"] = f"{len(quantized)} of {total} linear and convolution layers"
        return model

    def save(self, model: Model, family: Family, folder: Path) -> None:
        """Write all weights with `torch.save`; loading them runs no code."""
        save_weights(model.module, folder)

    def load(self, model: Model, family: Family, folder: Path) -> Model:
        """Put empty int8 layers where the file has them, and fill all layers."""
        state = read_state(folder / TORCH)
        modules = dict(model.module.named_modules())
        names = [name for name in modules if f"{name}.quant.scale".lstrip(".") in state]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.module = replace(model.module, {modules[name]: _empty(modules[name]) for name in names})
        fill(model.module, state, folder / TORCH)
        return model


def _kinds() -> tuple[type, ...]:
    from torch import nn

    return nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d


def _layers(module: Any) -> list[Any]:
    """Return the layers that are large enough and supported by the kernels."""
    layers = (layer for layer in called(module, *_kinds()) if layer.weight.numel() >= _FEWEST_WEIGHTS)
    return [layer for layer in layers if not hasattr(layer, "padding") or _pads_plainly(layer)]


def _pads_plainly(convolution: Any) -> bool:
    return convolution.padding_mode == "zeros" and not isinstance(convolution.padding, str)


def _quantized(layer: Any, qconfig: Any, inputs: Any, output: Any) -> Any:
    """Return the int8 layer between a step that quantises its input and one that dequantises its output."""
    import torch
    from torch.ao.nn import quantized

    layer.qconfig, layer.activation_post_process = qconfig, output  # read by `from_float`
    scale, zero = inputs.calculate_qparams()
    quantize = quantized.Quantize(float(scale), int(zero), torch.quint8)
    return _wrapped(quantize, getattr(quantized, type(layer).__name__).from_float(layer))


def _empty(layer: Any) -> Any:
    """Return an empty int8 layer."""
    import torch
    from torch.ao.nn import quantized

    has_bias = layer.bias is not None
    if isinstance(layer, torch.nn.Linear):
        inner = quantized.Linear(layer.in_features, layer.out_features, has_bias)
    else:
        sizes = (layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups)
        inner = getattr(quantized, type(layer).__name__)(layer.in_channels, layer.out_channels, *sizes, has_bias)
    return _wrapped(quantized.Quantize(1.0, 0, torch.quint8), inner)


def _wrapped(quantize: Any, inner: Any) -> Any:
    from torch.ao.nn.quantized import DeQuantize
    from torch.ao.quantization import QuantWrapper

    wrapper: Any = QuantWrapper(inner)
    wrapper.quant, wrapper.dequant = quantize, DeQuantize()
    wrapper.held_weights = functools.partial(_held, inner)
    if hasattr(inner, "stride"):
        wrapper.stride = inner.stride  # Whisper computes its input length from it
    return wrapper


def _held(layer: Any) -> Iterator[Held]:
    """Yield the weights of an int8 layer (see `stored_weights.held`)."""
    weight, bias = layer._weight_bias()
    yield Held(weight.int_repr(), weight.numel())
    yield Held(weight.q_per_channel_scales(), 0)
    yield Held(weight.q_per_channel_zero_points(), 0)
    if bias is not None:
        yield Held(bias, bias.numel())
