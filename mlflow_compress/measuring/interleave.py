"""`alternate`: measure a variant and its original in turns, so that a disturbance affects both.

On a shared machine, two latencies measured one after the other also differ by what happened in between. Here both
models are in memory, each in its own process; one makes some calls while the other waits, then they swap. Rounds are
short, and both run on the same cores, since a core's speed changes from second to second. The order changes from round
to round (ABBA). Two processes also have a lasting difference, the placement of their memory: so there are several pairs
of fresh processes, and each pair gives one ratio.

Source: paired design; Kalibera and Jones, Rigorous Benchmarking in Reasonable Time, 2013.
"""

from __future__ import annotations

import dataclasses
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_compress.errors import WorkerError
from mlflow_compress.measuring import launches
from mlflow_compress.measuring.one_process import Listener
from mlflow_compress.measuring.same_cores import SameCores, wait_until_idle
from mlflow_compress.measuring.worker import SCORE, VARIANT
from mlflow_compress.measuring.worker_process import Worker
from mlflow_compress.meters.latency import parts
from mlflow_compress.meters.timeline import Timeline
from mlflow_compress.percentiles import launch_interval, launch_mean, percentile
from mlflow_compress.records import Budget, CautionKind, Outcome, Part, Variant, metric_group, write_json

_FEWEST_ROUNDS = 4  # of a pair, ABBA twice
_LONGEST_ROUND_MS = 5.0  # or a few calls, if they take longer
_SHORTEST_ROUND_MS = 1e-3
_SPARE_SECONDS = 60.0  # extra time of a further pair, compared with the first one
_WHOLE_CALL = ("latency", "latency_events")  # medians that do not belong to a stage
_OUT_OF_MEMORY = "out of memory"  # part of the reason of every such failure

NOT_IN_TURNS = CautionKind(
    "not_in_turns",
    short={"en": "not measured in turns with the original", "ru": "измерено не поочерёдно с оригиналом"},
    message={
        "en": "{group}: measured alone, not in turns with the original: {reason}",
        "ru": "{group}: измерено отдельно, а не поочерёдно с оригиналом: {reason}",
    },
    advice={
        "en": "Its ratio to the original includes changes of the machine between the two measurements.",
        "ru": "В отношение к оригиналу входит то, что изменилось на машине между измерениями.",
    },
)


@dataclass(frozen=True)
class Side:
    """One of the two models that take turns: the variant and its prepared folder."""

    variant: Variant
    folder: Path


@dataclass(frozen=True)
class Pair:
    """The parts of the two processes of a pair.

    Attributes:
        own: The variant's part; None if it was ended because the original failed.
        base: The original's part; None if the variant failed first.
        planned: Number of pairs that share the budget.
    """

    own: Part | None
    base: Part | None
    planned: int


def alternate(own: Side, base: Side, device: str, score: bool, listener: Listener) -> Part:
    """Measure a variant on a device in turns with its original.

    Args:
        own: The variant.
        base: The original.
        device: `cpu` or an accelerator.
        score: Whether the variant's quality is scored, too.
        listener: Receives the events of both.

    Returns:
        The variant's part. Besides its own numbers it has `latency_ratio`, its 95 % interval for three or more pairs,
        the numbers of pairs and rounds, and the ratio of each stage of the call (`token_ratio`). If the two can't be
        measured together, it is the part of the variant alone, with a caution.
    """
    group, started = metric_group(device), time.monotonic()
    first = _pair(own, base, device, SCORE if score else "", 1, 0, listener)
    if reason := _why_alone(first):
        return alone(own, device, score, listener, reason)
    assert first.own is not None
    if first.own.outcome.status != "ok":
        return first.own
    if failure := _why_unusable(first, group):
        return Part(Outcome("failed", failure))
    seconds = time.monotonic() - started + _SPARE_SECONDS
    hurried, hurried_base = (Side(launches.in_seconds(side.variant, seconds), side.folder) for side in (own, base))
    pairs, failures = [first], list[str]()
    for number in range(2, first.planned + 1):
        if len(failures) == launches.MOST_FAILURES:
            break
        pair = _pair(hurried, hurried_base, device, f"{number}/{first.planned}", number, first.planned, listener)
        if failure := _why_unusable(pair, group):
            failures.append(failure)
        else:
            pairs.append(pair)
    own_parts = [pair.own for pair in pairs if pair.own is not None]
    base_parts = [pair.base for pair in pairs if pair.base is not None]
    part = launches.together(own_parts, first.planned, failures, group, own.variant.batch_size)
    return _compared(part, own_parts, base_parts, group)


def alone(own: Side, device: str, score: bool, listener: Listener, reason: str) -> Part:
    """Measure a variant without its original, with a caution that gives the reason."""
    variant = dataclasses.replace(own.variant, interleave=False)
    part = launches.measure(variant, own.folder, device, score, listener)
    caution = NOT_IN_TURNS.of(group=metric_group(device), reason=reason)
    return dataclasses.replace(part, cautions=(*part.cautions, caution))


def _pair(own: Side, base: Side, device: str, launch: str, number: int, planned: int, listener: Listener) -> Pair:
    """Start both at the same time, let them make their calls in turns, and wait until they end.

    Args:
        own: The variant.
        base: The original.
        device: `cpu` or an accelerator.
        launch: Argument of `Worker`: in the first pair the variant's process measures everything.
        number: Number of the pair, from 1.
        planned: Number of pairs that share the budget; 0: this is the first pair, which determines it.
        listener: Receives the events of both.
    """
    started, verb, base_launch = time.monotonic(), "time" if planned else "measure", launch if planned else "1/1"
    try:
        for side in (own, base):  # variants with other settings share the original's folder
            write_json(side.folder / VARIANT, side.variant)
        with ExitStack() as stack:
            base_worker = stack.enter_context(Worker("time", base.variant, base.folder, device, base_launch))
            own_worker = stack.enter_context(Worker(verb, own.variant, own.folder, device, launch))
            timeline = stack.enter_context(Timeline(own_worker.pid))
            own_turns, base_turns = Turns(own_worker, listener), Turns(base_worker, listener)
            if not own_turns.wait():
                return Pair(_left(own_worker), None, 1)
            if not base_turns.wait():
                return Pair(None, _left(base_worker), 1)
            restored_s = time.monotonic() - started
            cores = SameCores(own.variant.threads, number)
            planned = _take_turns(own_turns, base_turns, own.variant.budget, restored_s, planned, cores)
            base_turns.finish()
            own_turns.finish()
            own_part, base_part = launches.without_plan(_left(own_worker)), _left(base_worker)
    except OSError as error:  # the disk is full
        return Pair(Part(Outcome("failed", str(error))), None, 1)
    samples = own_part.samples if verb == "time" else {**own_part.samples, **timeline.samples(metric_group(device))}
    return Pair(dataclasses.replace(own_part, samples=samples), base_part, planned)


def _left(worker: Worker) -> Part:
    """Return the part of a worker; a failed one, with the reason, if it wrote none."""
    try:
        return worker.part()
    except WorkerError as error:
        return Part(Outcome("failed", str(error)))


class Turns:
    """A worker that makes its calls in turns."""

    def __init__(self, worker: Worker, listener: Listener) -> None:
        self.pid = worker.pid
        self._worker = worker
        self._events: Iterator[Mapping[str, Any]] = worker.events()
        self._listener = listener
        self.rounds = 0
        self.count = 0
        self.seconds = 0.0
        self.call_ms = 0.0
        self.alive = True

    def wait(self) -> bool:
        """Wait until the worker waits for its turn; return False if it ended instead."""
        for event in self._events:
            if "turn" in event:
                turn = event["turn"]
                self.count, self.seconds, self.call_ms = turn["count"], turn["seconds"], turn["call_ms"]
                return True
            self._listener(event)
        self.alive = False
        return False

    def warm_up(self) -> float:
        """Make the worker run its first call and warm up; return the seconds of both."""
        started = time.monotonic()
        self._worker.tell("1")
        self.wait()
        return time.monotonic() - started

    def go(self, milliseconds: float) -> None:
        """Make the worker run one round of calls that takes about `milliseconds`."""
        self._worker.tell(repr(max(milliseconds, _SHORTEST_ROUND_MS)))
        self.rounds += 1
        self.wait()
        wait_until_idle(self.pid)

    def finish(self) -> None:
        """Make the worker finish its work, and wait until it ends."""
        self._worker.tell("0")
        for event in self._events:
            self._listener(event)


def _take_turns(own: Turns, base: Turns, budget: Budget, restored_s: float, planned: int, cores: SameCores) -> int:
    """Make both warm up, and run rounds until their share of the budget is used.

    Args:
        own: The variant.
        base: The original.
        budget: Budget of all pairs.
        restored_s: Seconds until both were restored.
        planned: Number of pairs that share the budget; 0: not known yet.
        cores: Cores on which both make their calls.

    Returns:
        The number of pairs that share the budget.
    """
    for turns in (base, own):
        restored_s += max(0.0, turns.warm_up() - budget.warmup_min_seconds)
    planned = planned or budget.launches_that_fit(restored_s, max(own.call_ms, base.call_ms) / 1000)
    share = budget.share(planned)
    round_ms = min(_LONGEST_ROUND_MS, share.min_seconds * 1000 / _FEWEST_ROUNDS)
    while not _enough(share, own, base):
        cores.hold(own.pid, base.pid)
        order = (base, own) if own.rounds % 2 == 0 else (own, base)
        for turns in order:
            turns.go(round_ms)
    cores.release(own.pid, base.pid)
    return planned


def _enough(budget: Budget, own: Turns, base: Turns) -> bool:
    if not (own.alive and base.alive):
        return True
    if own.rounds < _FEWEST_ROUNDS or own.rounds % 2:  # both are first equally often
        return False
    counts, seconds = (own.count, base.count), (own.seconds, base.seconds)
    full = min(counts) >= budget.min_iterations and min(seconds) >= budget.min_seconds
    return full or max(seconds) >= budget.max_seconds


def _why_alone(pair: Pair) -> str:
    """Return why the two can't be measured together although the variant alone might be; empty if they can."""
    if pair.base is not None and pair.base.outcome.status != "ok":
        return f"the original: {pair.base.outcome.reason}"
    if pair.own is not None and _OUT_OF_MEMORY in pair.own.outcome.reason:
        return f"with both in memory: {pair.own.outcome.reason}"
    return ""


def _why_unusable(pair: Pair, group: str) -> str:
    """Return why a pair has no valid ratio; empty if it has one. The model's own code may have written the parts."""
    for part in (pair.own, pair.base):
        if part is not None and (reason := launches.why_unusable(part, group)):
            return reason
    if pair.own is None or pair.base is None:
        return "one of the two processes wrote no result"
    try:
        ratios = _round_ratios(pair.own, pair.base, group)
    except (LookupError, ValueError, ArithmeticError):
        ratios = []
    is_valid = ratios and all(0 < ratio < math.inf for ratio in ratios)
    return "" if is_valid else "measure wrote no latencies of the rounds"


def _compared(part: Part, own: Sequence[Part], base: Sequence[Part], group: str) -> Part:
    """Add the comparison with the original to a variant's part: the mean of the pairs' ratios, and its interval.

    One pair has no interval, however many rounds it has: pairs differ by more than rounds do.
    """
    rounds = [_round_ratios(own_part, base_part, group) for own_part, base_part in zip(own, base, strict=True)]
    ratios = [percentile(pair_ratios, 50) for pair_ratios in rounds]
    numbers = {
        f"{group}/latency_ratio": launch_mean(ratios),
        f"{group}/pairs": float(len(ratios)),
        f"{group}/rounds": float(sum(map(len, rounds))),
    }
    if bounds := launch_interval(ratios):
        numbers[f"{group}/latency_ratio_low"], numbers[f"{group}/latency_ratio_high"] = bounds
    numbers |= _stage_ratios(own, base, group)
    samples = {
        f"{group}/original_{name}": [value for base_part in base for value in base_part.samples[f"{group}/{name}"]]
        for name in ("latency_ms", "round_sizes")
    }
    samples[f"{group}/pair_sizes"] = [float(len(pair_ratios)) for pair_ratios in rounds]
    return dataclasses.replace(part, measurements={**part.measurements, **numbers}, samples={**part.samples, **samples})


def _stage_ratios(own: Sequence[Part], base: Sequence[Part], group: str) -> dict[str, float]:
    """Return the mean over pairs of the ratio of each stage's medians, by metric name, for stages that all have."""
    shared = set.intersection(*(set(part.measurements) for part in (*own, *base)))
    stages = {name: match[1] for name in shared if (match := re.fullmatch(rf"{group}/(\w+)_p50_ms", name))}
    ratios = {}
    for name, stage in sorted(stages.items()):
        medians = [
            (part.measurements[name], base_part.measurements[name]) for part, base_part in zip(own, base, strict=True)
        ]
        if stage not in _WHOLE_CALL and all(min(pair) > 0 for pair in medians):
            ratios[f"{group}/{stage}_ratio"] = launch_mean([one / other for one, other in medians])
    return ratios


def _round_ratios(own: Part, base: Part, group: str) -> list[float]:
    """Return the ratio of the two medians of each round of a pair."""
    rounds = zip(rounds_of(own.samples, group), rounds_of(base.samples, group), strict=False)
    return [percentile(a, 50) / percentile(b, 50) for a, b in rounds]


def rounds_of(samples: Mapping[str, list[float]], group: str) -> list[Sequence[float]]:
    """Return the latencies of each round, in milliseconds."""
    return parts(samples[f"{group}/latency_ms"], samples[f"{group}/round_sizes"])
