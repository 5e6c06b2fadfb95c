"""Find, connect to and query a Ray cluster. Only this module imports Ray and uses its private API.

The code below `Ray's private API` may break with a new release of Ray.
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
_UNREAD_ITEMS = 8  # items that a node may produce before we read them


@dataclass(frozen=True)
class Seen:
    """A machine as Ray lists it.

    Attributes:
        id: Ray's node id.
        hostname: Host name.
        address: IP address.
        cpus, gpus: Numbers that Ray can assign.
    """

    id: str
    hostname: str
    address: str = ""
    cpus: float = 1
    gpus: float = 0

    @property
    def where(self) -> str:
        """Return its name for messages."""
        return f"{self.hostname} ({self.address})"


class Cluster:
    """A cluster that this process is connected to.

    Args:
        ray: The module `ray`.

    Attributes:
        errors: The module `ray.exceptions`.
    """

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self.errors = ray.exceptions

    def machines(self) -> dict[str, Seen]:
        """Return the running machines with processors to assign, by id."""
        machines = {}
        for node in self._ray.nodes():
            resources = node["Resources"]
            if node["Alive"] and resources.get("CPU", 0) > 0:
                host, address = str(node["NodeManagerHostname"]), str(node["NodeManagerAddress"])
                cpus, gpus = resources["CPU"], resources.get("GPU", 0)
                machines[node["NodeID"]] = Seen(node["NodeID"], host, address, cpus, gpus)
        return machines

    def ask(self, at: str, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function on a machine, even if it is busy, and return the reference of its answer."""
        return self._remote(function, at, num_cpus=0, num_gpus=0)(*args)

    def stream(self, at: Seen, function: Callable[..., Iterator[Any]], *args: Any) -> Any:
        """Start a generator that uses a whole machine, and return the generator of its items' references."""
        resources = {"num_cpus": at.cpus, "num_gpus": at.gpus}
        return self._remote(function, at.id, **resources, **_streaming())(*args)

    def answer(self, reference: Any, seconds: float) -> Any:
        """Wait for an answer.

        Raises:
            RayError: There was no answer in time, or the function raised an error.
        """
        return self._ray.get(reference, timeout=seconds)

    def ready(self, waiting: Sequence[Any], seconds: float) -> list[Any]:
        """Return the first reference or generator with an answer or item; none if there is no such in time."""
        ready: list[Any] = self._ray.wait(list(waiting), num_returns=1, timeout=seconds)[0]
        return ready

    def item(self, generator: Any) -> Any:
        """Return the next item of a generator that is ready.

        Raises:
            StopIteration: There are no more items.
            RayError: Its machine or process was lost, or the function raised an error.
        """
        return self._ray.get(next(generator))

    def keep(self, chunk: bytes) -> Any:
        """Put bytes into the cluster's store, and return their reference."""
        return self._ray.put(chunk)

    def cancel(self, generator: Any, force: bool = False) -> None:
        """Stop a task. It is not an error if the task has ended or its machine is gone."""
        with contextlib.suppress(Exception):
            self._ray.cancel(generator, force=force)

    def stop(self, generators: Sequence[Any], seconds: float) -> None:
        """Stop generators, give them `seconds` in total to clean up, and kill those that still run."""
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

    def _remote(self, function: Callable[..., Any], node_id: str, **options: Any) -> Callable[..., Any]:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        strategy: Any = NodeAffinitySchedulingStrategy(node_id, soft=False)
        remote: Callable[..., Any] = (
            self._ray.remote(function).options(max_retries=0, scheduling_strategy=strategy, **options).remote
        )
        return remote


@contextlib.contextmanager
def connected(address: str) -> Iterator[Cluster]:
    """Connect to a cluster for as long as the block runs.

    Args:
        address: `auto`, or HOST:PORT.

    Raises:
        RecipeError: Ray is not installed, or there is no cluster.
    """
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise RecipeError(f"--on ray requires Ray: {EXTRA} ({error})") from None
    if ray.is_initialized():
        yield Cluster(ray)
        return
    _connect(ray, _running(address))
    _silence(ray)
    try:
        yield Cluster(ray)
    finally:
        ray.shutdown()


def version() -> str:
    """Return the version of Ray in this process, on any machine."""
    import ray

    return str(ray.__version__)


def kept(references: Sequence[Any]) -> Iterator[bytes]:
    """On a node, yield the bytes that `Cluster.keep` put into the store."""
    import ray

    for reference in references:
        yield ray.get(reference)


def reason(error: BaseException) -> str:
    """Return in one line why a task failed."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, BaseException):
        return named_line(cause)
    lines = [text.strip() for text in str(error).splitlines() if text.strip()]
    line = lines[-1] if "Traceback" in str(error) and lines else (lines or [""])[0]
    return f"{type(error).__name__}: {line[:300]}"


def _connect(ray: Any, address: str) -> None:
    """Connect this process to a cluster that answers, and restore our SIGTERM handler."""
    in_main = threading.current_thread() is threading.main_thread()
    old_handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False, logging_level=logging.CRITICAL)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise RecipeError(
            f"The Ray cluster at {address} can't be used: {one_line(error)} This command must run on a machine of the "
            f"cluster: ray start --address={address} --num-cpus=0 adds this machine without measuring on it."
        ) from None
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, old_handler)  # Ray sets its own


def _running(address: str) -> str:
    """Return the address of a cluster that answers.

    Raises:
        RecipeError: No cluster answers.
    """
    if address.startswith("ray://"):
        raise RecipeError(
            f"{address} is an address for Ray Client, which can't stream results. Run this command on a machine of the "
            "cluster, with the --address HOST:PORT that `ray start` printed, or without it. "
            "`ray start --address=HOST:PORT --num-cpus=0` adds this machine without measuring on it."
        )
    try:
        resolved = _resolved(address)
        host, _, port = resolved.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_SECONDS).close()
    except (OSError, ValueError) as error:
        raise RecipeError(f"There is no Ray cluster at {address}: {one_line(error)}. {_START}.") from None
    if not _answers(resolved):
        raise RecipeError(f"{resolved} is not a Ray cluster, or one with another version of Ray. {_START}.")
    return resolved


# Ray's private API


def _streaming() -> dict[str, Any]:
    """Return the options of a task that yields. The option that limits unread items may change."""
    return {"num_returns": "streaming", "_generator_backpressure_num_objects": _UNREAD_ITEMS}


def _resolved(address: str) -> str:
    """Return HOST:PORT of an address, `auto` included."""
    from ray._private import services

    return str(services.canonicalize_bootstrap_address_or_die(address))


def _answers(address: str) -> bool:
    """Return whether a cluster answers within seconds; Ray itself would try for minutes."""
    raylet: Any = importlib.import_module("ray._raylet")  # compiled, without types
    answered = threading.Event()

    def ask() -> None:
        with contextlib.suppress(Exception):
            raylet.GcsClient(address=address)
            answered.set()

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_CONNECT_SECONDS)
    return answered.is_set()


def _silence(ray: Any) -> None:
    """Stop Ray from printing the logs of dead nodes into our output: we report what matters ourselves."""
    ray._private.worker._worker_logs_enabled = False
