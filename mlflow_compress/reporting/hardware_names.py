"""Short names of processors and GPUs for a table: what distinguishes them, without the maker's additions."""

from __future__ import annotations

import re

from mlflow_compress import words

_THREADS = re.compile(r"(?<=, )(\d+) threads(?=; |\Z)")
_TRIMMINGS = re.compile(
    r"\((?:r|tm|c)\)|[®™]"
    r"|\s@\s*[\d.]+\s*[gm]hz"
    r"|\s(?:w/|with)\s[^,;]*"  # the graphics beside it
    r"|\b\d+-core\b|\b(?:\w+-core|processor|cpu|gpu|graphics)\b"
    r"|\b(?:genuine)?intel\b|\bamd\b|\bnvidia\b|\bgeforce\b",
    re.IGNORECASE,
)


def short(hardware: str, language: str = "en") -> str:
    """Return the name without trademarks, clock and maker; the whole name where nothing would be left.

    Args:
        hardware: the text of `Row.hardware`.
        language: the language of the word for threads.

    >>> short("Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz, 8 threads; NVIDIA H100 80GB HBM3")
    'Xeon Platinum 8481C, 8 threads; H100 80GB HBM3'
    >>> short("AMD Ryzen 7 7840U w/ Radeon 780M Graphics, 8 threads")
    'Ryzen 7 7840U, 8 threads'
    """
    names = "; ".join(", ".join(_short(part) for part in device.split(", ")) for device in hardware.split("; "))
    return _THREADS.sub(lambda match: words.THREADS[language].format(count=match[1]), names)


def _short(name: str) -> str:
    left, count = _TRIMMINGS.subn(" ", name)
    return " ".join(left.split()) or name if count else name
