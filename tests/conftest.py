"""Fixtures for several test files: golden files, one shared tracking store, and made-up runs."""

from __future__ import annotations

import gc
import itertools
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # for torch, before it is imported: tiny models gain nothing from more threads

sys.path.append(str(Path(__file__).parents[1]))  # for benchmarks.servers; last, so that the installed package is tested
os.environ.setdefault("COMPRESS_LOCK", str(Path(tempfile.gettempdir(), f"mlflow-compress-tests-{os.getpid()}", "lock")))
os.environ.setdefault(
    "COMPRESS_SPOOL", str(Path(tempfile.gettempdir(), f"mlflow-compress-tests-{os.getpid()}", "spool"))
)

from mlflow_compress import registry
from mlflow_compress.records import Comparison, Failure, Row, Run, Summary
from mlflow_compress.tracking.connection import Store, open_store

# in addition to Hypothesis' own profile: the duration of a test is not checked
settings.register_profile("suite", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

GOLDEN = Path(__file__).parent / "golden"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out extra tests, skip what needs POSIX on Windows, and let several processes begin with slow files."""
    chosen = config.option.keyword or config.option.markexpr or any("::" in word for word in config.args)
    if not (config.getoption("--extra") or chosen):
        extra = [item for item in items if item.get_closest_marker("extra")]
        items[:] = [item for item in items if not item.get_closest_marker("extra")]
        config.hook.pytest_deselected(items=extra)
    for item in items if sys.platform == "win32" else ():
        if item.get_closest_marker("posix"):
            item.add_marker(pytest.mark.skip(reason="needs pipes, links, permissions or paths of POSIX"))
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_xdist_auto_num_workers() -> int:
    """Return two workers for each core (`--maxprocesses` limits them): a test often waits for a process it started."""
    return 2 * (os.cpu_count() or 1)


def pytest_collection_finish() -> None:
    """Exclude the objects from imports from garbage collection: millions would be checked in each round."""
    gc.collect()
    gc.freeze()


pytest_plugins = ["announced_breaks", "exported_once", "lab", "quick"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--extra", action="store_true", help="also run the tests marked extra, which take long; -k, -m and :: do too"
    )
    parser.addoption(
        "--update-golden", action="store_true", help="write the golden files again; check them with git diff"
    )


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, bytes], None]:
    """Compare bytes with a golden file."""

    def same(name: str, content: bytes) -> None:
        if request.config.getoption("--update-golden"):
            (GOLDEN / name).write_bytes(content)
        assert content.decode() == (GOLDEN / name).read_bytes().decode()

    return same


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a SQLite file with MLflow's empty tables, to be copied: creating the tables takes seconds."""
    folder = tmp_path_factory.mktemp("empty")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # MLflow creates a folder for artifacts in the working folder
        open_store(f"sqlite:///{folder / 'mlflow.db'}")
    return folder / "mlflow.db"


@pytest.fixture(scope="session")
def tracking_uri(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the SQLite store that all tests share."""
    return f"sqlite:///{shutil.copy(empty_store, tmp_path_factory.mktemp('store'))}"


@pytest.fixture
def store(tracking_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Open and return the shared store; artifacts go to the test's own folder."""
    monkeypatch.chdir(tmp_path)
    return open_store(tracking_uri)


MakeRun = Callable[..., Run]


@pytest.fixture
def make_run() -> MakeRun:
    """Return a function that makes runs as if they were logged, each newer than the previous one."""
    count = itertools.count(1)

    def make(
        model: str = "yolo",
        method: str = "original",
        team: str = "alpha",
        *,
        tags: dict[str, str | None] | None = None,
        metrics: dict[str, float] | None = None,
        lifecycle: str = "FINISHED",
        **outcomes: str,
    ) -> Run:
        number = next(count)
        devices = outcomes or {"cpu": "ok"}
        all_tags: dict[str, str | None] = {
            "team": team,
            "model": model,
            "method": method,
            "status": "ok" if "failed" not in devices.values() else "failed",
            "compress.role": "variant",
            "compress.batch_size": "1",
            "compress.weights": "pretrained",
            "compress.cautions": "",
            "compress.env.cpu_model": "Xeon",
            "compress.env.gpu_model": "T4",
            "compress.env.threads": "2",
            **{f"compress.outcome.{device}": status for device, status in devices.items()},
            **(tags or {}),
        }
        return Run(
            run_id=f"run{number}",
            experiment="hw1",
            name=f"{model} {method}",
            lifecycle=lifecycle,
            started_ms=number,
            tags={key: value for key, value in all_tags.items() if value is not None},
            metrics={"size/weights_mib": 100.0, "cpu/latency_p50_ms": 10.0} if metrics is None else metrics,
        )

    return make


@pytest.fixture
def comparison() -> Comparison:
    """Return a small comparison with an example of every feature."""
    return Comparison(
        rows=(
            Row(
                "alpha",
                "yolo11l",
                "original",
                values={
                    "size/weights_mib": 96.66796875,
                    "size/params": 25340992.0,
                    "cpu/latency_p50_ms": 492.7215,
                    "gpu/latency_p50_ms": 12.3456,
                    "cpu/ram_peak_mib": 1300.25,
                    "gpu/vram_peak_mib": 533.5,
                    "quality/map50": 0.7912,
                },
                runs={"cpu": "aaaa1111", "gpu": "bbbb2222"},
                hardware="Xeon, 2 threads; T4",
                links={"cpu": "http://mlflow.example:5000/#/experiments/1/runs/aaaa1111"},
                dominated=True,
                ranked_in=0,
            ),
            Row(
                "alpha",
                "yolo11l",
                "fp16 [batch 16]",
                values={"size/weights_mib": 48.349609375, "gpu/latency_p50_ms": 8.1},
                ratios={"size/weights_mib": 0.50016, "gpu/latency_p50_ms": 0.6561},
                ratio_intervals={"gpu/latency_p50_ms": (0.61, 0.702)},
                runs={"gpu": "cccc3333"},
                notes=(0,),
                hardware="T4",
                dominated=False,
                ranked_in=0,
            ),
            Row(
                "Команда 2",
                "whisper | small",
                "<b>int8</b>",
                values={
                    "quality/wer": 0.0426,
                    "quality/wer_low": 0.031,
                    "quality/wer_high": 0.058,
                    "quality/wer_difference": 0.0031,
                    "quality/wer_difference_low": 0.0012,
                    "quality/wer_difference_high": 0.0051,
                    "quality/cer": 0.0153,
                    "quality/cer_difference": -0.00021,
                    "quality/cer_difference_low": -0.0009,
                    "quality/cer_difference_high": 0.0004,
                    "quality/samples": 73.0,
                },
                runs={"cpu": "dddd4444"},
                notes=(0, 1),
            ),
            Row("=SUM(A1)", "модель 🙂 [x](http://y)", "`prune`", runs={"cpu": "eeee5555"}, by_hand=True),
        ),
        failures=(
            Failure(
                "alpha", "yolo11l", "int8_dynamic", "skipped", "gpu", "int8_dynamic runs on the CPU only", "ffff6666"
            ),
            Failure("Команда 2", "whisper | small", "original", "failed", "", "out of memory:\n  killed", "abcd7777"),
        ),
        footnotes=("caution: the machine was busy", "random weights: quality was not measured"),
        title="hw1",
        objectives=("size/weights_mib", "gpu/latency_p50_ms"),
        greater_is_better={
            "size/weights_mib": False,
            "cpu/latency_p50_ms": False,
            "gpu/latency_p50_ms": False,
            "cpu/ram_peak_mib": False,
            "gpu/vram_peak_mib": False,
            "quality/map50": True,
            "quality/wer": False,
            "quality/cer": False,
        },
        summaries=(
            Summary(
                "fp16 [batch 16]",
                models=1,
                ratios={"size/weights_mib": 0.50016, "gpu/latency_p50_ms": 0.6561},
                counts={"size/weights_mib": 1, "gpu/latency_p50_ms": 1},
            ),
            Summary(
                "<b>int8</b>",
                models=3,
                ratios={"size/weights_mib": 0.27, "cpu/latency_p50_ms": 0.41667},
                differences={"quality/accuracy": -0.002},
                counts={"size/weights_mib": 3, "cpu/latency_p50_ms": 3, "quality/accuracy": 2},
            ),
        ),
    )


@pytest.fixture(scope="module")
def plugin_path() -> Iterator[Path]:
    """Install plugins of another distribution for the tests of a module and for the processes that they start."""
    folder = Path(__file__).parent / "fake_distribution"
    caches = (registry.names, registry.find, registry._foreign)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        for cache in caches:
            cache.cache_clear()
        yield folder
    sys.modules.pop("compress_test_plugin", None)
    for cache in caches:
        cache.cache_clear()


@pytest.fixture
def ctrl_c() -> Iterator[Callable[[], None]]:
    """Return a function that acts like Ctrl-C, without a signal: libraries hook signals, and may end the process."""

    def interrupt() -> None:
        handler = signal.getsignal(signal.SIGINT)
        assert callable(handler)
        handler(signal.SIGINT, None)

    old_handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield interrupt
    signal.signal(signal.SIGINT, signal.default_int_handler if old_handler is None else old_handler)
