"""One store with the honest runs of two teams and one run for each harm: every command and every table format."""

from __future__ import annotations

import csv
import functools
import io
import json
import re
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pytest
from click.testing import CliRunner, Result

from benchmarks.servers import TrackingServer
from mlflow_compress.cli.bench import main as bench
from mlflow_compress.cli.report import main as report
from mlflow_compress.plain_text import HIDDEN
from mlflow_compress.reporting.possible import IMPOSSIBLE_NUMBER, IMPOSSIBLE_TIME

from .hostile_runs import EXPERIMENT, RUNS, STEERING, add_honest, add_hostile

HONEST = ("alpha", "бета")
COLUMNS = "team,model,method,size,disk,params,cpu,ram,quality"
FORMS = ("csv", "html", "json", "md", "tex", "xlsx")
ARRANGED: dict[str, tuple[str, ...]] = {
    "as it is": (),
    "every run": ("--all-runs",),
    "the front": ("--pareto", "quality,size,cpu"),
    "the best": ("--best", "cpu"),
    "in Russian": ("--lang", "ru"),
    "sorted": ("--sort", "-cpu"),
}
GATE = ("gate", "--min-speedup", "1.1", "--max-quality-drop", "1%", "--max-memory-ratio", "1")
VERDICTS = ("Passes", "Fails", "Undecided", "All 5 variants")
README = "# Models\n\n<!-- compress-report: begin -->\n<!-- compress-report: end -->\n"


@dataclass(frozen=True)
class Before:
    """The store before and after the hostile runs were logged.

    Attributes:
        uri: URI of the store with all runs.
        honest: URI of a copy with only the honest runs.
        ids: Run ids of the hostile runs by name.
    """

    uri: str
    honest: str
    ids: dict[str, str]


@pytest.fixture(scope="module")
def stores(tracking_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Before]:
    folder = tmp_path_factory.mktemp("hostile runs")
    shutil.copy(tracking_uri.removeprefix("sqlite:///"), folder / "all.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        add_honest("sqlite:///all.db")
        shutil.copy("all.db", "honest.db")
        (folder / "files").mkdir()
        ids = add_hostile("sqlite:///all.db", folder / "files")
    yield Before(f"sqlite:///{folder / 'all.db'}", f"sqlite:///{folder / 'honest.db'}", ids)
    mlflow.set_tracking_uri("")


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMPRESS_SPOOL", str(tmp_path / "spool"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def run(uri: str, *arguments: str) -> Result:
    """Run `compress-report`, check its exit code, and check that it does not control the terminal."""
    command = arguments[:1] if arguments[:1] == ("gate",) else ()
    line = [*command, "-e", EXPERIMENT, "--tracking-uri", uri, *arguments[len(command) :]]
    return ended(CliRunner().invoke(report, line))


def ended(done: Result) -> Result:
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    assert not re.search(HIDDEN, done.output.replace("\n", ""))
    assert not any(line.startswith("All 5 variants") for line in done.output.splitlines())
    return done


@functools.cache
def rendered(uri: str, form: str, *arguments: str) -> bytes:
    path = Path(f"table.{form}")
    assert run(uri, "-o", str(path), *arguments).exit_code == 0
    return path.read_bytes()


def of_csv(content: bytes) -> list[dict[str, str]]:
    rows = [row for row in csv.DictReader(io.StringIO(content.decode())) if row["team"] in HONEST]
    return [{name: text for name, text in row.items() if name != "run_id_tpu"} for row in rows]


def of_json(content: bytes) -> list[object]:
    data = json.loads(content)
    rows = [{**row, "notes": [data["footnotes"][note] for note in row["notes"]]} for row in data["rows"]]
    # The number of a row's group depends on other rows.
    rows = [{name: value for name, value in row.items() if name != "ranked_in"} for row in rows]
    return [row for row in (*rows, *data["failures"]) if row["team"] in HONEST]


def of_md(content: bytes) -> list[object]:
    lines = content.decode().splitlines()
    rows = [_cells(re.sub(r" \[\d+\]", "", line)) for line in lines if line.startswith("|")]
    failures = [line for line in lines if line.startswith("- ") and any(f" {team}," in line for team in HONEST)]
    return [*(row for row in rows if row[0].strip("| ") in HONEST), *failures]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def of_html(content: bytes) -> list[str]:
    page = re.sub(r' <a class="mark".*?</a>', "", content.decode())
    rows = re.findall(r"<tr.*?</tr>", page, re.DOTALL)
    return [re.sub(r'data-row="\d+"', "", row) for row in rows if re.search(f">({'|'.join(HONEST)})<", row)]


def of_tex(content: bytes) -> list[str]:
    lines = re.sub(r"\\textsuperscript\{[\d, ]+\}", "", content.decode()).splitlines()
    return [line for line in lines if line.startswith(HONEST)]


def of_xlsx(content: bytes) -> list[tuple[object, ...]]:
    openpyxl = pytest.importorskip("openpyxl")
    sheets = openpyxl.load_workbook(io.BytesIO(content)).worksheets
    rows = [row for sheet in sheets for row in sheet.iter_rows(values_only=True) if row[0] in HONEST]
    return [tuple(value for value in row if value is not None) for row in rows]  # other rows may add columns


ROWS: dict[str, Callable[[bytes], object]] = {
    "csv": of_csv,
    "html": of_html,
    "json": of_json,
    "md": of_md,
    "tex": of_tex,
    "xlsx": of_xlsx,
}


@pytest.mark.parametrize("arranged", ARRANGED)
@pytest.mark.parametrize("form", FORMS)
def test_honest_rows_are_as_they_were(stores: Before, form: str, arranged: str) -> None:
    """Compare only what other rows do not change: not the width of a Markdown cell, nor row and footnote numbers.

    Nor the column of the hardware, which a table has as soon as rows have different hardware.
    """
    arguments = ("--columns", COLUMNS, *ARRANGED[arranged])
    before, after = (ROWS[form](rendered(uri, form, *arguments)) for uri in (stores.honest, stores.uri))
    if arranged == "the front":  # their rows now have rivals, which may be better
        before, after = _without_verdict(before), _without_verdict(after)
    assert before
    assert after == before


def _without_verdict(rows: object) -> object:
    text = json.dumps(rows, ensure_ascii=False)
    return re.sub(r'"dominated": (true|false)|"pareto": "\w+"|\b(best|beaten|dominated)\b|data-\w+=\\"\d\\"', "", text)


@pytest.mark.parametrize("arranged", ARRANGED)
def test_a_picture_is_drawn(stores: Before, arranged: str) -> None:
    assert rendered(stores.uri, "png", *ARRANGED[arranged]).startswith(b"\x89PNG")


def test_every_hostile_run_has_a_row_or_a_reason(stores: Before) -> None:
    data = json.loads(rendered(stores.uri, "json", "--all-runs"))
    in_rows = {run_id for row in data["rows"] for run_id in row["runs"].values()}
    failed = {failure["run_id"] for failure in data["failures"]}
    assert [name for name, run_id in stores.ids.items() if run_id not in in_rows | failed] == []


@pytest.mark.parametrize("language", ["en", "ru"])
def test_what_can_not_be_is_left_out_and_the_row_says_so(stores: Before, language: str) -> None:
    data = json.loads(rendered(stores.uri, "json", "--lang", language))
    by_method = {row["method"]: row for row in data["rows"] if row["team"] == "evil"}
    notes = {name: " ".join(data["footnotes"][note] for note in row["notes"]) for name, row in by_method.items()}
    for name in ("negative_numbers", "largest_numbers", "subnormal_numbers", "no_numbers", "infinite_numbers"):
        assert IMPOSSIBLE_NUMBER.short[language] in notes[name], name
        assert not any(value < 0 or 0 < value < 1e-300 for value in by_method[name]["values"].values()), name
        assert "cpu/latency_p50_ms" not in by_method[name]["values"]
    for name in ("began_in_far_future", "began_at_the_end_of_integers", "began_before_the_epoch"):
        assert IMPOSSIBLE_TIME.short[language] in notes[name]
        assert by_method[name]["values"]["cpu/latency_p50_ms"] == 40
    assert not any(caution in notes["began_at_zero"] for caution in (IMPOSSIBLE_NUMBER.short[language], "1970"))


def test_the_printed_forms_are_the_files(stores: Before) -> None:
    assert run(stores.uri).stdout.encode() == rendered(stores.uri, "md")
    assert json.loads(run(stores.uri, "--json").stdout) == json.loads(rendered(stores.uri, "json"))


def honest_lines(gate: Result) -> list[list[str]]:
    """Return the cells of the honest teams' lines."""
    lines = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in gate.stdout.splitlines()]
    return [line for line in lines if line[0] in HONEST]


def test_the_gate_says_one_line_of_each_miss_and_no_other(stores: Before) -> None:
    before, after = run(stores.honest, *GATE), run(stores.uri, *GATE)
    assert (before.exit_code, after.exit_code) == (6, 6)
    assert honest_lines(after) == honest_lines(before)
    assert len(honest_lines(before)) >= 3
    assert after.stdout.count("All 5 variants reach what was asked of them.") >= 1  # inside a line of `evil`
    assert [line.split(".")[0] for line in after.stdout.splitlines() if line.startswith(VERDICTS)] == ["Fails"]


def test_a_readme_is_brought_up_to_date_and_stays_so(stores: Before) -> None:
    Path("README.md").write_text(README)
    assert run(stores.uri, "--update", "README.md").exit_code == 0
    assert run(stores.uri, "--update", "README.md", "--check").exit_code == 0
    arguments = ("--columns", COLUMNS, "--team", "alpha")
    assert run(stores.uri, "--update", "README.md", *arguments).exit_code == 0
    assert Path("README.md").read_text().count("alpha") >= 2


def test_experiments_named_to_steer_are_named_plainly(stores: Before, tmp_path: Path) -> None:
    """MLflow accepts such names, and every message and format shows them."""
    shutil.copy(stores.honest.removeprefix("sqlite:///"), tmp_path / "named.db")
    uri = f"sqlite:///{tmp_path / 'named.db'}"
    add_honest(uri, STEERING)
    refused = run(uri, "-e", "honset")
    assert refused.exit_code == 4
    assert "Did you mean 'honest'?" in refused.stderr
    assert "x\ufffd[2J\ufffd]0;seized" in refused.stderr
    for form in (*FORMS, "png"):
        assert run(uri, "-e", "x*", "-o", f"named.{form}").exit_code == 0
    assert "x\ufffd\\[2J" in run(uri, "-e", "x*").stdout
    assert run(uri, "-e", "x*", "--log").exit_code == 0


@pytest.mark.parametrize("name", [name for name in RUNS if name.startswith("file_")])
def test_rescoring_ends_with_a_message(stores: Before, name: str) -> None:
    result = ended(CliRunner().invoke(bench, ["rescore", stores.ids[name], "--tracking-uri", stores.uri, "--log"]))
    assert result.exit_code in (2, 4)
    *progress, message = result.stderr.splitlines()
    assert message.startswith("Error: ")
    assert all(line.endswith(": reading the predictions") for line in progress)


def test_a_sweep_foresees_and_syncs(stores: Before, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("def model(): ...\n")
    (tmp_path / "yolo.yaml").write_text("family: python\nsource: model.py\nvariants: [original, fp16]\n")
    arguments = ["sweep", "yolo.yaml", "--dry-run", "--trust", "--experiment", EXPERIMENT, "--limit-time", "1h"]
    planned = ended(CliRunner().invoke(bench, [*arguments, "--tracking-uri", stores.uri]))
    assert planned.exit_code == 0, planned.output
    assert "2 variants" in planned.stdout
    assert ended(CliRunner().invoke(bench, ["sync", "--tracking-uri", stores.uri])).exit_code == 0


def test_the_pages_of_a_server_answer(stores: Before, tmp_path: Path) -> None:
    server = TrackingServer(tmp_path, stores.uri, options=("--app-name", "compress"))
    server.start()
    try:
        pages = {}
        for address in ("", f"?experiment={EXPERIMENT}", f"/runs.json?experiment={EXPERIMENT}"):
            with urllib.request.urlopen(f"{server.uri}/compress{address}", timeout=60) as answer:
                pages[address] = answer.read()
                assert answer.status == 200
        assert len(json.loads(pages[f"/runs.json?experiment={EXPERIMENT}"])["runs"]) == len(RUNS) + 6
        assert len(of_html(pages[f"?experiment={EXPERIMENT}"])) == 4
        assert of_csv(rendered(server.uri, "csv")) == of_csv(rendered(stores.uri, "csv"))
    finally:
        server.kill()
