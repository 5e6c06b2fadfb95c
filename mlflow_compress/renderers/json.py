"""JSON: the whole comparison with every digit, for a program to read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import ClassVar

from mlflow_compress.records import Comparison, finite, to_json
from mlflow_compress.sockets import Renderer

SCHEMA = 1


@dataclass
class Json(Renderer):
    """One object, schema 1. A later schema may add keys; what is here keeps its meaning.

    * `schema`: 1.
    * `title`: the experiments. `language`: of the sentences, `en` or `ru`.
    * `rows`: in the table's order; each has `team`, `model`, `method` (with its batch size where that is not 1),
      `values` (numbers by metric name; what nobody measured is absent), `ratios` (value divided by the original's, by
      metric name; absent on the original and where circumstances differ), `ratio_intervals` (a ratio's 95 %
      confidence interval, of it alone, two numbers, where its noise is known), `ratio_degrees` (the degrees of
      freedom behind it; absent: as of many), `not_believed` (metrics whose ratio or number is left out: it can't be),
      `told_apart` (by name of a ratio or of a score's difference, whether it is told apart from the original's at 5 %
      in the whole table; absent: its noise is not known), `runs` (run ids by device, `cpu` and `gpu`), `links` (their
      pages, where a server shows them), `hardware` (in words), `circumstances` (what a number may only be compared
      under: by `cpu` and `gpu` the hardware and libraries, by `cpu_work` and `gpu_work` what one call does, by
      `quality` the data), `by_hand` (copied from a table, not measured), `original` (what it is compared with:
      `team`, `model`, `by_hand`, `random_weights`, `launches`, and `run_id` of a baseline that is one run; or null),
      `baseline` (the model or the run that `--baseline` names for it; empty: none, it is compared with its own
      model's original), `random_weights` (its quality says nothing), `dominated` (another row is better in an
      objective and as good in all; null: not ranked), `ranked_in` (the number of the group of rows that were compared
      for that), `is_original` (whether it is what others are compared with; null: its name says so), `source` (where
      the model comes from), `cautions` (what to know of what was made or scored, in words), `table` (of a row by
      hand: which one it was copied from), and `notes` (indices into `footnotes`, from 0).
    * `failures`: what has no number; each has `team`, `model`, `method`, `status` (`failed`, `skipped`,
      `in_progress`), `device` (empty when it befell the whole run), `reason`, `run_id`.
    * `footnotes`: sentences.
    * `columns`: what a table of it shows; empty: the course's columns. `objectives`: what `dominated` was decided on.
    * `metrics`: what the runs say of their quality metrics, by metric name: `label` (by language), `scale` (`share`,
      `hundred`, `error_rate`, `unbounded`, or null), `greater_is_better` (or null), `rank`.
    * `greater_is_better`: by metric name. `summaries`: what each method did over all models: `method`, `models` (how
      many), `ratios` (geometric means), `differences` (means of a score's difference from the original's), `counts`
      (models behind each of these numbers), `rows` (behind it), `within_noise` and `noise_unknown` (names of those of
      its numbers that are not told apart from no change, and of those whose noise is not known).
    """

    suffix: ClassVar[str] = ".json"

    def render(self, comparison: Comparison) -> bytes:
        """Write the comparison as UTF-8 JSON. All numbers are finite."""
        data = {"schema": SCHEMA, **to_json(comparison)}
        for row in data["rows"]:
            row["values"], row["ratios"] = finite(row["values"]), finite(row["ratios"])
        text = json.dumps(data, ensure_ascii=False, indent=2, allow_nan=False)
        return (text + "\n").encode("utf-8", errors="backslashreplace")  # half a surrogate pair becomes its \u escape
