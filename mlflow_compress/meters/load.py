"""Measure a service under load: requests per second, percentiles of the latency, and the share of errors.

Covers: requests from one process with threads. With a rate, requests arrive at random moments (a Poisson process, as in
MLPerf's server scenario), whether or not earlier ones were answered, and a latency counts from the intended arrival: so
waiting in a queue is never left out, also not the wait for one of our own threads. With callers, each sends its next
request when it has the answer to the last one, and a latency counts from sending.
Does not cover: what the client can't send in time (a caution states that); further machines as clients.

Source: Tene, How NOT to Measure Latency, 2013, and wrk2 (coordinated omission); Lewis and Shedler, Simulation of
nonhomogeneous Poisson processes, 1979 (arrivals at a rate that changes); Reddi et al., MLPerf Inference, 2020.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Literal

from mlflow_compress.percentiles import carries, percentile
from mlflow_compress.records import Caution, CautionKind

Pattern = Literal["constant", "ramp", "spike"]
Send = Callable[[int], str]  # sends the request with this number; returns what went wrong, or nothing
Progress = Callable[[int, int | None, float | None], None]

TIME_LINE = "load.json"  # the table beside the result
COLUMNS = ("second", "requests", "errors", "p50_ms", "p95_ms")
_BURST = 0.4, 0.6  # of the time: the full load of `spike`
_CALM = 0.1  # of the full load: the rest of the time
_MOST_THREADS = 256
_PAUSE_SECONDS = 0.1  # of a caller after an error, so that a dead service is not flooded
_LATE_SECONDS = 0.01  # of the client itself
_TAILS = (50, 95, 99)

LOAD_ERRORS = CautionKind(
    "load_errors",
    short={"en": "some requests under load failed", "ru": "часть запросов под нагрузкой не выполнена"},
    message={
        "en": "{errors} of {requests} requests under load failed ({kinds}); percentiles are of the others",
        "ru": "под нагрузкой не выполнено запросов: {errors} из {requests} ({kinds}); процентили по остальным",
    },
    advice={"en": "Lower the load, or give the service more resources.",
            "ru": "Уменьшите нагрузку или дайте сервису больше ресурсов."},
)  # fmt: skip
LOAD_CLIENT = CautionKind(
    "load_client",
    short={"en": "the client could not send all requests in time", "ru": "клиент не успевал отправлять запросы"},
    message={
        "en": "the client was late by {late:.0f} ms with one request in a hundred: latencies under load contain that",
        "ru": "клиент опаздывал на {late:.0f} мс в одном запросе из ста: это входит во время под нагрузкой",
    },
    advice={"en": "Lower the rate, or run the client on another machine.",
            "ru": "Уменьшите частоту запросов или запустите клиент на другой машине."},
)  # fmt: skip


@dataclass(frozen=True)
class Load:
    """The load on a service.

    Attributes:
        rate: Highest rate, in requests per second; 0: `callers` set the load.
        callers: Highest number of callers at the same time.
        pattern: `constant`; `ramp`: rises evenly from nothing; `spike`: a tenth, but all in the middle fifth.
        seconds: Duration.
        seed: Seed for the arrivals: two services with one seed get the same ones.
    """

    rate: float
    callers: int
    pattern: Pattern
    seconds: float
    seed: int = 0

    def __str__(self) -> str:
        """Describe it: `constant, 20 requests/s, 30 s`."""
        full = f"{self.rate:g} requests/s at random moments" if self.rate else f"{self.callers} callers"
        return f"{self.pattern}, {full}, {self.seconds:g} s"

    def arrivals(self) -> list[float]:
        """Return the intended moment of each request, in seconds, sorted.

        Moments of a Poisson process with rate 1 are mapped by the inverse of the expected number of requests.
        """
        generator = random.Random(self.seed)  # noqa: S311  (nothing secret)
        moments: list[float] = []
        count = generator.expovariate(1.0)
        while count < self.expected(self.seconds):
            moments.append(self._moment_of(count))
            count += generator.expovariate(1.0)
        return moments

    def expected(self, moment: float) -> float:
        """Return the expected number of requests until a moment."""
        if self.pattern == "ramp":
            return self.rate * moment**2 / (2 * self.seconds)
        if self.pattern == "constant":
            return self.rate * moment
        first, last = (share * self.seconds for share in _BURST)
        in_burst = min(max(moment - first, 0.0), last - first)
        return self.rate * (in_burst + _CALM * (moment - in_burst))

    def _moment_of(self, count: float) -> float:
        """Return when this number of requests is expected: the inverse of `expected`."""
        if self.pattern == "ramp":
            return math.sqrt(2 * self.seconds * count / self.rate)
        if self.pattern == "constant":
            return count / self.rate
        first, last = (share * self.seconds for share in _BURST)
        before, until = self.expected(first), self.expected(last)
        if count <= before:
            return count / (self.rate * _CALM)
        return first + (count - before) / self.rate if count <= until else last + (count - until) / (self.rate * _CALM)

    def shifts(self) -> list[tuple[float, float]]:
        """Return when each caller begins and stops, in seconds."""
        numbers = range(self.callers)
        if self.pattern == "ramp":
            return [(number * self.seconds / self.callers, self.seconds) for number in numbers]
        calm = self.callers if self.pattern == "constant" else max(1, round(_CALM * self.callers))
        first, last = (share * self.seconds for share in _BURST)
        return [(0.0, self.seconds) if number < calm else (first, last) for number in numbers]


@dataclass(frozen=True)
class Request:
    """One request: when it was due and answered, in seconds since the load began, and what went wrong."""

    due_s: float
    answered_s: float
    error: str = ""

    @property
    def latency_ms(self) -> float:
        """Its latency."""
        return (self.answered_s - self.due_s) * 1000


@dataclass(frozen=True)
class Outcome:
    """What happened under a load.

    Attributes:
        requests: All requests, in the order in which they were due.
        seconds: Until the last answer, but at least the duration of the load.
        late_s: How late the client itself was, for each request of a rate.
    """

    requests: Sequence[Request]
    seconds: float
    late_s: Sequence[float] = ()

    def latencies_ms(self) -> list[float]:
        """Return the latencies of the requests that succeeded."""
        return [request.latency_ms for request in self.requests if not request.error]

    def numbers(self) -> dict[str, float]:
        """Return the metrics; a percentile only if there are enough requests for its 95 % interval."""
        if not self.requests:
            return {}
        latencies = self.latencies_ms()
        tails = {f"load/p{rank}_ms": percentile(latencies, rank) for rank in _TAILS if carries(len(latencies), rank)}
        return {
            "load/requests_per_second": len(latencies) / self.seconds,
            "load/errors": 1 - len(latencies) / len(self.requests),
            **tails,
        }

    def cautions(self) -> list[Caution]:
        """Judge errors, and the client."""
        errors = [request.error for request in self.requests if request.error]
        cautions = []
        if errors:
            kinds = ", ".join(f"{errors.count(kind)} x {kind}" for kind in sorted(set(errors)))
            cautions.append(LOAD_ERRORS.of(errors=len(errors), requests=len(self.requests), kinds=kinds))
        if self.late_s and (late := percentile(self.late_s, 99)) > _LATE_SECONDS:
            cautions.append(LOAD_CLIENT.of(late=late * 1000))
        return cautions

    def table(self) -> dict[str, Any]:
        """Return the time line: a row for each second in which requests were due."""
        seconds: dict[int, list[Request]] = {}
        for request in self.requests:
            seconds.setdefault(int(request.due_s), []).append(request)
        rows = []
        for second, due in sorted(seconds.items()):
            latencies = [request.latency_ms for request in due if not request.error]
            tails = [percentile(latencies, rank) if latencies else None for rank in (50, 95)]
            rows.append([second, len(due), len(due) - len(latencies), *tails])
        return {"columns": list(COLUMNS), "data": rows}


def run(load: Load, connect: Callable[[], Send], timeout_s: float, progress: Progress) -> Outcome:
    """Put a load on a service. This ends at the latest twice the time limit of a request after the load.

    Args:
        load: The load.
        connect: Returns what sends requests over a connection of its own; called once in each thread.
        timeout_s: Time limit of one request.
        progress: Called with the requests so far, their number if it is known, and the seconds left.
    """
    drive = _open_loop if load.rate else _closed_loop
    requests, late_s = drive(load, connect, timeout_s, progress)
    requests.sort(key=lambda request: request.due_s)
    return Outcome(requests, max([load.seconds, *(request.answered_s for request in requests)]), late_s)


def _open_loop(
    load: Load, connect: Callable[[], Send], timeout_s: float, progress: Progress
) -> tuple[list[Request], list[float]]:
    """Send requests when they are due, whatever became of the earlier ones."""
    arrivals, late_s, own = load.arrivals(), list[float](), threading.local()

    def one(number: int, due_s: float) -> Request:
        if not hasattr(own, "send"):
            own.send = connect()
        error = own.send(number)
        return Request(due_s, time.monotonic() - began, error)

    pool = ThreadPoolExecutor(min(_MOST_THREADS, max(1, len(arrivals))))
    began = time.monotonic()
    try:
        futures = []
        for number, due_s in enumerate(arrivals):
            time.sleep(max(0.0, due_s - (time.monotonic() - began)))
            late_s.append(time.monotonic() - began - due_s)
            futures.append(pool.submit(one, number, due_s))
            progress(number, len(arrivals), load.seconds - due_s)
        done, _ = wait(futures, timeout=max(0.0, load.seconds + timeout_s - (time.monotonic() - began)))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    ended_s = time.monotonic() - began
    requests = [
        future.result() if future in done else Request(due_s, ended_s, "no answer at the end")
        for future, due_s in zip(futures, arrivals, strict=True)
    ]
    return requests, late_s


def _closed_loop(
    load: Load, connect: Callable[[], Send], timeout_s: float, progress: Progress
) -> tuple[list[Request], list[float]]:
    """Let each caller send its next request when it has an answer to the last one."""
    requests: list[Request] = []
    over = threading.Event()

    def caller(number: int, first_s: float, last_s: float) -> None:
        send, count = connect(), 0
        over.wait(first_s - (time.monotonic() - began))
        while (sent_s := time.monotonic() - began) < last_s and not over.is_set():
            error = send(number + count * load.callers)
            requests.append(Request(sent_s, time.monotonic() - began, error))
            count += 1
            if error:
                over.wait(_PAUSE_SECONDS)

    began = time.monotonic()
    threads = [
        threading.Thread(target=caller, args=(number, *shift), daemon=True)
        for number, shift in enumerate(load.shifts())
    ]
    for thread in threads:
        thread.start()
    while (elapsed := time.monotonic() - began) < load.seconds:
        progress(len(requests), None, load.seconds - elapsed)
        over.wait(min(0.25, load.seconds - elapsed))
    over.set()
    for thread in threads:
        thread.join(max(0.0, load.seconds + timeout_s - (time.monotonic() - began)))
    return list(requests), []
