"""Whisper in CTranslate2, which is what faster-whisper runs."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from mlflow_compress.compression import coverage
from mlflow_compress.compression.ctranslate2_whisper import Whisper, vocabulary
from mlflow_compress.compression.exporting import quiet, require_integers
from mlflow_compress.error_causes import cause_line, is_out_of_memory
from mlflow_compress.errors import Unsupported
from mlflow_compress.networks import generation_check
from mlflow_compress.networks.native_precision import widen
from mlflow_compress.networks.published_files import publish_runtime
from mlflow_compress.networks.transformers_models import companions
from mlflow_compress.records import CautionKind
from mlflow_compress.sockets import Family, Method, Model, Published, State

NO_FORWARD = CautionKind(
    "no_logits",
    short={
        "en": "its outputs were not compared number by number",
        "ru": "выходы не сравнивались число за числом",
    },
    message={
        "en": "CTranslate2 gives no logits of given tokens: how far its outputs are from the original's is not "
        "measured",
        "ru": "CTranslate2 не даёт логиты заданных токенов: отличие выходов от оригинала не измерено",
    },
    advice={
        "en": "Compare the quality on data.",
        "ru": "Сравнивайте качество на данных.",
    },
)
_FOLDER = "ctranslate2"
_WHISPER_ALONE = "it runs Whisper, and no other models here"


@dataclass
class Ctranslate2(Method):
    """CTranslate2 on the CPU: Whisper in a runtime made for it, whose loop over tokens is its own.

    All weights, as CTranslate2's converter takes them; in the int8 types matrices of products and embeddings are in
    int8, with a scale for each output channel, and activations are rounded at each call, with one for each token. In
    16-bit types the rest is kept in 16 bits, and is computed in float32 on CPUs that the library has no kernels for.
    The decoder's steps are one call of the library: their time stands for all tokens together (`decoder`).
    The folder `ctranslate2` is the library's own, and faster-whisper opens it.

    Source: ctranslate2.converters.TransformersConverter, ctranslate2.models.Whisper.

    Attributes:
        type: of the weights, as CTranslate2 names it (`quantization`).
    """

    changes: ClassVar[Literal["runtime"]] = "runtime"
    takes: ClassVar[tuple[State, ...]] = ("float",)
    gives: ClassVar[State] = "runtime"
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    needs: ClassVar[tuple[str, ...]] = ("ctranslate2",)
    extra: ClassVar[str] = "ctranslate2"
    excludes: ClassVar[Mapping[str, str]] = dict.fromkeys(
        (
            *("causal_lm", "image_classification", "mlflow_model", "python", "seq2seq", "text_classification"),
            *("token_classification", "yolo"),
        ),
        _WHISPER_ALONE,
    )

    type: Literal[
        "float32", "float16", "bfloat16", "int16", "int8", "int8_float32", "int8_float16", "int8_bfloat16"
    ] = "int8"

    def compress(self, model: Model, family: Family) -> Model:
        """Convert the model, and run it from the files.

        Raises:
            Unsupported: CTranslate2 does not know the architecture.
            WorkerError: it generates something else.
        """
        if getattr(model.config, "model_type", "") != "whisper":
            raise Unsupported(_WHISPER_ALONE)
        is_named = getattr(companions(model).generation, "no_timestamps_token_id", None) is not None
        if not is_named and model.weights != "random":
            raise Unsupported(
                "its generation settings name no no_timestamps_token_id, and without that token CTranslate2 writes "
                "time stamps alone"
            )
        widen(model, "CTranslate2's converter")
        generated = generation_check.generate(family, model)
        folder = tempfile.TemporaryDirectory(prefix="mlflow-compress-")
        try:
            with quiet():
                _convert(model, Path(folder.name), self.type)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise Unsupported(f"CTranslate2 can't take it: {cause_line(error)}") from error
        model.module, model.files = None, folder
        model = self.load(model, family, Path(folder.name))
        model.facts["arithmetic"] = model.module.arithmetic
        made = generation_check.generate(family, model)
        # with other prompts (see `special_tokens`) it generates other texts than before, and not by a lost past
        model.cautions += generation_check.require_past(generated if is_named else made, made)
        model.cautions.append(NO_FORWARD.of())
        if self.type.startswith("int"):
            return require_integers(model)
        coverage.note_all(model)
        return model

    def save(self, model: Model, family: Family, folder: Path) -> None:
        """Copy the files."""
        assert model.files is not None
        shutil.copytree(Path(model.files.name) / _FOLDER, folder / _FOLDER)

    def load(self, model: Model, family: Family, folder: Path) -> Model:
        """Open the files.

        Raises:
            WeightsError: they are not there, or not whole.
        """
        model.module = Whisper(folder / _FOLDER, model.config, companions(model).generation)
        model.runtime = Whisper.runtime
        return model

    def publish(self, saved: Path, family: Family, portable: Callable[[], Model], folder: Path) -> Published:
        """Copy the library's own folder, with the tokenizer beside it (see `Method.publish`)."""
        return publish_runtime(saved, f'ctranslate2.models.Whisper("FOLDER/{_FOLDER}")', folder)


def _convert(model: Model, folder: Path, kind: str) -> None:
    """Write a model as CTranslate2 keeps it, without a second copy of its weights."""
    from ctranslate2.converters import TransformersConverter

    held = companions(model)
    names = vocabulary(_tokens(held.tokenizer), model.config, held.generation)

    class Converter(TransformersConverter):  # type: ignore[misc]
        """Takes the model that is there, rather than load one."""

        def load_model(self, *arguments: Any, **options: Any) -> Any:
            return model.module

        def load_tokenizer(self, *arguments: Any, **options: Any) -> Any:
            return _Names(names)

    model.config.save_pretrained(folder / "config")
    Converter(str(folder / "config")).convert(str(folder / _FOLDER), quantization=kind)


class _Names:
    """Stands in a tokenizer's place before the converter, which asks for names of tokens and no more."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.additional_special_tokens: list[str] = []

    def get_vocab(self) -> dict[str, int]:
        """Return the ids of tokens."""
        return {name: number for number, name in enumerate(self.names)}


def _tokens(tokenizer: Any) -> list[str]:
    """Return a tokenizer's tokens by id; one that no token has gets a name."""
    known = {number: token for token, number in tokenizer.get_vocab().items()}
    return [known.get(number, f"<unused_{number}>") for number in range(max(known) + 1)]
