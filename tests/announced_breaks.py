"""Deprecation warnings of libraries: collected over the whole suite, and listed at its end, the new ones separately.

A warning never fails a test: a library that was released today must not break the suite. Move the code to the new
interface, or add a line to `KNOWN` with the date and the reason.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator

import pytest

_KINDS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)
_WORDS = re.compile(r"deprecat|will be removed|no longer be supported|future (release|version)", re.IGNORECASE)

KNOWN: dict[str, str] = {
    # torch
    r"torch\.jit\.\w+` is deprecated": "2026-11: the method torchscript is TorchScript, and OpenVINO traces with it",
    r"torch\.ao\.quantization is deprecated|quantize_dynamic|reduce_range will be deprecated": (
        "2026-11: int8_dynamic_torch and int8_static measure torch's own int8, which has no successor on CPUs as fast"
    ),
    r"TypedStorage is deprecated": "2026-11: torch's own, where packed int8 weights are saved",
    r"register_constant\(\) on Enum": "2026-11: torchao's own, at import",
    r"Detected pickle protocol": "2026-11: a test writes such a file to see it refused",
    r"treespec|pytree": "2026-11: torch.export's own",
    # transformers
    r"is_gradient_checkpointing": "2026-11: torch.jit.trace reads every property of a module",
    r"Passing `generation_config` together": "2026-11: Whisper's own generate does",
    # others
    r"Function _TORCH_OPS_REGISTRY": "2026-11: coremltools' own, at import",
    r"``noload`` loader": "2026-11: MLflow's own",
    r"verify_requirements argument": "2026-11: bandit's own, of stevedore",
    r"starlette\.middleware\.wsgi": "2026-11: MLflow's own server",
    r"Operation with range is deprecated|all arguments of all will be|inplace keyword in DataFrame\.drop": (
        "2026-11: MLflow's own, of pandas"
    ),
    r"'(enablePackrat|parseString|resetCache)' deprecated": "2026-11: matplotlib's own, of the oldest tested version",
}


class _Announcements(logging.Handler):
    """Turns deprecations in a library's log into warnings."""

    def emit(self, record: logging.LogRecord) -> None:
        if _WORDS.search(text := record.getMessage()):
            warnings.warn(text, FutureWarning, stacklevel=2)


class _Collector:
    """Collects the deprecation warnings of all processes of the suite."""

    def __init__(self) -> None:
        self.seen: dict[str, str] = {}

    def pytest_warning_recorded(self, warning_message: warnings.WarningMessage, nodeid: str) -> None:
        text = " ".join(str(warning_message.message).split())
        if issubclass(warning_message.category, _KINDS) or _WORDS.search(text):
            self.seen.setdefault(text, nodeid)

    def new(self) -> Iterator[str]:
        for text, nodeid in sorted(self.seen.items()):
            if not any(re.search(pattern, text) for pattern in KNOWN):
                yield f"{text[:300]}  ({nodeid})"

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        new = list(self.new())
        if self.seen:
            known_count = len(self.seen) - len(new)
            terminalreporter.section("announced breaks")
            terminalreporter.write_line(f"{known_count} known (see KNOWN in tests/announced_breaks.py), {len(new)} new")
            for line in new:
                terminalreporter.write_line(f"NEW: {line}")


def pytest_configure(config: pytest.Config) -> None:
    logging.getLogger("transformers").addHandler(_Announcements())
    config.pluginmanager.register(_Collector(), "announced-breaks")
