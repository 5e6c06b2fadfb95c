"""Files with pickles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


class Call:
    """An object whose pickle calls a function when it is loaded."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def saved(path: Path, content: Any, **how: Any) -> Path:
    torch.save(content, path, **how)
    return path
