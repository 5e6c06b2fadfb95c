"""A GGUF file, run by llama.cpp."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from mlflow_compress.compression import coverage
from mlflow_compress.compression.gguf_writing import tensor_types, window_of, write_gguf
from mlflow_compress.errors import Unsupported, WeightsError
from mlflow_compress.networks import generation_check, made_weights
from mlflow_compress.networks.gguf_checkpoints import FILE, attach
from mlflow_compress.networks.llama_binding import quantize
from mlflow_compress.networks.published_files import publish_runtime
from mlflow_compress.networks.transformers_models import companions
from mlflow_compress.records import CautionKind
from mlflow_compress.sockets import Family, Method, Model, Published, State

_FLOATS = ("f32", "f16", "bf16")
_NO_DECODER = "llama.cpp runs only language models here"

SEES_ALL = CautionKind(
    "gguf_sees_all",
    short={
        "en": "llama.cpp has no sliding window here: its layers see all tokens",
        "ru": "у llama.cpp здесь нет скользящего окна: слои видят все токены",
    },
    message={
        "en": "the model's layers see {window} tokens back, but in llama.cpp they see all tokens: on longer texts it "
        "is a different model",
        "ru": "слои модели видят {window} токенов назад, а в llama.cpp все: на более длинных текстах это другая модель",
    },
    advice={
        "en": "Compare the quality on texts with at most that many tokens.",
        "ru": "Сравнивайте качество на текстах не длиннее этого окна.",
    },
)


@dataclass
class Gguf(Method):
    """A language model as one GGUF file, run by llama.cpp on the CPU: blocks of few bits with their own kernels.

    The k types need rows of a multiple of 256 numbers, others of 32; for other rows llama.cpp itself uses the next
    larger type, and the row states how many numbers have each type. The file contains the tokenizer too if llama.cpp
    supports it, so that llama.cpp and ollama run the file as it is. Greedy decoding is a loop around llama.cpp's own
    calls, as in its tools, not `generate` of transformers. llama-cpp-python is the binding that gives raw logits
    without a copy and quantises files, by definitions of the llama.cpp that it builds. Bindings with wheels do not:
    xllamacpp can't quantise, cyllama copies logits into lists, llama-cpp-py-sync needs glibc 2.38.

    Source: llama.cpp (`llama_model_quantize`, `llama_decode`); convert_hf_to_gguf.py.

    Attributes:
        type: Type of the file, as llama.cpp names it.
    """

    changes: ClassVar[Literal["runtime"]] = "runtime"
    takes: ClassVar[tuple[State, ...]] = ("float", "half")
    gives: ClassVar[State] = "runtime"
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    needs: ClassVar[tuple[str, ...]] = ("gguf", "llama-cpp-python")
    extra: ClassVar[str] = "gguf"
    excludes: ClassVar[Mapping[str, str]] = dict.fromkeys(
        (
            "asr",
            "asr_ctc",
            "image_classification",
            "masked_lm",
            "mlflow_model",
            "object_detection",
            "python",
            "semantic_segmentation",
            "seq2seq",
            "text_classification",
            "text_embedding",
            "token_classification",
            "yolo",
            "zero_shot_image_classification",
        ),
        _NO_DECODER,
    )

    type: Literal[
        "f32",
        "f16",
        "bf16",
        "q8_0",
        "q4_0",
        "q4_1",
        "q5_0",
        "q5_1",
        "q2_k",
        "q3_k_m",
        "q4_k_s",
        "q4_k_m",
        "q5_k_m",
        "q6_k",
    ] = "q4_k_m"

    def compress(self, model: Model, family: Family) -> Model:
        """Write the file and run it.

        Raises:
            Unsupported: The model is not a language model of a supported architecture.
            WorkerError: llama.cpp generates with a wrong past.
        """
        import torch

        if not model.is_transformer or not hasattr(model.config, "num_hidden_layers"):
            raise Unsupported(_NO_DECODER)
        made_weights.fold(model.module)
        generated = generation_check.generate(family, model)
        folder = tempfile.TemporaryDirectory(prefix="mlflow-compress-")
        path = Path(folder.name, FILE)
        is_float = self.type in _FLOATS
        float_path = path if is_float else Path(folder.name, "float.gguf")
        kind = self.type if is_float else _own_type(next(model.module.parameters()).dtype)
        obstacle = write_gguf(model.module, model.config, companions(model).tokenizer, float_path, kind)
        model.module = None  # from here on only the file is needed
        if not is_float:
            quantize(float_path, path, self.type.upper(), torch.get_num_threads())
            float_path.unlink()
        model.files = folder
        model = self.load(model, family, Path(folder.name))
        self._note(model, obstacle)
        model.cautions += generation_check.require_past(generated, generation_check.generate(family, model))
        return model

    def _note(self, model: Model, obstacle: str) -> None:
        """Record what the file holds in the model's facts."""
        header = model.module.calls["model"].header
        counts = tensor_types(header.tensors)
        model.facts["types"] = ", ".join(f"{count:,} in {kind}" for kind, count in counts.items())
        total = sum(counts.values())
        unchanged = 0 if self.type == "f32" else counts.get("f32", 0)
        if self.type not in _FLOATS:  # rows that no block divides are kept in half precision
            unchanged += counts.get("f16", 0) + counts.get("bf16", 0)
        coverage.record(model, total - unchanged, total)
        if obstacle:
            model.facts["tokenizer"] = f"not in the file: {obstacle}"
        if (window := window_of(model.config)) is not None:
            model.cautions.append(SEES_ALL.of(window=window))

    def save(self, model: Model, family: Family, folder: Path) -> None:
        """Copy the file."""
        assert model.files is not None
        shutil.copy(Path(model.files.name, FILE), folder / FILE)

    def load(self, model: Model, family: Family, folder: Path) -> Model:
        """Check the file's header and open the file.

        Raises:
            WeightsError: The file is missing, or its header is wrong.
        """
        if not (folder / FILE).is_file():
            raise WeightsError(f"There is no {FILE} in {folder}.")
        return attach(model, family, folder / FILE)

    def publish(self, saved: Path, family: Family, portable: Callable[[], Model], folder: Path) -> Published:
        """Copy the file, with the tokenizer and the config next to it (see `Method.publish`)."""
        published = publish_runtime(saved, 'llama_cpp.Llama("*.gguf")', folder)
        return replace(published, needs=("llama-cpp-python",))


def _own_type(dtype: Any) -> str:
    """Return the type in which a file of floats keeps weights of this type."""
    import torch

    if dtype == torch.float16:
        return "f16"
    return "bf16" if dtype == torch.bfloat16 else "f32"
