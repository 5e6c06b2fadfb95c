"""TorchScript: errors in tracing, and the device of its tensors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from exported_by_torch import NET, loaded, saved

from mlflow_compress import registry
from mlflow_compress.errors import Unsupported
from mlflow_compress.methods.torchscript import _move_constants


def test_an_error_in_tracing_is_reported(tmp_path: Path) -> None:
    code = NET.replace(
        "        return self.second", "        assert not torch.jit.is_tracing(), 'not me'\n        return self.second"
    )
    family, model, _ = loaded(tmp_path, code)
    with pytest.raises(Unsupported, match=r"convert the model: not me \(own.py, line 11, in forward\)"):
        registry.build("methods", "torchscript").compress(model, family)


def test_a_trace_makes_its_tensors_on_the_device_it_was_restored_to(tmp_path: Path) -> None:
    _, _, target = saved("torchscript", tmp_path)
    module = torch.jit.load(str(target / "model.ts"), map_location="cpu")
    _move_constants(module, "meta")
    devices = {
        node.s("value")
        for part in module.modules()
        for node in part.graph.findAllNodes("prim::Constant")
        if node.output().type().kind() == "DeviceObjType"
    }
    assert devices == {"meta"}
