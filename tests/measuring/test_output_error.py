"""How far a compressed model's outputs are from its original's."""

from __future__ import annotations

from lab import Lab


def test_how_far_the_outputs_moved_is_logged(lab: Lab) -> None:
    assert "quality/output_error_rel_l2" not in lab.measure("original").measurements
    small, large = (lab.measure(method).measurements["quality/output_error_rel_l2"] for method in ("fp16", "drop_last"))
    assert 0 < small < 0.02 < large


def test_what_restores_to_something_else_has_failed(lab: Lab) -> None:
    result = lab.measure("crash:kind=drift,at=rebuild")
    assert result.status == "failed"
    assert result.reason == "cpu: the restored model's outputs differ by 50.0% from those of the model that was saved"
