"""The tool's meter and a bare loop over one model in one process, in turns: `one_process.py FOLDER SECONDS`.

Prints the medians of both sides' rounds, in milliseconds, as JSON.
"""

import gc
import json
import statistics
import sys
import time
from pathlib import Path

import torch

from mlflow_compress.meters import latency
from mlflow_compress.networks.model_folder import restore
from mlflow_compress.records import Variant, read_json

ROUND_MS = 500.0


def main() -> None:
    """Restore, and measure; before each of the meter's turns, run a turn of the bare loop."""
    folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
    variant = Variant.from_json(read_json(folder / "variant.json"))
    if variant.threads is not None:
        torch.set_num_threads(variant.threads)
    restored = restore(folder / "model")
    model, run = restored.model, restored.family.run
    batch = restored.family.batch(model, variant.batch_size, variant.seed)
    bare: list[float] = []
    ends = [0.0]

    def bare_round(calls: int) -> None:
        gc.enable()  # the default in a hand-written loop
        spent = []
        for _ in range(calls):
            start = time.perf_counter()
            run(model, batch, lambda stage: None)
            spent.append(time.perf_counter() - start)
        gc.disable()
        bare.append(statistics.median(spent) * 1000)

    def turn(count: int, spent_s: float, call_ms: float) -> float:
        if count == 0:
            ends[0] = time.monotonic() + seconds
            return ROUND_MS  # the number of calls in a round is known only after the first round
        bare_round(count // (len(bare) + 1))
        return ROUND_MS if time.monotonic() < ends[0] else 0.0

    with torch.inference_mode():
        timing = latency.measure(
            lambda mark: run(model, batch, mark), "cpu", variant.budget, lambda *_: None, lambda: None, turn
        )
    size = timing.round_sizes[0]
    rounds = [timing.wall_ms[first : first + size] for first in range(0, len(timing.wall_ms), size)]
    ours = [statistics.median(calls) for calls in rounds]
    sys.stdout.write(json.dumps({"ours": ours, "bare": bare, "calls": size}) + "\n")


if __name__ == "__main__":
    main()
