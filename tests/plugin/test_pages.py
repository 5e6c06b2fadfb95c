"""The pages of a server, tested without one: experiments by name, hostile names escaped, runs as readable JSON."""

from __future__ import annotations

import json
import math
from dataclasses import replace

from conftest import MakeRun

from mlflow_compress.plugin import pages
from mlflow_compress.tracking.database import Variants

HOSTILE = '<script>alert(1)</script>&"'
SITE = pages.Site("en", "/compress", "https://mlflow.example/")


def test_experiments_are_listed_by_name_with_their_variants() -> None:
    names = {"1": "hw10", "2": "hw2", "3": "empty", "4": HOSTILE}
    counts = {"1": Variants(3, 0, "a"), "2": Variants(1, 86_400_000, "b"), "4": Variants(2, 0, "c")}
    text = pages.index(names, counts, SITE).decode()
    assert text.index("hw2") < text.index("hw10"), "numbers are ordered as numbers"
    assert "empty" not in text, "nothing of ours is in it"
    assert "1970-01-02 00:00" in text
    assert "/compress?experiment=hw2&amp;lang=en" in text
    assert "<script>alert" not in text


def test_a_page_leads_to_its_runs_and_says_what_browsers_may_do(make_run: MakeRun) -> None:
    content = pages.page([make_run()], {"7": "hw1"}, replace(SITE, language="ru"))
    assert "https://mlflow.example/#/experiments/7/runs/run1" in content.decode()
    assert pages.policy(content).endswith("; frame-ancestors 'self'")
    assert "default-src 'none'" in pages.policy(content)


def test_runs_as_json_keep_what_json_has_no_number_for(make_run: MakeRun) -> None:
    run = make_run(metrics={"quality/wer": math.nan, "size/params": 7.0})
    (row,) = json.loads(pages.as_json([run], {"7": "hw1"}))["runs"]
    assert row["experiment_id"] == "7"
    assert row["metrics"] == {"quality/wer": "NaN", "size/params": 7.0}
    assert row["tags"] == dict(run.tags)


def test_a_page_of_a_workspace_leads_to_it_and_to_the_others(make_run: MakeRun) -> None:
    site = replace(SITE, workspace="team a")
    names = ("team b", "team a", HOSTILE)
    text = pages.index({"1": "hw1"}, {"1": Variants(3, 0, "a")}, site, names).decode()
    assert "/compress?experiment=hw1&amp;lang=en&amp;workspace=team+a" in text
    assert '<a href="/compress?lang=en&amp;workspace=team+b">team b</a>' in text
    assert 'href="./#/?workspace=team+a"' in text
    assert "<strong>team a</strong>" in text
    assert "<script>alert" not in text
    page = pages.page([make_run()], {"7": "hw1"}, site).decode()
    assert "https://mlflow.example/#/experiments/7/runs/run1?workspace=team+a" in page
    assert "/compress?lang=en&amp;workspace=team+a" in page
