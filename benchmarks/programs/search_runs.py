"""The usual way: `mlflow.search_runs` on an experiment, `search_runs.py URI`."""

from __future__ import annotations

import sys

import mlflow

mlflow.set_tracking_uri(sys.argv[1])
assert len(mlflow.search_runs(experiment_names=["scale"], filter_string="tags.`compress.role` = 'variant'"))
