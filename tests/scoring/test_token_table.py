from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_model

from mlflow_compress import registry
from mlflow_compress.measuring import quality
from mlflow_compress.model import Model
from mlflow_compress.networks import next_tokens
from mlflow_compress.networks.next_tokens import Kept, NextTokens, TextLikelihood
from mlflow_compress.networks.transformers_models import companions
from mlflow_compress.planning import chains
from mlflow_compress.records import Result, Variant
from mlflow_compress.scoring import fidelity, statistics_file, token_table
from mlflow_compress.scoring.statistics_file import Statistics
from mlflow_compress.sockets import Family
from mlflow_compress.tracking import pairing

AGREEMENT = "quality/top1_agreement"
BOUND, REVERSE = "quality/kl_divergence_lower_bound_nats", "quality/kl_divergence_reverse_lower_bound_nats"


def scored(folder: Path, family: Family, model: Model, method: str, data: str = "texts.jsonl") -> Result:
    """Score a model, and return its result; its statistics are in the folder."""
    folder.mkdir(exist_ok=True)
    name = "masked_lm" if "Masked" in type(family).__name__ else "causal_lm"
    metric = family.metrics[0]
    variant = Variant(
        *("m", method, "t", name, "x"),
        data=data,
        chain=chains.parse_chain(method),
        metrics=(metric,),
        folder=str(folder.parent),
    )
    part = quality.score(family, model, variant, folder, lambda *_: None)
    return Result(variant, "ok", measurements=part.measurements, facts=part.facts)


def paired(tmp_path: Path, original: tuple[Family, Model], own: tuple[Family, Model]) -> dict[str, float]:
    originals = pairing.Originals()
    for name, (family, model) in (("original", original), ("bf16", own)):
        result = originals.pair(scored(tmp_path / name, family, model, name), tmp_path / name)
    return dict(result.measurements)


def exact(texts: list[str], family: Family, *models: Model) -> tuple[float, float, float]:
    """Return agreement and both divergences over the whole vocabulary, from the logits of every token."""
    logs: list[list[Any]] = [[], []]
    for side, model in zip(logs, models, strict=True):
        for text in texts:
            ids = companions(model).tokenizer(text, add_special_tokens=False)["input_ids"]
            with torch.inference_mode():  # lm_eval: a prefix token, and every token is predicted
                logits = family.forward(model, torch.tensor([[1, *ids[:-1]]]))[0]
            side.append(logits.double().log_softmax(-1))
    before, after = torch.cat(logs[0]), torch.cat(logs[1])
    agreement = (before.argmax(-1) == after.argmax(-1)).double().mean()
    ways = [(p.exp() * (p - q)).sum(-1).mean() for p, q in ((before, after), (after, before))]
    return float(agreement), float(ways[0]), float(ways[1])


@pytest.fixture
def texts(tmp_path: Path) -> list[str]:
    texts = [f"The cat number {index} sat on the mat {'and slept ' * (index % 3)}" for index in range(40)]
    registry_rows = "".join(f'{{"text": "{text}"}}\n' for text in texts)
    (tmp_path / "texts.jsonl").write_text(registry_rows)
    return texts


def language_model(**architecture: Any) -> tuple[Family, Model]:
    return tiny_model("causal_lm", {"initializer_range": 0.5, "vocab_size": 288, "hidden_size": 32, **architecture})


@pytest.mark.parametrize(("method", "least"), [("bf16", 0.95), ("int4_weight_only:group_size=32", 0.8)])
def test_agreement_is_exact_and_the_bound_is_below_the_divergence(
    tmp_path: Path, texts: list[str], method: str, least: float
) -> None:
    family, model = language_model()
    _, compressed = language_model()
    (step,) = chains.parse_chain(method)
    plugin = registry.build("methods", step.method, step.options)
    compressed = plugin.compress(compressed, family)
    agreement, divergence, reverse = exact(texts, family, model, compressed)
    numbers = paired(tmp_path, (family, model), (family, compressed))
    assert numbers[AGREEMENT] == pytest.approx(agreement, abs=1e-12)
    assert least * divergence < numbers[BOUND] <= divergence * (1 + 1e-3) + 1e-6
    assert least * reverse < numbers[REVERSE] <= reverse * (1 + 1e-3) + 1e-6
    assert divergence > 1e-6


def test_a_model_agrees_with_itself(tmp_path: Path, texts: list[str]) -> None:
    numbers = paired(tmp_path, language_model(), language_model())
    assert (numbers[AGREEMENT], numbers[BOUND], numbers[REVERSE]) == (1, 0, 0)


def tables(count: int, vocabulary: int, seed: int = 0) -> tuple[Any, Any, Any]:
    """Return the logits of two models, and the tokens."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(count, vocabulary, generator=generator)
    targets = torch.randint(0, vocabulary, (count,), generator=generator)
    return logits, logits + 0.7 * torch.randn(count, vocabulary, generator=generator), targets


@pytest.mark.parametrize(("vocabulary", "is_exact"), [(50, True), (64, True), (500, False)])
def test_a_small_vocabulary_is_compared_exactly(vocabulary: int, is_exact: bool) -> None:
    before, after, targets = tables(300, vocabulary)
    logs = [side.double().log_softmax(-1) for side in (before, after)]
    divergence = float((logs[0].exp() * (logs[0] - logs[1])).sum(-1).mean())
    numbers = fidelity.of_tokens(NextTokens.of(after, targets, 300), NextTokens.of(before, targets, 300))
    assert numbers[BOUND] == pytest.approx(divergence, rel=1e-5) if is_exact else numbers[BOUND] < divergence
    assert numbers[BOUND] > 0.8 * divergence


def test_unlikely_tokens_give_finite_divergences() -> None:
    before, after, targets = tables(20, 200)
    sharp, sharper = 200 * before, 1000 * after
    numbers = fidelity.of_tokens(NextTokens.of(sharp, targets, 20), NextTokens.of(sharper, targets, 20))
    assert np.isfinite(list(numbers.values())).all()


def test_windows_may_come_in_any_order_and_the_limits_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow_compress.networks.token_windows import rolling

    logits, _, _ = tables(40, 70)
    texts = [list(range(20)), list(range(15))]
    recorder = next_tokens.Recorder(texts, 24)
    windows = [part for index, text in enumerate(texts) for part in rolling(index, len(text), 8)]
    for part in reversed(windows):
        start = part.end - part.scored
        recorder.see(part, logits[start : part.end], torch.tensor(texts[part.text][start : part.end]))
    predicted = [recorder.of_text(index) for index in range(2)]
    assert predicted[0] is not None
    assert predicted[1] is not None
    assert predicted[0].targets.tolist() == texts[0][1:]
    assert predicted[1].best.tolist() == logits[1:15].argmax(-1).tolist()
    assert (len(predicted[0].scores), len(predicted[1].scores)) == (19, 5)
    monkeypatch.setattr(next_tokens, "MOST_COMPARED", 21)
    monkeypatch.setattr(next_tokens, "MOST_TOKENS", 30)
    kept = Kept()
    kept.take([TextLikelihood({}, predicted[0])])
    assert not kept.is_full
    kept.take([TextLikelihood({}, predicted[1])])
    whole = kept.result()
    assert kept.is_full
    assert whole is not None
    assert (len(whole.targets), len(whole.scores)) == (30, 21)
    kept.take([{"nll": 1.0}])  # an answer without predictions
    assert kept.result() is None


def test_the_tables_are_read_back_from_the_file(tmp_path: Path) -> None:
    logits, _, targets = tables(30, 200)
    predicted = NextTokens.of(logits, targets, 10)
    statistics_file.write(token_table.statistics(predicted), tmp_path / "statistics.npz")
    read = token_table.read(statistics_file.read(tmp_path / "statistics.npz"))
    assert read is not None
    assert read.best.tolist() == predicted.best.tolist()
    assert (read.scores == predicted.scores).all()
    assert token_table.read({}) is None
    assert token_table.statistics(None) == {}


def test_tables_that_are_not_valid_are_not_compared() -> None:
    logits, _, targets = tables(30, 200)
    predicted = NextTokens.of(logits, targets, 10)
    kept = token_table.statistics(predicted)
    wide = Statistics(np.zeros((10, 64 + 2 * 4000), np.float32))
    above = copy.copy(kept[token_table.SCORES].values) + 50
    for broken in (wide, Statistics(np.zeros((31, 192), np.float32)), Statistics(above)):
        with pytest.raises(ValueError, match="predicted token"):
            token_table.read({**kept, token_table.SCORES: broken})
    with pytest.raises(ValueError, match="different tokens"):
        fidelity.of_tokens(NextTokens.of(logits, targets + 1, 10), predicted)


def test_masked_tokens_are_compared_too(tmp_path: Path, texts: list[str]) -> None:
    original, own = (tiny_model("masked_lm", {"initializer_range": 0.5}) for _ in range(2))
    with torch.no_grad():
        for parameter in own[1].module.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    numbers = paired(tmp_path, original, own)
    assert 0 < numbers[AGREEMENT] <= 1
    assert numbers[BOUND] > 0
