"""Every sentence of SECURITY.md is verified by a test; tests that have no other place are here."""

from __future__ import annotations

import ast
import importlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from pickled import Call, saved
from tiny import SOURCE, TINY, tiny_model

from mlflow_compress import registry
from mlflow_compress.errors import CompressError, RecipeError, WeightsError
from mlflow_compress.networks import model_folder
from mlflow_compress.networks.transformers_models import Companions
from mlflow_compress.planning import chains, recipe
from mlflow_compress.records import Variant
from mlflow_compress.scoring.hf_evaluate import is_code
from mlflow_compress.sockets import Family

ROOT = Path(__file__).parents[1]
HERE = "tests/test_security.py::"

# The beginning of each sentence, and the tests that verify it. A sentence without a promise has no tests, and a reason.
HELD: Mapping[str, tuple[str, ...]] = {
    "Nothing that comes with a model runs as code unless you say": (
        "tests/hostile/test_hostile.py::test_loading_a_checkpoint_without_trust_is_harmless",
        "tests/hostile/test_hostile.py::test_measuring_a_logged_model_without_trust_is_harmless",
        "tests/hostile/test_fuzzed_pickles.py::test_a_checkpoint_is_loaded_without_a_call",
    ),
    "| weights of transformers, timm, torchvision |": (
        "tests/networks/test_stored_weights.py::test_a_pickle_with_code_is_refused",
        f"{HERE}test_pickled_weights_of_a_transformer_run_nothing",
    ),
    "| code of the hub": (
        "tests/networks/test_custom_code.py::test_code_of_the_hub_is_refused_with_trust_too",
        "tests/networks/test_custom_code.py::test_code_of_the_hub_is_not_run_by_a_logged_model",
        "tests/networks/test_transformers_models.py::test_kernels_of_the_hub_are_never_run",
    ),
    "| Python code beside the weights of a local folder": (
        f"{HERE}test_remote_code_is_never_run",
        "tests/networks/test_custom_code.py::test_without_trust_nothing_runs",
        "tests/networks/test_custom_code.py::test_code_that_transformers_does_not_need_is_not_run",
    ),
    "| a local `.pt` of ultralytics": (
        "tests/test_trust.py::test_a_pickle_with_code_is_refused_unless_trusted",
        "tests/networks/test_ultralytics_checkpoint.py::test_nothing_of_a_saved_object_but_description_and_weights_is_taken",
        "tests/networks/test_ultralytics_checkpoint.py::test_trained_and_saved_models_are_those_that_ultralytics_loads",
    ),
    "| what such a model is built from": (
        "tests/networks/test_ultralytics_architecture.py::test_what_would_be_evaluated_or_looked_up_is_refused",
        "tests/networks/test_ultralytics_architecture.py::test_every_description_of_ultralytics_is_closed",
    ),
    "| a recipe of the family `python`": (
        "tests/test_trust.py::test_ones_own_python_file_needs_trust_and_ours_does_not",
        "tests/test_trust.py::test_a_copy_of_our_file_runs_nothing_that_lies_beside_it",
    ),
    "| a `.py` file that you name yourself": (
        "tests/test_trust.py::test_a_file_that_the_user_named_is_his_own_program",
        "tests/test_trust.py::test_a_file_that_a_recipe_names_is_somebody_elses",
    ),
    "| a recipe that says `trust: true` itself": ("tests/test_trust.py::test_a_recipe_can_not_say_that_it_is_trusted",),
    "| a metric of `evaluate`": (
        "tests/test_trust.py::test_ones_own_metric_needs_trust",
        f"{HERE}test_metrics_are_code",
    ),
    "The TorchScript of a logged model is inspected": (
        "tests/hostile/test_hostile.py::test_a_script_that_is_let_through_is_harmless",
        "tests/hostile/test_hostile.py::test_loading_a_model_of_this_packages_is_harmless",
        "tests/networks/test_torchscript_scan.py::test_honest_traces_are_let_through",
    ),
    "| a model of MLflow": (
        "tests/networks/test_mlflow_folders.py::test_the_flavor_that_is_opened_decides",
        "tests/hostile/test_hostile.py::test_a_program_that_is_let_through_is_harmless",
        "tests/families/test_mlflow_model.py::test_a_graph_needs_no_trust",
    ),
    "What you trust without being asked": (
        "tests/test_registry.py::test_another_distribution_adds_a_method_and_a_metric",
    ),
    "A recipe is YAML, read by the safe loader": (
        "tests/planning/test_recipe.py::test_invalid_recipes_are_rejected",
        "tests/test_untrusted_yaml.py::test_what_is_no_plain_data_is_refused_and_runs_nothing",
        "tests/planning/test_recipe.py::test_an_unknown_name_is_reported_with_the_nearest",
    ),
    "A relative path in it can't leave its folder": ("tests/test_trust.py::test_a_recipe_cannot_leave_its_folder",),
    "What this tool saves holds no pickled code": (f"{HERE}test_what_is_saved_is_read_without_code",),
    "Three exceptions: a model of the family `python`": (
        "tests/networks/test_custom_code.py::test_trusted_code_builds_a_model_that_is_saved_with_it",
        "tests/families/test_mlflow_model.py::test_a_structure_needs_trust_with_any_copy",
        f"{HERE}test_models_that_bring_code_are_loaded_unless_mlflow_is_told_not_to",
    ),
    "Where MLflow is told to unpickle nothing": (
        f"{HERE}test_models_that_bring_code_are_loaded_unless_mlflow_is_told_not_to",
    ),
    "Any other model of this package runs no code": (
        "tests/hostile/test_hostile.py::test_loading_a_model_of_this_packages_is_harmless",
    ),
    "A model of MLflow that holds a link": (
        "tests/networks/test_own_files.py::test_links_are_refused_wherever_they_lead",
        "tests/networks/test_own_files.py::test_pipes_and_sockets_are_refused",
        "tests/families/test_mlflow_model.py::test_links_in_a_store_on_this_machine_are_rejected",
        "tests/families/test_mlflow_model.py::test_links_in_a_model_are_rejected_and_nothing_of_theirs_is_copied",
        "tests/sweeping/test_file_bundle.py::test_links_of_an_mlflow_model_are_not_sent",
    ),
    "The links within the cache of Hugging Face": (f"{HERE}test_links_of_the_cache_are_followed",),
    "Weights of an ONNX file that lie outside": (
        "tests/networks/test_onnx_files.py::test_weights_elsewhere_are_refused",
    ),
    "Names of teams, models and methods": (),  # the next says what becomes of them
    "In every form they are text": (
        "tests/renderers/test_md.py::test_any_text_survives_and_is_never_more_than_text",
        "tests/renderers/test_html.py::test_any_text_survives_and_is_never_more_than_text",
        "tests/renderers/test_tex.py::test_any_text_survives_and_no_special_is_left",
        "tests/renderers/test_csv.py::test_no_cell_is_a_formula",
        "tests/renderers/test_xlsx.py::test_a_text_is_never_more_than_text",
        "tests/renderers/test_md.py::test_what_a_terminal_would_act_upon_is_replaced",
        "tests/renderers/test_html.py::test_what_a_page_can_not_hold_is_replaced",
        "tests/tracking/test_query.py::test_patterns_and_names",
        "tests/test_terminal.py::test_an_error_is_one_line",
    ),
    "All that the commands write to a terminal goes through one module": (
        "tests/test_terminal.py::test_a_line_stays_one_and_keeps_its_columns",
        "tests/test_floors.py::test_all_that_is_written_to_a_terminal_goes_through_one_door",
    ),
    "Numbers and times that can't be a measurement": (
        "tests/hostile/test_hostile_runs.py::test_what_can_not_be_is_left_out_and_the_row_says_so",
    ),
    "`result.json`, `variant.json`, predictions and statistics": (
        "tests/hostile/test_texts.py::test_every_reader_rejects_them_with_its_own_message",
        "tests/hostile/test_hostile_runs.py::test_every_hostile_run_has_a_row_or_a_reason",
    ),
    "A sweep skips a variant as measured": (
        "tests/hostile/test_texts.py::test_a_run_with_a_forged_digest_does_not_stop_a_measurement",
    ),
    "What each release was tested with": (
        "tests/test_supply_chain.py::test_a_bill_holds_every_requirement_in_a_version_that_is_allowed",
        "tests/test_supply_chain.py::test_only_the_network_excuses_that_nothing_was_audited",
    ),
    "A model is compressed and measured in separate processes": (
        "tests/measuring/test_worker_process.py::test_a_worker_knows_nothing_of_the_server",
    ),
    "All that such a process started ends with it": (
        "tests/measuring/test_worker_process.py::test_nothing_that_a_worker_started_outlives_it",
        "tests/measuring/test_worker_process.py::test_what_hangs_is_stopped_with_all_that_it_started",
    ),
    "What it leaves (numbers, events, words, files)": (
        "tests/measuring/test_worker_process.py::test_however_a_worker_ends_one_sentence_says_why",
        "tests/measuring/test_worker_process.py::test_a_flood_of_words_leaves_the_two_ends_of_the_log",
        "tests/measuring/test_isolate.py::test_what_a_model_left_in_the_place_of_tables_and_logs_is_none",
    ),
    "No library may report its use from these processes": (
        "tests/measuring/test_worker_process.py::test_a_worker_knows_nothing_of_the_server",
        "tests/compression/test_usage_reports.py::test_openvino_and_nncf_send_nothing",
    ),
    "The HTML page allows no script but its own": (
        "tests/renderers/test_html.py::test_nothing_is_loaded_and_only_its_own_script_may_run",
    ),
    "User names, passwords and queries of tracking URIs": (
        "tests/tracking/test_connection.py::test_no_error_repeats_a_secret",
        "tests/tracking/test_connection.py::test_without_secrets",
        "tests/test_trust.py::test_planted_secrets_reach_nothing_that_is_written_or_said",
    ),
    "No environment variable is logged": (
        "tests/test_trust.py::test_planted_secrets_reach_nothing_that_is_written_or_said",
    ),
    "MLflow's own variables": (),  # of MLflow
    "Anyone who may write to your tracking server": (),  # what is not promised
    "`compress-report` only reads": (
        "tests/tracking/test_database.py::test_reading_writes_nothing",
        "tests/tracking/test_rescore.py::test_without_log_the_run_stays_as_it_was",
    ),
    "A SQLite store is opened read-only": (
        "tests/tracking/test_database.py::test_reading_writes_nothing",
        "tests/tracking/test_connection.py::test_a_reader_makes_no_database",
    ),
    "`mlflow server --app-name compress` adds pages": (
        "tests/plugin/test_app.py::test_no_route_of_ours_takes_anything",
    ),
    "What a reader may see there": (
        "tests/plugin/test_app.py::test_nobody_sees_anything_without_a_password",
        "tests/plugin/test_app.py::test_what_may_not_be_read_looks_like_what_is_not_there",
        "tests/plugin/test_app.py::test_another_host_is_refused_and_another_origin_gets_no_permission",
    ),
    "A reader who may not read runs does not learn": (
        "tests/plugin/test_app.py::test_who_may_read_an_experiment_but_no_runs_sees_neither_how_many_nor_when",
    ),
    "For one page MLflow checks the password once": (
        "tests/tracking/test_private_mlflow.py::test_a_password_is_checked_once_for_all_that_a_page_asks_and_again_for_the_next",
    ),
    "`bandit` finds nothing of high severity": (f"{HERE}test_bandit_finds_nothing_of_high_severity",),
    "What it marks": (),  # what bandit says of the rest
    "A model that is itself trusted, and lies": (),  # what is not promised
    "TorchScript, ONNX and OpenVINO files are run": (),  # what is not promised
    "Two people on one machine": (),  # what is not promised
    "Please report": (),
    "mlflow-compress runs on your machine": (),
    "This page says": (),
}


def sentences() -> Iterator[str]:
    """Yield the sentences of SECURITY.md and the rows of its tables."""
    for block in re.split(r"\n\s*\n", (ROOT / "SECURITY.md").read_text(encoding="utf-8")):
        lines = [line for line in block.splitlines() if not line.startswith(("#", "| what |", "| :--"))]
        if lines and lines[0].startswith("|"):
            yield from lines
        elif lines:
            yield from re.split(r"(?<=\.)\s+(?=[A-Z`])", " ".join(lines))


@pytest.mark.parametrize("sentence", list(sentences()))
def test_a_sentence_is_held_by_a_test(sentence: str) -> None:
    begins = [begin for begin in HELD if sentence.startswith(begin)]
    assert len(begins) == 1, f"give the sentence its tests in HELD: {sentence}"


@pytest.mark.parametrize("begin", HELD)
def test_what_is_held_is_there(begin: str) -> None:
    assert any(sentence.startswith(begin) for sentence in sentences()), "SECURITY.md does not say this any more"
    for node in HELD[begin]:
        file, _, name = node.partition("::")
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, node


def classifier(folder: Path) -> Path:
    """Save a tiny classifier and its tokenizer as transformers does."""
    _, model = tiny_model("text_classification")
    folder.mkdir(parents=True)
    model.module.save_pretrained(folder)
    model.data_as(Companions).tokenizer.save_pretrained(folder)
    return folder


def test_pickled_weights_of_a_transformer_run_nothing(tmp_path: Path) -> None:
    folder = classifier(tmp_path / "net")
    (folder / "model.safetensors").unlink()
    saved(folder / "pytorch_model.bin", {"weight": Call(exec, f"open({str(tmp_path / 'ran')!r}, 'w')")})
    with pytest.raises(WeightsError):
        registry.build("families", "text_classification").load(str(folder), "auto", tmp_path, 0)
    assert not (tmp_path / "ran").exists()


def test_remote_code_is_never_run(tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Net: pass\n")
    auto_map = {"AutoConfig": "evil.Net", "AutoModelForSequenceClassification": "evil.Net"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": auto_map}))
    with pytest.raises(WeightsError):
        registry.build("families", "text_classification").load(str(tmp_path), "auto", tmp_path, 0)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["./mine.py", "mine.py", "evaluate:someone/metric", "evaluate:accuracy"])
def test_metrics_are_code(name: str, tmp_path: Path) -> None:
    assert is_code(name)
    (tmp_path / "mine.py").touch()
    (tmp_path / "r.yaml").write_text(f"family: text_classification\nsource: x/y\nmetrics: ['{name}']\n")
    model_recipe = recipe.read(str(tmp_path / "r.yaml"))
    with pytest.raises(RecipeError, match=r"is Python code\. .* --trust"):
        recipe.plan(model_recipe, model_recipe.variants, recipe.Settings())


def test_what_is_saved_is_read_without_code(tmp_path: Path) -> None:
    for name, chain in (("text_classification", "int8_dynamic"), ("yolo", "original"), ("causal_lm", "bf16")):
        folder = tmp_path / name
        family: Family = registry.build("families", name, TINY[name])
        source = SOURCE.get(name, "tiny")
        model = family.load(source, "random", tmp_path, 0)
        variant = Variant(name, chain, "t", name, source, "random", chain=chains.parse_chain(chain))
        methods = model_folder.methods_of(variant.chain)
        for method in methods:
            model = method.compress(model, family)
        folder.mkdir()
        model_folder.save(model, family, methods, variant, folder)
        for path in folder.rglob("*"):
            assert path.suffix not in (".pkl", ".pickle", ".bin", ".pth", ".py")
            if path.suffix == ".pt":
                torch.load(path, weights_only=True)


@pytest.mark.parametrize(
    ("family", "options"), [("python", {}), ("mlflow_model", {"trust": True}), ("yolo", {"trust": True})]
)
def test_models_that_bring_code_are_loaded_unless_mlflow_is_told_not_to(
    family: str, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = {
        "family": family,
        "options": options,
        "chain": [],
        "weights": "local",
        "model": "m",
        "method": "original",
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    with pytest.raises(CompressError) as raised:
        model_folder.restore_others(tmp_path)
    assert ("is set to forbid that" in str(raised.value)) is (family != "yolo")
    monkeypatch.delenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION")
    with pytest.raises(CompressError) as raised:  # what is missing is looked for
        model_folder.restore_others(tmp_path)
    assert "is set to forbid that" not in str(raised.value)


def test_links_of_the_cache_are_followed(tmp_path: Path) -> None:
    linked = tmp_path / "snapshots" / "main"
    for folder in (linked, tmp_path / "blobs"):
        folder.mkdir(parents=True)
    for number, path in enumerate(sorted(classifier(tmp_path / "plain").iterdir())):
        (linked / path.name).symlink_to(path.rename(tmp_path / "blobs" / str(number)))
    loaded = registry.build("families", "text_classification").load(str(linked), "auto", tmp_path, 0)
    assert loaded.weights == "local"


def test_bandit_finds_nothing_of_high_severity() -> None:
    config, manager = (importlib.import_module(f"bandit.core.{name}") for name in ("config", "manager"))
    scanner = manager.BanditManager(config.BanditConfig(), "file")
    scanner.discover_files([str(ROOT / "mlflow_compress")], recursive=True)
    scanner.run_tests()
    assert scanner.files_list
    assert [str(issue) for issue in scanner.get_issue_list(sev_level="HIGH", conf_level="LOW")] == []
