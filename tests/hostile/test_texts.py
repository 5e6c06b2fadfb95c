"""Another team's files: each reader reads them or reports clearly what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from mlflow_compress.measuring.quality import read_predictions
from mlflow_compress.records import Result, Variant
from mlflow_compress.scoring import statistics_file
from mlflow_compress.sweeping import resume
from mlflow_compress.tracking import writing
from mlflow_compress.tracking.connection import Store
from mlflow_compress.tracking.spool import Address, Shipment, Spool
from mlflow_compress.tracking.sync import Sync
from mlflow_compress.untrusted import Malformed, read_json

from .harmless import assert_harmless, inputs

RESULTS = [name for name in inputs("texts") if name.startswith("texts.result_")]
LOGGED_RESULTS = [name for name in RESULTS if name != "texts.result_of_a_pipe"]  # MLflow itself would wait for it
VARIANT = Variant("yolo", "fp16", "alpha", "python", "model.py")


@pytest.fixture(autouse=True)
def _no_uri_is_left_behind() -> Iterator[None]:
    yield
    mlflow.set_tracking_uri("")


def read_result(path: Path) -> Result:
    return Result.from_json(read_json(path))


def read_predicted(path: Path) -> object:
    return read_predictions(path.read_bytes())


@pytest.mark.parametrize("name", inputs("texts"))
def test_every_reader_rejects_them_with_its_own_message(name: str) -> None:
    readers = {"result": read_result, "predictions": read_predicted, "statistics": statistics_file.read}
    assert_harmless(readers[name.removeprefix("texts.").partition("_")[0]], name, may_raise=(Malformed,))


@pytest.mark.parametrize("name", inputs("texts"))
def test_none_is_accepted_as_data(name: str, tmp_path: Path) -> None:
    if name in ("texts.result_of_a_pipe", "texts.statistics_that_unpack_to_much"):
        return  # one would block a process that opens it; the other is data, and large
    path = inputs("texts")[name](tmp_path, "touch ran")
    readers = {"result": read_result, "predictions": read_predicted, "statistics": statistics_file.read}
    with pytest.raises(Malformed) as error:
        readers[path.stem](path)
    assert "\n" not in str(error.value)
    assert not Path("ran").exists()


@pytest.mark.parametrize("name", LOGGED_RESULTS)
def test_a_run_with_a_forged_digest_does_not_stop_a_measurement(store: Store, tmp_path: Path, name: str) -> None:
    number = writing.experiment_id(store, f"forged {name}")
    tags = {"compress.variant_digest": "abc", "status": "ok", "compress.logged": "complete", "team": "alpha"}
    honest, forged = (
        writing.start(store, number, kind, {}, start_ms=start_ms) for start_ms, kind in enumerate(("honest", "forged"))
    )
    writing.write_result(store, honest, Result(VARIANT, "ok"), {}, "", {})
    folder = tmp_path / "forged"  # away from the store, which may be in the same folder
    folder.mkdir()
    inputs("texts")[name](folder, "touch ran")
    store.client.log_artifacts(forged, str(folder))
    for run_id in (honest, forged):
        writing.tag(store, run_id, tags)
    results = resume.measured(store, number, "abc", VARIANT)
    assert results is not None
    assert honest in results[0]


@pytest.mark.parametrize("name", RESULTS)
def test_an_entry_of_the_spool_that_can_not_be_read_keeps_no_other_waiting(
    store: Store, tmp_path: Path, name: str
) -> None:
    spool, messages = Spool(tmp_path / "spool"), list[str]()
    for is_hostile in (True, False):
        entry = spool.begin()
        Shipment(entry, Result(VARIANT, "ok"), Address(store.uri, f"spool {name}"), messages.append).keep()
        if is_hostile:
            (entry.folder / "result.json").unlink()
            inputs("texts")[name](entry.folder, "touch ran")
        entry.release()
    assert Sync(spool, messages.append).waiting(store) == 0
    assert "can't be read and is left unchanged" in messages[0]
    assert messages[1].startswith("sent yolo, fp16 (ok)")
    assert len(list(spool.folder.glob("*/address.json"))) == 1


@pytest.mark.parametrize(
    "address", ["[]", '{"uri": 5, "experiment": "x"}', '{"uri": "x", "experiment": "y", "new": 1}']
)
def test_an_invalid_address_is_left_as_it_is(store: Store, tmp_path: Path, address: str) -> None:
    spool, messages = Spool(tmp_path / "spool"), list[str]()
    entry = spool.begin()
    Shipment(entry, Result(VARIANT, "ok"), Address(store.uri, "x"), messages.append).keep()
    (entry.folder / "address.json").write_text(address)
    entry.release()
    assert Sync(spool, messages.append).waiting(store) == 0
    assert "can't be read and is left unchanged: " in messages[0]
    assert entry.folder.is_dir()
