"""The description of an experiment links to its comparison."""

from __future__ import annotations

from unittest.mock import create_autospec

import pytest
from mlflow import MlflowClient
from mlflow.entities import Experiment

from mlflow_compress.tracking import experiment_note, reading, writing
from mlflow_compress.tracking.connection import Store, open_store


def note(store: Store, experiment_id: str) -> str:
    return str(store.client.get_experiment(experiment_id).tags.get("mlflow.note.content", ""))


def test_a_store_without_our_page_gets_the_command(store: Store) -> None:
    number = writing.experiment_id(store, "described one")
    experiment_note.describe(store, number, "described one")
    assert note(store, number) == "The comparison of these runs: `compress-report --experiment 'described one'`"
    store.client.set_experiment_tag(number, "mlflow.note.content", "what its user wrote")
    experiment_note.describe(store, number, "described one")
    assert note(store, number) == "what its user wrote"


def test_a_server_with_our_page_is_linked_even_where_it_had_none_before(
    server_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(server_uri)
    number = writing.experiment_id(store, "described & linked")
    with monkeypatch.context() as patch:
        patch.setattr(reading, "has_page", lambda store, experiment_id: False)
        experiment_note.describe(store, number, "described & linked")
    assert "compress-report" in note(store, number)
    experiment_note.describe(store, number, "described & linked")
    address = f"{server_uri}/compress?experiment=described+%26+linked"
    assert note(store, number) == f"[The comparison of these runs]({address})"


def test_the_link_leads_into_the_experiments_workspace(monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    monkeypatch.setattr(reading, "has_page", lambda store, experiment_id: True)
    for workspace in ("default", "lab 1"):
        client = create_autospec(MlflowClient, instance=True)
        client.get_experiment.return_value = Experiment("1", "hw1", "", "active", workspace=workspace)
        client.set_experiment_tag.side_effect = lambda number, name, text: notes.append(text)
        experiment_note.describe(Store(client, "http://host:5000"), "1", "hw1")
    page = "http://host:5000/compress?experiment=hw1"
    assert notes == [f"[The comparison of these runs]({page}{query})" for query in ("", "&workspace=lab+1")]


SUMMARY = "3 rows of 2 teams: see the run `comparison`, artifact `comparison.html`.\n\n- int8: 0.25x the size"
NEWER = SUMMARY.replace("3 rows", "4 rows")
LINK = "The comparison of these runs: `compress-report --experiment hw1`"


def test_what_a_user_wrote_stays_around_what_comparisons_say() -> None:
    first = experiment_note.with_part("# Our homework\n\nby *Alpha*", SUMMARY)
    assert first.startswith("# Our homework\n\nby *Alpha*\n\n<!--")
    assert SUMMARY in first
    added = f"{first}\n\nHand in by Friday."
    second = experiment_note.with_part(added, NEWER)
    assert second == added.replace(SUMMARY, NEWER)
    assert experiment_note.with_part(second, NEWER) == second


def test_what_earlier_versions_and_describe_wrote_is_replaced_and_the_link_stays() -> None:
    unmarked = experiment_note.with_part(SUMMARY, NEWER)
    assert unmarked == experiment_note.with_part("", NEWER)
    note = experiment_note.with_part(f"before\n\n{SUMMARY}\n\nbehind", NEWER)
    assert note.startswith("before\n\n")
    assert note.endswith("behind")
    assert "3 rows" not in note
    linked = experiment_note.with_part(LINK, SUMMARY)
    assert linked.count(LINK) == 1
    assert experiment_note.with_part(linked, NEWER) == linked.replace(SUMMARY, NEWER)


def test_a_long_summary_is_cut_and_a_full_description_stays_alone() -> None:
    long_note = experiment_note.with_part("theirs", "- line\n" * 2000)
    assert len(long_note) == 5000
    assert long_note.startswith("theirs\n\n")
    assert experiment_note.with_part(long_note, SUMMARY) == experiment_note.with_part("theirs", SUMMARY)
    full = "x" * 4990
    assert experiment_note.with_part(full, SUMMARY) == full


def test_a_hostile_name_in_a_summary_does_not_end_our_part() -> None:
    hostile = "- a <!-- end of mlflow-compress --> b"
    changed = experiment_note.with_part("theirs", hostile)
    assert experiment_note.with_part(changed, SUMMARY) == experiment_note.with_part("theirs", SUMMARY)


def test_a_comparison_is_summarised_in_the_experiments_description_next_to_its_users_text(store: Store) -> None:
    number = writing.experiment_id(store, "told beside")
    store.client.set_experiment_tag(number, "mlflow.note.content", "what its user wrote")
    for summary in (SUMMARY, NEWER):
        writing.write_comparison(store, number, {}, summary)
    assert note(store, number) == experiment_note.with_part("what its user wrote", NEWER)
    experiment_note.describe(store, number, "told beside")
    assert note(store, number) == experiment_note.with_part("what its user wrote", NEWER)
