"""The program for optimum-benchmark's own virtual environment, which does not have this package.

`peer.py make FOLDER`: save BERT with random weights there. `peer.py measure FOLDER WARMUP CALLS`: measure it with
optimum-benchmark, and print the results. `peer.py bare FOLDER WARMUP CALLS`: time it in a bare loop.
"""

import json
import os
import statistics
import sys
import time
from typing import Any

TOKENS = 128


def make(folder: str) -> None:
    """Save the model of the recipe `bert_base`."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = AutoConfig.for_model("bert", num_labels=2)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)


def measure(folder: str, warmup: int, calls: int) -> dict[str, Any]:
    """Run optimum-benchmark, in its isolated process, with latency and memory."""
    from optimum_benchmark import Benchmark, BenchmarkConfig, InferenceConfig, ProcessConfig, PyTorchConfig

    backend = PyTorchConfig(
        model=folder, task="text-classification", library="transformers", model_type="bert", device="cpu"
    )
    scenario = InferenceConfig(
        memory=True,
        latency=True,
        iterations=calls,
        duration=0,
        warmup_runs=warmup,
        input_shapes={"batch_size": 1, "sequence_length": TOKENS},
    )
    report = Benchmark.launch(
        BenchmarkConfig(name="peer", scenario=scenario, launcher=ProcessConfig(), backend=backend)
    ).to_dict()
    memory = [part["memory"]["max_ram"] for part in report.values() if isinstance(part, dict) and part.get("memory")]
    latency = report["forward"]["latency"]
    return {"p50_ms": latency["p50"] * 1000, "count": latency["count"], "ram_mib": max(memory) * 1e6 / 2**20}


def bare(folder: str, warmup: int, calls: int) -> dict[str, Any]:
    """Time the model in a loop."""
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    ids = torch.randint(0, model.config.vocab_size, (1, TOKENS))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    seconds = []
    with torch.inference_mode():
        for _ in range(warmup):
            model(**inputs)
        for _ in range(calls):
            start = time.perf_counter()
            model(**inputs)
            seconds.append(time.perf_counter() - start)
    return {"p50_ms": statistics.median(seconds) * 1000}


if __name__ == "__main__":
    verb, folder, *counts = sys.argv[1:]
    stdout = os.dup(1)
    os.dup2(2, 1)  # hide the libraries' output from the caller
    if verb == "make":
        make(folder)
    else:
        result = {"measure": measure, "bare": bare}[verb](folder, *map(int, counts))
        with os.fdopen(stdout, "w") as stream:
            stream.write(json.dumps(result))
