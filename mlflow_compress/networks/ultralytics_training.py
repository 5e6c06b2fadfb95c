"""Training of ultralytics' detectors: losses on true boxes and on another detector's, and a head for classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from mlflow_compress.errors import Unsupported
from mlflow_compress.networks import ultralytics_models
from mlflow_compress.networks.ultralytics_architecture import Architecture
from mlflow_compress.networks.ultralytics_images import fit


def with_classes(module: Any, names: Mapping[int, str]) -> Any:
    """Return a detector or classifier with these classes: the same module, or one with a new head, otherwise the same.

    Args:
        module: the module, fused or not.
        names: names of the classes, by number.
    """
    described = Architecture.of(module)
    if len(described.names) == len(names):
        module.names = dict(names)
        return module
    fresh = ultralytics_models.unfused(Architecture({**described.yaml, "nc": len(names)}, dict(names), described.task))
    weights = module.state_dict()
    if len(weights) < len(fresh.state_dict()):
        fresh.fuse(verbose=False)
    new_weights = fresh.state_dict()
    fitting = {
        key: weight for key, weight in weights.items() if key in new_weights and new_weights[key].shape == weight.shape
    }
    fresh.load_state_dict(fitting, strict=False)
    return fresh


def fitted(photos: Sequence[Any], boxes: Sequence[Sequence[Sequence[float]]], side: int) -> tuple[list[Any], Any]:
    """Fit photos with their boxes into squares.

    Args:
        photos: BGR uint8 [height, width, 3].
        boxes: the boxes of each photo: number of the class, x1, y1, x2, y2, as fractions of its width and height.
        side: side of the squares, in pixels.

    Returns:
        The squares, BGR uint8 [side, side, 3]; and their boxes as ultralytics' loss takes them: `batch_idx` [n], `cls`
        [n, 1] and `bboxes` [n, 4], centre and size as fractions of the side.
    """
    import torch

    squares, rows = [], []
    for index, (photo, photo_boxes) in enumerate(zip(photos, boxes, strict=True)):
        square = fit(photo, side)
        squares.append(square.image)
        height, width = photo.shape[:2]
        for number, *corners in photo_boxes:
            pixels = [corner * length for corner, length in zip(corners, (width, height) * 2, strict=True)]
            x1, y1, x2, y2 = (
                pixel / scale + shift
                for pixel, scale, shift in zip(pixels, square.scale * 2, square.shift * 2, strict=True)
            )
            rows.append([index, number, (x1 + x2) / 2 / side, (y1 + y2) / 2 / side, (x2 - x1) / side, (y2 - y1) / side])
    table = torch.tensor(rows, dtype=torch.float32).reshape(len(rows), 6)
    return squares, {"batch_idx": table[:, 0], "cls": table[:, 1:2], "bboxes": table[:, 2:]}


def label_loss(module: Any, images: Any, targets: Mapping[str, Any]) -> tuple[Any, Any]:
    """Run a detector on images, and return its output and ultralytics' training loss, per image.

    Source: ultralytics' `v8DetectionLoss` with the gains of its default settings.

    Args:
        module: the detector.
        images: [batch, 3, side, side] in [0, 1].
        targets: true boxes, see `fitted`.

    Raises:
        Unsupported: its head has lost the branch that is trained.
    """
    import torch
    from ultralytics.utils import DEFAULT_CFG
    from ultralytics.utils.loss import v8DetectionLoss

    output = module(images)
    predictions = output[1]
    if "boxes" not in predictions:
        raise Unsupported(
            "its head finds boxes end to end, without suppression, and its training branch is removed when it is "
            "fused: take a detector such as yolo11n"
        )
    head = module.model[-1]
    stride = torch.as_tensor(head.stride, dtype=torch.float32, device=images.device)
    described: Any = SimpleNamespace(
        parameters=module.parameters,
        args=DEFAULT_CFG,
        model=[SimpleNamespace(stride=stride, nc=head.nc, reg_max=head.reg_max)],
    )
    loss, _ = v8DetectionLoss(described).loss(predictions, dict(targets))
    return output, loss.sum() / len(images)


def imitation_loss(output: Any, target: Any, classes: int) -> Any:
    """Return the loss of a detector's raw output on another detector's, a scalar.

    Each place counts as much as the other detector is sure that there is an object: the box by its overlap (CIoU), the
    scores by the divergence of each class. The two have the gains of ultralytics' default settings.

    Source: Chen et al., Learning Efficient Object Detection Models with Knowledge Distillation, NIPS 2017, section 3;
    prediction weights and gains as in ultralytics' loss on true boxes.

    Args:
        output: raw boxes and scores [batch, 4 + classes, places], with gradients.
        target: the same of the other detector.
        classes: number of classes.
    """
    from torch.nn.functional import binary_cross_entropy
    from ultralytics.utils import DEFAULT_CFG
    from ultralytics.utils.metrics import bbox_iou

    scores, true_scores = (raw[:, 4 : 4 + classes].float() for raw in (output, target))
    sureness = true_scores.amax(1)
    total = sureness.sum().clamp_min(1)
    overlap = bbox_iou(output[:, :4].transpose(1, 2), target[:, :4].transpose(1, 2), xywh=True, CIoU=True)
    of_boxes = (sureness * (1 - overlap.squeeze(-1))).sum() / total
    divergence = binary_cross_entropy(scores, true_scores, reduction="sum")
    divergence = divergence - binary_cross_entropy(true_scores, true_scores, reduction="sum")
    return DEFAULT_CFG.box * of_boxes + DEFAULT_CFG.cls * divergence / total
