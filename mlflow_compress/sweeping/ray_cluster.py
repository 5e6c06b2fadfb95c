"""A Ray cluster: found, connected to, and asked. The only module that imports Ray, and that knows its private parts.

Private, so that a new release of Ray may break it, is what stands below `Ray's private parts`.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow_compress.errors import RecipeError, named_line, one_line

EXTRA = 'pip install "mlflow-compress[ray]"'
_START = "Start one (ray start --head), and more machines with ray start --address=HOST:PORT"
_ANSWER_SECONDS = 5.0
_CONNECT_SECONDS = 30.0
_UNREAD_ITEMS = 8  # that a node may be ahead of us


@dataclass(frozen=True)
class Seen:
    """A machine as Ray lists it.

    Attributes:
        id: Ray's name of it.
        hostname: what people call it.
        address: its IP address.
        cpus, gpus: how many it hands out.
    """

    id: str
    hostname: str
    address: str = ""
    cpus: float = 1
    gpus: float = 0

    @property
    def where(self) -> str:
        """Name it in a message."""
        return f"{self.hostname} ({self.address})"


class Cluster:
    """A cluster that this process is connected to.

    Args:
        ray: Ray.

    Attributes:
        errors: Ray's exceptions.
    """

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self.errors = ray.exceptions

    def machines(self) -> dict[str, Seen]:
        """Return the living machines that hand out processors, by id."""
        found = {}
        for each in self._ray.nodes():
            resources = each["Resources"]
            if each["Alive"] and resources.get("CPU", 0) > 0:
                host, address = str(each["NodeManagerHostname"]), str(each["NodeManagerAddress"])
                found[each["NodeID"]] = Seen(each["NodeID"], host, address, resources["CPU"], resources.get("GPU", 0))
        return found

    def ask(self, at: str, function: Callable[..., Any], *given: Any) -> Any:
        """Call a function on a machine, whatever else runs there, and return the reference of its answer."""
        return self._remote(function, at, num_cpus=0, num_gpus=0)(*given)

    def stream(self, at: Seen, function: Callable[..., Iterator[Any]], *given: Any) -> Any:
        """Start a generator on a machine that it has for itself, and return the generator of its items' references."""
        whole = {"num_cpus": at.cpus, "num_gpus": at.gpus}
        return self._remote(function, at.id, **whole, **_streaming())(*given)

    def answer(self, reference: Any, seconds: float) -> Any:
        """Wait for an answer.

        Raises:
            RayError: it did not come, or the function raised.
        """
        return self._ray.get(reference, timeout=seconds)

    def ready(self, waiting: Sequence[Any], seconds: float) -> list[Any]:
        """Return the first reference or generator that has an answer or item; none where that takes longer."""
        ready: list[Any] = self._ray.wait(list(waiting), num_returns=1, timeout=seconds)[0]
        return ready

    def item(self, generator: Any) -> Any:
        """Return the next item of a generator that is ready.

        Raises:
            StopIteration: there are no more.
            RayError: its machine or process was lost, or the function raised.
        """
        return self._ray.get(next(generator))

    def keep(self, chunk: bytes) -> Any:
        """Put bytes into the cluster's store, and return their reference."""
        return self._ray.put(chunk)

    def cancel(self, generator: Any, force: bool = False) -> None:
        """Stop what runs; that it is over already, or its machine gone, is no error."""
        with contextlib.suppress(Exception):
            self._ray.cancel(generator, force=force)

    def stop(self, generators: Sequence[Any], seconds: float) -> None:
        """Stop generators, let them tidy up for so many seconds together, and kill what still runs."""
        for generator in generators:
            self.cancel(generator)
        end = time.monotonic() + seconds
        for generator in generators:
            with contextlib.suppress(Exception, StopIteration):
                while (left := end - time.monotonic()) > 0:
                    if self.ready([generator], left):
                        self.item(generator)
            self.cancel(generator, force=True)

    def is_machine_lost(self, error: BaseException) -> bool:
        """Return whether an error means that the machine is gone."""
        return isinstance(error, (self.errors.NodeDiedError, self.errors.TaskUnschedulableError))

    def _remote(self, function: Callable[..., Any], at: str, **options: Any) -> Callable[..., Any]:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there: Any = NodeAffinitySchedulingStrategy(at, soft=False)
        remote: Callable[..., Any] = (
            self._ray.remote(function).options(max_retries=0, scheduling_strategy=there, **options).remote
        )
        return remote


@contextlib.contextmanager
def connected(address: str) -> Iterator[Cluster]:
    """Connect to a cluster for as long as the block runs.

    Args:
        address: `auto`, or HOST:PORT.

    Raises:
        RecipeError: there is no Ray, or no cluster.
    """
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise RecipeError(f"--on ray needs Ray: {EXTRA} ({error})") from None
    if ray.is_initialized():
        yield Cluster(ray)
        return
    _connect(ray, _found(address))
    _silence(ray)
    try:
        yield Cluster(ray)
    finally:
        ray.shutdown()


def version() -> str:
    """Return the version of Ray here, be it at home or on a node."""
    import ray

    return str(ray.__version__)


def kept(references: Sequence[Any]) -> Iterator[bytes]:
    """Yield the bytes that `Cluster.keep` put into the store, on a node."""
    import ray

    for reference in references:
        yield ray.get(reference)


def reason(error: BaseException) -> str:
    """Return in one line why a task came to nothing."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, BaseException):
        return named_line(cause)
    lines = [text.strip() for text in str(error).splitlines() if text.strip()]
    last = lines[-1] if "Traceback" in str(error) and lines else (lines or [""])[0]
    return f"{type(error).__name__}: {last[:300]}"


def _connect(ray: Any, known: str) -> None:
    """Connect this process to a cluster that answers, and leave our handler of SIGTERM in its place."""
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=known, log_to_driver=False, configure_logging=False, logging_level=logging.CRITICAL)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise RecipeError(
            f"The Ray cluster at {known} can't be used: {one_line(error)} This command must run on a machine of the "
            f"cluster: ray start --address={known} --num-cpus=0 makes this one such, without measuring on it."
        ) from None
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, before)  # Ray sets its own


def _found(address: str) -> str:
    """Return the address of a cluster that answers.

    Raises:
        RecipeError: none does.
    """
    if address.startswith("ray://"):
        raise RecipeError(
            f"{address} is an address of Ray Client, through which results can't be streamed. Run this command on a "
            "machine of the cluster, and give --address HOST:PORT as `ray start` told it, or leave it out. "
            "`ray start --address=HOST:PORT --num-cpus=0` makes this machine one that nothing is measured on."
        )
    try:
        known = _resolved(address)
        host, _, port = known.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_SECONDS).close()
    except ConnectionError as error:
        raise RecipeError(f"There is no Ray cluster at {address}: {one_line(error)} {_START}.") from None
    except (OSError, ValueError) as error:
        raise RecipeError(f"There is no Ray cluster at {address}: {one_line(error)}. {_START}.") from None
    if not _answers(known):
        raise RecipeError(f"What answers at {known} is no Ray cluster, or one of another version of Ray. {_START}.")
    return known


# Ray's private parts


def _streaming() -> dict[str, Any]:
    """Return the options of a task that yields; how far it may run ahead is an option that may change."""
    return {"num_returns": "streaming", "_generator_backpressure_num_objects": _UNREAD_ITEMS}


def _resolved(address: str) -> str:
    """Return HOST:PORT of an address, `auto` included."""
    from ray._private import services

    return str(services.canonicalize_bootstrap_address_or_die(address))


def _answers(known: str) -> bool:
    """Return whether a cluster answers within seconds; Ray itself would try for minutes."""
    raylet: Any = importlib.import_module("ray._raylet")  # compiled, without types
    answered = threading.Event()

    def ask() -> None:
        with contextlib.suppress(Exception):
            raylet.GcsClient(address=known)
            answered.set()

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_CONNECT_SECONDS)
    return answered.is_set()


def _silence(ray: Any) -> None:
    """Keep Ray from printing the logs of dead nodes into our output: what matters we say ourselves."""
    ray._private.worker._worker_logs_enabled = False
