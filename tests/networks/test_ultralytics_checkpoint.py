"""Files of ultralytics are read as data, and give the model that ultralytics itself would load."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from pickled import Call
from trained_yolo import trained
from ultralytics.models import YOLO
from ultralytics.utils import IterableSimpleNamespace

from mlflow_compress.errors import WeightsError
from mlflow_compress.networks import ultralytics_checkpoint, ultralytics_models
from mlflow_compress.networks.ultralytics_architecture import TASKS

PAYLOAD = "__import__('os').system('touch {marker}')"


def leaves(output: Any) -> list[torch.Tensor]:
    if isinstance(output, torch.Tensor):
        return [output]
    return [leaf for part in (output.values() if isinstance(output, dict) else output) for leaf in leaves(part)]


def assert_same(model: Any, reference: Any) -> None:
    images = torch.rand((2, 3, 64, 64), generator=torch.Generator().manual_seed(1))
    for fused in (False, True):
        for module in (model, reference):
            module.float().eval()
            if fused:
                module.fuse(verbose=False)
        with torch.no_grad():
            pairs = list(zip(leaves(model(images)), leaves(reference(images)), strict=True))
        assert pairs
        assert all(torch.equal(mine, theirs) for mine, theirs in pairs)
    assert model.names == reference.names
    assert model.yaml == reference.yaml


@pytest.mark.parametrize("task", TASKS)
def test_trained_and_saved_models_are_those_that_ultralytics_loads(task: str, tmp_path: Path) -> None:
    for path in trained(task, tmp_path).values():
        mine, kind, caution = ultralytics_models.load(str(path), "auto", tmp_path)
        theirs = YOLO(str(path)).model
        assert (kind, caution) == ("local", "")
        assert_same(mine, theirs)


def test_a_model_that_was_saved_fused_stays_so(tmp_path: Path) -> None:
    net: Any = YOLO("yolo11n.yaml")
    net.fuse()
    net.save(str(tmp_path / "fused.pt"))
    mine, _, _ = ultralytics_models.load("fused.pt", "auto", tmp_path)
    assert_same(mine, YOLO(str(tmp_path / "fused.pt")).model)


def saved(path: Path, module: Any) -> Path:
    torch.save({"model": module}, path)
    return path


def test_an_activation_that_would_be_evaluated_is_refused(tmp_path: Path) -> None:
    module: Any = YOLO("yolo11n.yaml").model
    module.yaml["activation"] = PAYLOAD.format(marker=tmp_path / "ran")
    with pytest.raises(WeightsError, match=r"its activation .* would be evaluated, .* such as nn.SiLU"):
        ultralytics_models.load("model.pt", str(saved(tmp_path / "model.pt", module)), tmp_path)
    assert not (tmp_path / "ran").exists()


def test_nothing_of_a_saved_object_but_description_and_weights_is_taken(tmp_path: Path) -> None:
    module: Any = YOLO("yolo11n-cls.yaml").model
    module.forward = torch.nn.ReLU  # an attribute that hides the method
    module.model[0]._forward_hooks[0] = torch.nn.Identity
    module.eval().requires_grad_(False)
    loaded, _, _ = ultralytics_models.load("model.pt", str(saved(tmp_path / "model.pt", module)), tmp_path)
    assert "forward" not in vars(loaded)
    assert not loaded.model[0]._forward_hooks


def test_weights_of_another_description_are_refused(tmp_path: Path) -> None:
    module: Any = YOLO("yolo11n.yaml").model
    module.yaml = {**module.yaml, "nc": 3}
    with pytest.raises(WeightsError, match="are not this model's"):
        ultralytics_models.load("model.pt", str(saved(tmp_path / "model.pt", module)), tmp_path)


def test_loading_draws_no_random_numbers(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.pt", YOLO("yolo11n-cls.yaml").model)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    ultralytics_models.load("model.pt", str(path), tmp_path)
    assert torch.equal(torch.rand(3), expected)


def test_layers_that_somebody_replaced_are_refused(tmp_path: Path) -> None:
    module: Any = YOLO("yolo11n-cls.yaml").model
    module.model[0].act = torch.nn.ReLU()
    with pytest.raises(WeightsError, match=r"the layer model\.0\.act is a ReLU, but ultralytics builds a SiLU"):
        ultralytics_models.load("model.pt", str(saved(tmp_path / "model.pt", module)), tmp_path)
    module = YOLO("yolo11n-cls.yaml").model
    module.model[0].conv.stride = (1, 1)
    with pytest.raises(WeightsError, match=r"is a Conv2d with stride=\(1, 1\), but ultralytics builds stride=\(2, 2\)"):
        ultralytics_models.load("model.pt", str(saved(tmp_path / "model.pt", module)), tmp_path)


def test_a_detector_whose_head_has_a_small_letter_is_read(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.pt", YOLO("yolov10n.yaml").model)
    mine, _, _ = ultralytics_models.load(str(path), "auto", tmp_path)
    assert type(mine.model[-1]).__name__ == "v10Detect"


def test_what_an_interrupted_training_left_is_read(tmp_path: Path) -> None:
    module: Any = YOLO("yolo11n.yaml").model
    module.args = IterableSimpleNamespace(box=7.5, cls=0.5, dfl=1.5)
    module.criterion = module.init_criterion()  # removed only at the end of training
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1).state_dict()
    torch.save({"epoch": 3, "model": None, "ema": module.half(), "optimizer": optimiser}, tmp_path / "model.pt")
    mine, kind, _ = ultralytics_models.load("model.pt", "auto", tmp_path)
    assert kind == "local"
    assert torch.equal(mine.model[0].conv.weight, module.model[0].conv.weight)


def test_what_the_first_versions_wrote_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ultralytics.nn import modules

    module: Any = YOLO("yolov8n.yaml").model
    with monkeypatch.context() as patch:  # all layers were in one module, losses and augmentations in other modules
        for layer in {type(layer) for layer in module.modules() if type(layer).__module__.startswith(modules.__name__)}:
            patch.setattr(layer, "__module__", modules.__name__)
        for place, name in (("yolo.v8.detect.train", "Loss"), ("yolo.data.augment", "CenterCrop")):
            old_module = types.ModuleType(f"ultralytics.{place}")
            setattr(old_module, name, type(name, (), {"__module__": old_module.__name__}))
            patch.setitem(sys.modules, old_module.__name__, old_module)
            setattr(module, name, getattr(old_module, name)())
        path = saved(tmp_path / "model.pt", module)
    assert b"cultralytics.nn.modules\nConv\n" in path.read_bytes()
    mine, kind, _ = ultralytics_models.load("model.pt", "auto", tmp_path)
    assert kind == "local"
    assert_same(mine, module)


class Own(torch.nn.Module):
    """A module of a custom class."""


def test_other_checkpoints_are_recognised_as_foreign(tmp_path: Path) -> None:
    module: Any = YOLO("yolo11n-cls.yaml").model
    assert not ultralytics_checkpoint.is_of_others(saved(tmp_path / "own.pt", module))
    torch.save({"ema": module, "model": None}, tmp_path / "training.pt")
    assert not ultralytics_checkpoint.is_of_others(tmp_path / "training.pt")
    for content in (module.state_dict(), module.model[0].conv, Own()):
        torch.save({"model": content}, tmp_path / "other.pt")
        assert ultralytics_checkpoint.is_of_others(tmp_path / "other.pt")
    torch.save({"model": Call(print, "x")}, tmp_path / "call.pt")
    assert not ultralytics_checkpoint.is_of_others(tmp_path / "call.pt")  # loading requires trust
    (tmp_path / "damaged.pt").write_bytes(b"PK\x03\x04")
    assert not ultralytics_checkpoint.is_of_others(tmp_path / "damaged.pt")  # loading raises the error
