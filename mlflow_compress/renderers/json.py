"""JSON: the whole comparison with all digits, for programs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import ClassVar

from mlflow_compress.records import Comparison, finite, to_json
from mlflow_compress.sockets import Renderer

SCHEMA = 1


@dataclass
class Json(Renderer):
    """One object, schema 1. A later schema may add keys; the keys here keep their meaning.

    * `schema`: 1.
    * `title`: the experiments. `language`: the language of the sentences, `en` or `ru`.
    * `rows`: in the table's order; each has `team`, `model`, `method` (with its batch size where that is not 1),
      `values` (numbers by metric name; a number that was not measured is absent), `ratios` (value divided by the
      original's, by metric name; absent for the original and where circumstances differ), `ratio_intervals` (the 95 %
      confidence interval of a single ratio, two numbers, where its noise is known), `ratio_degrees` (its degrees of
      freedom; absent: infinite), `not_believed` (metrics whose ratio or number is left out as impossible), `told_apart`
      (by name of a ratio or of a score's difference, whether it differs from the original's at 5 % in the whole table;
      absent: its noise is unknown), `runs` (run ids by device, `cpu` and `gpu`, or `size` of a model that only another
      machine can run), `links` (their pages, where a server shows them), `hardware` (as text), `circumstances` (what
      must be the same before numbers are compared: by `cpu` and `gpu` the hardware and libraries, by `cpu_work` and
      `gpu_work` the work of one call, by `quality` the data), `by_hand` (copied from a table, not measured), `original`
      (what the row is compared with: `team`, `model`, `by_hand`, `random_weights`, `launches`, and `run_id` of a
      baseline that is one run; or null), `baseline` (the model or run that `--baseline` names for it; empty: it is
      compared with its own model's original),
      `random_weights` (its quality has no meaning), `dominated` (another row is better in an objective and as good in
      all; null: not ranked), `ranked_in` (the number of its group of comparable rows), `is_original` (whether others
      are compared with it; null: its name shows it), `source` (the source of the model), `cautions` (cautions about
      the model or its scores, as text), `published` (of an original: `as published`, `differs`, `not comparable`, or
      empty), `table` (for a row by hand: the table that it was copied from), and `notes`
      (indices into `footnotes`, from 0).
    * `failures`: what has no number; each has `team`, `model`, `method`, `status` (`failed`, `skipped`,
      `in_progress`), `device` (empty for the whole run), `reason`, `run_id`.
    * `footnotes`: sentences.
    * `columns`: the columns of a table; empty: the course's columns. `objectives`: the numbers behind `dominated`.
    * `metrics`: facts from the runs about their quality metrics, by name: `label` (by language), `scale` (`share`,
      `hundred`, `error_rate`, `correlation`, `unbounded`, or null), `greater_is_better` (or null), `rank`.
    * `greater_is_better`: by metric name. `summaries`: the effect of each method over all models: `method`, `models`
      (their number), `ratios` (geometric means), `differences` (means of a score's difference from the original's),
      `counts` (models behind each of these numbers), `rows` (behind the summary), `within_noise` and `noise_unknown`
      (names of its numbers that do not differ from no change by more than noise, and of those whose noise is unknown).
    """

    suffix: ClassVar[str] = ".json"

    def render(self, comparison: Comparison) -> bytes:
        """Return the comparison as UTF-8 JSON. All numbers are finite."""
        data = {"schema": SCHEMA, **to_json(comparison)}
        for row in data["rows"]:
            row["values"], row["ratios"] = finite(row["values"]), finite(row["ratios"])
        text = json.dumps(data, ensure_ascii=False, indent=2, allow_nan=False)
        return (text + "\n").encode("utf-8", errors="backslashreplace")  # a lone surrogate becomes its \u escape
