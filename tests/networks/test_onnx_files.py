"""The weights of an ONNX file must be in its folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import TensorProto, helper

from mlflow_compress.errors import WeightsError
from mlflow_compress.networks.onnx_files import require_own_weights


def outside(location: str) -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def model(path: Path, tensor: TensorProto, place: str) -> Path:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    if place == "initializer":
        graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [value], [output], [tensor])
    else:
        constant = helper.make_node("Constant", [], ["w"], value=tensor)
        inner = helper.make_graph([constant, helper.make_node("Add", ["x", "w"], ["z"])], "inner", [], [])
        choice = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
        nodes = {"constant": [constant], "branch": [choice]}[place]
        graph = helper.make_graph(nodes, "g", [value], [output])
    path.write_bytes(helper.make_model(graph).SerializeToString())
    return path


@pytest.mark.parametrize("place", ["initializer", "constant", "branch"])
@pytest.mark.parametrize("location", ["/etc/passwd", "../secret", "a/../../secret", "..\\secret", "C:\\secret", "link"])
def test_weights_elsewhere_are_refused(place: str, location: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    path = model(tmp_path / "model.onnx", outside(location), place)
    with pytest.raises(WeightsError, match=r"model\.onnx reads weights from a file outside its folder"):
        require_own_weights(path)


@pytest.mark.parametrize("place", ["initializer", "constant", "branch"])
def test_weights_beside_and_within_are_its_own(place: str, tmp_path: Path) -> None:
    require_own_weights(model(tmp_path / "model.onnx", outside("model.onnx.data"), place))
    within = helper.make_tensor("w", TensorProto.FLOAT, [4], [0.0] * 4)
    require_own_weights(model(tmp_path / "model.onnx", within, place))


def test_a_file_that_is_not_onnx_is_reported(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\xff" * 100)
    with pytest.raises(WeightsError, match="is not a valid ONNX file"):
        require_own_weights(tmp_path / "model.onnx")
