from __future__ import annotations

import json
import struct
import warnings

import pytest

from mlflow_compress.records import Result, Variant
from mlflow_compress.tracking.confusion_plot import confusion_png
from mlflow_compress.tracking.layer_plot import layers_png
from mlflow_compress.tracking.run_plots import latency_png

pytestmark = pytest.mark.full  # drawing takes long


def result(name: str = "yolo11n", **samples: list[float]) -> Result:
    by_name = {key.replace("_", "/", 1): values for key, values in samples.items()}
    return Result(Variant(name, name, "alpha", "yolo", "yolo11n.pt"), "ok", samples=by_name)


def height(png: bytes | None) -> int:
    assert png is not None
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert png.endswith(b"IEND\xaeB`\x82")
    return int(struct.unpack(">I", png[20:24])[0])


def test_without_samples_there_is_no_picture() -> None:
    assert latency_png(result()) is None
    assert latency_png(result(cpu_latency_ms=[])) is None
    assert latency_png(result(cpu_warmup_ms=[1.0], cpu_token_ms=[1.0])) is None


def test_each_device_has_a_row() -> None:
    cpu = result(cpu_latency_ms=[20.0, 21, 19, 25], cpu_warmup_ms=[50.0, 20])
    measured = result(cpu_latency_ms=[20.0, 21, 19, 25], gpu_latency_ms=[2.0, 2.1, 1.9])
    assert height(latency_png(measured)) == pytest.approx(2 * height(latency_png(cpu)), abs=2)


def test_one_call_is_enough() -> None:
    height(latency_png(result(cpu_latency_ms=[20.0])))


@pytest.mark.parametrize(
    "name", ["$", "$x^2$", r"\$", r"$\frac{1}{", "$$", "a_b^c {", "модель", "модель $ 1$", "x\ny", "<b>&amp;", "%s {0}"]
)
def test_a_hostile_name_is_drawn_as_text(name: str) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=SyntaxWarning)
        warnings.filterwarnings("ignore", message="Glyph")
        height(latency_png(result(name, cpu_latency_ms=[20.0, 21, 19, 25])))


def test_a_confusion_matrix_is_drawn_and_one_of_many_classes_in_part() -> None:
    rows = [["cat", "cat", 5], ["cat", "dog", 1], ["$x^2$", "dog", 2]]
    small = confusion_png(json.dumps({"data": rows}).encode(), "tiny")
    many = [[f"class {number}", f"class {number // 2}", 1] for number in range(200)]
    large = confusion_png(json.dumps({"data": many}).encode(), "tiny")
    assert height(small) < height(large) < 2000


@pytest.mark.parametrize(
    "table", [b"", b"{}", b'{"data": [[1]]}', b'{"data": [["a", "b", -1]]}', b'{"data": [["a", "b", "c"]]}', b"[]"]
)
def test_a_table_that_is_none_has_no_picture(table: bytes) -> None:
    assert confusion_png(table, "tiny") is None


def test_parameters_by_type_of_layer_are_drawn() -> None:
    rows = [["Linear", 38, 66_000_000, 250.0], ["LayerNorm", 13, 20_000, 0.1]]
    one = layers_png(json.dumps({"data": rows[:1]}).encode(), "tiny")
    assert height(one) < height(layers_png(json.dumps({"data": rows}).encode(), "tiny"))


@pytest.mark.parametrize("table", [b"", b"{}", b'{"data": [[1]]}', b'{"data": [["a", -1, 1, 1]]}', b"[]"])
def test_a_table_of_layers_that_is_none_has_no_picture(table: bytes) -> None:
    assert layers_png(table, "tiny") is None
