"""How far a compressed model's outputs are from its original's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lab import Lab
from tiny import tiny_model

from mlflow_compress import registry
from mlflow_compress.errors import WorkerError
from mlflow_compress.measuring import output_error
from mlflow_compress.measuring.output_error import Outputs, _of_classes
from mlflow_compress.networks import model_folder
from mlflow_compress.networks.output_parts import farthest
from mlflow_compress.networks.stored_weights import flat
from mlflow_compress.records import Step, Variant
from mlflow_compress.sockets import Family, Model


def test_how_far_the_outputs_moved_is_logged_where_nothing_is_scored(lab: Lab) -> None:
    name = "quality/output_error_rel_l2"
    assert name not in lab.measure("original", data=None).measurements
    of_fp16, of_drop_last = (lab.measure(method, data=None).measurements[name] for method in ("fp16", "drop_last"))
    assert 0 < of_fp16 < 0.02 < of_drop_last
    scored = lab.measure("fp16").measurements
    assert "quality/accuracy" in scored
    assert not {name, "quality/top1_agreement", "quality/kl_divergence_nats"} & set(scored)


def yolo(side: int = 64) -> tuple[Family, Model]:
    family: Family = registry.build("families", "yolo", {"image_size": side})
    return family, family.load("yolo11n.pt", "random", Path(), 0)


def raw(anchors: int = 8400) -> torch.Tensor:
    """Return outputs like those of a trained detector: boxes in pixels, 30 of them with a score of 0.9."""
    torch.manual_seed(0)
    boxes = torch.rand(1, 4, anchors) * 600 + 20
    scores = (torch.randn(1, 80, anchors) - 11).sigmoid()
    scores[0, 3, :30] = 0.9
    return torch.cat([boxes, scores], dim=1)


def moved(compressed: torch.Tensor, original: torch.Tensor) -> float:
    family, model = yolo()
    sides = [[(flat(part), least) for part, least in family.parts(model, result)] for result in (compressed, original)]
    compressed_parts, original_parts = ([part for part, _ in side] for side in sides)
    return farthest(compressed_parts, original_parts, [least for _, least in sides[0]])


def test_a_detector_without_any_detection_is_far_from_its_original() -> None:
    original = raw()
    lost = original.clone()
    lost[0, 4 + 3, :30] = 1e-5
    over_all = float((lost - original).norm() / original.norm())
    assert over_all < 2e-4  # the boxes hide it
    assert moved(lost, original) > 0.9
    assert 0 < moved(original.half().float(), original) < 0.005
    shifted = original.clone()
    shifted[:, 2:4] *= 1.1
    assert moved(shifted, original) == pytest.approx(0.1, rel=1e-3)


def test_nothing_is_claimed_where_outputs_do_not_depend_on_the_input(tmp_path: Path) -> None:
    outputs = torch.randn(50)
    rounded, different = outputs * (1 + 1e-8), outputs * 1.01
    constant = Outputs([[outputs, outputs], [rounded, rounded]], [0.0, 0.0])
    assert output_error.is_blind(constant)
    assert not output_error.is_blind(Outputs([[outputs, outputs], [rounded, different]], [0.0, 0.0]))
    assert [caution.code for caution in output_error.cautions(constant)] == ["blind_outputs"]
    assert output_error.cautions(Outputs([[outputs]], [0.0])) == []  # unknown for one input
    family, model = yolo()
    variant = Variant("y", "fp16", "t", "yolo", "yolo11n.pt", "random", options={"image_size": 64})
    parts = output_error.outputs(family, model, variant)
    assert len(parts.passes) >= 2
    output_error.keep(parts, parts, tmp_path / "outputs")
    numbers = output_error.compare(family, model, variant, tmp_path / "outputs", "cpu")
    assert bool(numbers) is not output_error.is_blind(parts)


def test_what_restores_to_something_else_has_failed(lab: Lab) -> None:
    result = lab.measure("crash:kind=drift,at=rebuild")
    assert result.status == "failed"
    assert result.reason == "cpu: the restored model's outputs differ by 50.0% from those of the model that was saved"


def test_no_divergence_is_below_zero() -> None:
    torch.manual_seed(0)
    scores = torch.randn(1000, 2)
    nearly_the_same = [scores * (1 + step * 1e-7) for step in range(20)]
    divergences = [_of_classes(changed, scores)["quality/kl_divergence_nats"] for changed in nearly_the_same]
    assert min(divergences) == 0
    assert max(divergences) < 1e-6


def test_what_was_not_saved_is_named_where_outputs_differ(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("""
import os
import torch
from torch import nn

class Scale:
    value = 1.0

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.scale = nn.Linear(4, 3), Scale()
        self.drawn = torch.tensor(list(os.urandom(3))) + 1.0
    def forward(self, x):
        return self.layer(x) * self.scale.value + self.drawn

def model(): return Net()
def batch(size): return torch.rand(size, 4)
def load_weights(module): module.scale.value = 3.0
""")
    variant = Variant("own", "original", "t", "python", "own.py", folder=str(tmp_path), chain=(Step("original"),))
    family: Family = registry.build("families", "python")
    model = family.load("own.py", "auto", tmp_path, 0)
    before = output_error.outputs(family, model, variant)
    output_error.keep(before, before, tmp_path / "outputs.safetensors")
    (tmp_path / "saved").mkdir()
    model_folder.save(model, family, [], variant, tmp_path / "saved")
    restored = model_folder.restore(tmp_path / "saved").model
    with pytest.raises(WorkerError, match=r"not in its state dict: scale, drawn\. Register tensors as buffers"):
        output_error.compare(family, restored, variant, tmp_path / "outputs.safetensors", "cpu")


MASKED = "torch.where(x > 0.5, self.layer(x), -float('inf'))"


def custom(code: str, folder: Path) -> tuple[Family, Model, Variant]:
    """Return a user's module whose `forward` returns this expression."""
    (folder / "own.py").write_text(f"""
import random
import numpy as np
import torch

def count(net):
    net.calls = getattr(net, "calls", 0) + 1
    return net.calls

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(8, 8)

    def forward(self, x):
        return {code}

def model():
    return Net()

def batch(size):
    return torch.rand(size, 8)
""")
    family: Family = registry.build("families", "python")
    variant = Variant("m", "bf16", "t", "python", "own.py", "random", folder=str(folder))
    return family, family.load("own.py", "random", folder, 0), variant


def compared(code: str, change: str, folder: Path) -> tuple[dict[str, float], list[str]]:
    """Compare a module with one with another `forward`, restored as saved. Return the numbers and the cautions."""
    family, model, variant = custom(code, folder)
    original = output_error.outputs(family, model, variant)
    cautions = output_error.cautions(original)
    family, changed, variant = custom(change, folder)
    saved = output_error.outputs(family, changed, variant, len(original.passes))
    output_error.keep(original, saved, folder / "outputs")
    numbers = output_error.compare(family, changed, variant, folder / "outputs", "cpu", cautions)
    return numbers, [caution.code for caution in cautions]


@pytest.mark.parametrize(
    ("code", "change", "moved"),
    [
        ("self.layer(x)", "self.layer(x) * 1.1", 0.1),
        (MASKED, MASKED.replace("self.layer(x)", "self.layer(x) * 1.1"), 0.1),
        ("{'a': self.layer(x), 'b': [x, None, 3]}", "{'a': self.layer(x) * 1.1, 'b': [x, None, 3]}", 0.1),
        ("float(self.layer(x).sum())", "float(self.layer(x).sum()) * 1.1", 0.1),
        ("[row[row > 0.5] for row in x]", "[row[row > 0.5] * 1.1 for row in x]", 0.1),  # different lengths each time
        ("[x] * int(x.sum())", "[x * 1.1] * int(x.sum())", 0.1),  # and a different number
        ("self.layer(x) + torch.randn_like(x)", "self.layer(x) + torch.randn_like(x) * 1.01", 0.01),
        ("x + random.random()", "x * 1.01 + random.random()", 0.005),
    ],
)
def test_outputs_of_any_kind_are_compared(code: str, change: str, moved: float, tmp_path: Path) -> None:
    numbers, cautions = compared(code, change, tmp_path)
    assert numbers["quality/output_error_rel_l2"] == pytest.approx(moved, rel=0.5)
    assert cautions == []


@pytest.mark.parametrize(
    ("code", "change", "cautions"),
    [
        ("None", "None", ["no_outputs"]),
        ("'text'", "'text'", ["no_outputs"]),
        ("x * float('nan')", "x * float('nan')", ["no_outputs"]),
        ("x[:, :4]", "x[:, :5]", ["other_output_shapes"]),
        ("x + torch.randn_like(x)", "x + torch.randn(2, *x.shape)[1]", ["random_outputs"]),
        (
            "x + torch.randn_like(x)",
            "x + torch.from_numpy(np.random.default_rng().random(x.shape)).float()",  # like another runtime
            ["random_outputs"],
        ),
        ("x", "x + torch.from_numpy(np.random.default_rng().random(x.shape)).float()", ["unsteady_outputs"]),
        ("x + count(self)", "x + count(self)", ["unsteady_outputs"]),
    ],
)
def test_what_can_not_be_compared_is_reported(code: str, change: str, cautions: list[str], tmp_path: Path) -> None:
    assert compared(code, change, tmp_path) == ({}, cautions)


def test_numbers_that_only_the_compressed_model_lacks_make_it_fail(tmp_path: Path) -> None:
    with pytest.raises(
        WorkerError, match=r"contain NaN or infinity where the original's do not, at \d+ of \d+ positions"
    ):
        compared("self.layer(x)", "self.layer(x) * torch.tensor([float('nan')] + [1.0] * 7)", tmp_path)


def test_a_little_noise_does_not_explain_a_large_difference(tmp_path: Path) -> None:
    """A model that was restored without its weights fails, even if two calls of it differ by a thousandth."""
    noise = "torch.from_numpy(np.random.default_rng().random(8) / 1000).float()"
    family, model, variant = custom("self.layer(x)", tmp_path)
    saved = output_error.outputs(family, model, variant)
    output_error.keep(saved, saved, tmp_path / "outputs")
    family, restored, variant = custom(f"self.layer(x) * 0.1 + {noise}", tmp_path)
    with pytest.raises(WorkerError, match=r"the restored model's outputs differ by \d+"):
        output_error.compare(family, restored, variant, tmp_path / "outputs", "cpu", [])


PADDED = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 1)
        self.head = nn.Linear(16, 4)

    def forward(self, x, padded):
        return self.head(self.encoder(x, src_key_padding_mask=padded))

def model(): return Net()
def batch(size): return torch.rand(size, 6, 16), torch.arange(6).expand(size, 6) > FROM
"""


@pytest.mark.filterwarnings("ignore:.*nested tensors:UserWarning")
@pytest.mark.parametrize(("start", "codes"), [(3, ["fused_padding"]), (5, [])])
def test_outputs_are_compared_without_zeros_at_padded_positions_which_are_reported(
    start: int, codes: list[str], tmp_path: Path
) -> None:
    (tmp_path / "net.py").write_text(PADDED.replace("FROM", str(start)))
    family: Family = registry.build("families", "python")
    variant = Variant("net", "bf16", "t", "python", "net.py", "random", batch_size=2, folder=str(tmp_path))
    model = family.load("net.py", "random", tmp_path, 0)
    original = output_error.outputs(family, model, variant)
    assert [caution.code for caution in output_error.cautions(original)] == codes
    assert [caution.code for caution in output_error.cautions(original, is_compared=False)] == codes
    with torch.inference_mode():
        called = model.module(*family.batch(model, 2, 0))
    is_as_called = farthest([flat(called)], [original.passes[0][0]], [0.0]) < 1e-4
    assert is_as_called is not bool(codes)


def test_models_that_read_other_inputs_are_not_compared(tmp_path: Path) -> None:
    family, original = tiny_model("text_classification", {"initializer_range": 1.0})
    _, student = tiny_model("text_classification", {"initializer_range": 1.0, "vocab_size": 150})
    variant = Variant("m", "distill", "t", "text_classification", "tiny", "random", batch_size=2)
    inputs = output_error.inputs(family, original, variant)
    assert len(inputs) == 2
    assert output_error.read_alike(inputs, output_error.inputs(family, original, variant))
    assert not output_error.read_alike(inputs, output_error.inputs(family, student, variant))
    images = [torch.randn(2, 3, 8, 8)]
    assert output_error.read_alike(images, [images[0].half()])
    assert not output_error.read_alike(images, [images[0][..., :4]])
    outputs = [output_error.outputs(family, model, variant) for model in (original, student)]
    output_error.keep(outputs[0], outputs[1], tmp_path / "outputs", is_comparable=False)
    assert output_error.compare(family, student, variant, tmp_path / "outputs", "cpu") == {}
    output_error.keep(outputs[0], outputs[1], tmp_path / "comparable")
    assert output_error.compare(family, student, variant, tmp_path / "comparable", "cpu") != {}
