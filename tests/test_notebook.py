from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from mlflow import MlflowClient
from torch import nn

import mlflow_compress as mc
from mlflow_compress.errors import RecipeError, StoreError, UnknownName, Unsupported, WorkerError
from mlflow_compress.meters import environment, gpu
from mlflow_compress.records import Result
from mlflow_compress.tracking import writing
from mlflow_compress.tracking.connection import Store


@pytest.fixture(autouse=True)
def _here(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    mlflow.set_tracking_uri(store.uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "notebook")  # set_experiment would hold for other tests too
    writing.experiment_id(store, "notebook")
    yield
    mlflow.set_tracking_uri("")


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 128), nn.Dropout(), nn.ReLU(), nn.Linear(128, 10))


def test_a_variant_stands_beside_its_original_in_the_table(store: Store) -> None:
    model, batch = mlp(), torch.rand(4, 64)
    with mlflow.start_run() as run:
        result = mc.benchmark(model, batch, team="notebook team", name="mlp", seconds=0.01)
    mc.benchmark(mc.compress(model, "int8_dynamic"), (batch,), team="notebook team", name="mlp",
                 method="int8_dynamic", seconds=0.01)  # fmt: skip
    assert mlflow.active_run() is None

    logged_run = MlflowClient(store.uri).get_run(run.info.run_id)
    described = MlflowClient(store.uri).get_experiment(run.info.experiment_id).tags["mlflow.note.content"]
    assert described == "The comparison of these runs: `compress-report --experiment notebook`"
    assert logged_run.info.status == "FINISHED"
    assert logged_run.data.metrics == pytest.approx(dict(result.measurements))
    assert logged_run.data.tags["compress.cautions"].startswith("notebook")
    file = MlflowClient(store.uri).download_artifacts(run.info.run_id, "result.json")
    assert Result.from_json(json.loads(Path(file).read_text())) == result
    assert str(result).startswith("mlp, original\n  weights, MB")
    assert "caution: measured in a notebook" in str(result)
    assert "<td>9,610</td>" in result._repr_html_()  # type: ignore[attr-defined]

    table = mc.compare("notebook", team="notebook team")
    assert list(table.columns[:4]) == ["team", "model", "method", "hardware"]
    assert list(table["method"]) == ["original [batch 4]", "int8_dynamic [batch 4]"]
    assert table["ratio/size/weights_mib"].isna().tolist() == [True, False]
    assert table["ratio/size/weights_mib"][1] < 0.5
    assert (table["cpu/latency_p50_ms"] > 0).all()
    header = [text.strip() for text in str(table).splitlines()[0].split("|")[1:-1]]
    assert header[:6] == ["Team", "Model", "Method", "Weight size", "CPU ms", "RAM (MB)"]
    assert "VRAM" not in table._repr_html_()
    assert str(mc.compare("notebook", team="notebook team", lang="ru")).startswith("| Команда")
    assert 'text-align:left">int8_dynamic [batch 4] [1]' in table._repr_html_()
    assert "[1] caution: " in table._repr_html_()
    assert "[1] caution: " in str(table)
    assert type(table[["team"]]).__name__ == "DataFrame"
    assert len(mc.compare(["note*"], method="int8_dynamic", team="notebook team")) == 1
    newest = mlflow.last_active_run()
    assert newest is not None
    table = mc.compare("notebook", team="notebook team", baseline=newest.info.run_id[:8])
    assert list(table["ratio/size/weights_mib"].isna()) == [False, True]
    assert table["ratio/size/weights_mib"][0] > 2
    with pytest.raises(StoreError, match="Did you mean 'mlp'"):
        mc.compare("notebook", team="notebook team", baseline="mpl")
    with pytest.warns(UserWarning, match="--baseline mlp has no effect"):
        mc.compare("notebook", team="notebook team", baseline="mlp")


def test_in_one_run_the_first_result_takes_it_and_the_others_get_runs_below(store: Store) -> None:
    with mlflow.start_run(description="My *first* try") as run:
        for method in ("original", "again", "again"):
            mc.benchmark(mlp(), torch.rand(4, 64), team="one run", name="mlp", method=method, seconds=0.01)
            active = mlflow.active_run()
            assert active is not None
            assert active.info.run_id == run.info.run_id
    client = MlflowClient(store.uri)
    note = client.get_run(run.info.run_id).data.tags["mlflow.note.content"]
    assert note.startswith("My *first* try\n\n## mlp, original")
    assert note.count("## mlp") == 1
    query = f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
    child_runs = client.search_runs([run.info.experiment_id], query)
    assert [(run.info.status, run.data.tags["method"]) for run in child_runs] == [("FINISHED", "again")] * 2
    assert list(mc.compare("notebook", team="one run")["method"]) == ["original [batch 4]", "again [batch 4]"]
    assert len(mc.compare("notebook", team="one run", every_run=True)) == 3


def test_the_module_is_measured_in_eval_mode_and_left_as_it_was() -> None:
    model, modes = mlp(), []
    model[1].eval()
    model[0].register_forward_hook(lambda module, *_: modes.append((module.training, torch.is_grad_enabled())))
    mc.benchmark(model, torch.rand(1, 64), seconds=0.0, log=False)
    assert set(modes) == {(False, False)}
    assert [layer.training for layer in model] == [True, False, True, True]


def test_threads_are_those_that_may_run_and_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        monkeypatch.setattr(environment, "most_threads", lambda root=None: 1)
        result = mc.benchmark(mlp(), torch.rand(1, 64), seconds=0.0, log=False)
        assert result.environment["threads"] == "1"
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_it_is_left_as_it_was_when_it_fails(store: Store) -> None:
    model = mlp()
    before = len(MlflowClient(store.uri).search_runs([writing.experiment_id(store, "notebook")]))
    with pytest.raises(RuntimeError, match="shapes"):
        mc.benchmark(model, torch.rand(1, 63), seconds=0.0)
    assert model.training
    after = MlflowClient(store.uri).search_runs([writing.experiment_id(store, "notebook")])
    assert len(after) == before


@pytest.mark.parametrize(
    ("batch", "size"),
    [((1, 2), 1), ({"a": 1, "b": 2}, 1), ([torch.zeros(3, 2), 2], 3), ({"a": torch.zeros(5), "b": 1}, 5)],
)
def test_anything_that_can_be_called_is_measured(batch: Any, size: int) -> None:
    def add(a: Any, b: Any) -> Any:
        return a + b

    result = mc.benchmark(add, batch, seconds=0.0, log=False)
    assert result.variant.model == "add"
    assert result.variant.batch_size == size
    assert "runtime" not in result.environment  # nobody knows what a function calls
    assert not any(name.startswith("size/") for name in result.measurements)
    assert "cpu/ram_model_mib" not in result.measurements


def test_a_module_elsewhere_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu_device: Any = "gpu"
    with pytest.raises(RecipeError, match="cuda"):
        mc.benchmark(mlp(), torch.rand(1, 64), device=gpu_device, log=False)
    monkeypatch.setattr(gpu, "models", lambda: [("A100", 40_000)])
    with pytest.raises(RecipeError, match="The module is on cpu, not on cuda"):
        mc.benchmark(mlp(), torch.rand(1, 64), device="cuda", log=False)


@pytest.mark.parametrize("model", [mlp(), lambda batch: batch])
def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, model: Any) -> None:
    monkeypatch.setattr(gpu, "models", list)
    with pytest.raises(WorkerError, match="this machine shows no NVIDIA GPU"):
        mc.benchmark(model, torch.rand(1, 64), device="cuda", log=False)


def test_the_original_stays_unless_it_need_not() -> None:
    model = mlp()
    old_tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    compressed = mc.compress(model, "prune_magnitude:amount=0.5+int8_dynamic")
    assert type(compressed.get_submodule("0")) is not nn.Linear
    assert compressed(torch.rand(2, 64)).shape == (2, 10)
    assert all(torch.equal(tensor, old_tensors[name]) for name, tensor in model.state_dict().items())
    assert mc.compress(model, "fp16", copy=False) is model
    assert model[0].weight.dtype is torch.float16


@pytest.mark.parametrize("method", ["onnx", "openvino_int8", "int8_static", "gptq", "prune_structured", "distill"])
def test_a_method_that_needs_more_says_so(method: str) -> None:
    with pytest.raises(Unsupported, match=r"compress-bench run|pip install"):
        mc.compress(mlp(), method)


def test_wrong_names() -> None:
    with pytest.raises(UnknownName, match="int8_dynamic"):
        mc.compress(mlp(), "int8_dynamc")
    with pytest.raises(StoreError, match="notebook"):
        mc.compare("notebok")
    with pytest.raises(AttributeError, match="benchmrk"):
        _ = mc.benchmrk
    assert {"benchmark", "compare", "compress"} <= set(dir(mc))


def test_another_accelerator_that_is_not_there_is_refused() -> None:
    if torch.backends.mps.is_available():
        pytest.skip("this machine has an MPS device")
    with pytest.raises(WorkerError, match="device=mps was requested, but this machine has no MPS device"):
        mc.benchmark(mlp(), torch.rand(1, 64), device="mps", log=False)
