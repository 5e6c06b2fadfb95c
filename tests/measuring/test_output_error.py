"""How far a compressed model's outputs are from its original's."""

from __future__ import annotations

import torch
from lab import Lab

from mlflow_compress.measuring.output_error import _of_classes


def test_how_far_the_outputs_moved_is_logged(lab: Lab) -> None:
    assert "quality/output_error_rel_l2" not in lab.measure("original").measurements
    small, large = (lab.measure(method).measurements["quality/output_error_rel_l2"] for method in ("fp16", "drop_last"))
    assert 0 < small < 0.02 < large


def test_what_restores_to_something_else_has_failed(lab: Lab) -> None:
    result = lab.measure("crash:kind=drift,at=rebuild")
    assert result.status == "failed"
    assert result.reason == "cpu: the restored model's outputs differ by 50.0% from those of the model that was saved"


def test_no_divergence_is_below_zero() -> None:
    torch.manual_seed(0)
    scores = torch.randn(1000, 2)
    nearly_the_same = [scores * (1 + step * 1e-7) for step in range(20)]
    found = [_of_classes(own, scores)["quality/kl_divergence_nats"] for own in nearly_the_same]
    assert min(found) == 0
    assert max(found) < 1e-6
