"""Code in pickles is found without running it."""

from __future__ import annotations

import os
import pickle
import subprocess
from pathlib import Path

import pytest
import torch
from pickled import Call, saved

from mlflow_compress.networks.pickle_scan import code_in


def test_layers_and_tensors_are_not_code(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.SiLU()).half()
    content = {"model": module, "ema": None, "names": {0: "cat"}, "seen": {1, 2}, "size": torch.Size([1])}
    assert code_in(saved(tmp_path / "plain.pt", content)) == []


def test_the_architectures_of_ultralytics_are_not_code(tmp_path: Path) -> None:
    from ultralytics.models import YOLO

    for name in ("yolo11n.yaml", "yolo11n-cls.yaml", "yolo11n-seg.yaml", "yolov8n.yaml"):
        assert code_in(saved(tmp_path / "yolo.pt", {"model": YOLO(name).model})) == [], name


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (Call(os.system, "true"), "posix system"),
        (Call(eval, "1"), "__builtin__ eval"),
        (Call(getattr, "text", "upper"), "__builtin__ getattr"),
        (Call(subprocess.Popen, ["true"]), "commands Popen"),  # its name in Python 2
        (Call(torch.hub.load, "x", "y"), "torch.hub load"),
        (Call(torch.load, "x.pt"), "torch.serialization load"),
    ],
)
def test_calls_are_found_without_being_made(tmp_path: Path, content: Call, name: str) -> None:
    assert code_in(saved(tmp_path / "evil.pt", {"model": [torch.nn.ReLU(), content]})) == [name]


@pytest.mark.parametrize("protocol", range(2, 6))
def test_every_protocol_is_looked_into(tmp_path: Path, protocol: int) -> None:
    plain = saved(tmp_path / "plain.pt", {"model": torch.nn.ReLU()}, pickle_protocol=protocol)
    assert code_in(plain) == []
    evil = saved(tmp_path / "evil.pt", {"model": Call(os.system, "true")}, pickle_protocol=protocol)
    assert code_in(evil) == ["posix system"]


def test_reading_a_method_of_a_layer_is_not_code(tmp_path: Path) -> None:
    public = Call(getattr, torch.nn.ReLU, "forward")
    assert code_in(saved(tmp_path / "taken.pt", {"model": public})) == []
    private = Call(getattr, torch.nn.ReLU, "__base__")
    assert code_in(saved(tmp_path / "other.pt", {"model": [public, private]})) == ["__builtin__ getattr"]


def test_augmentations_of_a_trained_classifier_are_not_code(tmp_path: Path) -> None:
    from ultralytics.data.augment import classify_augmentations, classify_transforms

    for policy in ("randaugment", "augmix", "autoaugment"):
        transforms = [classify_transforms(32), classify_augmentations(32, auto_augment=policy, erasing=0.4)]
        assert code_in(saved(tmp_path / "trained.pt", {"model": torch.nn.ReLU(), "transforms": transforms})) == [], (
            policy
        )


def test_what_cannot_be_looked_into_is_code(tmp_path: Path) -> None:
    plain = {"model": torch.nn.ReLU()}
    assert code_in(saved(tmp_path / "old.pt", plain, _use_new_zipfile_serialization=False))
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps(plain))
    (tmp_path / "nonsense.pt").write_bytes(b"PK\x03\x04 nonsense")
    assert code_in(tmp_path / "pickle.pt") == code_in(tmp_path / "nonsense.pt") == code_in(tmp_path / "none.pt")
