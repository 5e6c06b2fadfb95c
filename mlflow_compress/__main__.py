"""`python -m mlflow_compress run ...` and `... report ...`: both programs from one folder, installed or not."""

from __future__ import annotations

from mlflow_compress.cli.bench import main as bench
from mlflow_compress.cli.report import main as report

bench.add_command(report, "report")
bench(prog_name="python -m mlflow_compress")
