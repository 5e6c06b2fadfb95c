from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pickled import Call, saved

from benchmarks.servers import TrackingServer, environment
from mlflow_compress import registry
from mlflow_compress.errors import RecipeError
from mlflow_compress.planning import recipe, sweep_recipe

SECRETS = {
    "MLFLOW_TRACKING_TOKEN": "s3cret-of-mlflow",
    "HF_TOKEN": "hf_s3cretOfTheHub",
    "AWS_SECRET_ACCESS_KEY": "s3cret/of/the/cloud",
    "COMPRESS_ANYTHING": "s3cret-of-ours",
}


PASSWORD = "s3cret-of-the-uri"


def planned(name: str, trust: bool = False, **settings: Any) -> list[Any]:
    model_recipe = recipe.read(name)
    return recipe.plan(model_recipe, model_recipe.variants, recipe.Settings(trust=trust, **settings))


def test_a_pickle_with_code_is_refused_unless_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "evil.pt", {"model": Call(os.system, "touch ran")})
    for name, weights in (("evil.pt", "auto"), ("yolo11n", "evil.pt")):
        with pytest.raises(RecipeError, match=r"a pickle that calls posix system .* say so: --trust"):
            planned(name, weights=weights)
        assert planned(name, trust=True, weights=weights)
    assert not (tmp_path / "ran").exists()


def test_ones_own_python_file_needs_trust_and_ours_does_not(tmp_path: Path) -> None:
    recipes = Path(__file__).parents[1] / "recipes"
    for name in ("digits_cnn.yaml", "digits_cnn.py"):
        shutil.copy(recipes / name, tmp_path)
    assert planned(str(tmp_path / "digits_cnn.yaml"))
    with (tmp_path / "digits_cnn.py").open("a") as file:
        file.write("\nimport os\n")
    with pytest.raises(RecipeError, match=r"digits_cnn\.py is Python code\. If you trust .* --trust"):
        planned(str(tmp_path / "digits_cnn.yaml"))
    assert planned(str(tmp_path / "digits_cnn.yaml"), trust=True)


def test_a_copy_of_our_file_runs_nothing_that_lies_beside_it(tmp_path: Path) -> None:
    recipes = Path(__file__).parents[1] / "recipes"
    shutil.copy(recipes / "digits_cnn.yaml", tmp_path)
    shutil.copy(recipes / "digits_cnn.py", tmp_path)
    (tmp_path / "sklearn").mkdir()
    for name in ("sklearn/__init__.py", "torch.py", "numpy.py"):
        (tmp_path / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n1 / 0\n")
    program = f"""
import sys
from pathlib import Path
from mlflow_compress import registry
from mlflow_compress.networks import own_folder
from mlflow_compress.planning import recipe
made = recipe.read({str(tmp_path / "digits_cnn.yaml")!r})
assert recipe.plan(made, made.variants, recipe.Settings())
sys.path.append("")  # as under `python -c`, where a file's folder comes last
family = registry.build("families", "python")
model = family.load("digits_cnn.py", "random", Path({str(tmp_path)!r}), 0)
assert len(list(family.samples(model, "own", Path({str(tmp_path)!r}), 2, 0)))
assert own_folder.files_beside(model.family_data) == []
"""
    process = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert not (tmp_path / "ran").exists()


def test_a_file_that_the_user_named_is_his_own_program(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("def samples(): return []\nmetrics = ['f1']\n")
    (variant,) = sweep_recipe.plan([str(path)], recipe.Settings())
    assert (variant.model, variant.family, variant.source, variant.folder) == (
        "mine",
        "python",
        "mine.py",
        str(tmp_path),
    )
    assert (variant.data, variant.metrics) == ("own", ("f1",))
    path.write_text("")
    (variant,) = sweep_recipe.plan([str(path)], recipe.Settings())
    assert (variant.data, variant.metrics) == (None, ("accuracy",))
    with pytest.raises(RecipeError, match=r"mine\.py is Python code; its family is python"):
        recipe.read(str(path), "yolo", is_named=True)


def test_a_file_that_a_recipe_names_is_somebody_elses(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("")
    (tmp_path / "one.yaml").write_text("family: python\nsource: mine.py\n")
    (tmp_path / "all.yaml").write_text("models: [mine.py]\nmethods: [original]\n")
    for name in ("one.yaml", "all.yaml"):
        with pytest.raises(RecipeError, match=r"mine\.py is Python code\. If you trust"):
            sweep_recipe.plan([str(tmp_path / name)], recipe.Settings())
    with pytest.raises(RecipeError, match=r"mine\.py is Python code\. If you trust"):
        planned(str(tmp_path / "mine.py"))


def test_a_recipe_takes_the_metrics_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("metrics = ('f1',)\n")
    lines = "family: python\nsource: mine.py\ndata: own\n"
    for metrics_line, expected in (("", ("f1",)), ("metrics: [accuracy]", ("accuracy",)), ("metrics: []", ())):
        (tmp_path / "mine.yaml").write_text(lines + metrics_line)
        assert recipe.read(str(tmp_path / "mine.yaml")).metrics == expected


def test_ones_own_metric_needs_trust(tmp_path: Path) -> None:
    (tmp_path / "edits.py").write_text("")
    (tmp_path / "mine.yaml").write_text("family: text_classification\nsource: x/y\nmetrics: [accuracy, ./edits.py]\n")
    with pytest.raises(RecipeError, match=r"the metric \./edits\.py is Python code"):
        planned(str(tmp_path / "mine.yaml"))
    assert planned(str(tmp_path / "mine.yaml"), trust=True)


@pytest.mark.parametrize("trust", [True, False])
def test_a_logged_model_is_told_whether_it_is_trusted(trust: bool) -> None:
    (variant,) = planned("models:/somebody/1", trust)
    assert bool(variant.options.get("trust")) is trust
    assert registry.build("families", variant.family, variant.options).trust is trust


def test_a_recipe_can_not_say_that_it_is_trusted(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("family: mlflow_model\nsource: models:/a/1\noptions: {trust: true}\n")
    with pytest.raises(
        RecipeError, match=r"The recipe mine says trust: true\. Only you may allow its code to run: --trust"
    ):
        planned(str(tmp_path / "mine.yaml"))
    assert planned(str(tmp_path / "mine.yaml"), trust=True)
    assert planned(str(tmp_path / "mine.yaml"), options={"trust": ["true"]})
    (tmp_path / "all.yaml").write_text("models: [models:/a/1]\nmethods: [original]\noptions: {trust: true}\n")
    grid = str(tmp_path / "all.yaml")
    with pytest.raises(RecipeError, match="The recipe all says trust: true"):
        sweep_recipe.plan([grid], recipe.Settings())
    assert sweep_recipe.plan([grid], recipe.Settings(trust=True))


@pytest.mark.parametrize("line", ["source: ../../secret", "source: a/../../b", "data: ../../etc/passwd:text=x"])
def test_a_recipe_cannot_leave_its_folder(tmp_path: Path, line: str) -> None:
    lines = {"family": "family: text_classification", "source": "source: x/y"}
    (tmp_path / "mine.yaml").write_text("\n".join({**lines, line.partition(":")[0]: line}.values()))
    with pytest.raises(RecipeError, match="leaves the recipe's folder"):
        recipe.read(str(tmp_path / "mine.yaml"))


@pytest.fixture
def server(tmp_path: Path, empty_store: Path) -> Iterator[TrackingServer]:
    server = TrackingServer(tmp_path / "server", f"sqlite:///{shutil.copy(empty_store, tmp_path)}")
    server.start()
    yield server
    server.kill()


def test_planted_secrets_reach_nothing_that_is_written_or_said(server: TrackingServer, tmp_path: Path) -> None:
    uri = server.uri.replace("http://", f"http://ann:{PASSWORD}@")
    variables = environment(tmp_path, **SECRETS, MLFLOW_TRACKING_URI=uri)
    output = bench(variables, tmp_path, "run", "digits_cnn", "--method", "int8_dynamic", "-e", "secrets")
    server.kill()
    output += bench(variables, tmp_path, "run", "digits_cnn", "-e", "secrets")  # it finds no server
    assert "can't be reached" in output
    stored = dump(tmp_path / "mlflow.db") + "".join(
        path.read_bytes().decode("latin-1")
        for folder in ("server", "spool", "cache")
        for path in (tmp_path / folder).rglob("*")
        if path.is_file() and path.name != "log"  # the server's own
    )
    assert "int8_dynamic" in stored
    for secret in (*SECRETS.values(), PASSWORD):
        assert secret not in output
        assert secret not in stored


def bench(variables: dict[str, str], folder: Path, *words: str) -> str:
    brief = (
        ["--iterations", "6", "--seconds", "0", "--energy-seconds", "0", "--limit", "8"] if words[0] == "run" else []
    )
    process = subprocess.run(
        [sys.executable, "-m", "mlflow_compress", *words, *brief],
        cwd=folder, env=variables, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    return process.stdout + process.stderr


def dump(path: Path) -> str:
    with sqlite3.connect(path) as database:
        return "\n".join(database.iterdump())


def test_a_damaged_checkpoint_is_called_that(tmp_path: Path) -> None:
    path = saved(tmp_path / "net.pt", {"weight": 3})
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(
        RecipeError, match=r"net\.pt is damaged, or not in the current format .* is unknown\. If you trust"
    ):
        planned(str(path))
