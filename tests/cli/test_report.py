from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from mlflow import MlflowClient

from mlflow_compress.cli.report import main
from mlflow_compress.reporting.import_tables import BEGIN, END
from mlflow_compress.reporting.table_text import COLUMNS, headers
from mlflow_compress.tracking import reading, writing
from mlflow_compress.tracking.connection import Store, open_store


@pytest.fixture(scope="session")
def filled(tracking_uri: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a store with an experiment of four variants, and an empty experiment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("artifacts"))
        fill(tracking_uri)
    return tracking_uri


def fill(tracking_uri: str) -> None:
    store = open_store(tracking_uri)
    experiment = writing.experiment_id(store, "report hw1")
    writing.experiment_id(store, "report empty")
    add(store, experiment, "alpha", "yolo", "original", 1, 100.0)
    add(store, experiment, "alpha", "yolo", "fp16", 2, 50.0)
    add(store, experiment, "бета", "vit", "original", 3, 30.0)
    writing.start(
        store,
        experiment,
        "int8",
        {
            "team": "alpha",
            "model": "yolo",
            "method": "int8",
            "status": "failed",
            "compress.role": "variant",
            "compress.reason": "out of memory",
        },
        start_ms=4,
    )


def add(
    store: Store, experiment: str, team: str, model: str, method: str, start_ms: int, size: float, **extra_tags: str
) -> str:
    tags = {
        "team": team,
        "model": model,
        "method": method,
        "status": "ok",
        "compress.role": "variant",
        "compress.batch_size": "1",
        "compress.outcome.cpu": "ok",
        **extra_tags,
    }
    run_id = writing.start(store, experiment, f"{model} {method}", tags, start_ms=start_ms)
    client = MlflowClient(store.uri)
    client.log_metric(run_id, "size/weights_mib", size)
    client.log_metric(run_id, "cpu/latency_p50_ms", 492.7215)
    writing.end(store, run_id, succeeded=True)
    return run_id


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)


def report(uri: str, *args: str) -> Result:
    return CliRunner().invoke(main, ["--tracking-uri", uri, *args], catch_exceptions=False)


def test_the_table_is_printed(filled: str) -> None:
    result = report(filled, "-e", "report hw1")
    assert result.exit_code == 0
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == list(headers(COLUMNS, "en"))
    assert "50.00 MB (0.50x)" in lines[3]
    assert "- failed: alpha, yolo, int8: out of memory" in lines


def test_in_russian(filled: str) -> None:
    lines = report(filled, "-e", "report hw1", "--lang", "ru").stdout.splitlines()
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == list(headers(COLUMNS, "ru"))
    assert "Оригинал" in lines[2]


def test_the_experiment_may_come_from_the_environment(filled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "report hw1")
    assert report(filled).exit_code == 0


def test_filters(filled: str) -> None:
    result = report(filled, "-e", "report hw1", "--team", "alpha", "--model", "yolo", "--method", "fp16", "--json")
    (row,) = json.loads(result.stdout)["rows"]
    assert row["method"] == "fp16"
    assert row["ratios"]["size/weights_mib"] == 0.5


def methods(result: Result) -> list[str]:
    assert result.exit_code == 0, result.stderr
    return [row["method"] for row in json.loads(result.stdout)["rows"]]


def test_arranging(filled: str) -> None:
    arguments = ["-e", "report hw1", "--json"]
    assert methods(report(filled, *arguments, "--sort", "-method")) == ["original", "original", "fp16"]
    assert methods(report(filled, *arguments, "--sort", "size", "--group-by", "model")) == [
        "original",
        "fp16",
        "original",
    ]
    assert methods(report(filled, *arguments, "--best", "size")) == ["original", "fp16", "original"]
    assert methods(report(filled, *arguments, "--all-runs"))[1] == "fp16 [1970-01-01 00:00 UTC]"
    assert report(filled, *arguments, "--since", "1970-01-02").exit_code == 4
    assert len(methods(report(filled, *arguments, "--since", "1970-01-01", "--tracking-uri", filled))) == 3


def test_chosen_columns_and_a_front(filled: str) -> None:
    result = report(filled, "-e", "report hw1", "--columns", "model,method,size,disk", "--pareto", "size,cpu")
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in result.stdout.splitlines()]
    assert lines[0] == ["Model", "Method", "Weight size", "saved model, MB", "Pareto"]
    assert [line[-1] for line in lines[2:5]] == ["dominated", "best", "best"]


def test_the_form_of_times(filled: str) -> None:
    for since in ("1970-01-01", "1970-01-01T12:30", "90000d", "5w"):
        assert report(filled, "-e", "report hw1", "--since", since).exit_code in (0, 4)
    result = report(filled, "-e", "report hw1", "--since", "yesterday")
    assert result.exit_code == 2
    assert "is not a time" in result.stderr


def gate(filled: str, *args: str, experiment: str = "report hw1") -> Result:
    return CliRunner().invoke(main, ["gate", "--tracking-uri", filled, "-e", experiment, *args])


@pytest.fixture(scope="session")
def quantised(tracking_uri: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Log a float model, a variant of it, and its 4-bit checkpoint from the hub. Return the run ids by method."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("artifacts"))
        store = open_store(tracking_uri)
        experiment = writing.experiment_id(store, "report baseline")
        family = {"compress.family": "causal_lm"}
        packed = {**family, "compress.packed": "gptq 4 bit"}
        return {
            "original": add(store, experiment, "alpha", "smollm", "original", 1, 100.0, **family),
            "int8": add(store, experiment, "alpha", "smollm", "int8", 2, 50.0, **family),
            "gptq": add(store, experiment, "alpha", "smollm-gptq", "original", 3, 30.0, **packed),
            "yolo": add(store, experiment, "alpha", "yolo", "original", 4, 10.0, **{"compress.family": "yolo"}),
        }


def sizes(result: Result) -> dict[str, float | None]:
    """Return each row's size ratio, by model and method."""
    assert result.exit_code == 0, result.stderr
    rows = json.loads(result.stdout)["rows"]
    return {f"{row['model']} {row['method']}": row["ratios"].get("size/weights_mib") for row in rows}


def test_a_baseline_is_a_model_or_a_run_whatever_is_selected(tracking_uri: str, quantised: dict[str, str]) -> None:
    arguments = ["-e", "report baseline", "--json"]
    packed, other_ratios = (
        "smollm-gptq original [gptq 4 bit]",
        {"smollm original": None, "smollm int8": 0.5, "yolo original": None},
    )
    assert sizes(report(tracking_uri, *arguments)) == {**other_ratios, packed: None}
    for only in ((), ("--model", "smollm-gptq"), ("--method", "original", "--model", "smollm-gptq", "--device", "cpu")):
        ratios = sizes(report(tracking_uri, *arguments, *only, "--baseline", "smollm"))
        assert ratios == ({packed: 0.3} if only else {**other_ratios, packed: 0.3})
    ratios = sizes(report(tracking_uri, *arguments, "--baseline", quantised["int8"][:8]))
    assert ratios == {"smollm original": 2.0, "smollm int8": None, packed: 0.6, "yolo original": None}
    condition = ("--where", "tags.model = 'smollm'")
    ratios = sizes(report(tracking_uri, *arguments, *condition, "--baseline", f"smol*={quantised['gptq']}"))
    assert ratios == {"smollm original": pytest.approx(100 / 30), "smollm int8": pytest.approx(50 / 30)}
    assert sizes(report(tracking_uri, *arguments, "--baseline", "yolo=smollm"))["yolo original"] == 0.1


def test_a_baseline_is_in_the_table_and_its_footnotes(tracking_uri: str, quantised: dict[str, str]) -> None:
    result = report(tracking_uri, "-e", "report baseline", "--baseline", "smollm")
    assert result.stderr == ""
    (line,) = [line for line in result.stdout.splitlines() if "gptq 4 bit" in line]
    assert "30.00 MB (0.30x)" in line
    assert "] compared with the original of smollm, as requested" in result.stdout
    result = report(tracking_uri, "-e", "report baseline", "--lang", "ru", "--baseline", quantised["int8"])
    assert f"по запросу сравнивается с запуском {quantised['int8'][:8]} (alpha, smollm, int8 " in result.stdout


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        (
            "smolm",
            "Unknown baseline. Unknown model 'smolm'. Did you mean 'smollm'? Known: smollm, smollm-gptq, yolo. Or",
        ),
        ("yola=smollm", "Did you mean 'yolo'?"),
        ("0123456789abcdef", "Or give a run id, or its first 8 characters."),
    ],
)
def test_a_baseline_that_is_not_there(
    tracking_uri: str, quantised: dict[str, str], baseline: str, message: str
) -> None:
    for command in ((), ("gate", "--max-size-ratio", "1")):
        arguments = ["-e", "report baseline", "--tracking-uri", tracking_uri, "--baseline", baseline]
        result = CliRunner().invoke(main, [*command, *arguments], catch_exceptions=False)
        assert result.exit_code == 4
        assert message in " ".join(result.stderr.split())


def test_a_baseline_that_changes_nothing_is_reported(tracking_uri: str, quantised: dict[str, str]) -> None:
    result = report(tracking_uri, "-e", "report baseline", "--baseline", "yolo", "--json")
    assert result.exit_code == 0
    assert "--baseline yolo has no effect: it applies to models whose checkpoint was already quantised" in " ".join(
        result.stderr.split()
    )


def test_a_gate_with_a_baseline(tracking_uri: str, quantised: dict[str, str]) -> None:
    def gated(*args: str) -> Result:
        arguments = ["gate", "--tracking-uri", tracking_uri, "-e", "report baseline", "--model", "smollm-gptq"]
        return CliRunner().invoke(main, [*arguments, *args], catch_exceptions=False)

    result = gated("--baseline", "smollm", "--max-size-ratio", "0.3")
    assert result.exit_code == 0
    assert verdicts(result) == [
        (r"original \[gptq 4 bit]", "passes", "0.30x", "the baseline is the original of smollm")
    ]
    assert gated("--baseline", "smollm", "--max-size-ratio", "0.29").exit_code == 6
    assert gated("--max-size-ratio", "0.3").exit_code == 4, "only an original was measured"


def verdicts(result: Result) -> list[tuple[str, ...]]:
    """Return the variant, the verdict, the number and the reason in each line of the gate's table."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in result.stdout.splitlines()]
    return [(line[2], line[3], line[6], line[8]) for line in lines[2:] if len(line) == 9]


def test_a_gate_that_opens_shows_its_numbers(filled: str) -> None:
    result = gate(filled, "--max-size-ratio", "0.5", "--method", "fp16")
    assert result.exit_code == 0
    assert verdicts(result) == [("fp16", "passes", "0.50x", "-")]
    assert result.stdout.endswith("\n\nPasses: every checked variant meets all requirements. Variants: 1 passing.\n")


def test_a_gate_that_does_not_open_says_why(filled: str) -> None:
    result = gate(filled, "--max-size-ratio", "0.4", "--min-speedup", "1.5", "--max-quality-drop", "1%")
    assert result.exit_code == 6
    assert verdicts(result) == [
        ("fp16", "undecided", "1.00x as fast", "one launch: noise unknown"),
        ("fp16", "undecided", "-", "the quality was not scored"),
        ("fp16", "fails", "0.50x", "above the limit"),
        *[("int8", "fails", "-", "failed: out of memory")] * 3,
    ]
    assert result.stdout.endswith("\nFails. Variants: 2 failing.\n")
    assert "\n- the quality was not scored: score trained weights on data.\n" in result.stdout


def test_a_gate_that_can_not_decide_has_an_exit_code_of_its_own(filled: str) -> None:
    result = gate(filled, "--min-speedup", "1.5", "--method", "fp16")
    assert result.exit_code == 7
    conclusion = "Undecided: no variant fails, but not every requirement is shown to be met. Variants: 1 undecided."
    assert conclusion in result.stdout


def test_a_gate_for_programs(filled: str) -> None:
    result = gate(filled, "--preset", "mlperf", "--max-disk-ratio", "2", "--max-size-ratio", "0.5", "--json")
    assert result.exit_code == 6
    data = json.loads(result.stdout)
    assert (data["schema"], data["verdict"], data["exit_code"], data["preset"]) == (1, "fails", 6, "mlperf")
    assert data["demands"][0] == {
        "option": "--max-quality-drop",
        "device": "cpu",
        "limit": 0.01,
        "relative": True,
    }
    (size,) = (check for check in data["checks"] if (check["method"], check["option"]) == ("fp16", "--max-size-ratio"))
    assert (size["verdict"], size["value"], size["limit"], size["low"]) == ("passes", 0.5, 0.5, None)
    assert result.stderr == "Fails. Variants: 1 failing, 1 undecided.\n"


def test_a_preset_says_what_it_means(filled: str) -> None:
    result = gate(filled, "--preset", "mlperf-high", "--method", "fp16", "--device", "cpu")
    assert result.exit_code == 7
    assert "at least 99.9 % of the original's quality. MLPerf's closed division requires this" in result.stdout


def test_a_gate_of_the_gpu_leaves_no_variant_out(filled: str) -> None:
    store = open_store(filled)
    experiment = writing.experiment_id(store, "report devices")
    names = {"team": "alpha", "model": "yolo", "compress.role": "variant", "compress.batch_size": "1"}
    on_cpu, on_gpu = ({"status": "ok", f"compress.outcome.{device}": "ok"} for device in ("cpu", "gpu"))
    times = {"cpu/latency_p50_ms": 20.0, "gpu/latency_p50_ms": 10.0}
    faster = {"gpu/latency_ratio": 0.5, "gpu/latency_ratio_low": 0.45, "gpu/latency_ratio_high": 0.55, "gpu/pairs": 5.0}
    logged: dict[str, tuple[dict[str, str], dict[str, float]]] = {
        "original": (on_cpu | on_gpu, times),
        "on gpu": (on_gpu, {"gpu/latency_p50_ms": 5.0, **faster}),
        "on cpu": (on_cpu, {"cpu/latency_p50_ms": 5.0}),
        "unprepared": ({"status": "failed", "compress.reason": "no such layer"}, {}),
        "unfinished": ({}, {}),
    }
    for method, (tags, numbers) in logged.items():
        run_id = writing.start(store, experiment, method, {**names, "method": method, **tags})
        for name, number in numbers.items():
            MlflowClient(store.uri).log_metric(run_id, name, number)
        if tags:
            writing.end(store, run_id, succeeded=tags["status"] == "ok")

    def asked(*methods: str) -> Result:
        selection = [part for method in methods for part in ("--method", method)]
        return gate(filled, "--device", "gpu", "--min-speedup", "1.5", *selection, experiment="report devices")

    assert asked("on gpu").exit_code == 0
    assert verdicts(asked("on cpu")) == [("on cpu", "undecided", "-", "it was not measured")]
    assert verdicts(asked("unprepared")) == [("unprepared", "fails", "-", "failed: no such layer")]
    assert verdicts(asked("unfinished"))[0][:2] == ("unfinished", "undecided")
    codes = {method: asked("on gpu", method).exit_code for method in ("on cpu", "unprepared", "unfinished")}
    assert codes == {"on cpu": 7, "unprepared": 6, "unfinished": 7}
    assert asked().exit_code == 6

    table = report(filled, "-e", "report devices", "--device", "gpu", "--json")
    assert methods(table) == ["original", "on gpu"], "the table shows what was measured on this device only"


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["--preset", "mlperf", "--method", "original"], 4, "only originals were measured"),
        ([], 2, "No requirement was given."),
        (["--preset", "mlperf", "--max-quality-drop", "1%"], 2, "Give only one"),
        (["--max-quality-drop", "one"], 2, "is not a valid quality drop"),
        (["--min-speedup", "0"], 2, "0"),
        (["--max-size-ratio", "-1"], 2, "-1"),
    ],
)
def test_what_a_gate_is_not_asked(filled: str, args: list[str], code: int, message: str) -> None:
    result = gate(filled, *args)
    assert result.exit_code == code
    assert message in result.stderr


def test_a_kept_comparison_is_updated_and_not_doubled(filled: str) -> None:
    for _ in range(2):
        result = report(filled, "-e", "report hw1", "--log")
        assert result.exit_code == 0, result.stderr
    client = MlflowClient(filled)
    experiment = client.get_experiment_by_name("report hw1")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id], "tags.`compress.role` = 'comparison'")
    assert (run.info.run_name, run.info.status) == ("comparison", "FINISHED")
    files = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
    assert files == {"comparison.md", "comparison.html", "comparison.png"}
    assert "3 rows of 2 teams" in client.get_experiment(experiment.experiment_id).tags["mlflow.note.content"]
    assert len(methods(report(filled, "-e", "report hw1", "--json"))) == 3  # a stored comparison is not a row


README = "# Ours\n\n<!-- compress-report: begin -->\n<!-- compress-report: end -->\n\nthe end\r\n"


def test_a_readme_is_updated_once(filled: str) -> None:
    file = Path("README.md")
    file.write_bytes(README.encode())
    command = ["-e", "report hw1", "--update", "README.md"]
    assert report(filled, *command, "--check").exit_code == 5
    assert file.read_bytes() == README.encode()
    assert report(filled, *command).exit_code == 0
    updated = file.read_bytes()
    assert updated.startswith(b"# Ours\n\n<!-- compress-report: begin -->")
    assert updated.endswith(b"<!-- compress-report: end -->\n\nthe end\r\n")
    assert b"fp16" in updated
    checked = report(filled, *command, "--check")
    assert (checked.exit_code, checked.stderr) == (0, "README.md is up to date\n")
    assert report(filled, *command).exit_code == 0
    assert file.read_bytes() == updated


def test_a_table_keeps_its_language_by_default(filled: str) -> None:
    Path("README.md").write_text(f"{BEGIN}\n\n| Модель | Метод |\n|---|---|\n\n{END}\n")
    assert report(filled, "-e", "report hw1", "--update", "README.md").exit_code == 0
    assert "Размер весов" in Path("README.md").read_text()
    assert report(filled, "-e", "report hw1", "--update", "README.md", "--lang", "en").exit_code == 0
    assert "Weight size" in Path("README.md").read_text()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b"no table here\n", "README.md"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"| a |\n" * 10**6, "README.md is too large: it has 6 MiB; a text with tables may have 4 MiB."),
    ],
)
def test_a_readme_that_takes_no_table(filled: str, content: bytes | None, message: str) -> None:
    if content is not None:
        Path("README.md").write_bytes(content)
    result = report(filled, "-e", "report hw1", "--update", "README.md")
    assert result.exit_code != 0
    assert message in result.stderr
    assert content is None or Path("README.md").read_bytes() == content


def test_options_before_a_command_are_not_lost_in_silence(filled: str) -> None:
    result = report(filled, "-e", "report hw1", "gate", "--min-speedup", "1")
    assert result.exit_code == 2
    assert "Put options after the command" in result.stderr


def test_files_are_written_and_nothing_is_printed(filled: str, tmp_path: Path) -> None:
    outputs = ["table.md", "table.CSV", "table.json", "page.html", "table.tex", "chart.png", "book.xlsx"]
    result = report(filled, "-e", "report hw1", *(part for name in outputs for part in ("-o", name)))
    assert result.exit_code == 0
    assert result.stdout == ""
    assert result.stderr.splitlines() == [f"Wrote {name}" for name in outputs]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(outputs)
    assert (tmp_path / "table.md").read_text(encoding="utf-8").startswith("| Team")
    assert len(json.loads((tmp_path / "table.json").read_text(encoding="utf-8"))["rows"]) == 3
    assert (tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert "\\begin{tabular}" in (tmp_path / "table.tex").read_text(encoding="utf-8")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "book.xlsx").read_bytes().startswith(b"PK")


def test_a_missing_library_is_reported_before_the_server_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    result = report("http://127.0.0.1:1", "-e", "x", "-o", "book.xlsx")
    assert result.exit_code == 1
    assert 'pip install "mlflow-compress[xlsx]"' in result.stderr


def test_files_and_json(filled: str, tmp_path: Path) -> None:
    result = report(filled, "-e", "report hw1", "-o", "table.json", "--json")
    assert result.stdout == (tmp_path / "table.json").read_text(encoding="utf-8")


def test_a_link_stays_a_link(filled: str, tmp_path: Path) -> None:
    (tmp_path / "link.md").symlink_to(tmp_path / "real.md")
    assert report(filled, "-e", "report hw1", "-o", "link.md").exit_code == 0
    assert (tmp_path / "link.md").is_symlink()
    assert (tmp_path / "real.md").is_file()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "Give --experiment NAME"),
        (["-e", "x", "-o", "table.mdd"], "Did you mean '.md'"),
        (["-e", "x", "-o", "table"], "Unknown file suffix"),
        (["-e", "x", "-o", "no/such/table.md"], "the folder 'no/such' does not exist"),
        (["-e", "x", "-o", "folder.md"], "is a folder"),
        (["-e", "x", "--lang", "de"], "'de' is not one of 'en', 'ru'"),
        (["--experimnt", "x"], "--experiment"),
    ],
)
def test_a_wrong_option_is_reported_before_the_server_is_asked(args: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "folder.md").mkdir()
    result = report("http://127.0.0.1:1", *args)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert message in result.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["-e", "report hw2"], "Did you mean 'report hw1'"),
        (["-e", "report empty"], "There are no results in 'report empty' yet. Measure a model"),
        (["-e", "report hw1", "--team", "alhpa"], "Did you mean 'alpha'"),
    ],
)
def test_what_is_not_there(filled: str, args: list[str], message: str) -> None:
    result = report(filled, *args, "-o", "table.md")
    assert result.exit_code == 4
    assert message in result.stderr
    assert not Path("table.md").exists()


def test_no_store_is_made_by_asking(tmp_path: Path) -> None:
    result = report(f"sqlite:///{tmp_path / 'none.db'}", "-e", "x")
    assert result.exit_code == 4
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_leaves_nothing_behind(
    filled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    result = report(filled, "-e", "report hw1", "-o", "table.md")
    assert result.exit_code == 1
    assert "No space left on device" in result.stderr
    assert list(tmp_path.iterdir()) == []


def python(code: str, *args: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    root = str(Path(__file__).parents[2])
    env = {**os.environ, "PYTHONPATH": root, **environment}
    return subprocess.run([sys.executable, *code.split("\n", 1), *args], env=env, capture_output=True, check=False)


def test_as_a_program(filled: str) -> None:
    """Run the real command in an ASCII terminal: it still prints Cyrillic."""
    args = ["-m\nmlflow_compress.cli.report", "-e", "report hw1", "--lang", "ru"]
    done = python(*args, MLFLOW_TRACKING_URI=filled, PYTHONIOENCODING="ascii", LC_ALL="C")
    assert done.returncode == 0, done.stderr
    assert "Команда" in done.stdout.decode()
    assert done.stderr == b""


def test_a_report_never_imports_a_framework(filled: str) -> None:
    code = (
        "import sys; from mlflow_compress.cli.report import main\n"
        "main(sys.argv[1:], standalone_mode=False)\n"
        "heavy = {'torch', 'transformers', 'matplotlib', 'ultralytics'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = python(f"-c\n{code}", "-e", "report hw1", MLFLOW_TRACKING_URI=filled)
    assert done.returncode == 0, done.stderr


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from mlflow_compress.cli.report import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "heavy = {'mlflow', 'pydantic', 'numpy', 'torch'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = python(f"-c\n{code}")
    assert done.returncode == 0, done.stderr
    assert b"--experiment" in done.stdout


def bring(uri: str, *args: str) -> Result:
    return CliRunner().invoke(main, ["import", *args, "--tracking-uri", uri], catch_exceptions=False)


def test_hand_made_tables_become_rows(tracking_uri: str) -> None:
    tables = Path(__file__).parents[1] / "course_tables"
    trial = bring(tracking_uri, str(tables / "table-43.md"), "-e", "report by hand", "--team", "ner", "--dry-run")
    assert trial.exit_code == 0
    assert "cpu/latency_p50_ms = 166.7" in trial.stdout
    assert "report by hand" not in reading.experiments(open_store(tracking_uri))

    args = [str(tables / "table-43.md"), "-e", "report by hand", "--team", "ner"]
    assert bring(tracking_uri, *args).stdout == "5 rows stored, 0 already stored.\n"
    assert bring(tracking_uri, *args).stdout == "0 rows stored, 5 already stored.\n"
    result = report(tracking_uri, "-e", "report by hand", "--method", "Quantized INT8")
    assert "Quantized INT8 (by hand)" in result.stdout
    assert "424.00 MB (0.31x)" in result.stdout


def test_rows_that_a_file_no_longer_holds_are_reported(tracking_uri: str, tmp_path: Path) -> None:
    file, args = tmp_path / "README.md", [str(tmp_path / "README.md"), "-e", "edited by hand", "--team", "t"]
    text = "## Size\n\n| Model | Method | RAM (MB) |\n|---|---|---|\n| m | x | 1 |\n| m | y | 2 |\n"
    file.write_text(text)
    assert "earlier imports" not in bring(tracking_uri, *args).stderr
    file.write_text(text.replace("| 1 |", "| 3 |"))
    assert "earlier imports" not in bring(tracking_uri, *args).stderr
    assert "earlier imports" not in bring(tracking_uri, *args[:-1], "another").stderr
    file.write_text(text.replace("## Size", "## Memory"))
    warning = "2 rows from earlier imports of this file and team are no longer in the file"
    assert warning in bring(tracking_uri, *args).stderr
    store = open_store(tracking_uri)
    experiment = store.client.get_experiment_by_name("edited by hand")
    assert experiment is not None
    assert "compress-report --experiment 'edited by hand'" in experiment.tags["mlflow.note.content"]


def test_unread_cells_are_reported_and_a_scale_can_be_given(tracking_uri: str) -> None:
    args = [str(Path(__file__).parents[1] / "course_tables" / "table-17.md"), "-e", "scales", "--team", "qwen"]
    imported = bring(tracking_uri, *args)
    assert (
        "table-17.md, line 3, row 1, column 8 (Качество (PPL, BLEU, Accuracy)): 'BLEU on CPU: 0.635248;"
        in imported.stderr
    )
    assert "add --scale bleu=share or --scale bleu=percent" in imported.stderr
    assert bring(tracking_uri, *args, "--scale", "bleu=share").stdout == "1 rows stored, 0 already stored.\n"
    assert "63.52 BLEU" in report(tracking_uri, "-e", "scales").stdout
    refused = bring(tracking_uri, *args, "--scale", "blue=share")
    assert (refused.exit_code, "there is no metric 'blue'" in refused.stderr) == (2, True)


def test_files_of_the_same_name_are_distinguished(tracking_uri: str, tmp_path: Path) -> None:
    files = [tmp_path / folder / "README.md" for folder in "ab"]
    for size, file in enumerate(files, 1):
        file.parent.mkdir()
        file.write_text(f"| Model | Method | RAM (MB) |\n|---|---|---|\n| m | x | {size} |\n")
    args = [*map(str, files), "-e", "two files", "--team", "t"]
    assert bring(tracking_uri, *args).stdout == "2 rows stored, 0 already stored.\n"
    assert bring(tracking_uri, *args).stdout == "0 rows stored, 2 already stored.\n"


def test_rows_need_a_team_and_a_file(tracking_uri: str) -> None:
    file = str(Path(__file__).parents[1] / "course_tables" / "table-43.md")
    assert "Give --team NAME" in bring(tracking_uri, file, "-e", "report by hand").stderr
    refused = bring(tracking_uri, "none.md", "-e", "report by hand", "--team", "ner")
    assert "The file none.md does not exist." in refused.stderr
