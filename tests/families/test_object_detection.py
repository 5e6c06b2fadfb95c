"""Detectors of transformers: their boxes, scores, export, and saved files."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TINY, tiny_model

from mlflow_compress import registry
from mlflow_compress.errors import RecipeError
from mlflow_compress.measuring import output_error, worker
from mlflow_compress.networks import model_folder
from mlflow_compress.planning.chains import parse_chain
from mlflow_compress.records import Variant
from mlflow_compress.sockets import Family, Model

RT_DETR = {
    "model_type": "rt_detr",
    "backbone_config": {
        "model_type": "rt_detr_resnet",
        "embedding_size": 8,
        "hidden_sizes": [8, 16, 32, 64],
        "depths": [1, 1, 1, 1],
        "layer_type": "basic",
        "out_features": ["stage2", "stage3", "stage4"],
    },
    "encoder_in_channels": [16, 32, 64],
    "encoder_hidden_dim": 16,
    "encoder_layers": 1,
    "encoder_ffn_dim": 32,
    "encoder_attention_heads": 2,
    "decoder_in_channels": [16, 16, 16],
    "d_model": 16,
    "num_queries": 20,
    "decoder_layers": 2,
    "decoder_ffn_dim": 32,
    "decoder_attention_heads": 2,
    "num_labels": 3,
}
DETR = TINY["object_detection"]["architecture"]


def loaded(architecture: dict[str, Any], **options: Any) -> tuple[Family, Model]:
    family: Family = registry.build(
        "families", "object_detection", {"image_size": 64, **options, "architecture": architecture}
    )
    return family, family.load("tiny", "random", Path(), 0)


def picture(folder: Path, name: str, seed: int) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (30, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("architecture", [DETR, RT_DETR], ids=["detr", "rt_detr"])
def test_boxes_are_those_of_the_models_own_processor(architecture: dict[str, Any], tmp_path: Path) -> None:
    family, model = loaded(architecture, confidence=0.0)
    path = picture(tmp_path, "a.png", 0)
    (answer,) = family.predict(model, [path])
    pixels = family.run(model, family.batch(model, 1, 0), lambda stage: None)
    assert [tuple(part.shape[:2]) for part in pixels] == [(1, architecture["num_queries"])] * 2
    processor = model.family_data.processor  # type: ignore[attr-defined]
    size = {"height": 64, "width": 64}
    inputs = processor(images=Image.open(path).convert("RGB"), return_tensors="pt", size=size)["pixel_values"]
    with torch.inference_mode():
        output = model.module(inputs)
    (expected,) = processor.post_process_object_detection(
        SimpleNamespace(logits=output.logits, pred_boxes=output.pred_boxes), threshold=0.0, target_sizes=[(30, 60)]
    )
    order = expected["scores"].argsort(descending=True)
    assert answer["scores"] == pytest.approx(expected["scores"][order].tolist(), abs=1e-5)
    assert np.allclose(answer["boxes"], expected["boxes"][order], atol=1e-3)
    assert set(answer["labels"]) <= {"LABEL_0", "LABEL_1", "LABEL_2"}


def test_a_detector_is_scored_on_a_data_yaml(tmp_path: Path) -> None:
    family, model = loaded(DETR)
    for split, seed in (("val", 0), ("train", 5)):
        for index in range(2):
            picture(tmp_path, f"images/{split}/{index}.png", seed + index)
    (tmp_path / "labels" / "val").mkdir(parents=True)
    names = dict(model.config.id2label)
    for index in range(2):  # the truth is what the model finds
        (answer,) = family.answers(model, [tmp_path / "images" / "val" / f"{index}.png"])
        x1, y1, x2, y2 = np.array(answer["boxes"][0]) / [60, 30, 60, 30]
        number = next(number for number, name in names.items() if name == answer["labels"][0])
        label = f"{number} {(x1 + x2) / 2} {(y1 + y2) / 2} {x2 - x1} {y2 - y1}"
        (tmp_path / "labels" / "val" / f"{index}.txt").write_text(label)
    (tmp_path / "d.yaml").write_text(f"train: images/train\nval: images/val\nnames: {names}")
    samples = family.samples(model, "d.yaml", tmp_path, None, 0)
    answers = family.answers(model, [sample.inputs for sample in samples])
    score = registry.build("metrics", "map50").compute([sample.reference for sample in samples], answers)
    assert score > 0.5  # equal scores of random weights put other boxes first
    assert [batch.shape for batch in family.calibration(model, 2, 0, size=2)] == [(2, 3, 64, 64)] * 2
    assert not model.cautions
    (tmp_path / "d.yaml").write_text("val: images/val\nnames: [cat, dog, cow, hen]")
    with pytest.raises(RecipeError, match="they do not match"):
        family.samples(model, "d.yaml", tmp_path, None, 0)


@pytest.mark.parametrize(
    "chain",
    [
        *("original", "bf16", "openvino", "int8_weight_only"),
        *(pytest.param(chain, marks=pytest.mark.extra) for chain in ("onnx", "torch_export")),
    ],
)
def test_an_rt_detr_is_restored_as_it_was_saved(chain: str, tmp_path: Path) -> None:
    options = {"image_size": 64, "architecture": RT_DETR}
    variant = Variant(
        "d", chain, "t", "object_detection", "tiny", "random", chain=parse_chain(chain), options=options, batch_size=2
    )
    worker.prepare(variant, tmp_path, worker.Report(io.StringIO()))
    restored = model_folder.restore(tmp_path / worker.MODEL_FOLDER)
    output_error.compare(restored.family, restored.model, variant, tmp_path / worker.OUTPUTS, "cpu")
    assert len(restored.family.predict(restored.model, [np.zeros((20, 40, 3), np.uint8)])) == 1


def test_random_weights_give_each_place_of_an_rt_detr_its_own_score() -> None:
    family, model = loaded(RT_DETR)
    scores: list[Any] = []
    head = model.module.model.enc_score_head
    head.register_forward_hook(lambda layer, inputs, output: scores.append(output.amax(-1)))
    with torch.inference_mode():
        first, second = (family.run(model, family.batch(model, 1, seed), lambda stage: None) for seed in (0, 1))
    assert float(scores[0].std()) > 0.1
    assert len(scores[0].unique()) == scores[0].numel()
    assert float((first[0] - second[0]).norm() / first[0].norm()) > 0.01


def test_without_a_size_the_processor_keeps_the_shape_of_pictures() -> None:
    family, model = tiny_model("object_detection", image_size=None)
    batch = family.batch(model, 1, 0)
    assert batch.shape[2] < batch.shape[3] <= 1333  # of a photo of 720 x 1280
    graph = family.graphs(model)["model"]
    assert graph.dynamic["pixels"] == {0: "batch", 2: "height", 3: "width"}
