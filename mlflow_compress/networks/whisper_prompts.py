"""Language and task of Whisper, which a recipe may fix: they are tokens at the beginning of each transcript."""

from __future__ import annotations

from typing import Any

from mlflow_compress.errors import RecipeError, UnknownName
from mlflow_compress.records import CautionKind

AUTO = "auto"
TASKS = ("transcribe", "translate")
_FIRST_LANGUAGE = 50_259  # id of `<|en|>` in all multilingual vocabularies
_OTHER_TOKENS = 51_766  # of a multilingual vocabulary, besides its languages

DETECTED_LANGUAGE = CautionKind(
    "detected_language",
    short={"en": "the model detects the language of each sound", "ru": "язык каждой записи определяет модель"},
    message={
        "en": "the model detects the language of each sound, and a compressed model may detect another one",
        "ru": "язык каждой записи определяет модель, и сжатая модель может определить другой",
    },
    advice={
        "en": "Set the language, such as -O language=en, so that only the transcripts are compared.",
        "ru": "Задайте язык, например -O language=ru: тогда сравниваются только расшифровки.",
    },
)


def settle(generation: Any, language: str, task: str, source: str) -> None:
    """Write a language and a task into a model's generation config, where every runtime finds them.

    Args:
        generation: the generation config.
        language: code (`ru`) or English name (`russian`) of a language; `auto`: do not change it.
        task: `transcribe`, `translate`, or `auto`: do not change it.
        source: origin of the model, for messages.

    Raises:
        RecipeError: the model has no such choice.
        UnknownName: the model does not know the language.
    """
    option = "language" if language != AUTO else "task"
    if language == task == AUTO:
        return
    if getattr(generation, "is_multilingual", None) is False:
        raise RecipeError(f"{source} knows only English and one task: leave out {option}.")
    languages, tasks = (getattr(generation, name, None) for name in ("lang_to_id", "task_to_id"))
    if (language != AUTO and not languages) or (task != AUTO and not tasks):
        raise RecipeError(
            f"{source} does not let you choose: its generation_config.json names no languages and tasks (lang_to_id, "
            f"task_to_id). Leave out {option}."
        )
    if language != AUTO:
        generation.language = _code(language, {str(name).strip("<|>"): name for name in languages or {}})
    if task != AUTO:
        generation.task = task


def give_tokens(config: Any, generation: Any) -> None:
    """Write the tokens of languages and tasks into the generation config of a multilingual Whisper with random weights.

    A config does not have them. They follow from the size of the vocabulary, as in OpenAI's tokenizer. A model with
    another vocabulary is not changed.
    """
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    count = config.vocab_size - _OTHER_TOKENS
    if config.decoder_start_token_id != _FIRST_LANGUAGE - 1 or not 99 <= count <= len(LANGUAGES):
        return
    after = _FIRST_LANGUAGE + count
    generation.lang_to_id = {
        f"<|{code}|>": _FIRST_LANGUAGE + index for index, code in enumerate(list(LANGUAGES)[:count])
    }
    generation.task_to_id = {"translate": after, "transcribe": after + 1}
    generation.no_timestamps_token_id = after + 5
    generation.is_multilingual = True
    generation._from_model_config = False  # else transformers drops these fields when it reads the file


def detects_language(config: Any, generation: Any) -> bool:
    """Return whether a model chooses the language of each sound itself."""
    if not getattr(generation, "lang_to_id", None) or getattr(generation, "is_multilingual", None) is False:
        return False
    if getattr(generation, "language", None) is not None:
        return False
    forced = getattr(generation, "forced_decoder_ids", None) or getattr(config, "forced_decoder_ids", None)
    is_ignored = getattr(generation, "task", None) is not None  # transformers then ignores the forced tokens
    return is_ignored or not forced or forced[0][1] is None


def described(generation: Any) -> str:
    """Return the fixed language and task of a model in words; empty if none is fixed."""
    names = ("language", "task")
    return ", ".join(f"{name} {value}" for name in names if (value := getattr(generation, name, None)) is not None)


def _code(language: str, languages: dict[str, Any]) -> str:
    """Return a language's code, as the model names it."""
    from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

    name = language.strip().lower().strip("<|>")
    code = name if name in languages else TO_LANGUAGE_CODE.get(name, name)
    if code not in languages:
        raise UnknownName("language of this model", language, sorted(languages))
    return code
