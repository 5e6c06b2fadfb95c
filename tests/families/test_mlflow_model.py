"""Models logged to MLflow, from the store to the table."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from mlflow.models import infer_signature
from sklearn.datasets import load_iris
from sklearn.tree import DecisionTreeClassifier

from mlflow_compress import registry
from mlflow_compress.compression.calibration import has_data, require_data, require_data_to_score
from mlflow_compress.data import signatures
from mlflow_compress.errors import RecipeError, StoreError, Unsupported, WeightsError
from mlflow_compress.families.mlflow_model import LoggedModel
from mlflow_compress.measuring import worker
from mlflow_compress.networks import model_folder
from mlflow_compress.planning.chains import parse_chain
from mlflow_compress.pyfunc import Predictor
from mlflow_compress.records import Variant
from mlflow_compress.sockets import Family, Model
from mlflow_compress.tracking import models, writing
from mlflow_compress.tracking.connection import open_store

BRIEF = ("--iterations", "6", "--seconds", "0", "--max-seconds", "2", "--energy-seconds", "0", "--device", "cpu")
NET = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.ReLU(), torch.nn.Linear(64, 3))
        self.register_buffer("shift", torch.ones(3))

    def forward(self, x):
        return self.layers(x) + self.shift
"""


RECIPE = """
family: mlflow_model
source: models:/tree/1
data: iris.csv
"""


class Shelf:
    """A store with models of several flavors, and copies of them in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uri = f"sqlite:///{folder / 'mlflow.db'}"
        writing.experiment_id(open_store(self.uri), "shelf")
        (folder / "code").mkdir()
        (folder / "code" / "shelf_net.py").write_text(NET)
        sys.path.insert(0, str(folder / "code"))
        from shelf_net import Net  # type: ignore[import-not-found]

        frame = load_iris(as_frame=True)
        self.inputs, self.labels = frame.data, frame.target
        tree = DecisionTreeClassifier(max_depth=3, random_state=0).fit(self.inputs, self.labels)
        torch.manual_seed(0)
        net, example = Net().eval(), np.random.default_rng(0).random((4, 8)).astype(np.float32)
        quick: Any = {"pip_requirements": []}  # inferring them takes a minute
        with mlflow.start_run():
            mlflow.sklearn.log_model(
                tree, name="tree", input_example=self.inputs.head(5), serialization_format="pickle",
                registered_model_name="tree", **quick,
            )  # fmt: skip
            mlflow.pytorch.log_model(
                net, name="net", input_example=example, serialization_format="pickle", registered_model_name="net",
                code_paths=[str(folder / "code" / "shelf_net.py")], **quick,
            )  # fmt: skip
            mlflow.pytorch.log_model(net, name="graph", input_example=example, registered_model_name="graph", **quick)
            mlflow.pyfunc.log_model(name="bare", python_model=_answer, registered_model_name="bare", **quick)
        self.net, self.tree, self.example = net, tree, example

    def path(self, name: str) -> Path:
        target = self.folder / "copies" / name
        if not target.is_dir():
            target.mkdir(parents=True)
            mlflow.artifacts.download_artifacts(f"models:/{name}/1", dst_path=str(target), tracking_uri=self.uri)
        return target


def _answer(model_input: list[str]) -> list[str]:
    return [text.upper() for text in model_input]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Shelf]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("shelf")
        shutil.copy(empty_store, folder)
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        patch.setenv("MLFLOW_EXPERIMENT_NAME", "shelf")  # set_experiment would affect other tests
        patch.setattr(sys, "path", list(sys.path))
        yield Shelf(folder)
    mlflow.set_tracking_uri("")


def loaded(shelf: Shelf, name: str, **options: Any) -> tuple[Family, Model]:
    family: Family = registry.build("families", "mlflow_model", {"trust": True, **options})
    return family, family.load(str(shelf.path(name)), "auto", Path(), 0)


def prepared(shelf: Shelf, name: str, chain: str, folder: Path) -> model_folder.Restored:
    variant = Variant(
        name, chain, "t", "mlflow_model", str(shelf.path(name)), chain=parse_chain(chain), options={"trust": True}
    )
    worker.prepare(variant, folder, worker.Report(io.StringIO()))
    return model_folder.restore(folder / worker.MODEL_FOLDER)


def test_a_table_goes_in_and_labels_come_out(shelf: Shelf) -> None:
    family, model = loaded(shelf, "tree")
    batch = family.batch(model, 7, 0)
    assert list(batch.columns) == list(shelf.inputs.columns)
    assert len(batch) == 7
    assert batch.iloc[5].tolist() == batch.iloc[0].tolist() == shelf.inputs.iloc[0].tolist()
    assert list(family.run(model, batch, lambda stage: None)) == list(shelf.tree.predict(batch))
    assert family.forward(model, batch).dtype == torch.float64


def test_quality_of_a_table(shelf: Shelf, tmp_path: Path) -> None:
    family, model = loaded(shelf, "tree")
    pd.concat([shelf.inputs, shelf.labels.rename("label")], axis=1).to_csv(tmp_path / "iris.csv", index=False)
    samples = family.samples(model, "iris.csv", tmp_path, None, 0)
    answers = family.answers(model, [sample.inputs for sample in samples])
    accuracy = registry.build("metrics", "accuracy").compute([sample.reference for sample in samples], answers)
    assert accuracy == shelf.tree.score(shelf.inputs, shelf.labels)


def test_restored_as_it_was(shelf: Shelf, tmp_path: Path) -> None:
    restored = prepared(shelf, "tree", "original", tmp_path)
    rows = shelf.inputs.head(20).to_dict("records")
    assert restored.family.predict(restored.model, rows) == shelf.tree.predict(shelf.inputs.head(20)).tolist()
    assert (tmp_path / worker.MODEL_FOLDER / "mlflow" / "MLmodel").is_file()
    for table in (shelf.inputs.head(20), shelf.inputs.head(20).to_dict("list")):  # like a call of a logged model
        assert Predictor(restored).predict(table) == shelf.tree.predict(shelf.inputs.head(20)).tolist()


@pytest.mark.parametrize("chain", ["original", "bf16", "int8_dynamic", "int8_weight_only", "low_rank", "torchscript"])
def test_a_pickled_torch_module_is_compressed(shelf: Shelf, chain: str, tmp_path: Path) -> None:
    restored = prepared(shelf, "net", chain, tmp_path)
    predictions = restored.family.predict(restored.model, list(shelf.example))
    with torch.no_grad():
        expected = shelf.net(torch.from_numpy(shelf.example))
    assert torch.allclose(
        torch.tensor(predictions), expected, atol=1e-6 if chain in ("original", "torchscript") else 0.2
    )
    assert not list((tmp_path / worker.MODEL_FOLDER).rglob("model.pth"))  # the weights exist only once


@pytest.mark.parametrize("chain", ["original", "low_rank"])
def test_what_was_restored_can_be_saved_again(shelf: Shelf, chain: str, tmp_path: Path) -> None:
    restored = prepared(shelf, "net", chain, tmp_path)
    inputs = list(shelf.example)
    expected = restored.family.predict(restored.model, inputs)
    variant = Variant("net", chain, "t", "mlflow_model", "net", chain=parse_chain(chain), options={"trust": True})
    (tmp_path / "again").mkdir()
    model_folder.save(restored.model, restored.family, restored.methods, variant, tmp_path / "again")
    restored_again = model_folder.restore(tmp_path / "again")
    assert restored_again.family.predict(restored_again.model, inputs) == expected


def test_the_weights_are_written_once(shelf: Shelf, tmp_path: Path) -> None:
    prepared(shelf, "net", "original", tmp_path)
    weights = (tmp_path / worker.MODEL_FOLDER / "model.safetensors").stat().st_size
    assert weights > 4 * sum(parameter.numel() for parameter in shelf.net.parameters())
    assert (tmp_path / worker.MODEL_FOLDER / "structure.pt").stat().st_size < 8000


def of_table(folder: Path, **logged: Any) -> tuple[Family, Model, torch.nn.Module]:
    """Save a torch module that takes rows of iris, and load it like a family does."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 32), torch.nn.ReLU(), torch.nn.Linear(32, 3)).eval()
    mlflow.pytorch.save_model(net, folder / "net", serialization_format="pickle", pip_requirements=[], **logged)
    family: Family = registry.build("families", "mlflow_model", {"trust": True})
    return family, family.load(str(folder / "net"), "auto", Path(), 0), net


def table(folder: Path) -> pd.DataFrame:
    """Write iris with its labels as `all.csv`, and in two parts as `some.csv` and `others.csv`; return its inputs."""
    frame = load_iris(as_frame=True)
    labelled = frame.data.assign(label=frame.target).sample(frac=1, random_state=0)
    labelled.to_csv(folder / "all.csv", index=False)
    labelled[:100].to_csv(folder / "some.csv", index=False)
    labelled[100:].to_csv(folder / "others.csv", index=False)
    return frame.data


def distinct(rows: Any) -> set[tuple[float, ...]]:
    return {tuple(row) for row in np.asarray(rows, np.float32).tolist()}


@pytest.mark.parametrize("data", ["all.csv:limit=100", "some.csv:calibration=others.csv"])
def test_methods_calibrate_on_rows_that_are_not_scored(data: str, tmp_path: Path) -> None:
    inputs = table(tmp_path)
    family, model, net = of_table(tmp_path, input_example=inputs.head(1))
    samples = [sample.inputs for sample in family.samples(model, data, tmp_path, None, 0)]
    batches = [batch for (batch,) in family.calibration(model, 3, 1, 20)]
    drawn, scored = distinct(torch.cat(batches)), distinct([list(row.values()) for row in samples])
    assert [batch.shape for batch in batches] == [(20, 4)] * 3
    assert drawn <= distinct(inputs) - scored
    assert len(drawn) > 30
    assert (model.cautions, has_data(model, family)) == ([], True)

    with torch.no_grad():
        classes = net(torch.tensor([list(row.values()) for row in samples], dtype=torch.float32)).argmax(-1)
    assert [best for best, *_ in family.answers(model, samples)] == list(map(str, classes.tolist()))


def some_rows(count: int) -> pd.DataFrame:
    return pd.DataFrame(np.arange(count * 4.0).reshape(count, 4), columns=list("abcd"))


@pytest.mark.parametrize("example", [some_rows(1), some_rows(15), pd.concat([some_rows(2)] * 20)], ids=len)
def test_a_few_rows_of_an_example_are_not_data(example: pd.DataFrame, tmp_path: Path) -> None:
    family, model, _ = of_table(tmp_path, input_example=example)
    (batch,) = family.calibration(model, 1, 0, 30)[0]
    assert distinct(batch) == distinct(example)
    assert [caution.code for caution in model.cautions] == ["example_calibration"]
    with pytest.raises(Unsupported, match=r"only repeated examples.*calibration=OTHER.*input_example of 16") as raised:
        require_data(model, family)
    assert "weights=random" not in str(raised.value), "a logged model comes with its weights"
    require_data_to_score(model, family)  # nothing is scored


def test_many_rows_of_an_example_are_data(tmp_path: Path) -> None:
    family, model, _ = of_table(tmp_path, input_example=some_rows(16))
    batches = [batch for (batch,) in family.calibration(model, 4, 0, 4)]
    assert distinct(torch.cat(batches)) == distinct(some_rows(16))
    assert model.cautions == []
    require_data(model, family)


def test_inputs_from_a_signature_are_random(tmp_path: Path) -> None:
    signature = infer_signature(some_rows(1))
    family, model, _ = of_table(tmp_path, signature=signature)
    assert family.calibration(model, 1, 0, 3)[0][0].shape == (3, 4)
    assert [caution.code for caution in model.cautions] == ["random_calibration"]
    with pytest.raises(Unsupported, match="there are only random inputs"):
        require_data(model, family)


def test_trained_weights_are_fitted_to_data_alone(tmp_path: Path) -> None:
    inputs = table(tmp_path)
    of_table(tmp_path, input_example=inputs.head(3))

    def cautions(chain: str, data: str | None) -> set[str]:
        variant = Variant(
            "net", chain, "t", "mlflow_model", str(tmp_path / "net"), chain=parse_chain(chain),
            options={"trust": True}, data=data, folder=str(tmp_path),
        )  # fmt: skip
        folder = tmp_path / f"{chain.partition(':')[0]} {bool(data)}"
        folder.mkdir()
        return {caution.code for caution in worker.prepare(variant, folder, worker.Report(io.StringIO())).cautions}

    with pytest.raises(Unsupported, match="there are only repeated examples"):
        cautions("wanda", None)
    assert cautions("wanda", "all.csv:limit=100").isdisjoint({"example_calibration", "random_calibration"})
    assert "not_trained" in cautions("prune_structured:amount=0.5,steps=1", None)
    assert "not_trained" not in cautions("prune_structured:amount=0.5,steps=1", "all.csv:limit=100")


@pytest.mark.parametrize(
    ("name", "reason"),
    [("tree", "methods change torch modules, but this is a model of mlflow.sklearn"), ("graph", "torch.export")],
)
def test_methods_do_not_apply_to_other_models(shelf: Shelf, name: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=reason):
        prepared(shelf, name, "bf16", tmp_path)


def test_a_graph_needs_no_trust(shelf: Shelf) -> None:
    family, model = loaded(shelf, "graph", trust=False)
    output = family.forward(model, family.batch(model, 4, 0))
    with torch.no_grad():
        assert torch.allclose(output.float(), shelf.net(torch.from_numpy(shelf.example)), atol=1e-6)


@pytest.mark.parametrize("name", ["tree", "net", "bare"])
def test_code_needs_trust(shelf: Shelf, name: str) -> None:
    with pytest.raises(RecipeError, match=r"may run its code: .* say so: --trust"):
        loaded(shelf, name, trust=False)


def test_links_in_a_model_are_rejected_and_nothing_of_theirs_is_copied(shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of this machine")
    family, model = loaded(shelf, "graph")
    (shelf.path("graph") / "notes.txt").symlink_to(tmp_path / "secret")
    try:
        with pytest.raises(WeightsError, match=r"notes\.txt in .* is a link to a file elsewhere"):
            loaded(shelf, "graph")
        (tmp_path / "model").mkdir()
        with pytest.raises(WeightsError, match="a link to a file elsewhere"):
            family.save(model, tmp_path / "model")
    finally:
        (shelf.path("graph") / "notes.txt").unlink()
    assert not list((tmp_path / "model").rglob("notes.txt"))


def test_links_in_a_store_on_this_machine_are_rejected(shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of this machine")
    stored = next(path.parent for path in shelf.folder.rglob("MLmodel") if "copies" not in path.parts)
    name = next(name for name in ("tree", "net", "graph", "bare") if _is_at(shelf, name, stored))
    (stored / "notes.txt").symlink_to(tmp_path / "secret")
    try:
        with pytest.raises(WeightsError, match="a link to a file elsewhere"):
            models.FetchedModels(open_store(shelf.uri)).path(f"models:/{name}/1")
    finally:
        (stored / "notes.txt").unlink()
    assert (models.FetchedModels(open_store(shelf.uri)).path(f"models:/{name}/1") / "MLmodel").is_file()


def _is_at(shelf: Shelf, name: str, folder: Path) -> bool:
    uri = MlflowClient(shelf.uri).get_model_version_download_uri(name, "1")
    return Path(mlflow.artifacts.download_artifacts(uri, tracking_uri=shelf.uri)) == folder


def test_a_structure_needs_trust_with_any_copy(shelf: Shelf, tmp_path: Path) -> None:
    prepared(shelf, "net", "bf16", tmp_path)
    with pytest.raises(RecipeError, match=r"structure\.pt runs the code in it"):
        registry.build("families", "mlflow_model").restore(tmp_path / worker.MODEL_FOLDER)


def test_a_model_that_says_nothing_about_its_input(shelf: Shelf) -> None:
    path = shelf.path("bare")
    described = (path / "MLmodel").read_text()
    start = described.index("signature:")
    after_signature = described[start:].split("\n", 1)[1]
    signature_removed = "\n".join(line for line in after_signature.split("\n") if not line.startswith(" "))
    (path / "MLmodel").write_text(described[:start] + signature_removed)
    family, model = loaded(shelf, "bare")
    with pytest.raises(RecipeError, match="input_example"):
        family.batch(model, 1, 0)


def test_a_signature_makes_an_input(shelf: Shelf) -> None:
    path = shelf.path("tree")
    family, model = loaded(shelf, "tree")
    described = (path / "MLmodel").read_text()
    try:
        (path / "MLmodel").write_text(described.replace("artifact_path: input_example.json", "artifact_path: gone"))
        from mlflow.models import Model as Description

        assert model.data_as(LoggedModel).example is None
        signature = Description.load(str(path / "MLmodel")).signature
        assert signature is not None

        generated = signatures.make_input(signature.inputs, 0)
        assert list(generated.columns) == list(shelf.inputs.columns)
        assert len(family.run(model, generated, lambda stage: None)) == 1
    finally:
        (path / "MLmodel").write_text(described)


def test_missing_models_are_reported(shelf: Shelf, tmp_path: Path) -> None:
    family: Family = registry.build("families", "mlflow_model")
    with pytest.raises(WeightsError, match="has no file MLmodel"):
        family.load(str(tmp_path), "auto", Path(), 0)
    with pytest.raises(WeightsError, match="comes with its weights"):
        family.load(str(shelf.path("tree")), "random", Path(), 0)
    with pytest.raises(StoreError, match="nonesuch"):
        models.FetchedModels(open_store(shelf.uri)).path("models:/nonesuch/1")


def test_on_a_gpu_only_torch_modules_are_measured(shelf: Shelf) -> None:
    family, model = loaded(shelf, "tree")
    model.device = "cuda"
    with pytest.raises(Unsupported, match="CPU"):
        family.batch(model, 1, 0)


def test_from_the_registry_to_the_table(shelf: Shelf, tmp_path: Path) -> None:
    """Run the command on a registered model; its worker has no server."""
    pd.concat([shelf.inputs, shelf.labels.rename("label")], axis=1).to_csv(tmp_path / "iris.csv", index=False)
    (tmp_path / "tree.yaml").write_text(RECIPE)
    done = subprocess.run(
        [sys.executable, "-m", "mlflow_compress", "run", "tree.yaml", "--trust", "-e", "measured", "--json", *BRIEF],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "MLFLOW_TRACKING_URI": shelf.uri},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (original,) = json.loads(done.stdout)
    assert original["status"] == "ok"
    assert original["measurements"]["quality/accuracy"] == shelf.tree.score(shelf.inputs, shelf.labels)
    assert original["measurements"]["size/disk_mib"] > 0
    assert "size/params" not in original["measurements"]
    client = MlflowClient(shelf.uri)
    experiment = client.get_experiment_by_name("measured")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert {run.data.params["source"] for run in runs} == {"models:/tree/1"}
