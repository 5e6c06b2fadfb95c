"""CTranslate2: a runtime for speech recognition and translation, used by faster-whisper and many translators."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

from mlflow_compress.compression import coverage
from mlflow_compress.compression.ctranslate2_conversion import FOLDER, convert_translation, convert_whisper, write_start
from mlflow_compress.compression.ctranslate2_settings import settings_of
from mlflow_compress.compression.ctranslate2_translation import VOCABULARY, Translation
from mlflow_compress.compression.ctranslate2_whisper import Whisper
from mlflow_compress.compression.exporting import quiet, require_integers
from mlflow_compress.error_causes import cause_line, is_out_of_memory
from mlflow_compress.errors import Unsupported
from mlflow_compress.meters.environment import has_int8_dot_products
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
        "en": "CTranslate2 gives no logits for given tokens: the difference from the original's outputs is not "
        "measured",
        "ru": "CTranslate2 не даёт логиты для заданных токенов: отличие выходов от оригинала не измерено",
    },
    advice={
        "en": "Compare the quality on data.",
        "ru": "Сравнивайте качество на данных.",
    },
)
CUT_OFF_SUMS = CautionKind(
    "cut_off_sums",
    short={
        "en": "sums of int8 products saturate on this CPU",
        "ru": "суммы произведений int8 насыщаются на этом процессоре",
    },
    message={
        "en": "this CPU has no int8 instructions (VNNI), and the kernels that CTranslate2 uses on it add two products "
        "in 16 bits: larger sums saturate, and the outputs are further from the original's",
        "ru": "у этого процессора нет инструкций int8 (VNNI), и ядра, которые на нём выбирает CTranslate2, складывают "
        "два произведения в 16 битах: большие суммы насыщаются, и выходы дальше от оригинала",
    },
    advice={
        "en": "Measure on the machine where the model will run. With CT2_USE_MKL=1 in the environment the library uses "
        "other kernels, whose sums fit.",
        "ru": "Измеряйте на машине, где модель будет работать. Если задать переменную окружения CT2_USE_MKL=1, "
        "библиотека берёт другие ядра, в которых суммы помещаются.",
    },
)
_CHOICE = "CT2_USE_MKL"  # read by the library: without it, MKL is used only on Intel CPUs
_OTHERS = "it runs only Whisper and text-to-text models here"
_WHISPER = "whisper"  # model_type of its config


@dataclass
class Ctranslate2(Method):
    """CTranslate2 on the CPU: Whisper, Marian, T5, BART and similar models, with the runtime's own decoding loop.

    All weights, as CTranslate2's converter reads them. In the int8 types matrices of products and embeddings are int8,
    with one scale per output channel, and activations are rounded at each call, with one scale per token. In 16-bit
    types the rest is stored in 16 bits, and computed in float32 on CPUs without such kernels.
    Whisper's decoder steps are one call of the library: `decoder` is the time of all tokens together. A translator's
    encoder is part of the time of the first token (`first_token`). Beam search ends as in the library: when as many
    texts as there are beams have ended. Forbidden tokens (`bad_words_ids` and similar) are removed before the softmax,
    as with renormalize_logits=true.
    The folder `ctranslate2` has the library's own format: faster-whisper or `ctranslate2.Translator` opens it.

    Source: ctranslate2.converters.TransformersConverter, ctranslate2.models.Whisper, ctranslate2.Translator.

    Attributes:
        type: Type of the weights, as CTranslate2 names it (`quantization`).
    """

    changes: ClassVar[Literal["runtime"]] = "runtime"
    takes: ClassVar[tuple[State, ...]] = ("float",)
    gives: ClassVar[State] = "runtime"
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    needs: ClassVar[tuple[str, ...]] = ("ctranslate2",)
    extra: ClassVar[str] = "ctranslate2"
    excludes: ClassVar[Mapping[str, str]] = dict.fromkeys(
        (
            *("asr_ctc", "causal_lm", "image_classification", "masked_lm", "mlflow_model", "object_detection"),
            *("python", "semantic_segmentation", "text_classification", "text_embedding", "token_classification"),
            *("yolo", "zero_shot_image_classification"),
        ),
        _OTHERS,
    )

    type: Literal[
        "float32", "float16", "bfloat16", "int16", "int8", "int8_float32", "int8_float16", "int8_bfloat16"
    ] = "int8"

    def compress(self, model: Model, family: Family) -> Model:
        """Convert the model, and run it from the files.

        Raises:
            Unsupported: CTranslate2 does not support the architecture or the generation settings.
            WorkerError: The converted model generates something else.
        """
        is_whisper = _require_known(model, family)
        has_same_prompt = not is_whisper or _has_no_timestamps_token(model)
        widen(model, "CTranslate2's converter")
        generated = generation_check.generate(family, model)
        folder = tempfile.TemporaryDirectory(prefix="mlflow-compress-")
        try:
            with quiet():
                (convert_whisper if is_whisper else convert_translation)(model, Path(folder.name), self.type)
        except Unsupported:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise Unsupported(f"CTranslate2 can't convert the model: {cause_line(error)}") from error
        model.module, model.files = None, folder
        model = self.load(model, family, Path(folder.name))
        model.facts["arithmetic"] = model.module.arithmetic
        converted = generation_check.generate(family, model)
        # other prompts (see `special_tokens`) change the texts, which is not the sign of a lost past
        model.cautions += generation_check.require_past(generated if has_same_prompt else converted, converted)
        if is_whisper:
            model.cautions.append(NO_FORWARD.of())
        if cuts_off_sums(model.module.arithmetic):
            model.cautions.append(CUT_OFF_SUMS.of())
        if self.type.startswith("int"):
            return require_integers(model)
        coverage.note_all(model)
        return model

    def save(self, model: Model, family: Family, folder: Path) -> None:
        """Copy the files."""
        assert model.files is not None
        shutil.copytree(Path(model.files.name) / FOLDER, folder / FOLDER)

    def load(self, model: Model, family: Family, folder: Path) -> Model:
        """Open the files.

        Raises:
            WeightsError: They are missing or incomplete.
        """
        kind = Whisper if model.config.model_type == _WHISPER else Translation
        model.module = kind(folder / FOLDER, model.config, companions(model).generation)
        model.runtime = kind.runtime
        return model

    def publish(self, saved: Path, family: Family, portable: Callable[[], Model], folder: Path) -> Published:
        """Copy the library's own folder, with the tokenizer next to it (see `Method.publish`)."""
        model = family.restore_assets(saved)
        if model.config.model_type == _WHISPER:
            return publish_runtime(saved, f'ctranslate2.models.Whisper("FOLDER/{FOLDER}")', folder)
        published = publish_runtime(saved, f'ctranslate2.Translator("FOLDER/{FOLDER}")', folder)
        names = json.loads((folder / FOLDER / VOCABULARY).read_text(encoding="utf-8"))
        settings = settings_of(companions(model).generation)
        write_start(folder / FOLDER, names[settings.start])
        arguments = {"beam_size": settings.beams, **settings.options}
        if settings.first is not None:
            arguments["target_prefix"] = [[names[settings.first]]]
        if settings.never:
            arguments["suppress_sequences"] = [[names[token] for token in tokens] for tokens in settings.never]
        listed = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        return replace(published, note=f"`translate_batch` was measured with {listed}.")


def _require_known(model: Model, family: Family) -> bool:
    """Return True for Whisper and False for a text-to-text model.

    Raises:
        Unsupported: It is neither, or its settings are not supported.
    """
    if getattr(model.config, "model_type", "") == _WHISPER:
        if not _has_no_timestamps_token(model) and model.weights != "random":
            raise Unsupported(
                "its generation settings have no no_timestamps_token_id, and without that token CTranslate2 writes "
                "only timestamps"
            )
        return True
    if getattr(family, "auto_class", "") != "AutoModelForSeq2SeqLM":
        raise Unsupported(_OTHERS)
    settings_of(companions(model).generation)
    return False


def _has_no_timestamps_token(model: Model) -> bool:
    return getattr(companions(model).generation, "no_timestamps_token_id", None) is not None


def cuts_off_sums(arithmetic: str, root: Path = Path("/")) -> bool:
    """Return whether sums of 8-bit products saturate at 16 bits for this compute type on this CPU.

    Args:
        arithmetic: Compute type as the library names it, such as `int8_float32`.
        root: Folder of `proc`; another folder in tests.
    """
    if not arithmetic.startswith("int8") or has_int8_dot_products(root):
        return False
    info = root / "proc/cpuinfo"
    is_intel = info.is_file() and "GenuineIntel" in info.read_text()
    choice = os.environ.get(_CHOICE, "")
    return choice not in ("1", "true", "TRUE") if choice else not is_intel
