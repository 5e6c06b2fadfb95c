"""Fine-tuning on labels: the task is learnt, zeros stay zero, and scored samples are never used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from taught import NET, own
from tiny import tiny_model
from words import GOOD, labelled_folder, labels, saved

from mlflow_compress import registry
from mlflow_compress.errors import RecipeError, Unsupported
from mlflow_compress.networks.transformers_models import companions
from mlflow_compress.sockets import Family, Model

LABELLED = f"""{NET}
def training_labels():
    return (training().sum(1) > 0).long()
"""


def applied(method: str, family: Family, model: Model, **options: Any) -> Model:
    changed: Model = registry.build("methods", method, options).compress(model, family)
    return changed


def classifier(tmp_path: Path, **options: Any) -> tuple[Family, Model, Path]:
    data = labelled_folder(tmp_path / "data")
    folder = saved(tmp_path / "bert", **labels())
    family: Family = registry.build("families", "text_classification", options)
    model = family.load(str(folder), "auto", tmp_path, 0)
    model.samples = family.samples(model, "data", tmp_path, None, 0)  # type: ignore[attr-defined]
    return family, model, data


def accuracy(family: Family, model: Model) -> float:
    samples = family.samples(model, "data", model.evaluation.folder, None, 0)  # type: ignore[union-attr]
    answers = family.predict(model, [sample.inputs for sample in samples])
    right = [bool(answer == sample.reference) for answer, sample in zip(answers, samples, strict=True)]
    return sum(right) / len(right)


def test_a_classifier_learns_its_labels(tmp_path: Path) -> None:
    family, model, _ = classifier(tmp_path)
    before = accuracy(family, model)
    applied("fine_tune", family, model, steps=150, learning_rate=3e-3)
    assert before < 0.8
    assert accuracy(family, model) >= 0.95
    assert model.facts["fine_tuning"].startswith("150 steps of 16 labelled samples, loss from ")
    assert not any(weight.requires_grad for weight in model.module.parameters())
    assert not model.module.training


def test_pruned_weights_stay_zero_and_the_loss_of_pruning_is_recovered(tmp_path: Path) -> None:
    family, model, _ = classifier(tmp_path)
    applied("fine_tune", family, model, steps=150, learning_rate=3e-3)
    applied("prune_magnitude", family, model, amount=0.9)
    zeros = {name: weight == 0 for name, weight in model.module.named_parameters() if weight.dim() > 1}
    pruned = accuracy(family, model)
    applied("fine_tune", family, model, steps=150, learning_rate=3e-3)
    for name, weight in model.module.named_parameters():
        if name in zeros:
            assert bool((weight[zeros[name]] == 0).all()), name
            assert bool((weight[~zeros[name]] != 0).any()) or not bool((~zeros[name]).any())
    assert accuracy(family, model) >= max(pruned, 0.9)


def test_scored_texts_are_never_trained_on(tmp_path: Path) -> None:
    family, model, data = classifier(tmp_path)
    scored = [json.loads(line) for line in (data / "test.jsonl").read_text().splitlines()]
    lines = [json.dumps({**row, "label": "NEGATIVE"}) for row in scored]  # wrong labels: only their texts count
    with (data / "train.jsonl").open("a") as file:
        file.write("\n".join(lines) + "\n")
    batches = family.labelled(model, 200, 0, 8)
    tokenizer = companions(model).tokenizer
    texts = {text for batch in batches for text in tokenizer.batch_decode(batch.batch["input_ids"], True)}
    assert len(texts) > 100
    assert not texts & {row["text"] for row in scored}
    numbers = set(GOOD)
    for batch in batches[:20]:
        for text, target in zip(
            tokenizer.batch_decode(batch.batch["input_ids"], True), batch.targets.tolist(), strict=True
        ):
            assert target == int(any(word in numbers for word in text.split()))


def test_without_labelled_samples_it_does_not_apply(tmp_path: Path) -> None:
    folder = saved(tmp_path / "bert", **labels())
    family: Family = registry.build("families", "text_classification")
    model = family.load(str(folder), "auto", tmp_path, 0)
    with pytest.raises(Unsupported, match="there are no labelled samples to train on: provide data with a training"):
        applied("fine_tune", family, model)
    model = Model(torch.nn.Linear(2, 2), weights="local")
    with pytest.raises(Unsupported, match="this family does not train on labels"):
        registry.build("families", "mlflow_model").labelled(model, 1, 0)


@pytest.mark.parametrize("name", ["text_classification", "token_classification", "seq2seq", "causal_lm"])
def test_random_weights_are_trained_for_their_size_and_latency(name: str) -> None:
    family, model = tiny_model(name)
    applied("fine_tune", family, model, batch_size=2)
    assert model.facts["fine_tuning"].startswith("3 steps of 2 random inputs, loss from ")
    assert [caution.code for caution in model.cautions] == ["random_calibration"]


def test_a_file_gives_its_labels_and_its_loss(tmp_path: Path) -> None:
    family, model = own(tmp_path, LABELLED)
    model.weights = "local"
    applied("fine_tune", family, model, steps=200, learning_rate=1e-2)
    inputs = torch.randn(200, 6)
    with torch.no_grad():
        right = (model.module(inputs).argmax(1) == (inputs.sum(1) > 0)).float().mean()
    assert right > 0.9
    code = f"{LABELLED}\ndef loss(output, labels): return (output.sum(1) - labels).square().mean()"
    family, model = own(tmp_path, code)
    (batch,) = family.labelled(model, 1, 0, 4)
    output, loss = family.forward_labelled(model, batch)
    torch.testing.assert_close(loss, (output.sum(1) - batch.targets).square().mean())


def test_a_file_with_true_values_has_the_squared_error(tmp_path: Path) -> None:
    code = NET.replace("nn.Linear(32, 4)", "nn.Linear(32, 1)") + "\ndef training_labels(): return training().sum(1)"
    family, model = own(tmp_path, code)
    (batch,) = family.labelled(model, 1, 0, 4)
    output, loss = family.forward_labelled(model, batch)
    torch.testing.assert_close(loss, (output[:, 0] - batch.targets).square().mean())
    torch.testing.assert_close(batch.targets, batch.batch[0].sum(1))  # the same samples


def test_what_a_file_lacks_is_named(tmp_path: Path) -> None:
    family, model = own(tmp_path)
    model.weights = "local"
    with pytest.raises(Unsupported, match=r"net.py defines no training_labels\(\): methods that train on labels need"):
        applied("fine_tune", family, model)
    family, model = own(tmp_path, f"{NET}\ndef training_labels(): return torch.zeros(7)")
    with pytest.raises(
        RecipeError, match=r"training\(\) returns 300 samples, but training_labels\(\) returns 7 labels"
    ):
        applied("fine_tune", family, model)


def test_clusters_are_not_trained_apart(tmp_path: Path) -> None:
    family, model = own(tmp_path, LABELLED)
    applied("cluster", family, model)
    with pytest.raises(Unsupported, match="put fine_tune before cluster"):
        applied("fine_tune", family, model)
