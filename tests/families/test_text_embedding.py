"""Sentence encoders: pooling as the files of sentence-transformers say, correlation of pairs, and retrieval."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from tiny import tiny_model
from words import OTHERS, saved, write_rows

from mlflow_compress import registry
from mlflow_compress.errors import RecipeError, Unsupported
from mlflow_compress.networks import model_folder
from mlflow_compress.networks.sentence_modules import Sentences, pooled
from mlflow_compress.networks.transformers_models import companions
from mlflow_compress.planning import chains
from mlflow_compress.records import Variant
from mlflow_compress.scoring.hf_evaluate import metrics_of
from mlflow_compress.sockets import Family, Model

TEXTS = ["the film was very good", "a dull plot", "in all the story was fine and the plot was good"]
PAIRS = [(TEXTS[0], TEXTS[2], 4.5), (TEXTS[0], TEXTS[1], 0.5), (TEXTS[1], TEXTS[2], 1), (TEXTS[2], TEXTS[2], 5)]


def sentence_model(folder: Path, pooling: dict[str, Any] | None = None, *, normalize: bool = False) -> Path:
    """Save a tiny BERT with the files that sentence-transformers writes."""
    saved(folder, "AutoModel")
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), *([("2_Normalize", "Normalize")] if normalize else [])]
    described = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(described))
    (folder / "1_Pooling").mkdir()
    values = pooling or {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, **values}))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 16, "do_lower_case": False}))
    return folder


def loaded(folder: Path, **options: Any) -> tuple[Family, Model]:
    family: Family = registry.build("families", "text_embedding", {"tokens": 16, **options})
    return family, family.load(str(folder), "auto", folder.parent, 0)


def by_hand(model: Model, text: str, pooling: str) -> Any:
    encoded = companions(model).tokenizer([text], return_tensors="pt")
    with torch.no_grad():
        states = model.module(input_ids=encoded["input_ids"]).last_hidden_state[0]
    one = {"mean": states.mean(0), "cls": states[0], "max": states.max(0).values, "last": states[-1]}
    return one[pooling]


@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "last"])
def test_a_text_has_the_same_vector_alone_and_among_longer_ones(pooling: str, tmp_path: Path) -> None:
    family, model = loaded(saved(tmp_path / "bert", "AutoModel"), pooling=pooling)
    vectors = family.predict(model, TEXTS)
    for text, vector in zip(TEXTS, vectors, strict=True):
        np.testing.assert_allclose(vector, by_hand(model, text, pooling).tolist(), atol=1e-5)


def test_last_tokens_are_found_with_padding_on_either_side() -> None:
    states = torch.arange(12.0).reshape(2, 3, 2)
    for mask, rows in (([[1, 1, 0], [1, 1, 1]], (1, 2)), ([[0, 1, 1], [1, 1, 1]], (2, 2))):
        vectors = pooled(states, torch.tensor(mask), Sentences("last"))
        assert torch.equal(vectors, torch.stack([states[0, rows[0]], states[1, rows[1]]]))


def test_the_files_of_sentence_transformers_are_followed(tmp_path: Path) -> None:
    folder = sentence_model(tmp_path / "st", {"pooling_mode_cls_token": True}, normalize=True)
    settings = {"prompts": {"query": "the film ", "text": "a "}, "default_prompt_name": "text"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    family, model = loaded(folder)
    sentences = Sentences.of(model.config)
    assert sentences == Sentences("cls", normalize=True, prompt="a ", query_prompt="the film ", tokens=16)
    (vector,) = family.predict(model, ["dull plot"])
    expected = torch.nn.functional.normalize(by_hand(model, "a dull plot", "cls"), dim=0)
    np.testing.assert_allclose(vector, expected.tolist(), atol=1e-5)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    long = " ".join(OTHERS * 4)
    assert family.predict(model, [long]) == family.predict(model, [" ".join(long.split()[:13])])  # 16 with specials


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"pooling_mode_weightedmean_tokens": True}, "pools by pooling_mode_weightedmean_tokens; this family pools by"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, "pools by pooling_mode_mean_tokens, pool"),
    ],
)
def test_other_poolings_are_rejected(change: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=reason):
        loaded(sentence_model(tmp_path / "st", change))


def test_other_modules_are_rejected(tmp_path: Path) -> None:
    folder = sentence_model(tmp_path / "st")
    modules = json.loads((folder / "modules.json").read_text())
    modules.append({"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"})
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(RecipeError, match="has a module Dense after its encoder, which this family does not run"):
        loaded(folder)


def test_pairs_are_scored_by_the_correlation_of_their_cosines(tmp_path: Path) -> None:
    family, model = loaded(sentence_model(tmp_path / "st"))
    write_rows(tmp_path / "pairs.jsonl", ("sentence1", "sentence2", "score"), PAIRS)
    samples = family.samples(model, "pairs.jsonl:similarity=score", tmp_path, None, 0)
    answers = family.answers(model, [sample.inputs for sample in samples])
    vectors = dict(zip(TEXTS, family.predict(model, TEXTS), strict=True))
    for (one, two, _), cosine in zip(PAIRS, answers, strict=True):
        a, b = np.array(vectors[one]), np.array(vectors[two])
        assert cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-5)
    references = [sample.reference for sample in samples]
    assert references == [4.5, 0.5, 1.0, 5.0]
    names = family.metrics_for(model)
    metrics = metrics_of(names, tmp_path, gives=family.kinds(model))
    assert metrics["spearman"].compute(references, answers) == pytest.approx(
        scipy.stats.spearmanr(references, answers).statistic
    )
    assert metrics["pearson"].compute(references, answers) == pytest.approx(
        scipy.stats.pearsonr(references, answers).statistic
    )


def test_a_similarity_that_is_not_a_number_is_named(tmp_path: Path) -> None:
    family, model = loaded(sentence_model(tmp_path / "st"))
    write_rows(tmp_path / "pairs.jsonl", ("sentence1", "sentence2", "similarity"), [(*TEXTS[:2], "much")])
    with pytest.raises(RecipeError, match=r"pairs.jsonl, line 1: the similarity 'much' is not a number"):
        family.samples(model, "pairs.jsonl", tmp_path, None, 0)


def test_queries_rank_all_documents_of_the_data(tmp_path: Path) -> None:
    family, model = loaded(sentence_model(tmp_path / "st"), protocol="retrieval")
    rows = [(TEXTS[0], TEXTS[0]), (TEXTS[1], TEXTS[2]), (TEXTS[0], TEXTS[1]), ("very fine", TEXTS[1])]
    write_rows(tmp_path / "pairs.jsonl", ("query", "document"), rows)
    samples = family.samples(model, "pairs.jsonl", tmp_path, None, 0)
    assert [sample.reference for sample in samples] == [[0, 2], [1], [2]]  # documents: TEXTS[0], TEXTS[2], TEXTS[1]
    rankings = family.answers(model, [sample.inputs for sample in samples])
    assert all(sorted(ranking) == [0, 1, 2] for ranking in rankings)
    assert rankings[0][0] == 0, "a query that equals a document is nearest to it"
    assert rankings[1][0] == 2
    metrics = metrics_of(["retrieval_recall:k=1", "mrr"], tmp_path, gives=family.kinds(model))
    references = [sample.reference for sample in samples]
    assert metrics["retrieval_recall_k_1"].compute(references, [[0, 1, 2], [2, 1, 0], [2, 0, 1]]) == pytest.approx(0.5)
    assert metrics["mrr"].compute(references, [[0, 1, 2], [2, 1, 0], [0, 1, 2]]) == pytest.approx((1 + 0.5 + 1 / 3) / 3)
    assert family.metrics_for(model) == ("retrieval_recall", "mrr")


@pytest.mark.parametrize("chain", ["original", "bf16", "onnx"])
def test_pooling_and_prompts_are_saved_with_the_model(chain: str, tmp_path: Path) -> None:
    family, model = loaded(sentence_model(tmp_path / "st", normalize=True), pooling="max", prompt="the ")
    steps = chains.parse_chain(chain)
    methods = model_folder.methods_of(steps)
    before = family.predict(model, TEXTS)
    with torch.inference_mode(False):
        for method in methods:
            model = method.compress(model, family)
    (tmp_path / "saved").mkdir()
    variant = Variant(
        "m", chain, "t", "text_embedding", "s", chain=steps, options={"tokens": 16, "pooling": "max", "prompt": "the "}
    )
    model_folder.save(model, family, methods, variant, tmp_path / "saved")
    restored = model_folder.restore(tmp_path / "saved")
    assert Sentences.of(restored.model.config).pooling == "max"
    np.testing.assert_allclose(
        restored.family.predict(restored.model, TEXTS), before, atol=0.02 if chain == "bf16" else 1e-4
    )


@pytest.mark.parametrize("protocol", ["similarity", "retrieval"])
def test_pairs_are_learnt(protocol: str, tmp_path: Path) -> None:
    family, model = loaded(sentence_model(tmp_path / "st"), protocol=protocol)
    generator = np.random.default_rng(0)
    words = [" ".join(generator.choice(OTHERS, 4)) for _ in range(60)]
    if protocol == "similarity":
        names: tuple[str, ...] = ("sentence1", "sentence2", "similarity")
        rows: list[tuple[Any, ...]] = [
            (one, two, float(("film" in one) == ("film" in two)))
            for one, two in zip(words[:30], words[30:], strict=True)
        ]
    else:
        names = ("query", "document")
        rows = [(one, f"good {one.split()[0]}") for one in words]
    write_rows(tmp_path / "pairs.jsonl", names, rows)
    family.samples(model, "pairs.jsonl:limit=5", tmp_path, None, 0)
    (batch,) = family.labelled(model, 1, 0, 16)
    before = float(family.forward_labelled(model, batch)[1])
    registry.build("methods", "fine_tune", {"steps": 60, "learning_rate": 1e-3}).compress(model, family)
    with torch.no_grad():
        assert float(family.forward_labelled(model, batch)[1]) < 0.7 * before


def test_the_loss_of_similarities_is_cosent() -> None:
    family, model = tiny_model("text_embedding")
    (batch,) = family.labelled(model, 1, 0, 3)
    vectors, loss = family.forward_labelled(model, batch)
    unit = torch.nn.functional.normalize(vectors, dim=-1)
    cosines = 20 * (unit[:3] * unit[3:]).sum(-1)
    terms = [torch.exp(cosines[i] - cosines[j]) for i in range(3) for j in range(3) if i < j]  # targets are 0, 1, 2
    torch.testing.assert_close(loss, torch.log(1 + torch.stack(terms).sum()))


def test_a_students_vectors_imitate_the_teachers() -> None:
    family, model = tiny_model("text_embedding", {"num_hidden_layers": 4})
    student = registry.build("methods", "distill", {"steps": 3, "batch_size": 2}).compress(model, family)
    assert student.config.num_hidden_layers == 2
    assert not family.outputs_are_scores(model)


def test_mlflows_flavor_would_not_pool(tmp_path: Path) -> None:
    family, _ = loaded(sentence_model(tmp_path / "st"))
    with pytest.raises(Unsupported, match="one vector for each token, without pooling"):
        family.native_flavor(tmp_path)
