"""A GGUF file, run by llama.cpp: token ids in, logits out; its keys and values stay in its own memory."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mlflow_compress.errors import WeightsError, WorkerError
from mlflow_compress.networks import kept_places
from mlflow_compress.networks.gguf_header import Tensor, read_header
from mlflow_compress.networks.llama_binding import DISTRIBUTION, binding, reason
from mlflow_compress.networks.stored_weights import Held

_STEP = 512  # tokens computed at once, the default of llama.cpp
_ROUND, _SPARE = 256, 256  # places for tokens: llama.cpp pads to 256; this many are allocated in addition


class LlamaCpp:
    """A model of llama.cpp on the CPU, with as many threads as torch uses. Weights are mapped from the file.

    It uses the defaults of llama.cpp, as people run it: keys and values in float16, and flash attention if available.

    Args:
        path: the GGUF file, which must stay where it is.

    Raises:
        WeightsError: its header is invalid, or llama.cpp rejects it.
    """

    runtime = DISTRIBUTION
    own_loop = True  # see `greedy_loop`

    def __init__(self, path: Path) -> None:
        self.path, self.header = path, read_header(path)
        self._lib = binding()
        parameters = self._lib.llama_model_default_params()
        parameters.n_gpu_layers = 0
        self._model = self._lib.llama_model_load_from_file(str(path).encode(), parameters)
        if not self._model:
            raise WeightsError(f"llama.cpp can't load {path}: {reason()}")
        self._owner = _Owner()
        weakref.finalize(self._owner, self._lib.llama_model_free, self._model)
        self.vocabulary = self._lib.llama_vocab_n_tokens(self._lib.llama_model_get_vocab(self._model))
        self._context: _Context | None = None
        self._last: weakref.ref[Any] | None = None  # the cache whose past llama.cpp holds

    @property
    def dtype(self) -> Any:
        """The floating-point type of the logits."""
        import torch

        return torch.float32

    def advance(self, cache: Any, before: Sequence[Any], after: Sequence[Any]) -> Any:
        """Compute the tokens that follow a cache's text (see `exported_decoders.Decoder`).

        Args:
            cache: a transformers cache; empty for a new text.
            before: token ids [batch, tokens], and the positions whose logits are needed: the last ones.
            after: empty.

        Raises:
            WorkerError: llama.cpp no longer holds the past of that text, only that of its last call.
        """
        ids, positions = before
        past = cache.get_seq_length()
        if past:
            rows, places = kept_places.read(cache)
            is_held = self._last is not None and self._last() is cache
            if not is_held or rows.tolist() != list(range(len(ids))) or places.tolist() != list(range(past)):
                raise WorkerError(
                    "llama.cpp holds the cache of another text: it keeps only the cache of its last call. Generate "
                    "the text from the beginning, greedily."
                )
        logits = self(ids, past, len(positions))
        kept_places.write(cache, 1, len(ids), past + ids.shape[1])
        self._last = weakref.ref(cache)
        return logits

    def __call__(self, ids: Any, past: int, kept: int) -> Any:
        """Compute the tokens that follow the past.

        Args:
            ids: token ids [batch, tokens] of texts of equal length.
            past: number of tokens of each text to keep from earlier calls; later ones are dropped.
            kept: number of last tokens whose logits are needed.

        Returns:
            Logits [batch, kept, vocabulary], float32.

        Raises:
            WorkerError: llama.cpp can't compute them.
        """
        import numpy as np
        import torch

        tokens = ids.detach().to("cpu").numpy().astype(np.int32)
        batch, length = tokens.shape
        if tokens.size and not (tokens.min() >= 0 and tokens.max() < self.vocabulary):
            raise WorkerError(f"a token id is outside the vocabulary of {self.vocabulary} tokens")
        context = self._room(batch, past, past + length)
        logits = torch.empty((batch, kept, self.vocabulary), dtype=torch.float32)
        step = max(1, _STEP // batch)
        for begin in range(0, length, step):
            part = tokens[:, begin : begin + step]
            first = max(length - kept, begin)  # the first token whose logits are needed
            rows = context.compute(part, past + begin, max(0, begin + part.shape[1] - first))
            if rows is not None:
                start = first - (length - kept)
                logits[:, start : start + rows.shape[1]] = torch.from_numpy(rows)
        return logits

    def _room(self, batch: int, past: int, needed_places: int) -> _Context:
        """Return a context with room for this many tokens in each text, and with the past."""
        import torch

        old = self._context
        if old is None or old.batch != batch or old.places < needed_places:
            if past and (old is None or old.batch != batch):
                raise WorkerError("llama.cpp holds the cache of a different number of texts than the call continues")
            places = -(-(needed_places + _SPARE) // _ROUND) * _ROUND
            new = _Context(self, batch, places)
            if old is not None and past:
                new.take_over(old)
            if old is not None:
                old.close()
            self._context = old = new
        old.use_threads(torch.get_num_threads())
        old.forget_from(past)
        return old

    def held_weights(self) -> Iterator[Held]:
        """Return the file's tensors (see `stored_weights.held`)."""
        for tensor in self.header.tensors:
            yield held_tensor(self.path, tensor)


class _Owner:
    """Keeps a loaded model alive until its contexts are freed."""


class _Context:
    """The memory of a computation: `places` tokens for each of `batch` texts."""

    def __init__(self, model: LlamaCpp, batch: int, places: int) -> None:
        self.batch, self.places, self._vocabulary = batch, places, model.vocabulary
        self._lib, self._threads = model._lib, 0
        lib = self._lib
        max_texts = lib.llama_max_parallel_sequences()
        if batch > max_texts:
            raise WorkerError(f"llama.cpp takes at most {max_texts} texts at a time, not {batch}")
        parameters = lib.llama_context_default_params()
        parameters.n_ctx, parameters.n_seq_max = places * batch, batch
        parameters.n_batch = parameters.n_ubatch = max(_STEP, batch)
        parameters.no_perf = True
        self._context = lib.llama_init_from_model(model._model, parameters)
        if not self._context:
            raise WorkerError(f"llama.cpp could not allocate memory for {places * batch} tokens: {reason()}")
        self._memory = lib.llama_get_memory(self._context)
        self._tokens = lib.llama_batch_init(max(_STEP, batch), 0, 1)
        self.close = weakref.finalize(self, _free, lib, self._context, self._tokens, model._owner)

    def use_threads(self, threads: int) -> None:
        if threads != self._threads:
            self._lib.llama_set_n_threads(self._context, threads, threads)
            self._threads = threads

    def forget_from(self, past: int) -> None:
        for text in range(self.batch):
            self._lib.llama_memory_seq_rm(self._memory, text, past, -1)

    def take_over(self, source: _Context) -> None:
        """Copy keys and values out of a smaller context."""
        for text in range(self.batch):
            size = self._lib.llama_state_seq_get_size(source._context, text)
            buffer = (ctypes.c_uint8 * size)()
            self._lib.llama_state_seq_get_data(source._context, buffer, size, text)
            if not self._lib.llama_state_seq_set_data(self._context, buffer, size, text):
                raise WorkerError("llama.cpp could not copy its keys and values into a larger cache")

    def compute(self, ids: Any, start: int, kept: int) -> Any:
        """Compute tokens [batch, tokens] from a position on; return logits of the last `kept` of each text, or None."""
        import numpy as np

        count, length = ids.size, ids.shape[1]
        tokens = self._tokens
        np.ctypeslib.as_array(tokens.token, (count,))[:] = ids.ravel()
        np.ctypeslib.as_array(tokens.pos, ids.shape)[:] = np.arange(start, start + length)
        is_needed = np.ctypeslib.as_array(tokens.logits, ids.shape)
        is_needed[:] = 0
        is_needed[:, length - kept :] = 1
        for index in range(count):
            tokens.n_seq_id[index], tokens.seq_id[index][0] = 1, index // length
        tokens.n_tokens = count
        if code := self._lib.llama_decode(self._context, tokens):
            raise WorkerError(f"llama.cpp could not compute {count} tokens (code {code}): {reason()}")
        if not kept:
            return None
        return np.ctypeslib.as_array(self._lib.llama_get_logits(self._context), (self.batch, kept, self._vocabulary))


def held_tensor(path: Path, tensor: Tensor) -> Held:
    """Return a tensor of a file as it is held: its bytes, and the number of its parameters."""
    import numpy as np
    import torch

    content = np.memmap(path, dtype=np.uint8, mode="c", offset=tensor.start, shape=(tensor.bytes,))

    def is_nonzero() -> Any:
        from gguf.constants import GGMLQuantizationType
        from gguf.quants import dequantize

        rows = content.reshape(-1, tensor.bytes // (tensor.elements // tensor.shape[0]))
        float_type = {"f32": np.float32, "f16": np.float16}.get(tensor.type)
        numbers = rows.view(float_type) if float_type else dequantize(rows, GGMLQuantizationType[tensor.type.upper()])
        return torch.from_numpy(numbers != 0)

    parameters = 0 if tensor.name.startswith("rope_") else tensor.elements
    return Held(torch.from_numpy(content), parameters, is_nonzero)


def _free(lib: Any, context: Any, tokens: Any, owner: _Owner) -> None:
    lib.llama_batch_free(tokens)
    lib.llama_free(context)
