from __future__ import annotations

import os
import pickle
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.servers import TrackingServer, environment
from mlflow_compress import registry
from mlflow_compress.errors import RecipeError
from mlflow_compress.networks.pickle_scan import code_in
from mlflow_compress.planning import recipe

SECRETS = {
    "MLFLOW_TRACKING_TOKEN": "s3cret-of-mlflow",
    "HF_TOKEN": "hf_s3cretOfTheHub",
    "AWS_SECRET_ACCESS_KEY": "s3cret/of/the/cloud",
    "COMPRESS_ANYTHING": "s3cret-of-ours",
}
PASSWORD = "s3cret-of-the-uri"


class Call:
    """Pickled, it calls a function when it is read."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def saved(path: Path, content: Any, **how: Any) -> Path:
    torch.save(content, path, **how)
    return path


def planned(name: str, trust: bool = False, **settings: Any) -> list[Any]:
    found = recipe.read(name)
    return recipe.plan(found, found.variants, recipe.Settings(trust=trust, **settings))


def test_layers_and_tensors_are_no_code(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.SiLU()).half()
    content = {"model": module, "ema": None, "names": {0: "cat"}, "seen": {1, 2}, "size": torch.Size([1])}
    assert code_in(saved(tmp_path / "plain.pt", content)) == []


def test_the_architectures_of_ultralytics_are_no_code(tmp_path: Path) -> None:
    from ultralytics.models import YOLO

    for name in ("yolo11n.yaml", "yolo11n-cls.yaml", "yolo11n-seg.yaml", "yolov8n.yaml"):
        assert code_in(saved(tmp_path / "yolo.pt", {"model": YOLO(name).model})) == [], name


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (Call(os.system, "true"), "posix system"),
        (Call(eval, "1"), "__builtin__ eval"),
        (Call(getattr, "text", "upper"), "__builtin__ getattr"),
        (Call(subprocess.Popen, ["true"]), "commands Popen"),  # its name in Python 2
        (Call(torch.hub.load, "x", "y"), "torch.hub load"),
        (Call(torch.load, "x.pt"), "torch.serialization load"),
    ],
)
def test_calls_are_found_without_being_made(tmp_path: Path, content: Call, named: str) -> None:
    assert code_in(saved(tmp_path / "evil.pt", {"model": [torch.nn.ReLU(), content]})) == [named]


def test_what_cannot_be_looked_into_is_code(tmp_path: Path) -> None:
    plain = {"model": torch.nn.ReLU()}
    assert code_in(saved(tmp_path / "new.pt", plain, pickle_protocol=4))  # names of calls come from the stack
    assert code_in(saved(tmp_path / "old.pt", plain, _use_new_zipfile_serialization=False))
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps(plain))
    (tmp_path / "nonsense.pt").write_bytes(b"PK\x03\x04 nonsense")
    assert code_in(tmp_path / "pickle.pt") == code_in(tmp_path / "nonsense.pt") == code_in(tmp_path / "none.pt")


def test_a_pickle_with_code_is_refused_unless_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "evil.pt", {"model": Call(os.system, "touch ran")})
    for name, weights in (("evil.pt", "auto"), ("yolo11n", "evil.pt")):
        with pytest.raises(RecipeError, match=r"a pickle that calls posix system .* say so: --trust"):
            planned(name, weights=weights)
        assert planned(name, trust=True, weights=weights)
    assert not (tmp_path / "ran").exists()


def test_ones_own_python_file_needs_trust_and_ours_does_not(tmp_path: Path) -> None:
    ours = Path(__file__).parents[1] / "recipes"
    for name in ("digits_cnn.yaml", "digits_cnn.py"):
        shutil.copy(ours / name, tmp_path)
    assert planned(str(tmp_path / "digits_cnn.yaml"))
    with (tmp_path / "digits_cnn.py").open("a") as file:
        file.write("\nimport os\n")
    with pytest.raises(RecipeError, match=r"digits_cnn\.py is Python code\. If you trust .* --trust"):
        planned(str(tmp_path / "digits_cnn.yaml"))
    assert planned(str(tmp_path / "digits_cnn.yaml"), trust=True)


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


@pytest.mark.parametrize("line", ["source: ../../secret", "source: a/../../b", "data: ../../etc/passwd:text=x"])
def test_a_recipe_cannot_leave_its_folder(tmp_path: Path, line: str) -> None:
    lines = {"family": "family: text_classification", "source": "source: x/y"}
    (tmp_path / "mine.yaml").write_text("\n".join({**lines, line.partition(":")[0]: line}.values()))
    with pytest.raises(RecipeError, match="leaves the recipe's folder"):
        recipe.read(str(tmp_path / "mine.yaml"))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TrackingServer]:
    server = TrackingServer(tmp_path / "server", f"sqlite:///{tmp_path / 'mlflow.db'}")
    server.start()
    yield server
    server.kill()


def test_planted_secrets_reach_nothing_that_is_written_or_said(server: TrackingServer, tmp_path: Path) -> None:
    uri = server.uri.replace("http://", f"http://ann:{PASSWORD}@")
    known = environment(tmp_path, **SECRETS, MLFLOW_TRACKING_URI=uri)
    said = bench(known, tmp_path, "run", "digits_cnn", "--method", "int8_dynamic", "-e", "secrets")
    server.kill()
    said += bench(known, tmp_path, "run", "digits_cnn", "-e", "secrets")  # it finds no server
    assert "can't be reached" in said
    written = dump(tmp_path / "mlflow.db") + "".join(
        path.read_bytes().decode("latin-1")
        for folder in ("server", "spool", "cache")
        for path in (tmp_path / folder).rglob("*")
        if path.is_file() and path.name != "log"  # the server's own
    )
    assert "int8_dynamic" in written
    for secret in (*SECRETS.values(), PASSWORD):
        assert secret not in said
        assert secret not in written


def bench(known: dict[str, str], folder: Path, *words: str) -> str:
    brief = (
        ["--iterations", "6", "--seconds", "0", "--energy-seconds", "0", "--limit", "8"] if words[0] == "run" else []
    )
    done = subprocess.run(
        [sys.executable, "-m", "mlflow_compress", *words, *brief],
        cwd=folder, env=known, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def dump(path: Path) -> str:
    with sqlite3.connect(path) as database:
        return "\n".join(database.iterdump())
