"""Usage reports that libraries send to their makers: none is sent while a model is compressed and measured."""

from __future__ import annotations

from importlib.util import find_spec

VARIABLES = {"DO_NOT_TRACK": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}  # of a process that measures


def decline_openvino() -> None:
    """Let OpenVINO and NNCF send nothing in this process, if neither is imported yet.

    They send reports without asking, at their import and for each conversion. For each report, a thread copies the
    process, and the copy waits for the network: this would disturb what is measured. No variable declines them.
    """
    if find_spec("openvino_telemetry") is None:  # what sends the reports
        return
    from openvino_telemetry.utils.opt_in_checker import ConsentCheckResult, OptInChecker

    OptInChecker.check = lambda *_, **__: ConsentCheckResult.DECLINED
