"""The pages of a server, without one: experiments by name, hostile ones escaped, runs as JSON that is read back."""

from __future__ import annotations

import json
import math

from conftest import MakeRun

from mlflow_compress.plugin import pages

HOSTILE = '<script>alert(1)</script>&"'


def test_experiments_are_listed_by_name_with_their_variants() -> None:
    names = {"1": "hw10", "2": "hw2", "3": "empty", "4": HOSTILE}
    counts = {"1": (3, 0), "2": (1, 86_400_000), "4": (2, 0)}
    text = pages.index(names, counts, "en", "/compress").decode()
    assert text.index("hw2") < text.index("hw10"), "numbers are ordered as numbers"
    assert "empty" not in text, "nothing of ours is in it"
    assert "1970-01-02 00:00" in text
    assert "/compress?experiment=hw2&amp;lang=en" in text
    assert "<script>alert" not in text


def test_a_page_leads_to_its_runs_and_says_what_browsers_may_do(make_run: MakeRun) -> None:
    content = pages.page([make_run()], {"7": "hw1"}, "ru", "/compress", "https://mlflow.example/")
    assert "https://mlflow.example/#/experiments/7/runs/run1" in content.decode()
    assert pages.policy(content).endswith("; frame-ancestors 'self'")
    assert "default-src 'none'" in pages.policy(content)


def test_runs_as_json_keep_what_json_has_no_number_for(make_run: MakeRun) -> None:
    run = make_run(metrics={"quality/wer": math.nan, "size/params": 7.0})
    (row,) = json.loads(pages.as_json([run], {"7": "hw1"}))["runs"]
    assert row["experiment_id"] == "7"
    assert row["metrics"] == {"quality/wer": "NaN", "size/params": 7.0}
    assert row["tags"] == dict(run.tags)
