"""Sweeps over many machines: the only module that knows Ray.

One variant is one task of Ray's. It asks for all processors and GPUs of one node, so that two measurements never share
a machine, whoever started them. Its progress and its files stream home, straight into the spool. When a node is lost,
its variant goes to another.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import operator
import platform
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from mlflow_compress.errors import RecipeError, WorkerError
from mlflow_compress.measuring import isolate
from mlflow_compress.measuring.combine import unmeasured
from mlflow_compress.measuring.measure_one import Run
from mlflow_compress.records import Result, Status, Variant, read_json, to_json
from mlflow_compress.sweeping import file_bundle, ray_node, resume
from mlflow_compress.sweeping.placement import Node, Placing
from mlflow_compress.tracking.models import names_model
from mlflow_compress.tracking.spool import Shipment
from mlflow_compress.version import __version__

if TYPE_CHECKING:
    from mlflow_compress.planning.order import Queue
    from mlflow_compress.sweeping.delivery import Delivery
    from mlflow_compress.sweeping.progress import Board
    from mlflow_compress.tracking.spool import Entry

_NICE = (
    "{}: what is measured there comes after other programs. Start Ray with RAY_worker_niceness=0 to have true latencies"
)
_UNREACHABLE = (
    "{}: the tracking server answers here, but not there. Nothing is lost by that: results go home through this command"
)
_EXTRA = 'pip install "mlflow-compress[ray]"'
_NOT_IMPORTED = ("failed to import", "mlflow_compress", "ModuleNotFoundError", "ImportError")  # what Ray says of it
_ANSWER_SECONDS = 5.0
_CONNECT_SECONDS = 30.0
_DESCRIBE_SECONDS = 120.0
_LOOK_SECONDS = 2.0  # between two looks at which nodes there are
_WAIT_SECONDS = 1.0
_STOP_SECONDS = 8.0
_GRACE_SECONDS = 30.0  # for a lost machine's successor to come
_MOST_ATTEMPTS = 4
_MOST_FAILURES = 3  # in a row; then a node is left alone
_MOST_WAITING = 8  # results that may wait for the tracking server, before machines wait, too
_UNREAD_ITEMS = 8  # that a node may be ahead of us


@dataclasses.dataclass(frozen=True)
class Task:
    """What is the same for all variants of a sweep.

    Attributes:
        tracking_uri: the tracking server's address.
        with_model: whether models come home.
        again: whether to measure what the experiment has already, too.
        auto_device: whether to measure on the GPU, too, wherever there is one.
        run: measures, on the node.
        grace_seconds: how long a lost machine's successor is waited for.
    """

    tracking_uri: str = ""
    with_model: bool = True
    again: bool = False
    auto_device: bool = False
    run: Run = isolate.run
    grace_seconds: float = _GRACE_SECONDS


def sweep(
    queue: Queue, address: str, task: Task, delivery: Delivery, board: Board, show: Callable[[Result], None]
) -> list[Result]:
    """Measure all variants that wait on the machines of a Ray cluster.

    Args:
        queue: the variants.
        address: of the cluster: `auto`, or HOST:PORT.
        task: what is the same for all.
        delivery: brings the results home.
        board: shows the progress.
        show: told of each result when it is home.

    Returns:
        The results as they came, without samples.

    Raises:
        RecipeError: there is no Ray, no cluster, or a node can't measure; nothing was run.
        WorkerError: the cluster is gone.
        StoreError: the server refused a result, and it could not be kept either.
    """
    with _connected(address) as ray:
        try:
            return _Sweep(ray, queue, task, delivery, board, show).run()
        except ray.exceptions.RayError as error:
            raise WorkerError(
                f"The Ray cluster is gone: {_line(error)} What came home is logged. When the cluster is back, the same "
                "command goes on."
            ) from None


class _GoneError(RecipeError):
    """A machine was lost before it could say what it is."""


class _Flight:
    """A variant on its way: it is measured on a node, and what comes of it arrives in an entry of the spool."""

    def __init__(
        self, variant: Variant, placed: Variant, digest: str, at: Node, entry: Entry, stack: contextlib.ExitStack
    ) -> None:
        self.variant, self.placed, self.digest, self.at = variant, placed, digest, at
        self.entry, self.stack = entry, stack
        self.generator: Any = None
        self._file: tuple[str, IO[bytes]] | None = None

    def take(self, name: str, chunk: bytes) -> None:
        """Write a piece of a file. The pieces of one file come in a row."""
        if self._file is None or self._file[0] != name:
            self.finish()
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or not path.parts:
                raise OSError(f"{self.at.name} sent a file called {name!r}")
            target = Path(self.entry.folder, *path.parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            self._file = name, target.open("wb")
        self._file[1].write(chunk)

    def finish(self) -> None:
        """Close the last file."""
        if self._file is not None:
            self._file[1].close()
            self._file = None


class _Sweep:
    def __init__(
        self, ray: Any, queue: Queue, task: Task, delivery: Delivery, board: Board, show: Callable[[Result], None]
    ) -> None:
        self._ray, self._queue, self._task = ray, queue, task
        self._delivery, self._board, self._show = delivery, board, show
        self._placing = Placing(queue.waiting)
        self._nodes: dict[str, Node] = {}
        self._asked: dict[str, Any] = {}  # nodes that came later, and were asked what they are
        self._unusable: set[str] = set()
        self._looked = 0.0
        self._remarks: dict[str, list[str]] = {}
        self._stranded_since: dict[Any, float] = {}
        self._flights: dict[Any, _Flight] = {}  # by node id
        self._parcels: dict[str, file_bundle.Parcel | None] = {}
        self._packed: dict[str, list[Any]] = {}
        self._models: dict[str, Path | None] = {}  # fetched from the tracking server, by their names there
        self._results: list[Result] = []
        self._home = ThreadPoolExecutor(1)  # logging takes longer than handing out
        self._delivering: deque[Future[None]] = deque()
        self._held: list[_Flight] = []  # scored before their original was
        self._lock = threading.Lock()
        self._last: Node  # that what can't be measured any more is told of

    def run(self) -> list[Result]:
        try:
            self._begin()
            while True:
                self._look()
                self._hand_out()
                if not self._flights and not self._delivering and not self._rescue():
                    break
                self._read()
                self._reap(_MOST_WAITING)
        finally:
            self._stop()
        self._reap(0)
        return self._results

    def _begin(self) -> None:
        """See that all nodes can measure, and set aside the variants that none of them may."""
        waiting = self._queue.waiting
        for variant in waiting:
            self._needs(variant)
        found = {each["NodeID"]: each for each in self._alive()}
        if not found:
            raise RecipeError(
                "The Ray cluster has no machine that may measure: none has processors to hand out. Add one: "
                "ray start --address=HOST:PORT"
            )
        answers = {key: self._ask(each) for key, each in found.items()}
        wrong, gone = [], []
        for key, each in found.items():
            try:
                self._nodes[key] = self._described(each, answers[key], _DESCRIBE_SECONDS)
            except _GoneError as error:
                self._unusable.add(key)
                gone.append(str(error))
            except RecipeError as error:
                wrong.append(str(error))
        if wrong or not self._nodes:
            raise RecipeError(" ".join(wrong or gone))
        for told in gone:
            self._board.tell(told)
        self._require_small()
        self._introduce()
        self._board.begin(len(waiting), [each.name for each in self._nodes.values()])
        nodes = list(self._nodes.values())
        self._last = nodes[0]
        if not self._task.again and len({each.kind for each in nodes}) > 1:
            self._bind_measured(nodes)
        while unfit := self._queue.take(lambda each: bool(self._placing.homeless(each, nodes))):
            self._give_up(unfit, "skipped", self._placing.homeless(unfit, nodes), nodes[0])

    def _bind_measured(self, nodes: Sequence[Node]) -> None:
        """Let models go to the hardware on which an earlier sweep measured some of their variants."""
        for variant in self._queue.waiting:
            for each in {each.kind: each for each in nodes}.values():
                if self._placing.group(variant).kind is None and not self._placing.homeless(variant, [each]):
                    digest = resume.digest(self._placed(variant, each), each.machine)
                    if self._delivery.earlier(digest, lambda text: None) is not None:
                        self._placing.bind(variant, each.kind)

    def _look(self) -> None:
        """See which nodes came and went."""
        if time.monotonic() - self._looked < _LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        self._rescue()
        alive = {each["NodeID"]: each for each in self._alive()}
        for key in [key for key in self._nodes if key not in alive and key not in self._flights]:
            self._lose(self._nodes[key])
        for key, each in alive.items():
            if key in self._nodes or key in self._unusable:
                continue
            if key not in self._asked:
                self._asked[key] = self._ask(each)
            elif self._ray.wait([self._asked[key]], timeout=0)[0]:
                try:
                    self._nodes[key] = self._described(each, self._asked.pop(key), _WAIT_SECONDS)
                    self._introduce()
                    self._board.tell(f"{self._nodes[key].name} joined")
                except RecipeError as error:
                    self._unusable.add(key)
                    self._board.tell(f"{error} It is not used.")

    def _hand_out(self) -> None:
        """Give each node that is free its next variant, those of the most common hardware first."""
        nodes = list(self._nodes.values())
        numbers = {each.kind: sum(other.kind == each.kind for other in nodes) for each in nodes}
        for each in sorted(nodes, key=lambda each: -numbers[each.kind]):
            while each.id not in self._flights and each.id in self._nodes:
                variant = self._queue.take(self._placing.serves(each, nodes))
                if variant is None:
                    break
                self._placing.bind(variant, each.kind)
                self._start(variant, each)

    def _start(self, variant: Variant, at: Node) -> None:
        """Send a variant to a node, unless the experiment has its result."""
        placed, who = self._placed(variant, at), _who(variant)
        if not self._task.again:
            digest = resume.digest(placed, at.machine)
            earlier = self._delivery.earlier(digest, lambda text: self._board.tell(f"{who}: {text}"))
            if earlier is not None:
                self._finish(variant, earlier)
                return
        flight = self._flight(variant, placed, at)
        needs = self._needs(variant)
        where = "" if needs is None else at.parcels.get(needs.digest, "")
        flight.generator = self._remote(_measure, at.id, at.cpus, at.gpus, streaming=True)(
            to_json(self._fetched(placed)),
            None if needs is None else to_json(needs),
            where,
            [] if needs is None or where else self._chunks(needs),
            self._task.with_model,
            at.gpus > 0,
            None if self._task.run is isolate.run else self._task.run,
        )
        self._flights[at.id] = flight
        self._board.event(at.name, who, {"stage": "starting"})

    def _read(self) -> None:
        """Take what came from a node."""
        if not self._flights:
            time.sleep(_WAIT_SECONDS / 10)
            return
        generators = {flight.generator: flight for flight in self._flights.values()}
        ready, _ = self._ray.wait(list(generators), num_returns=1, timeout=_WAIT_SECONDS)
        self._delivery.check()
        for generator in ready:
            flight = generators[generator]
            self._flights[flight.at.id] = self._flights.pop(flight.at.id)  # the others are next
            try:
                kind, item = self._ray.get(next(generator))
                if kind == "file":
                    flight.take(*item)
                else:
                    self._board.event(flight.at.name, _who(flight.variant), item)
            except StopIteration:
                self._land(flight)
            except (self._ray.exceptions.RayError, OSError) as error:
                self._fail(flight, error)

    def _land(self, flight: _Flight) -> None:
        """Let the node go, and bring its result home."""
        flight.finish()
        del self._flights[flight.at.id]
        self._board.free(flight.at.name)
        flight.at.failures = 0
        self._delivering.append(self._home.submit(self._deliver, flight))

    def _fail(self, flight: _Flight, error: Exception) -> None:
        """Put a variant back whose node, or process on it, was lost; give it up after some attempts."""
        with contextlib.suppress(Exception):
            self._ray.cancel(flight.generator)  # if it is we who can't go on
        del self._flights[flight.at.id]
        self._board.free(flight.at.name)
        flight.stack.close()
        errors = self._ray.exceptions
        at, who = flight.at, _who(flight.variant)
        reason = _reason(error)
        if isinstance(error, errors.OutOfMemoryError):
            self._give_up(flight.variant, "failed", f"out of memory: Ray killed it on {at.name}", at)
            return
        at.failures += 1
        is_lost = isinstance(error, (errors.NodeDiedError, errors.TaskUnschedulableError))
        attempts = self._placing.failed(flight.variant, at)
        if is_lost or at.failures >= _MOST_FAILURES:
            self._lose(at)
        if attempts >= _MOST_ATTEMPTS:
            self._give_up(flight.variant, "failed", f"lost {attempts} times, at last on {at.name}: {reason}", at)
            return
        self._board.tell(f"{who}: lost on {at.name} ({reason}); it is measured again")
        self._queue.put_back(flight.variant)

    def _lose(self, at: Node) -> None:
        self._last = at
        self._nodes.pop(at.id, None)
        self._unusable.add(at.id)
        self._board.tell(f"{at.name} is not used any longer: it is gone, or fails at everything")

    def _rescue(self) -> bool:
        """Say whether anything waits for machines that are gone; after a while let it go elsewhere, or give it up."""
        nodes = list(self._nodes.values())
        kinds = {each.kind for each in nodes}
        stranded = []
        for variant in self._queue.waiting:
            kind = self._placing.group(variant).kind
            if kind not in kinds if kind is not None else self._placing.homeless(variant, nodes):
                stranded.append((variant, kind))
        now = time.monotonic()
        self._stranded_since = {kind: self._stranded_since.get(kind, now) for _, kind in stranded}
        for variant, kind in stranded:
            if now - self._stranded_since[kind] < self._task.grace_seconds:
                continue
            reason = self._placing.homeless(variant, nodes)
            if not reason and kind is not None:
                self._board.tell(f"{_who(variant)}: all machines of its kind are gone, it goes to another kind")
                self._placing.release(kind)
            elif self._queue.take(functools.partial(operator.is_, variant)) is not None:
                self._give_up(variant, "failed", f"the machines that could measure it are gone: {reason}", self._last)
        return bool(stranded)

    def _give_up(self, variant: Variant, status: Status, reason: str, at: Node) -> None:
        """Deliver a result without a measurement."""
        placed = self._placed(variant, at)
        result = dataclasses.replace(unmeasured(placed, status, reason), environment=dict(at.machine))
        flight = self._flight(variant, placed, at)
        self._delivering.append(self._home.submit(self._log, flight, result))

    def _flight(self, variant: Variant, placed: Variant, at: Node) -> _Flight:
        stack = contextlib.ExitStack()
        entry = stack.enter_context(self._delivery.entry(self._board.tell))
        flight = _Flight(variant, placed, resume.digest(placed, at.machine), at, entry, stack)
        stack.callback(flight.finish)
        return flight

    def _deliver(self, flight: _Flight) -> None:
        """Bring home what arrived. What is to be paired with an original that is still out waits for that, on disk."""
        result = Result.from_json(read_json(flight.entry.folder / ray_node.RESULT))
        variant = dataclasses.replace(flight.placed, interleave=result.variant.interleave)
        facts = {**result.facts, "node": flight.at.name}
        result = dataclasses.replace(result, variant=variant, facts=facts)
        is_paired = isolate.tables(flight.entry.folder) and not variant.is_original
        if is_paired and self._placing.group(flight.variant).originals:
            self._shipment(flight, result).keep()
            self._held.append(flight)
            return
        self._log(flight, result)

    def _log(self, flight: _Flight, result: Result) -> None:
        """Log a result, and those that waited for it."""
        with flight.stack:
            result = self._delivery.deliver(self._shipment(flight, result))
        self._finish(flight.variant, result)
        group = self._placing.group(flight.variant)
        ready = [] if group.originals else [each for each in self._held if self._placing.group(each.variant) is group]
        self._held = [each for each in self._held if each not in ready]
        for other in ready:
            self._log(other, other.entry.read(self._board.tell).result)

    def _shipment(self, flight: _Flight, result: Result) -> Shipment:
        who = f"{_who(flight.variant)} ({flight.at.name})"
        address = self._delivery.log.address(flight.digest)
        return Shipment(flight.entry, result, address, lambda text: self._board.tell(f"{who}: {text}"))

    def _finish(self, variant: Variant, result: Result) -> None:
        with self._lock:  # this is the loop's, or the thread's that logs
            self._placing.done(variant)
            self._board.done(result)
            self._show(result)
            self._results.append(dataclasses.replace(result, samples={}))

    def _reap(self, most: int) -> None:
        """Wait until few enough results wait to be logged.

        Raises:
            StoreError: one can neither be logged nor kept.
        """
        while self._delivering and (len(self._delivering) > most or self._delivering[0].done()):
            self._delivering.popleft().result()

    def _stop(self) -> None:
        """End what is still measured, and log what came home."""
        for flight in self._flights.values():
            with contextlib.suppress(Exception):
                self._ray.cancel(flight.generator)
        end = time.monotonic() + _STOP_SECONDS
        for flight in self._flights.values():
            with contextlib.suppress(Exception, StopIteration):
                while time.monotonic() < end:
                    if self._ray.wait([flight.generator], timeout=max(0.0, end - time.monotonic()))[0]:
                        self._ray.get(next(flight.generator))
            with contextlib.suppress(Exception):
                self._ray.cancel(flight.generator, force=True)
            flight.stack.close()
        self._flights.clear()
        self._home.shutdown(wait=True)
        while self._held:
            flight = self._held.pop()
            with contextlib.suppress(Exception):
                self._log(flight, flight.entry.read(self._board.tell).result)

    def _alive(self) -> list[Mapping[str, Any]]:
        """Give the nodes that hand out processors."""
        return [each for each in self._ray.nodes() if each["Alive"] and each["Resources"].get("CPU", 0) > 0]

    def _ask(self, found: Mapping[str, Any]) -> Any:
        """Ask a node what it is."""
        known = {each.digest: to_json(each) for each in self._parcels.values() if each is not None}
        has_gpus = found["Resources"].get("GPU", 0) > 0
        ask = self._remote(_describe, found["NodeID"], 0, 0)
        return ask(self._task.tracking_uri, list(known.values()), has_gpus)

    def _described(self, found: Mapping[str, Any], reference: Any, seconds: float) -> Node:
        """Read what a node said.

        Raises:
            RecipeError: it can't measure, and why.
        """
        name = str(found["NodeManagerHostname"])
        where = f"{name} ({found['NodeManagerAddress']})"
        try:
            said = self._ray.get(reference, timeout=seconds)
        except self._ray.exceptions.GetTimeoutError:
            raise RecipeError(f"The machine {where} did not answer within {seconds:.0f} s.") from None
        except (self._ray.exceptions.NodeDiedError, self._ray.exceptions.TaskUnschedulableError):
            raise _GoneError(f"The machine {where} is gone.") from None
        except self._ray.exceptions.RayError as error:
            reason = _reason(error)
            if any(word in reason for word in _NOT_IMPORTED):
                raise RecipeError(
                    f"The machine {where} can't import mlflow-compress {__version__}: install it there, in the "
                    f"environment that Ray was started in: {_EXTRA}"
                ) from None
            raise RecipeError(f"The machine {where} can't be asked what it is: {reason}") from None
        machine = said["machine"]
        own = {
            "Ray": self._ray.__version__,
            "Python": _minor(platform.python_version()),
            "mlflow-compress": __version__,
        }
        its = {"Ray": said["ray"], "Python": _minor(machine["python"]), "mlflow-compress": machine["version"]}
        apart = [f"{what} {its[what]} where this machine has {own[what]}" for what in own if own[what] != its[what]]
        if apart:
            raise RecipeError(f"The machine {where} has {', '.join(apart)}: install the same versions on both.")
        if said["niceness"] > 0:
            self._remarks.setdefault(_NICE, []).append(name)
        if said["unreachable"]:
            self._remarks.setdefault(_UNREACHABLE, []).append(name)
        resources = found["Resources"]
        return Node(found["NodeID"], name, machine, resources["CPU"], resources.get("GPU", 0), dict(said["parcels"]))

    def _introduce(self) -> None:
        """Give nodes on one machine different names, and tell what is to be known of new ones."""
        for text, machines in self._remarks.items():
            self._board.tell(text.format(", ".join(dict.fromkeys(machines))))
        self._remarks.clear()
        names = [each.name for each in self._nodes.values()]
        for each in self._nodes.values():
            if names.count(each.name) > 1:
                each.name = f"{each.name}#{each.id[:6]}"

    def _require_small(self) -> None:
        """Complain about what is too much to be sent, before anything runs."""
        for needs in self._parcels.values():
            if needs is None or needs.size <= file_bundle.MOST_BYTES:
                continue
            if lacking := [each.name for each in self._nodes.values() if needs.digest not in each.parcels]:
                largest = max(needs.files.values(), key=lambda file: file.size)
                raise RecipeError(
                    f"{needs.size / 2**30:.1f} GiB, such as {largest.path}, would have to be sent to "
                    f"{', '.join(lacking)}; at most {file_bundle.MOST_BYTES / 2**30:.0f} GiB is. Put it into a "
                    "folder that all machines have under the same path."
                )

    def _placed(self, variant: Variant, at: Node) -> Variant:
        """Give a variant with the devices that a node has."""
        if not self._task.auto_device:
            return variant
        return dataclasses.replace(variant, devices=("cpu", "cuda") if "gpu_model" in at.machine else ("cpu",))

    def _fetched(self, variant: Variant) -> Variant:
        """Give a variant whose model the tracking server keeps with the path that this machine fetched it to."""
        if not names_model(variant.source) or variant.weights != "auto":
            return variant
        if variant.source not in self._models:
            self._models[variant.source] = self._delivery.log.fetched(variant)
        return dataclasses.replace(variant, weights=str(self._models[variant.source]))

    def _needs(self, variant: Variant) -> file_bundle.Parcel | None:
        """Give what a variant needs of this machine's disk."""
        key = repr((variant.folder, variant.source, variant.weights, variant.data, variant.metrics))
        if key not in self._parcels:
            self._parcels[key] = file_bundle.contents(self._fetched(variant))
        return self._parcels[key]

    def _chunks(self, needs: file_bundle.Parcel) -> list[Any]:
        """Put a parcel into Ray's store, once."""
        import tempfile

        if needs.digest not in self._packed:
            with tempfile.TemporaryFile() as file:
                file_bundle.pack(needs, file)
                file.seek(0)
                chunks = iter(lambda: file.read(ray_node.CHUNK_BYTES), b"")
                self._packed[needs.digest] = [self._ray.put(chunk) for chunk in chunks]
        return self._packed[needs.digest]

    def _remote(self, function: Callable[..., Any], at: str, cpus: float, gpus: float, streaming: bool = False) -> Any:
        """Make a function that runs on one node."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        more = {"num_returns": "streaming", "_generator_backpressure_num_objects": _UNREAD_ITEMS} if streaming else {}
        return (
            self._ray.remote(function)
            .options(
                num_cpus=cpus,
                num_gpus=gpus,
                max_retries=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(at, soft=False),
                **more,
            )
            .remote
        )


def _describe(tracking_uri: str, parcels: Sequence[Mapping[str, Any]], has_gpus: bool) -> dict[str, Any]:
    """Describe a node, on it."""
    import ray

    return {**ray_node.describe(tracking_uri, parcels, has_gpus), "ray": ray.__version__}


def _measure(
    variant: Mapping[str, Any],
    needs: Mapping[str, Any] | None,
    where: str,
    chunks: Sequence[Any],
    with_model: bool,
    has_gpus: bool,
    run: Run | None,
) -> Iterator[ray_node.Item]:
    """Measure a variant on a node, on it."""
    import ray

    yield from ray_node.measure(
        Variant.from_json(variant),
        None if needs is None else file_bundle.Parcel.from_json(needs),
        where,
        (ray.get(chunk) for chunk in chunks),
        with_model,
        has_gpus,
        run or isolate.run,
    )


@contextlib.contextmanager
def _connected(address: str) -> Iterator[Any]:
    """Connect to a Ray cluster for as long as the block runs.

    Raises:
        RecipeError: there is none.
    """
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise RecipeError(f"--on ray needs Ray: {_EXTRA} ({error})") from None
    if ray.is_initialized():
        yield ray
        return
    known = _found(address)
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=known, log_to_driver=False, configure_logging=False, logging_level=logging.CRITICAL)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise RecipeError(
            f"The Ray cluster at {known} can't be used: {_line(error)} This command must run on a machine of the "
            f"cluster: ray start --address={known} --num-cpus=0 makes this one such, without measuring on it."
        ) from None
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, before)  # Ray sets its own
    _silence(ray)
    try:
        yield ray
    finally:
        ray.shutdown()


def _found(address: str) -> str:
    """Give the address of a cluster that answers.

    Raises:
        RecipeError: none does.
    """
    from ray._private import services

    start = "Start one (ray start --head), and more machines with ray start --address=HOST:PORT"
    if address.startswith("ray://"):
        raise RecipeError(
            f"{address} is an address of Ray Client, through which results can't be streamed. Run this command on a "
            "machine of the cluster, and give --address HOST:PORT as `ray start` told it, or leave it out. "
            "`ray start --address=HOST:PORT --num-cpus=0` makes this machine one that nothing is measured on."
        )
    try:
        known = services.canonicalize_bootstrap_address_or_die(address)
        host, _, port = known.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_SECONDS).close()
    except ConnectionError as error:
        raise RecipeError(f"There is no Ray cluster at {address}: {_line(error)} {start}.") from None
    except (OSError, ValueError) as error:
        raise RecipeError(f"There is no Ray cluster at {address}: {_line(error)}. {start}.") from None
    answered = threading.Event()

    def ask() -> None:
        import ray._raylet

        with contextlib.suppress(Exception):
            vars(ray._raylet)["GcsClient"](address=known)
            answered.set()

    asking = threading.Thread(target=ask, daemon=True)  # Ray itself would try for minutes
    asking.start()
    asking.join(_CONNECT_SECONDS)
    if not answered.is_set():
        raise RecipeError(f"What answers at {known} is no Ray cluster, or one of another version of Ray. {start}.")
    return known


def _silence(ray: Any) -> None:
    """Keep Ray from printing the logs of dead nodes into our output: what matters we say ourselves."""
    vars(ray._private.worker)["_worker_logs_enabled"] = False


def _who(variant: Variant) -> str:
    return f"{variant.model}, {variant.label}"


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:400]


def _reason(error: BaseException) -> str:
    """Give why a task came to nothing, in one line."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, BaseException):
        return f"{type(cause).__name__}: {_line(cause)}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    last = lines[-1] if "Traceback" in str(error) and lines else (lines or [""])[0]
    return f"{type(error).__name__}: {last[:300]}"
