from __future__ import annotations

import io

import pytest

from mlflow_compress.records import Result, Status, Variant
from mlflow_compress.sweeping import progress
from mlflow_compress.sweeping.progress import Board, Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Replace the clock with one that the test sets."""
    moment = [1000.0]

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return moment[0]

    monkeypatch.setattr(progress, "time", Clock)
    return moment


def counted(done: int, total: int | None = 50, left: float | None = 12.0) -> dict[str, object]:
    return {"stage": "timing on cpu", "done": done, "total": total, "seconds_left": left}


def test_a_log_has_a_line_for_each_stage_and_then_one_every_ten_seconds(now: list[float]) -> None:
    stream = io.StringIO()
    progress = Progress(stream)
    progress.begin("yolo11n, fp16")
    progress.event({"stage": "loading"})
    progress.event({"stage": "timing on cpu"})
    for second in range(1, 26):
        now[0] = 1000.0 + second
        progress.event(counted(second))
    progress.end("ok, 26 s")
    assert stream.getvalue().splitlines() == [
        "yolo11n, fp16: loading",
        "yolo11n, fp16: timing on cpu",
        f"yolo11n, fp16: timing on cpu [{'#' * 5}{'.' * 19}] 10/50, 12 s left",
        f"yolo11n, fp16: timing on cpu [{'#' * 10}{'.' * 14}] 20/50, 12 s left",
        "yolo11n, fp16: ok, 26 s",
    ]


def test_a_terminal_has_one_line_that_changes_and_one_that_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    stream = Terminal()
    progress = Progress(stream)
    progress.begin("a model with a name that is rather long, fp16")
    progress.event({"stage": "loading"})
    progress.event(counted(25))
    progress.end("ok, 26 s")
    *changing, last_line = stream.getvalue().split("\r\x1b[2K")[1:]
    assert all(len(line) <= 59 and "\n" not in line for line in changing)
    assert changing[0] == "a model with a name that is rather long, fp16: loading"
    assert last_line == "a model with a name that is rather long, fp16: ok, 26 s\n"


def test_the_bar_fills(now: list[float]) -> None:
    terminal = Terminal()
    bar = Progress(terminal)
    bar.begin("x")
    for done in (0, 25, 50, 70):
        bar.event(counted(done))
    lines = terminal.getvalue().split("\r\x1b[2K")[1:]
    assert [line.count("#") for line in lines] == [0, 12, 24, 24]
    assert [line.count(".") for line in lines] == [24, 12, 0, 0]


def test_a_warm_up_has_no_end_that_is_known() -> None:
    stream = Terminal()
    Progress(stream).event({"stage": "timing on cpu", "done": 3, "total": None, "seconds_left": None})
    assert stream.getvalue().endswith("timing on cpu (warm-up, call 3)")


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s left"), (59.4, "59 s left"), (61, "1 min 1 s left")])
def test_a_duration_is_read_easily(seconds: float, text: str) -> None:
    stream = Terminal()
    Progress(stream).event(counted(1, left=seconds))
    assert stream.getvalue().endswith(text)


def test_an_unknown_time_left_is_not_shown() -> None:
    stream = Terminal()
    progress = Progress(stream)
    progress.event(counted(1, left=None))
    assert "left" not in stream.getvalue()
    progress.event({})


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_quiet_shows_only_how_variants_end(stream: io.StringIO) -> None:
    progress = Progress(stream, quiet=True)
    progress.begin("yolo11n, fp16")
    progress.event({"stage": "loading"})
    progress.event(counted(3))
    progress.end("ok, 26 s")
    assert stream.getvalue() == "yolo11n, fp16: ok, 26 s\n"


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_a_hostile_name_steers_nothing(stream: io.StringIO) -> None:
    progress = Progress(stream)
    hostile = "\x1b]0;title\x07\x1b[2J\r\nroot# \u202eevil\x9b"
    progress.begin(hostile)
    progress.event({"stage": hostile})
    progress.end(hostile)
    left = stream.getvalue().replace("\r\x1b[2K", "")
    assert all(char.isprintable() or char == "\n" for char in left)
    assert left.count("\n") == (1 if isinstance(stream, Terminal) else 2)


def result(status: Status = "ok", seconds: float = 60.0) -> Result:
    return Result(Variant("m", "x", "t", "python", "m.py"), status, started_s=0.0, ended_s=seconds)


def test_a_board_shows_what_is_done_what_runs_where_and_the_time_left() -> None:
    board = Board(io.StringIO(), quiet=True)
    board.begin(10, ["node-a", "node-b"])
    assert board.line() == "0/10 done"
    board.event("node-b", "yolo11n, bf16", {"stage": "saving"})
    board.event("node-a", "yolo11n, fp16", {**counted(25)})
    board.done(result())
    board.done(result("failed"))
    expected = "2/10 done, 1 failed, about 4 min 0 s left | node-a: yolo11n, fp16: timing on cpu [############"
    assert board.line().startswith(expected)
    assert board.line().endswith("node-b: yolo11n, bf16: saving")
    board.free("node-a")
    board.free("node-b")
    assert board.line() == "2/10 done, 1 failed, about 4 min 0 s left"


def test_a_board_fits_a_terminal_and_a_log(now: list[float]) -> None:
    terminal, log = Terminal(), io.StringIO()
    for stream in (terminal, log):
        board = Board(stream)
        board.begin(2, ["a\x1b[2J"])
        for second in range(21):
            now[0] += 1
            board.event("a", "m" * 500, counted(second))
        board.event("a", "m", {"stage": "x", "warning": "no network\x1b[1m"})
        board.tell("gone")
    lines = log.getvalue().splitlines()
    assert len(lines) == 1 + 3 + 2  # the beginning, one every ten seconds, the warning, the end
    assert lines[-2:] == ["m: WARNING: no network\ufffd[1m", "gone"]
    assert "\x1b" not in log.getvalue()
    assert max(len(part) for part in terminal.getvalue().split("\r")) < 120


def test_of_what_takes_no_time_nothing_is_said(now: list[float]) -> None:
    stream = io.StringIO()
    progress = Progress(stream, patience=2.0)
    progress.begin("table.md")
    progress.event(counted(1))
    now[0] += 2
    progress.event(counted(25))
    progress.close()
    assert stream.getvalue() == f"table.md: timing on cpu [{'#' * 12}{'.' * 12}] 25/50, 12 s left\n"


def test_a_bar_is_taken_away(now: list[float]) -> None:
    stream = Terminal()
    progress = Progress(stream)
    progress.begin("table.md")
    progress.event(counted(25))
    progress.close()
    assert stream.getvalue().endswith("\r\x1b[2K")
