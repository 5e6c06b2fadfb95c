"""Lets these tests find `benchmarks`, whose servers they break."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))
