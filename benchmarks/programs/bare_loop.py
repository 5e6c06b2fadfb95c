"""A bare loop over a saved model: `bare_loop.py FOLDER WARMUP CALLS` prints the median call in milliseconds.

`bare_loop.py FOLDER WARMUP turns` works in turns: it reads a number from each line, makes that many calls, and prints
their median.

No meter, no marks, and the garbage collector stays on: the loop that people write to time a model by hand.
"""

import json
import os
import statistics
import sys
import time
from pathlib import Path

import torch

from mlflow_compress.networks.model_folder import restore
from mlflow_compress.records import Variant, read_json


def main() -> None:
    """Restore, warm up, time."""
    folder, warmup, calls = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    variant = Variant.from_json(read_json(folder / "variant.json"))
    if variant.threads is not None:
        torch.set_num_threads(variant.threads)
    restored = restore(folder / "model")
    model, run = restored.model, restored.family.run
    batch = restored.family.batch(model, variant.batch_size, variant.seed)
    with torch.inference_mode():
        for _ in range(warmup):
            run(model, batch, lambda stage: None)
        for count in sys.stdin if calls == "turns" else [calls]:
            seconds = []
            for _ in range(int(count)):
                start = time.perf_counter()
                run(model, batch, lambda stage: None)
                seconds.append(time.perf_counter() - start)
            result = {"p50_ms": statistics.median(seconds) * 1000, "threads": torch.get_num_threads()}
            sys.stdout.write(json.dumps(result) + "\n")
            sys.stdout.flush()
    os._exit(0)  # a normal exit touches more memory, which GNU time would count


if __name__ == "__main__":
    main()
