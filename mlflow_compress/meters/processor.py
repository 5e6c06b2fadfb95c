"""Read what macOS and Windows report about the processor, and the cores that a process may use on any system.

Covers: the processor's name; on Apple silicon the instructions that kernels for matrix products check; CPU affinity.
Does not cover: `/proc/cpuinfo`, which `environment` reads on Linux; instructions on Windows.
"""

from __future__ import annotations

import os
import platform
import sys

# Apple's names of instructions, by the kernel's names on Linux. Source: sysctl hw.optional.arm, hwcap of Linux on ARM
_ON_APPLE = {
    "FEAT_DotProd": "asimddp",
    "FEAT_FP16": "asimdhp",
    "FEAT_I8MM": "i8mm",
    "FEAT_BF16": "bf16",
    "FEAT_SME": "sme",
}
_WINDOWS_KEY = r"HARDWARE\DESCRIPTION\System\CentralProcessor\0"


def name() -> str:
    """Return the processor's name; on other systems than macOS and Windows only its kind."""
    reported = ""
    if sys.platform == "darwin":
        reported = (_sysctl("machdep.cpu.brand_string") or b"").rstrip(b"\0").decode(errors="replace")
    elif sys.platform == "win32":
        reported = _registered_name()
    return reported.strip() or platform.processor() or platform.machine()


def instructions() -> set[str]:
    """Return Linux's names of the instructions on Apple silicon; empty if they are unknown."""
    if sys.platform != "darwin":
        return set()
    return {name for feature, name in _ON_APPLE.items() if any(_sysctl(f"hw.optional.arm.{feature}") or b"")}


def allowed_cores() -> frozenset[int] | None:
    """Return the logical cores that this process may use; None if the system has no affinity (macOS)."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    import psutil

    process = psutil.Process()
    if not hasattr(process, "cpu_affinity"):
        return None
    return frozenset(process.cpu_affinity() or ()) or None  # Windows: empty with more than 64 cores


def _sysctl(key: str) -> bytes | None:
    """Return a value of macOS's kernel as bytes; None if there is no such key."""
    import ctypes

    library = ctypes.CDLL(None)
    size = ctypes.c_size_t()
    if library.sysctlbyname(key.encode(), None, ctypes.byref(size), None, ctypes.c_size_t(0)) != 0:
        return None
    value = ctypes.create_string_buffer(size.value)
    if library.sysctlbyname(key.encode(), value, ctypes.byref(size), None, ctypes.c_size_t(0)) != 0:
        return None
    return value.raw[: size.value]


def _registered_name() -> str:
    """Return the processor's name from the registry of Windows; empty if it has none."""
    import winreg  # mypy knows it on Windows only

    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, _WINDOWS_KEY) as key:  # type: ignore[attr-defined]
            return str(winreg.QueryValueEx(key, "ProcessorNameString")[0])  # type: ignore[attr-defined]
    except OSError:
        return ""
