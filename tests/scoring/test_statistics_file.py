from __future__ import annotations

from pathlib import Path

import numpy as np

from mlflow_compress import registry
from mlflow_compress.scoring import bootstrap, statistics_file


def test_statistics_are_kept_in_a_file(tmp_path: Path) -> None:
    names = {name: registry.build("metrics", name) for name in ("accuracy", "f1")}
    scored = bootstrap.score(names, [0, 1, 2] * 5, [0, 1, 1] * 5, seed=0)
    statistics_file.write(scored.statistics(), tmp_path / "statistics.npz")
    all_statistics = statistics_file.read(tmp_path / "statistics.npz")
    assert set(all_statistics) == set(names)
    for name, stored in all_statistics.items():
        statistics = scored.by_name[name].statistics
        assert statistics is not None
        assert np.array_equal(stored.values, statistics.values)
        assert stored.columns == statistics.columns
        assert bootstrap.paired(stored, statistics, names[name], seed=0) == (0, 0, 0)
