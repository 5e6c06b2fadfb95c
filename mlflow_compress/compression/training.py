"""The training loop of all methods that train: Adam, a learning rate that rises and falls, and clipped gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from mlflow_compress.compression.calibration import in_place_of_data
from mlflow_compress.sockets import Model

_GREATEST_NORM = 1.0  # of the gradient
_WARMUP = 0.1  # share of the steps in which the learning rate rises
_REPORTED = 0.1  # share of the steps to average for the first and the last loss


def train(
    model: Model,
    steps: int,
    learning_rate: float,
    seed: int,
    batches: Iterable[Any],
    loss_of: Callable[[Any], Any],
    beside: Sequence[Model] = (),
    keeps_zeros: bool = False,
) -> list[float]:
    """Train a model in place, one step for each batch, and leave it ready for inference.

    Only parameters that require a gradient are trained: with Adam, a learning rate that rises over the first tenth of
    the steps and then falls to zero, and gradients clipped to a norm of 1, on the GPU if there is one.

    Args:
        model: Model to train.
        steps: Number of training steps.
        learning_rate: Peak learning rate.
        seed: Seed for dropout.
        batches: One batch for each step. They are read after the models were moved to the device of the training.
        loss_of: Returns the loss of a batch, a scalar.
        beside: Other models that `loss_of` runs: they move to the same device meanwhile.
        keeps_zeros: Whether zeros in matrices and filters stay zero, as pruning left them.

    Returns:
        The loss at each step.

    Raises:
        ArithmeticError: The loss is not finite.
    """
    import torch

    torch.manual_seed(seed)
    device = "cuda" if torch.cuda.is_available() else model.device
    homes = [(moved, moved.device) for moved in (model, *beside)]
    for moved, _ in homes:
        _move(moved, device)
    trained = [parameter for parameter in model.module.parameters() if parameter.requires_grad]
    masks = [(weight, weight != 0) for weight in trained if weight.dim() > 1] if keeps_zeros else []
    optimizer = torch.optim.Adam(trained, lr=learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _slope(step, steps))
    losses: list[float] = []
    for layer in model.module.modules():  # only leaves train (dropout, statistics): a parent may change its outputs
        layer.training = not any(True for _ in layer.children())
    hooks = [layer.register_forward_pre_hook(_keep_statistics) for layer in _normalisations(model.module)]
    for batch in batches:
        loss = loss_of(batch)
        if not math.isfinite(value := float(loss.detach())):
            raise ArithmeticError(f"the loss is {value} at step {len(losses) + 1}: use a lower learning_rate")
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, _GREATEST_NORM)
        optimizer.step()
        with torch.no_grad():
            for weight, mask in masks:
                weight.mul_(mask)
        schedule.step()
        losses.append(value)
        model.progress(len(losses), steps)
    for hook in hooks:
        hook.remove()
    model.module.requires_grad_(False)
    model.module.zero_grad()
    model.module.eval()
    for moved, home in homes:
        _move(moved, home)
    return losses


def summary(model: Model, losses: Sequence[float], batch_size: int, kind: str = "inputs") -> str:
    """Return a summary of a training for the model's facts.

    Args:
        model: The trained model, whose cautions name random inputs.
        losses: The loss at each step; at least one.
        batch_size: Samples per step.
        kind: What the samples are if they are data.
    """
    count = max(1, round(len(losses) * _REPORTED))
    initial_loss, final_loss = sum(losses[:count]) / count, sum(losses[-count:]) / count
    samples = in_place_of_data(model) or kind
    return f"{len(losses)} steps of {batch_size} {samples}, loss from {initial_loss:.3g} to {final_loss:.3g}"


def _normalisations(module: Any) -> list[Any]:
    """Return a module's batch normalisations."""
    import torch

    return [layer for layer in module.modules() if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm)]


def _keep_statistics(layer: Any, inputs: tuple[Any, ...]) -> None:
    """Make a batch normalisation use its stored statistics if a batch has only one value per channel."""
    if inputs:
        layer.training = inputs[0].numel() != inputs[0].shape[1]


def _slope(step: int, steps: int) -> float:
    warmup = max(1, round(steps * _WARMUP))
    return (step + 1) / warmup if step < warmup else (steps - step) / max(1, steps - warmup)


def _move(model: Model, device: str) -> None:
    model.module.to(device)
    model.device = device
