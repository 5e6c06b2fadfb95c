from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import tiny_model

from mlflow_compress.errors import RecipeError, UnknownName
from mlflow_compress.measuring import quality
from mlflow_compress.model import Model
from mlflow_compress.networks.transformers_models import companions
from mlflow_compress.planning import chains
from mlflow_compress.records import MetricFacts, Part, PublishedScore, Result, Variant
from mlflow_compress.scoring.hf_evaluate import is_code, metrics_of
from mlflow_compress.scoring.lm_eval_tasks import HarnessTask
from mlflow_compress.sockets import Family
from mlflow_compress.tracking import pairing, rescore

needs_harness = pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="lm-eval is not installed")

COUNT = 24
CHOICES = """
task: choices
dataset_path: json
dataset_kwargs:
  data_files:
    test: data/questions.jsonl
    train: data/questions.jsonl
training_split: train
test_split: test
fewshot_split: train
output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
  - {metric: mcc, aggregation: matthews_corrcoef, higher_is_better: true}
metadata: {version: 1.0}
"""
ROLLING = """
task: rolling
dataset_path: json
dataset_kwargs: {data_files: {test: data/questions.jsonl}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{question}}"
metric_list:
  - {metric: word_perplexity}
  - {metric: bits_per_byte}
metadata: {version: 2.0}
"""
GENERATED = """
task: generated
dataset_path: json
dataset_kwargs: {data_files: {test: data/questions.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{said}}"
generation_kwargs: {until: ["e"], max_gen_toks: 6, do_sample: false}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
metadata: {version: 1.0}
"""
LAST_WORD = """
task: last_word
dataset_path: json
dataset_kwargs: {data_files: {test: data/questions.jsonl}}
test_split: test
output_type: loglikelihood
doc_to_text: "{{question}}"
doc_to_target: "{{choices[0]}}"
metric_list:
  - {metric: perplexity, aggregation: perplexity, higher_is_better: false}
  - {metric: acc, aggregation: mean, higher_is_better: true}
metadata: {version: 1.0}
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the data sets that tests make apart from those of the user."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))


def tasks(folder: Path, said: Callable[[str], str] = str) -> Path:
    """Write tasks and their data into a folder."""
    (folder / "data").mkdir()
    rows = []
    for index in range(COUNT):
        question = f"Is {index * 7} more than {index * index}, or is it not so? {'Think. ' * (index % 4)}"
        rows.append(
            {
                "question": question,
                "choices": [" yes", " not at all", " so"],
                "answer": index % 3,
                "said": said(question),
            }
        )
    (folder / "data" / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for text in (CHOICES, ROLLING, GENERATED, LAST_WORD):
        (folder / f"{text.split()[1]}.yaml").write_text(text)
    return folder


def model_of(**options: Any) -> tuple[Family, Model]:
    return tiny_model("causal_lm", {"initializer_range": 0.3, "vocab_size": 259}, **options)


def variant_of(folder: Path, *metrics: str, method: str = "original", **options: Any) -> Variant:
    return Variant(
        *("m", method, "t", "causal_lm", "x"),
        chain=chains.parse_chain(method),
        metrics=metrics,
        folder=str(folder),
        **options,
    )


def scored(folder: Path, family: Family, model: Model, *metrics: str, **options: Any) -> Part:
    return quality.score(family, model, variant_of(folder, *metrics, **options), folder, lambda *_: None)


def of_harness(folder: Path, model: Model, name: str, **options: Any) -> dict[str, Any]:
    """Return the numbers that the harness computes with its own class for models of transformers."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    own = HFLM(pretrained=model.module, tokenizer=companions(model).tokenizer, batch_size=1)
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    results = simple_evaluate(own, tasks=[name], task_manager=manager, bootstrap_iters=10, **options)
    return dict({**results["results"], **results.get("groups", {})}[name])


@needs_harness
def test_scores_are_those_of_the_harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family, model = model_of()
    answer = family.text_model(model).proceed
    ids = companions(model).tokenizer
    folder = tasks(
        tmp_path, lambda text: answer(ids(text)["input_ids"], 6, ("e",)).split("e")[0] if "14" in text else ""
    )
    monkeypatch.chdir(folder)  # the harness takes paths from there; the metric from the folder of the task
    part = scored(
        *(tmp_path, family, model),
        *("lm_eval:./choices.yaml", "lm_eval:./choices.yaml:key=acc_norm,num_fewshot=2,limit=15"),
        *("lm_eval:./rolling.yaml", "lm_eval:./rolling.yaml:key=bits_per_byte"),
        *("lm_eval:./generated.yaml", "lm_eval:./last_word.yaml", "lm_eval:./last_word.yaml:key=acc"),
    )
    numbers = part.measurements
    choices, last = of_harness(folder, model, "choices"), of_harness(folder, model, "last_word")
    shots = of_harness(folder, model, "choices", num_fewshot=2, limit=15)
    rolling, generated = of_harness(folder, model, "rolling"), of_harness(folder, model, "generated")
    assert numbers["quality/choices"] == choices["acc,none"]
    assert numbers["quality/choices_stderr"] == pytest.approx(choices["acc_stderr,none"])
    assert numbers["quality/choices_acc_norm_num_fewshot_2_limit_15"] == shots["acc_norm,none"]
    assert numbers["quality/choices_acc_norm_num_fewshot_2_limit_15_samples"] == 15
    assert numbers["quality/rolling"] == pytest.approx(rolling["word_perplexity,none"], rel=1e-5)
    assert numbers["quality/rolling_bits_per_byte"] == pytest.approx(rolling["bits_per_byte,none"], rel=1e-5)
    assert numbers["quality/generated"] == generated["exact_match,none"] > 0
    assert numbers["quality/last_word"] == pytest.approx(last["perplexity,none"], rel=1e-5)
    assert numbers["quality/last_word_acc"] == last["acc,none"]
    assert numbers["quality/choices_low"] < numbers["quality/choices"] < numbers["quality/choices_high"]
    assert (numbers["quality/choices_samples"], numbers["quality/samples"]) == (COUNT, 6 * COUNT + 15)
    facts = MetricFacts.from_text(part.facts["metric.rolling"])
    assert facts is not None
    assert (facts.greater_is_better, facts.label["en"]) == (False, "rolling word_perplexity")
    assert '"choices acc_norm num_fewshot=2 limit=15"' in part.facts["metric.choices_acc_norm_num_fewshot_2_limit_15"]
    assert "choices, version 1.0, acc, 0 examples in the prompt, samples " in part.facts["protocol.choices"]
    assert part.facts["data"].startswith("lm_eval:choices")


@needs_harness
def test_a_variant_is_paired_with_its_original_on_the_samples_of_a_task(tmp_path: Path) -> None:
    import torch

    folder, entry = tasks(tmp_path), "lm_eval:./last_word.yaml"
    originals, family, model = pairing.Originals(), *model_of()
    results = []
    for method in ("original", "fp16"):
        part = scored(folder, family, model, entry, method=method)
        variant = variant_of(folder, entry, method=method)
        result = Result(variant, "ok", measurements=part.measurements, facts=part.facts)
        results.append(originals.pair(result, folder))
        with torch.no_grad():
            for parameter in model.module.parameters():
                parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    before, after = (result.measurements for result in results)
    difference = after["quality/last_word_difference"]
    assert difference == pytest.approx(after["quality/last_word"] - before["quality/last_word"])
    assert after["quality/last_word_difference_low"] < difference < after["quality/last_word_difference_high"]
    assert after["quality/samples_worse"] + after["quality/samples_better"] == COUNT
    assert (after["quality/samples_worse"] > COUNT / 2) == (difference > 0)  # a greater perplexity is worse


@needs_harness
def test_tasks_follow_the_scores_of_the_data(tmp_path: Path) -> None:
    folder = tasks(tmp_path)
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": f"a cat and {i} mice"}) + "\n" for i in range(12)))
    part = scored(folder, *model_of(), "perplexity", "lm_eval:./choices.yaml", data="texts.jsonl")
    assert (part.measurements["quality/samples"], part.measurements["quality/choices_samples"]) == (12, COUNT)
    assert part.facts["data"] == "texts.jsonl"
    assert "data_name" not in part.facts  # the digest of the data is a fact of the model


def hurried(variant: Variant) -> Variant:
    """Return a variant that is scored for no more than one answer."""
    return dataclasses.replace(variant, budget=dataclasses.replace(variant.budget, score_seconds=0.0))


@needs_harness
@pytest.mark.parametrize("is_by_size", [True, False])
def test_a_group_is_scored_as_the_harness_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_by_size: bool
) -> None:
    folder = tasks(tmp_path)
    rows = (folder / "data" / "questions.jsonl").read_text().splitlines()
    (folder / "data" / "few.jsonl").write_text("\n".join(rows[2:9]) + "\n")
    few = CHOICES.replace("task: choices", "task: few").replace("test: data/questions.jsonl", "test: data/few.jsonl")
    (folder / "few.yaml").write_text(few)
    (folder / "both.yaml").write_text(
        "group: both\ntask: [choices, few]\naggregate_metric_list:\n"
        f"  - {{metric: acc, aggregation: mean, weight_by_size: {str(is_by_size).lower()}}}\nmetadata: {{version: 1}}\n"
    )
    monkeypatch.chdir(folder)
    family, model = model_of()
    numbers = scored(folder, family, model, "lm_eval:./both.yaml").measurements
    assert numbers["quality/both"] == pytest.approx(of_harness(folder, model, "both")["acc,none"], rel=1e-9)
    assert numbers["quality/both_samples"] == COUNT + 7
    assert numbers["quality/both_low"] < numbers["quality/both"] < numbers["quality/both_high"]


@needs_harness
def test_a_published_score_of_a_task_is_compared_with_the_originals(tmp_path: Path) -> None:
    folder = tasks(tmp_path)
    (folder / "texts.jsonl").write_text(json.dumps({"text": "a cat"}) + "\n")
    metrics = ("perplexity", "lm_eval:./choices.yaml")
    family, model = model_of()
    own = scored(folder, family, model, *metrics, data="texts.jsonl").measurements["quality/choices"]
    for value, verdict in ((own, "as published"), (own + 0.2, "differs")):
        stated = {"choices": PublishedScore(value, data="texts.jsonl")}
        part = scored(folder, family, model, *metrics, data="texts.jsonl", published=stated)
        assert f'"verdict":"{verdict}"' in part.facts["published.choices"].replace(": ", ":")


@needs_harness
def test_without_time_a_task_has_no_score_and_the_caution_says_so(tmp_path: Path) -> None:
    folder = tasks(tmp_path)
    (folder / "texts.jsonl").write_text(json.dumps({"text": "a cat"}) + "\n")
    variant = variant_of(folder, "perplexity", "lm_eval:./choices.yaml", data="texts.jsonl")
    part = quality.score(*model_of(), hurried(variant), folder, lambda *_: None)
    assert "quality/choices" not in part.measurements
    (caution,) = [caution for caution in part.cautions if caution.code == "task_not_scored"]
    assert caution.message == "the task choices was not scored: after 1 of 72 requests the time was over"
    alone = hurried(variant_of(folder, "lm_eval:./choices.yaml"))
    with pytest.raises(RecipeError, match="the task choices was not scored"):
        quality.score(*model_of(), alone, folder, lambda *_: None)


@needs_harness
@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("lm_eval:./choices.yaml:key=mcc", "neither a mean over samples nor a perplexity"),
        ("lm_eval:./choices.yaml:key=bleu", "Unknown number of choices 'bleu'.*Known: acc, acc_norm, mcc"),
        ("lm_eval:./broken.yaml", "The task .*broken.yaml of lm-eval can't be loaded"),
        ("lm_eval:arc_easy", "arc_easy of lm-eval can't be loaded: .*HF_HUB_OFFLINE is set.*local cache of the hub"),
    ],
)
def test_what_can_not_be_scored_is_reported_before_anything_is_compressed(
    tmp_path: Path, entry: str, message: str
) -> None:
    folder = tasks(tmp_path)
    (folder / "broken.yaml").write_text(CHOICES.replace("questions.jsonl", "nothing.jsonl"))
    family, model = model_of()
    with pytest.raises((RecipeError, UnknownName), match=message):
        quality.metrics_for(family, model, variant_of(folder, entry))


@needs_harness
def test_a_filter_that_the_task_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match=r"Unknown filter of choices 'strict'.*Known: none"):
        scored(tasks(tmp_path), *model_of(), "lm_eval:./choices.yaml:filter=strict")


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ("lm_eval:arc_easy", "arc_easy"),
        ("lm_eval:arc_easy:key=acc_norm,limit=100", "arc_easy_acc_norm_limit_100"),
        ("lm_eval:gsm8k:filter=flexible-extract,num_fewshot=0", "gsm8k_flexible-extract_num_fewshot_0"),
    ],
)
def test_a_recipe_names_tasks_and_their_options(tmp_path: Path, entry: str, name: str) -> None:
    metrics = metrics_of([entry], tmp_path, gives=("likelihoods", "requests"))
    assert list(metrics) == [name]
    assert not is_code(entry)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("lm_eval:arc_easy:fewshot=5", "Unknown option of lm_eval:arc_easy 'fewshot'. Did you mean 'num_fewshot'"),
        ("lm_eval:arc_easy:limit=0", "limit must be a whole number of at least 1, not '0'"),
        ("lm_eval:./absent.yaml", "There is no task of lm-eval at .*absent.yaml"),
        ("lm_eval:", "is not the name of a metric"),
    ],
)
def test_a_wrong_entry_is_rejected(tmp_path: Path, entry: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        metrics_of([entry], tmp_path)


def test_other_families_have_no_tasks(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"asks a language model how texts continue .*returns labels"):
        metrics_of(["lm_eval:arc_easy"], tmp_path, gives=("labels",))


def test_a_task_in_a_file_is_code_that_needs_trust() -> None:
    assert is_code("lm_eval:./tasks/ours.yaml:limit=5")


def test_without_the_package_the_command_that_installs_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r'requires the package lm-eval: pip install "mlflow-compress\[lm-eval\]"'):
        metrics_of(["lm_eval:arc_easy"], tmp_path, load=True)


def test_the_error_of_a_mean_and_of_a_ratio() -> None:
    metric, rng = HarnessTask("x"), np.random.default_rng(0)
    right = rng.random(50) < 0.6
    mean = np.column_stack([right, np.ones(50), np.zeros(50)]).astype(float)
    assert metric.error(mean) == pytest.approx(right.std(ddof=1) / math.sqrt(50))
    losses, words = rng.normal(30, 4, 4000), rng.integers(8, 12, 4000)
    ratio = np.column_stack([losses, words, np.ones(4000)])
    drawn = [metric.reduce(ratio[rng.integers(0, 4000, 4000)].sum(axis=0)) for _ in range(400)]
    assert metric.error(ratio) == pytest.approx(np.std(drawn), rel=0.1)
    assert math.isnan(metric.error(mean[:1]))


def test_kept_predictions_have_no_scores_of_tasks(tmp_path: Path) -> None:
    (tmp_path / "predictions.json").write_text('{"columns": ["reference", "prediction"], "data": [["a", "b"]]}')
    with pytest.raises(RecipeError, match="lm_eval:arc_easy asks the model itself"):
        rescore.of_file(tmp_path / "predictions.json", ["accuracy", "lm_eval:arc_easy"])
