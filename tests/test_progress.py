from __future__ import annotations

import io

import pytest

from mlflow_compress import progress
from mlflow_compress.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Give a clock that is set by hand."""
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
    shown = Progress(stream)
    shown.begin("yolo11n, fp16")
    shown.event({"stage": "loading"})
    shown.event({"stage": "timing on cpu"})
    for second in range(1, 26):
        now[0] = 1000.0 + second
        shown.event(counted(second))
    shown.end("ok, 26 s")
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
    shown = Progress(stream)
    shown.begin("a model with a name that is rather long, fp16")
    shown.event({"stage": "loading"})
    shown.event(counted(25))
    shown.end("ok, 26 s")
    *changing, last = stream.getvalue().split("\r\x1b[2K")[1:]
    assert all(len(line) <= 59 and "\n" not in line for line in changing)
    assert changing[0] == "a model with a name that is rather long, fp16: loading"
    assert last == "a model with a name that is rather long, fp16: ok, 26 s\n"


def test_the_bar_fills(now: list[float]) -> None:
    shown = Terminal()
    bar = Progress(shown)
    bar.begin("x")
    for done in (0, 25, 50, 70):
        bar.event(counted(done))
    lines = shown.getvalue().split("\r\x1b[2K")[1:]
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


def test_what_is_not_known_is_not_told() -> None:
    stream = Terminal()
    shown = Progress(stream)
    shown.event(counted(1, left=None))
    assert "left" not in stream.getvalue()
    shown.event({})


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_quiet_tells_ends_only(stream: io.StringIO) -> None:
    shown = Progress(stream, quiet=True)
    shown.begin("yolo11n, fp16")
    shown.event({"stage": "loading"})
    shown.event(counted(3))
    shown.end("ok, 26 s")
    assert stream.getvalue() == "yolo11n, fp16: ok, 26 s\n"


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_a_hostile_name_steers_nothing(stream: io.StringIO) -> None:
    shown = Progress(stream)
    hostile = "\x1b]0;title\x07\x1b[2J\r\nroot# \u202eevil\x9b"
    shown.begin(hostile)
    shown.event({"stage": hostile})
    shown.end(hostile)
    left = stream.getvalue().replace("\r\x1b[2K", "")
    assert all(char.isprintable() or char == "\n" for char in left)
    assert left.count("\n") == (1 if isinstance(stream, Terminal) else 2)
