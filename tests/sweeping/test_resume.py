"""Which variants are equal, so that one result is valid for both."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest

from mlflow_compress import registry, words
from mlflow_compress.meters import environment
from mlflow_compress.networks import code_needs
from mlflow_compress.records import Budget, Result, Run, Step, Variant
from mlflow_compress.sweeping import resume
from mlflow_compress.tracking import writing
from mlflow_compress.tracking.connection import Store
from mlflow_compress.tracking.spool import Address, Shipment, Spool


@pytest.fixture(autouse=True)
def _no_uri_is_left_behind() -> Iterator[None]:
    yield
    mlflow.set_tracking_uri("")


@pytest.fixture
def variant(tmp_path: Path) -> Variant:
    (tmp_path / "model.py").write_text("a = 1")
    (tmp_path / "data.csv").write_text("text,label\n")
    return Variant(
        "small", "original", "alpha", "python", "model.py", data="data.csv:text=text",
        chain=(Step("original"),), folder=str(tmp_path),
    )  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"model": "other"},
        {"team": "beta"},
        {"method": "x"},
        {"chain": (Step("fp16"),)},
        {"chain": (Step("original", {"amount": 0.5}),)},
        {"batch_size": 2},
        {"threads": 1},
        {"devices": ("cpu", "cuda")},
        {"weights": "random"},
        {"data": None},
        {"limit": 5},
        {"seed": 1},
        {"options": {"tokens": 64}},
        {"interleave": True},
        {"budget": Budget(min_iterations=7)},
    ],
    ids=str,
)
def test_another_setting_is_another_variant(variant: Variant, change: dict[str, Any]) -> None:
    assert resume.digest(dataclasses.replace(variant, **change)) != resume.digest(variant)


def test_the_timeout_changes_nothing(variant: Variant) -> None:
    with_timeout = dataclasses.replace(variant, budget=Budget(timeout_seconds=5))
    assert resume.digest(with_timeout) == resume.digest(variant)


def test_what_a_variant_requires_changes_nothing(variant: Variant) -> None:
    assert resume.digest(dataclasses.replace(variant, requires={"gpu": "any"})) == resume.digest(variant)


def test_what_is_timed_otherwise_is_measured_anew(variant: Variant, monkeypatch: pytest.MonkeyPatch) -> None:
    old_digest = resume.digest(variant)
    monkeypatch.setattr(registry.find("families", "python"), "timed", "a call and all that comes before it")
    assert resume.digest(variant) != old_digest


@pytest.mark.parametrize(
    "method",
    [
        *("onnx", "onnx_fp16", "openvino", "torchscript", "torch_export", "ncnn", "tensorrt"),
        *("onnx_int8", "openvino_int8", "prune_structured", "distill", "bf16", "fp16"),
    ],
)
def test_what_0_1_made_otherwise_is_measured_anew(
    variant: Variant, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variant = dataclasses.replace(variant, method=method, chain=(Step(method),))
    now, method_class = resume.digest(variant), registry.find("methods", method)
    for old_revision in range(1, {"onnx_int8": 4, "openvino_int8": 3}.get(method, 2)):
        monkeypatch.setattr(method_class, "revision", old_revision)
        assert resume.digest(variant) != now


def test_another_machine_makes_another_digest(variant: Variant) -> None:
    machine = {**environment.machine(), "ram_total_mib": "1"}
    assert resume.digest(variant, machine) == resume.digest(variant)
    assert resume.digest(variant, {**machine, "cpu_model": "another"}) != resume.digest(variant)
    assert resume.digest(variant, {**machine, "cores_logical": "999"}) != resume.digest(variant)


def test_another_gpu_counts_where_it_is_measured(variant: Variant) -> None:
    old, new = ({**environment.machine(), "gpu_model": name} for name in ("Tesla T4", "NVIDIA A100"))
    assert resume.digest(variant, old) == resume.digest(variant, new)
    variant = dataclasses.replace(variant, devices=("cpu", "cuda"))
    assert resume.digest(variant, old) != resume.digest(variant, new)


def test_another_power_limit_of_the_gpu_counts_where_it_is_known(variant: Variant) -> None:
    machine = {**environment.machine(), "gpu_model": "NVIDIA A100"}
    low, high = ({**machine, "gpu_power_limit_w": watts} for watts in ("250", "400"))
    assert resume.digest(variant, low) == resume.digest(variant, high)
    variant = dataclasses.replace(variant, devices=("cpu", "cuda"))
    assert len({resume.digest(variant, description) for description in (machine, low, high)}) == 3
    runs = [Run("", "", "", "FINISHED", 0, {f"compress.env.{name}": text for name, text in low.items()})]
    assert [resume.digest(variant, description) for description in resume.machines(runs)] == [
        resume.digest(variant, low)
    ]


def test_what_is_not_compared_is_measured_anew() -> None:
    of_the_variant_and_torch = {"threads", "runtime", "work", "gpu_tf32"}
    refused = {name for names in words.CIRCUMSTANCES.values() for name in names}
    assert refused - of_the_variant_and_torch == {*resume._KEYS} - {"cores_logical"}


def test_the_machines_of_earlier_runs_stand_for_those_to_come(variant: Variant) -> None:
    runs = [
        Run("", "", "", "FINISHED", 0, {"compress.env.cpu_model": cpu, "compress.env.cores_logical": cores})
        for cpu, cores in (("Xeon", "8"), ("EPYC", "2"), ("Xeon", "8"))
    ]
    machines = resume.machines(runs)
    assert machines == [{"cpu_model": "EPYC", "cores_logical": "2"}, {"cpu_model": "Xeon", "cores_logical": "8"}]
    same_on_all = {"os": "Linux", "transformers": "5.24.0"}  # neither distinguishes machines
    machine = {**same_on_all, "cpu_model": "Xeon", "cores_logical": "8"}
    assert resume.digest(variant, machines[1]) == resume.digest(variant, machine)


def test_what_waits_and_what_is_logged_need_not_be_measured(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    variant = Variant("small", "original", "alpha", "python", "model.py")
    for status, experiment in (("ok", "hw1"), ("failed", "hw1"), ("ok", "hw2")):
        entry = spool.begin()
        address = Address("uri", experiment, digest=f"{status} {experiment}")
        Shipment(entry, Result(variant, status), address, print).keep()  # type: ignore[arg-type]
        entry.release()
    runs = [Run("", "", "", "FINISHED", 0, tags) for tags in ({"compress.variant_digest": "logged"}, {})]
    broken_entry = spool.begin()
    Shipment(broken_entry, Result(variant, "ok"), Address("uri", "hw1", digest="broken"), print).keep()
    (broken_entry.folder / "result.json").write_text('{"variant": 1}')
    broken_entry.release()
    assert resume.digests(runs, spool, "hw1") == {"ok hw1", "logged"}
    assert next(spool.entries(), None) is not None  # they were released


def test_the_same_files_elsewhere_are_the_same(variant: Variant, tmp_path: Path) -> None:
    elsewhere = tmp_path / "clone"
    elsewhere.mkdir()
    for name in ("model.py", "data.csv"):
        (elsewhere / name).write_bytes((tmp_path / name).read_bytes())
    assert resume.digest(dataclasses.replace(variant, folder=str(elsewhere))) == resume.digest(variant)
    absolute = dataclasses.replace(variant, data=f"{tmp_path / 'data.csv'}:text=text")
    assert resume.digest(absolute) == resume.digest(variant)


@pytest.mark.parametrize("name", ["model.py", "data.csv"])
def test_a_changed_file_is_another_variant(variant: Variant, tmp_path: Path, name: str) -> None:
    old_digest = resume.digest(variant)
    (tmp_path / name).write_text("b = 2")
    assert resume.digest(variant) != old_digest


def test_a_folder_counts_with_its_files(variant: Variant, tmp_path: Path) -> None:
    (tmp_path / "weights" / "deep").mkdir(parents=True)
    local = dataclasses.replace(variant, weights=str(tmp_path / "weights"))
    old_digest = resume.digest(local)
    (tmp_path / "weights" / "deep" / "file").write_text("x")
    assert resume.digest(local) != old_digest


@pytest.mark.parametrize("source", ["x" * 5000, "\0", "org/name", "models:/name/1", "a:b=c,"])
def test_names_that_are_no_files(variant: Variant, source: str) -> None:
    hostile = dataclasses.replace(variant, source=source, weights=source, data=source)
    assert len(resume.digest(hostile)) == 64


def test_only_a_whole_and_good_result_counts(store: Store, variant: Variant) -> None:
    number = writing.experiment_id(store, "resume")
    digest = resume.digest(variant)
    result = Result(variant, "ok", measurements={"size/params": 7.0})

    def log(status: str, **tags: str) -> str:
        run = writing.start(store, number, "run", {})
        writing.write_result(store, run, dataclasses.replace(result, status=status), {}, "", {})  # type: ignore[arg-type]
        writing.tag(store, run, {"compress.variant_digest": digest, **tags})
        return run

    log("ok")
    log("failed", **{"compress.logged": "complete"})
    assert resume.measured(store, number, digest, variant) is None
    run = log("ok", **{"compress.logged": "complete"})
    match = resume.measured(store, number, digest, variant)
    assert match is not None
    assert run in match[0]
    assert match[1] == result


def test_a_result_that_waits_counts_too(variant: Variant, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    result = Result(variant, "ok")
    for status in ("failed", "ok"):
        entry = spool.begin()
        address = Address("uri", "hw1", digest=status * 2)
        Shipment(entry, dataclasses.replace(result, status=status), address, print).keep()
        entry.release()
    assert resume.waiting(spool, "hw1", "okok", variant) is not None
    assert resume.waiting(spool, "hw2", "okok", variant) is None
    assert resume.waiting(spool, "hw1", "failedfailed", variant) is None


@pytest.mark.parametrize("change", [{"team": "evil"}, {"model": "other"}, {"method": "other"}, {"batch_size": 2}])
def test_a_whole_result_of_another_row_is_not_taken_for_this_one(
    store: Store, variant: Variant, tmp_path: Path, change: dict[str, Any]
) -> None:
    number = writing.experiment_id(store, f"another row {change}")
    digest = resume.digest(variant)
    another = Result(dataclasses.replace(variant, **change), "ok")
    run = writing.start(store, number, "run", {})
    writing.write_result(store, run, another, {}, "", {})
    writing.tag(store, run, {"compress.variant_digest": digest, "compress.logged": "complete", "team": variant.team})
    assert resume.measured(store, number, digest, variant) is None
    spool = Spool(tmp_path / "spool")
    entry = spool.begin()
    Shipment(entry, another, Address("uri", "hw1", digest=digest), print).keep()
    entry.release()
    assert resume.waiting(spool, "hw1", digest, variant) is None


def test_another_version_of_torch_or_of_an_engine_is_measured_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    variant = Variant("m", "onnx", "t", "python", "m.py", chain=(Step("onnx"),))
    machine = {"cpu_model": "Xeon", "torch": "2.14.1", "cores": "2", "cpu_flags": "avx2"}
    digests = {resume.digest(variant, machine)}
    digests |= {resume.digest(variant, {**machine, name: "other"}) for name in ("torch", "cores", "cpu_flags")}
    monkeypatch.setattr(resume, "installed", lambda name: "0.0.1")
    digests.add(resume.digest(variant, machine))
    assert len(digests) == 5


def test_a_changed_file_that_the_code_imports_or_names_is_another_variant(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("import helper\n\ndef load_weights(module):\n    read('w.pt')\n")
    (tmp_path / "helper.py").write_text("A = 1")
    (tmp_path / "other.py").write_text("B = 1")
    own = Variant("m", "original", "t", "python", "own.py", folder=str(tmp_path))
    digests = [resume.digest(own)]
    for name in ("w.pt", "helper.py", "w.pt", "other.py"):
        with (tmp_path / name).open("a") as file:
            file.write(" # changed")
        digests.append(resume.digest(own))
    assert len(set(digests[:4])) == 4
    assert digests[4] == digests[3]


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("load(sorted(Path('runs').glob('*')))", "runs/1"),
        ("load(f'{NAME}.pt')", "x.pt"),
        ("load(f'runs/{NAME}/best.pt')", "runs/deep/best.pt"),
        ("load(os.environ['MY_CHECKPOINT'])", "outside"),
        ("load('best.pt') if Path('best.pt').exists() else train()", "best.pt"),
        ("load(max(Path(__file__).parent.iterdir()))", "x.pt"),
        ("load('x_%03d.pt' % 1)", "x_001.pt"),
        ("load(Template('${name}.pt').substitute(name=NAME))", "x.pt"),
    ],
)
def test_a_checkpoint_that_is_found_in_any_way_is_another_variant_when_it_is_new_or_changed(
    code: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    (home / "runs" / "deep").mkdir(parents=True)
    checkpoint = tmp_path / name if name == "outside" else home / name
    monkeypatch.setenv("MY_CHECKPOINT", str(checkpoint))
    (home / "own.py").write_text(f"def load_weights(module):\n    {code}\n")
    own = Variant("m", "original", "t", "python", "own.py", folder=str(home))
    digests = [resume.digest(own)]
    for content in ("one", "two", "two"):
        checkpoint.write_text(content)
        (home / "notes.md").write_text(str(len(digests)))
        digests.append(resume.digest(own))
    assert len(set(digests)) == 3
    assert digests[3] == digests[2]


def test_a_link_that_leads_nowhere_and_many_other_files_hide_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code_needs, "_MOST_FILES", 3)
    for number in range(5):
        (tmp_path / f"{number}.jpg").write_text("x")
    (tmp_path / "loop.pt").symlink_to("loop.pt")
    (tmp_path / "own.py").write_text("def load_weights(module):\n    load(f'{NAME}.pt')\n")
    own = Variant("m", "original", "t", "python", "own.py", folder=str(tmp_path))
    digests = {resume.digest(own)}
    for content in ("one", "two"):
        (tmp_path / "x.pt").write_text(content)
        digests.add(resume.digest(own))
    assert len(digests) == 3


def test_another_value_of_a_variable_that_the_code_names_is_another_variant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.py").write_text("import os\ndef load_weights(module):\n    load(os.environ['my_run'])\n")
    own = Variant("m", "original", "t", "python", "own.py", folder=str(tmp_path))
    digests = {resume.digest(own)}
    for value in ("1", "2"):
        monkeypatch.setenv("my_run", value)
        digests.add(resume.digest(own))
    assert len(digests) == 3
