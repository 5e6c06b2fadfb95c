"""Language and task of Whisper: tokens at the beginning of a transcript, in the generation config."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny import TINY, tiny_model

from mlflow_compress import registry
from mlflow_compress.errors import RecipeError, UnknownName
from mlflow_compress.networks import model_folder, whisper_prompts
from mlflow_compress.networks.transformers_models import companions
from mlflow_compress.planning import chains
from mlflow_compress.records import Variant

LANGUAGES = {"<|en|>": 40, "<|ru|>": 41}
TASKS = {"translate": 50, "transcribe": 51}
WHISPER = {**TINY["asr"]["architecture"], "decoder_start_token_id": 50_258, "max_target_positions": 32}


def settings(**fields: Any) -> Any:
    return SimpleNamespace(**{"lang_to_id": LANGUAGES, "task_to_id": TASKS, "is_multilingual": True, **fields})


@pytest.mark.parametrize("language", ["ru", "RU", "russian", "<|ru|>"])
def test_a_language_has_a_code_and_a_name(language: str) -> None:
    generation = settings()
    whisper_prompts.settle(generation, language, "auto", "w")
    assert (generation.language, whisper_prompts.described(generation)) == ("ru", "language ru")
    whisper_prompts.settle(generation, "auto", "translate", "w")
    assert whisper_prompts.described(generation) == "language ru, task translate"


def test_a_choice_that_the_model_does_not_have_is_rejected() -> None:
    with pytest.raises(UnknownName, match=r"Unknown language of this model 'de'.* Known: en, ru\."):
        whisper_prompts.settle(settings(), "de", "auto", "w")
    with pytest.raises(RecipeError, match="w knows only English and one task: leave out language"):
        whisper_prompts.settle(settings(is_multilingual=False), "en", "auto", "w")
    with pytest.raises(RecipeError, match=r"w does not let you choose: .* Leave out task"):
        whisper_prompts.settle(settings(task_to_id=None), "auto", "translate", "w")
    untouched = SimpleNamespace()
    whisper_prompts.settle(untouched, "auto", "auto", "w")
    assert vars(untouched) == {}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, True),
        ({"language": "ru"}, False),
        ({"lang_to_id": None}, False),
        ({"is_multilingual": False}, False),
        ({"forced_decoder_ids": [[1, None], [2, 51]]}, True),
        ({"forced_decoder_ids": [[1, 40], [2, 51]]}, False),
        ({"forced_decoder_ids": [[1, 40], [2, 51]], "task": "transcribe"}, True),
    ],
)
def test_whether_a_model_detects_the_language(fields: dict[str, Any], expected: bool) -> None:
    assert whisper_prompts.detects_language(SimpleNamespace(), settings(**fields)) == expected


@pytest.mark.parametrize(("size", "last", "transcribe"), [(51_865, "<|su|>", 50_359), (51_866, "<|yue|>", 50_360)])
def test_a_multilingual_vocabulary_has_the_tokens_of_openai(size: int, last: str, transcribe: int) -> None:
    generation = SimpleNamespace()
    whisper_prompts.give_tokens(SimpleNamespace(vocab_size=size, decoder_start_token_id=50_258), generation)
    assert generation.lang_to_id["<|en|>"] == 50_259
    assert generation.lang_to_id[last] == transcribe - 2
    assert generation.task_to_id == {"translate": transcribe - 1, "transcribe": transcribe}
    assert generation.no_timestamps_token_id == transcribe + 4
    other = SimpleNamespace()
    whisper_prompts.give_tokens(SimpleNamespace(vocab_size=51_864, decoder_start_token_id=50_257), other)
    assert vars(other) == {}


def test_random_weights_generate_with_the_prompt_of_the_real_model(tmp_path: Path) -> None:
    options = {"new_tokens": 3, "language": "ru", "architecture": {**WHISPER, "vocab_size": 51_865}}
    family = registry.build("families", "asr", options)
    model = family.load("tiny", "random", Path(), 0)
    assert _prompt(family, model) == [50_258, 50_263, 50_359, 50_363]
    steps = chains.parse_chain("original")
    variant = Variant("m", "original", "t", "asr", "m", chain=steps, options=options)
    model_folder.save(model, family, model_folder.methods_of(steps), variant, tmp_path)
    restored = model_folder.restore(tmp_path)
    assert _prompt(restored.family, restored.model) == [50_258, 50_263, 50_359, 50_363]


def _prompt(family: Any, model: Any) -> list[int]:
    """Return the tokens that the decoder gets before the first new one."""
    prompts: list[list[int]] = []
    forward = model.module.model.decoder.forward

    def watched(*args: Any, **inputs: Any) -> Any:
        prompts.append((args[0] if args else inputs["input_ids"])[0].tolist())
        return forward(*args, **inputs)

    model.module.model.decoder.forward = watched
    with torch.inference_mode():
        family.run(model, family.batch(model, 1, 0), lambda stage: None)
    del model.module.model.decoder.forward
    return prompts[0]


def test_random_weights_of_another_vocabulary_have_no_languages() -> None:
    with pytest.raises(
        RecipeError, match=r"tiny does not let you choose: its generation_config\.json names no languag"
    ):
        tiny_model("asr", language="ru")


def test_without_a_choice_the_prompt_stays_as_it_was() -> None:
    _, model = tiny_model("asr", {"vocab_size": 51_865, "decoder_start_token_id": 50_258})
    assert not hasattr(companions(model).generation, "lang_to_id")
