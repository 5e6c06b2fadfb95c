"""Distillation: the student is smaller, learns only from the teacher, and is restored from its folder."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from taught import NET, distilled, own
from tiny import DEEPER, tiny_model
from torch import nn

from mlflow_compress import registry
from mlflow_compress.compression.imitation import Lesson
from mlflow_compress.errors import RecipeError, Unsupported
from mlflow_compress.methods import distill
from mlflow_compress.networks import model_folder, stored_weights, transformer_layers
from mlflow_compress.planning import chains
from mlflow_compress.records import Variant
from mlflow_compress.sockets import Family, Model

WHISPER = {**DEEPER["asr"], "encoder_attention_heads": 2, "vocab_size": 100}


BERT = {"n_layers": 6, "n_heads": 4}


def outputs(family: Family, model: Model, seed: int = 0) -> torch.Tensor:
    with torch.no_grad():
        flat: torch.Tensor = stored_weights.flat(family.forward(model, family.batch(model, 20, seed)))
    return flat


def test_the_student_learns_and_can_be_repeated(tmp_path: Path) -> None:
    family, teacher = own(tmp_path)
    before = outputs(family, teacher)
    progress: list[tuple[int, int]] = []
    teacher.progress = lambda done, total: progress.append((done, total))
    untrained = distilled(family, teacher, steps=0)
    student, twin = (distilled(family, teacher, steps=150) for _ in range(2))
    probabilities = [outputs(family, model).view(-1, 4).softmax(1) for model in (teacher, untrained, student)]
    distances = [float((student - probabilities[0]).norm()) for student in probabilities[1:]]
    assert distances[1] < 0.3 * distances[0]
    assert torch.equal(outputs(family, student), outputs(family, twin))
    assert torch.equal(outputs(family, teacher), before)
    assert not student.module.training
    assert not any(weight.requires_grad for weight in (*student.module.parameters(), *teacher.module.parameters()))
    assert progress[:3] == [(1, 150), (2, 150), (3, 150)]
    assert len(progress) == 300
    assert student.facts["student"] == "212 of 356 parameters"
    assert student.facts["training"].startswith("150 steps of 16 inputs, loss from ")
    assert student.cautions == []


def test_another_seed_makes_another_student(tmp_path: Path) -> None:
    family, teacher = own(tmp_path)
    first, second = (outputs(family, distilled(family, teacher, steps=3, seed=seed)) for seed in (0, 1))
    assert not torch.equal(first, second)


def test_a_students_own_architecture_is_restored(tmp_path: Path) -> None:
    family, teacher = own(tmp_path)
    student = distilled(family, teacher, keep=0.25, steps=2)
    chain = chains.parse_chain("distill:keep=0.25,steps=2")
    (tmp_path / "saved").mkdir()
    methods = model_folder.methods_of(chain)
    model_folder.save(student, family, methods, Variant("m", "d", "t", "python", "s", chain=chain), tmp_path / "saved")
    restored = model_folder.restore(tmp_path / "saved")
    assert torch.equal(outputs(restored.family, restored.model), outputs(family, student))
    built = json.loads((tmp_path / "saved" / "architecture.json").read_text())["built"]
    assert built == {"function": "student", "arguments": [0.25]}
    weights = (tmp_path / "saved" / "model.safetensors").stat().st_size
    assert weights < 4 * (6 * 8 + 8 + 4 * 8 + 8 * 4 + 4) + 1200


def test_outputs_are_scores_only_where_the_family_tells(tmp_path: Path) -> None:
    family, model = own(tmp_path)
    assert family.outputs_are_scores(model)
    family, model = own(tmp_path, f"{NET}\ndef predict(module, inputs): ...")
    assert not family.outputs_are_scores(model)
    family, model = tiny_model("text_classification", BERT)
    assert family.outputs_are_scores(model)
    family = registry.build("families", "mlflow_model")
    assert not family.outputs_are_scores(Model(nn.Linear(1, 1)))


def test_a_students_layers_are_the_teachers_and_spaced() -> None:
    family, teacher = tiny_model("text_classification", BERT, tokens=8)
    student = distilled(family, teacher, steps=0)
    layers, originals = (model.module.distilbert.transformer.layer for model in (student, teacher))
    assert len(originals) == 6
    for layer, index in zip(layers, (0, 2, 5), strict=True):
        for name, value in layer.state_dict().items():
            assert torch.equal(value, originals[index].state_dict()[name])
    assert (student.config.n_layers, teacher.config.n_layers) == (3, 6)
    assert torch.equal(student.module.classifier.weight, teacher.module.classifier.weight)


def test_whispers_encoder_is_not_changed() -> None:
    family, teacher = tiny_model("asr", WHISPER)
    student = distilled(family, teacher, steps=2, batch_size=1, hidden=1.0)
    ours, theirs = (model.module.model for model in (student, teacher))
    assert (len(ours.encoder.layers), len(ours.decoder.layers)) == (2, 2)
    assert all(torch.equal(a, b) for a, b in zip(ours.encoder.parameters(), theirs.encoder.parameters()))  # noqa: B905
    assert not torch.equal(ours.decoder.layers[0].fc1.weight, theirs.decoder.layers[0].fc1.weight)
    assert student.module.proj_out.weight is ours.decoder.embed_tokens.weight


def test_hidden_states_are_those_that_the_next_layer_got() -> None:
    states = [torch.full((1, 1), float(value)) for value in range(1, 8)]  # of a teacher with 6 layers
    targets = {"layers": states}
    of_student = {"layers": [states[0], states[2], states[5], states[6]]}  # the student has layers 0, 2 and 5
    assert float(distill._hidden_error(of_student, targets)) == 0
    of_student["layers"][2] = 2 * states[5]
    assert float(distill._hidden_error(of_student, targets)) == pytest.approx(1 / 3)


def test_the_hidden_loss_is_learnt_from() -> None:
    family, teacher = tiny_model("text_classification", BERT, tokens=8)
    errors = []
    for hidden in (0, 10):
        student = distilled(family, teacher, steps=30, batch_size=8, learning_rate=1e-3, hidden=hidden)
        with transformer_layers.watched(student) as states, transformer_layers.watched(teacher) as targets:
            outputs(family, student)
            outputs(family, teacher)
        errors.append(float(distill._hidden_error(states, targets)))
    assert errors[1] < 0.8 * errors[0]


def test_models_without_a_smaller_student_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=r"net.py defines no student\(keep\): define it"):
        distilled(*own(tmp_path, NET.replace("def student", "def another")))
    with pytest.raises(Unsupported, match="356 parameters, not fewer than the original's 356"):
        distilled(*own(tmp_path, f"{NET}\ndef student(keep): return model()"))
    with pytest.raises(Unsupported, match="hidden states are available only for transformers"):
        distilled(*own(tmp_path), hidden=1.0)
    with pytest.raises(Unsupported, match="too few layers"):
        distilled(*tiny_model("text_classification", {"n_layers": 1}))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("keep=1", "keep='1' is invalid: input should be less than 1"),
        ("keep=0", "greater than 0"),
        ("steps=-1", "steps='-1' is invalid: input should be greater than or equal to 0"),
        ("temperature=0", "greater than 0"),
        ("hidden=-1", "greater than or equal to 0"),
        ("loss=hinge", "'auto', 'kl' or 'mse'"),
    ],
)
def test_options_out_of_range_are_refused(options: str, reason: str) -> None:
    with pytest.raises(RecipeError, match=reason):
        chains.parse_chain(f"distill:{options}")


def test_every_option_of_a_lesson_is_one_of_the_method() -> None:
    lesson = {field.name for field in dataclasses.fields(Lesson)}
    assert lesson == {field.name for field in dataclasses.fields(distill.Distill)} - {
        "keep",
        "student",
        "student_weights",
        "hidden",
    }
