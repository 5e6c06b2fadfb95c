"""Detectors of ultralytics: split so that channels can be followed, and joined again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mlflow_compress import registry
from mlflow_compress.compression import detectors


def detector() -> Any:
    family = registry.build("families", "yolo", {"image_size": 64})
    return family.load("yolo11n.pt", "random", Path(), 0).module


def test_a_detector_computes_the_same_after_it_was_split_and_joined() -> None:
    module = detector()
    images = torch.rand((1, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = module(images)[0]
        shapes = {name: tensor.shape for name, tensor in module.state_dict().items()}
        with detectors.separated(module) as parts:
            halves = [layer for layer in module.modules() if isinstance(getattr(layer, "cv1", None), nn.ModuleList)]
            assert len(halves) > 5
            assert all(isinstance(layer, nn.Conv2d) for layer in parts.fixed)
            outputs = parts.forward(module, [images])
            assert len(outputs) == 6  # boxes and classes, at three strides
        assert {name: tensor.shape for name, tensor in module.state_dict().items()} == shapes
        torch.testing.assert_close(module(images)[0], before)


def test_halves_are_put_together_after_an_error_too() -> None:
    module = detector()
    names = list(module.state_dict())

    def fail() -> None:
        with detectors.separated(module):
            raise RuntimeError("in between")

    with pytest.raises(RuntimeError, match="in between"):
        fail()
    assert list(module.state_dict()) == names


def test_modules_that_halve_channels_are_recognised() -> None:
    module = detector()
    assert detectors.is_detector(module)
    assert detectors.is_halving(module)
    plain = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Linear(2, 2))
    assert not detectors.is_detector(plain)
    assert not detectors.is_halving(plain)
    detectors.forget_anchors(plain)  # it has none
    module.model[-1].shape = (1, 2)
    detectors.forget_anchors(module)
    assert module.model[-1].shape is None
