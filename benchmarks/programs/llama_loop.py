"""Decode a GGUF model through this package and by llama.cpp alone: `llama_loop.py FOLDER ROUNDS`.

FOLDER is that of a prepared variant. In each round both compute the same prompt and as many new tokens, in turns, with
the same threads. llama.cpp alone means what its program `llama-bench` does, which the Python package lacks: the prompt
in one batch, then one arbitrary token at a time, and nobody looks at the logits. Prints a JSON list with the tokens per
second of each round in decoding, and its prompt's milliseconds.
"""

import ctypes
import json
import os
import sys
import time
from pathlib import Path

import torch

from mlflow_compress.families.causal_lm import CausalLm
from mlflow_compress.networks import gguf_checkpoints
from mlflow_compress.networks.llama_binding import binding
from mlflow_compress.networks.model_folder import restore
from mlflow_compress.records import Variant, read_json


def main() -> None:
    """Restore, warm both up, and time them in turns."""
    folder, rounds = Path(sys.argv[1]), int(sys.argv[2])
    variant = Variant.from_json(read_json(folder / "variant.json"))
    restored = restore(folder / "model")
    model, family = restored.model, restored.family
    assert isinstance(family, CausalLm)
    batch, new_tokens = family.batch(model, 1, variant.seed), family.new_tokens
    path = gguf_checkpoints.file_of(model.module)
    assert path is not None
    bare = Bare(path, batch.numpy().ravel().tolist(), new_tokens)

    def through_package() -> tuple[float, float]:
        marks = [time.perf_counter()]
        family.run(model, batch, lambda stage: marks.append(time.perf_counter()))
        return marks[1] - marks[0], marks[-1] - marks[1]

    results = []
    with torch.inference_mode():
        for number in range(rounds + 1):  # the first one warms up
            loops = {"package": through_package, "bare": bare.generate}
            times = {name: loops[name]() for name in sorted(loops, reverse=bool(number % 2))}
            results.append({name: _numbers(new_tokens, *seconds) for name, seconds in times.items()})
    sys.stdout.write(json.dumps(results[1:]) + "\n")
    sys.stdout.flush()
    os._exit(0)  # the bare context is not freed


def _numbers(new_tokens: int, prompt_seconds: float, decode_seconds: float) -> dict[str, float]:
    return {"tokens_per_s": (new_tokens - 1) / decode_seconds, "prompt_ms": prompt_seconds * 1000}


class Bare:
    """A loop over llama.cpp's own functions.

    Args:
        path: GGUF file.
        prompt: token ids of the prompt.
        new_tokens: number of tokens to generate after it.
    """

    def __init__(self, path: Path, prompt: list[int], new_tokens: int) -> None:
        self._lib, self._new_tokens = binding(), new_tokens
        parameters = self._lib.llama_model_default_params()
        parameters.n_gpu_layers = 0
        model = self._lib.llama_model_load_from_file(str(path).encode(), parameters)
        settings = self._lib.llama_context_default_params()
        settings.n_ctx, settings.no_perf = len(prompt) + new_tokens, True
        self._context = self._lib.llama_init_from_model(model, settings)
        self._lib.llama_set_n_threads(self._context, torch.get_num_threads(), torch.get_num_threads())
        self._prompt = (ctypes.c_int32 * len(prompt))(*prompt)
        self._token = (ctypes.c_int32 * 1)(prompt[0])

    def generate(self) -> tuple[float, float]:
        """Compute the prompt and the new tokens; return the seconds of the prompt and of the rest."""
        self._lib.llama_memory_clear(self._lib.llama_get_memory(self._context), True)
        started = time.perf_counter()
        self._compute(self._prompt)
        first = time.perf_counter()
        for _ in range(self._new_tokens - 1):
            self._compute(self._token)
        return first - started, time.perf_counter() - first

    def _compute(self, tokens: "ctypes.Array[ctypes.c_int32]") -> None:
        code = self._lib.llama_decode(self._context, self._lib.llama_batch_get_one(tokens, len(tokens)))
        self._lib.llama_synchronize(self._context)
        if code:
            raise RuntimeError(f"llama_decode returned {code}")


if __name__ == "__main__":
    main()
