"""Models of ultralytics: the outputs of each task, and that a description is enough to build a model again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mlflow_compress.errors import WeightsError
from mlflow_compress.networks import ultralytics_models
from mlflow_compress.networks.ultralytics_architecture import TASKS, Architecture
from mlflow_compress.networks.ultralytics_models import ExportedNet

FILES = {
    "detect": "yolo11n.pt",
    "segment": "yolo11n-seg.pt",
    "classify": "yolo11n-cls.pt",
    "pose": "yolo11n-pose.pt",
    "obb": "yolo11n-obb.pt",
}
CLASSES = {"classify": 1000, "pose": 1, "obb": 15}  # the others: 80


def fused(task: str) -> torch.nn.Module:
    torch.manual_seed(0)
    module, kind, caution = ultralytics_models.load(FILES[task], "random", Path())
    assert (kind, caution) == ("random", "")
    module = module.float().eval()
    module.fuse(verbose=False)
    fixed: torch.nn.Module = module.requires_grad_(False)
    return fixed


@pytest.mark.parametrize("task", TASKS)
def test_a_module_is_built_again_from_its_description(task: str) -> None:
    module = fused(task)
    described = Architecture.of(module)
    assert (described.task, described.does) == (task, TASKS[task])
    assert len(described.names) == CLASSES.get(task, 80)
    rebuilt = ultralytics_models.build(described)
    rebuilt.load_state_dict(module.state_dict())
    images = torch.rand((2, 3, 64, 64), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        one, other = (described.does.output_of(each(images)) for each in (module, rebuilt))
    one, other = (each if isinstance(each, (tuple, list)) else (each,) for each in (one, other))
    assert len(one) == len(described.does.outputs)
    assert all(map(torch.equal, one, other))


@pytest.mark.parametrize("task", TASKS)
def test_a_graph_in_the_modules_place_gives_what_its_task_looks_at(task: str) -> None:
    module, does = fused(task), TASKS[task]
    images = torch.rand((2, 3, 64, 64), generator=torch.Generator().manual_seed(1))
    graph = ultralytics_models.graph_of(module, does, images)
    assert (list(graph.inputs), graph.outputs) == (["images"], does.outputs)
    exported = ExportedNet({"model": graph.module}, does)
    with torch.no_grad():
        expected, outputs = does.output_of(module(images)), does.output_of(exported(images))
    pairs = zip(outputs, expected, strict=True) if isinstance(outputs, tuple) else [(outputs, expected)]
    assert all(torch.allclose(computed, reference, atol=1e-5) for computed, reference in pairs)


@pytest.mark.parametrize(
    ("source", "weights", "message"),
    [
        ("yolo11n.pt", "gone.pt", "There is no weights file .*gone.pt"),
        ("yolo11n.pt", "broken.pt", "broken.pt can't be loaded"),
        ("no_such_net.pt", "random", "ultralytics knows no architecture for no_such_net.pt"),
    ],
)
def test_unavailable_weights_are_reported(source: str, weights: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "broken.pt").write_bytes(b"no weights")
    with pytest.raises(WeightsError, match=message):
        ultralytics_models.load(source, weights, tmp_path)


def test_layers_of_torchvision_fetch_no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(*arguments: object, **kwargs: object) -> None:
        raise AssertionError("nothing is fetched")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    for layer_arguments in ([512, "resnet18", "DEFAULT", True, 2, False], [512, "resnet18"]):
        layers = {"backbone": [[-1, 1, "TorchVision", layer_arguments]], "head": [[-1, 1, "Classify", ["nc"]]]}
        module = ultralytics_models.build(Architecture({"nc": 2, **layers}, {0: "a", 1: "b"}, "classify"))
        assert sum(parameter.numel() for parameter in module.model[0].parameters()) > 10**7
