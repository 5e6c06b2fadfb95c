"""The shortest honest script that does the same as `compress-bench run distilbert --weights random`, without plots.

`by_hand.py FOLDER WARMUP CALLS` builds the model, saves it, and starts itself again as `by_hand.py measure ...`, so
that memory and loading time are those of the saved model alone, as in the package. Then it logs the same numbers, all
samples and the model to MLflow. It has no progress, no checks, no cautions, no time limit and no options.
"""

import json
import resource
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

TOKENS = 128
MIB = 2**20


def prepare(folder: Path) -> None:
    """Build the model with random weights, and save it."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification, ByT5Tokenizer

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "distilbert", id2label={0: "NEGATIVE", 1: "POSITIVE"}, label2id={"NEGATIVE": 0, "POSITIVE": 1}
    )
    model = AutoModelForSequenceClassification.from_config(config)
    model.save_pretrained(folder / "model")
    ByT5Tokenizer(extra_ids=0).save_pretrained(folder / "model")


def measure(folder: Path, warmup: int, calls: int) -> dict[str, Any]:
    """Load the saved model, and time it."""
    import numpy as np
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    baseline = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.perf_counter()
    model = AutoModelForSequenceClassification.from_pretrained(folder / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    load_ms = (time.perf_counter() - start) * 1000
    ids = torch.randint(0, model.config.vocab_size, (1, TOKENS))
    mask = torch.ones_like(ids)
    text = ["The pictures are beautiful, but the story is thin. " * 10]
    latency, preprocess = [], []
    with torch.inference_mode():
        for _ in range(warmup):
            model(input_ids=ids, attention_mask=mask)
        cpu = time.process_time()
        for _ in range(calls):
            start = time.perf_counter()
            model(input_ids=ids, attention_mask=mask)
            latency.append((time.perf_counter() - start) * 1000)
        cpu = time.process_time() - cpu
    for _ in range(calls):
        start = time.perf_counter()
        tokenizer(text, return_tensors="pt", truncation=True, max_length=TOKENS)
        preprocess.append((time.perf_counter() - start) * 1000)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    weights = list(model.parameters())
    metrics = {
        "cpu/latency_mean_ms": sum(latency) / calls,
        "cpu/latency_min_ms": min(latency),
        "cpu/latency_max_ms": max(latency),
        **{f"cpu/latency_p{rank}_ms": float(np.percentile(latency, rank)) for rank in (50, 90, 95, 99)},
        "cpu/throughput_per_s": calls / sum(latency) * 1000,
        "cpu/preprocess_p50_ms": float(np.percentile(preprocess, 50)),
        "cpu/cpu_s_per_call": cpu / calls,
        "cpu/load_ms": load_ms,
        "cpu/ram_baseline_mib": baseline,
        "cpu/ram_peak_mib": peak,
        "cpu/ram_model_mib": peak - baseline,
        "size/weights_mib": sum(weight.numel() * weight.element_size() for weight in weights) / MIB,
        "size/params": float(sum(weight.numel() for weight in weights)),
        "size/params_nonzero": float(sum(int(weight.count_nonzero()) for weight in weights)),
    }
    return {"metrics": metrics, "samples": {"latency_ms": latency, "preprocess_ms": preprocess}}


def on_disk(folder: Path) -> dict[str, float]:
    """Return the size of the files, uncompressed and compressed."""
    plain = packed = 0
    for path in folder.iterdir():
        content = path.read_bytes()
        plain += len(content)
        packed += len(zlib.compress(content, 6))
    return {"size/disk_mib": plain / MIB, "size/disk_gzip_mib": packed / MIB}


def log(folder: Path, results: dict[str, Any]) -> None:
    """Log numbers, samples and the model."""
    import mlflow

    mlflow.set_experiment("by hand")
    with mlflow.start_run(run_name="distilbert original"):
        mlflow.log_params({"model": "distilbert", "method": "original", "device": "cpu", "batch_size": 1})
        mlflow.set_tags({"team": "none", "model": "distilbert", "method": "original", "status": "ok"})
        mlflow.log_metrics(results["metrics"])
        mlflow.log_dict(results, "result.json")
        mlflow.pyfunc.log_model(
            name="model",
            loader_module="by_hand",
            data_path=str(folder / "model"),
            code_paths=[__file__],
            pip_requirements=["torch", "transformers"],
        )


def _load_pyfunc(path: str) -> Any:
    """Load the logged model; called by MLflow."""
    from transformers import pipeline

    return pipeline("text-classification", path)


if __name__ == "__main__":
    if sys.argv[1] == "measure":
        sys.stdout.write(json.dumps(measure(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))))
    else:
        work = Path(sys.argv[1])
        prepare(work)
        command = [sys.executable, __file__, "measure", *sys.argv[1:]]
        measured = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        measured["metrics"] |= on_disk(work / "model")
        log(work, measured)
