"""Whisper in CTranslate2, in the place of a transformers model: one call of the library makes all tokens of a text."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow_compress.compression.ctranslate2_module import Converted, Output, require_known, tensor_of
from mlflow_compress.errors import Unsupported

_HIDDEN = -1e30  # logits below are those of tokens that were not to be chosen
_END, _START, _NO_TIMES = "<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>"


@dataclasses.dataclass
class Heard:
    """What the encoder made of sounds.

    Attributes:
        states: a `ctranslate2.StorageView` [batch, frames, width].
        batch: how many sounds.
    """

    states: Any
    batch: int


class Whisper(Converted):
    """A recogniser in CTranslate2: answers `generate`, `get_encoder` and a forward pass as transformers' models do.

    Args:
        folder: with the converted model.
        config: the model's.
        generation: its generation config.
    """

    specification = "WhisperSpec"

    def __init__(self, folder: Path, config: Any, generation: Any) -> None:
        super().__init__(folder, config, generation)
        self.special = special_tokens(config, generation)

    def _opened(self) -> Any:
        import ctranslate2

        return ctranslate2.models.Whisper

    def get_encoder(self) -> Any:
        """Return what encodes features [batch, mels, frames], as transformers' models do."""
        return self._encode

    def _encode(self, features: Any) -> Heard:
        import ctranslate2

        array = features.detach().float().contiguous().numpy()
        return Heard(self._model.encode(ctranslate2.StorageView.from_array(array)), len(array))

    def __call__(self, input_features: Any = None, decoder_input_ids: Any = None, use_cache: bool = False) -> Output:
        """Return the logits of given tokens after the prompt [batch, tokens, vocabulary].

        The library decodes the tokens that a prompt ends with as if it had chosen them itself. It takes nothing without
        a prompt of Whisper's: then there are no logits at all.
        """
        import torch

        texts = decoder_input_ids.tolist()
        last = self.special[1]
        if any(text[0] != self.generation.decoder_start_token_id or last not in text for text in texts):
            return Output(logits=torch.zeros(0))
        heard = self._encode(input_features)
        return Output(logits=torch.stack(self._at_once(heard, texts, texts[0].index(last) + 1), dim=1))

    def _at_once(self, heard: Heard, texts: Sequence[list[int]], first: int) -> list[Any]:
        """Return the logits [batch, vocabulary] after each beginning of the texts that has `first` tokens or more."""
        import torch

        wanted = len(texts[0]) - first + 1
        results = self._generated(heard, texts, wanted, [], return_logits_vocab=True, suppress_blank=False)
        return [torch.stack([tensor_of(each.logits[0][step]) for each in results]) for step in range(wanted)]

    def generate(
        self,
        input_features: Any = None,
        encoder_outputs: Heard | None = None,
        max_new_tokens: int = 0,
        min_new_tokens: int = 0,
        num_beams: int | None = None,
        return_dict_in_generate: bool = False,
        output_logits: bool = False,
        streamer: Any = None,
        **options: Any,
    ) -> Any:
        """Decode, as `generate` of transformers does with these options: greedily, or by beam search.

        Returns:
            The tokens [batch, prompt and new]; with `return_dict_in_generate` an object that has them as `sequences`,
            and `logits` for each new token [batch, vocabulary]. A text that ends early is filled up with its end.

        Raises:
            Unsupported: there is an option that would change what is generated, and that it does not know.
        """
        import torch

        require_known(options)
        heard = encoder_outputs or self._encode(input_features)
        prompts = self._prompts(heard)
        if streamer is not None:
            streamer.put(torch.tensor(prompts))
        ends = self.ends()
        suppressed = [*(self.generation.suppress_tokens or []), *(ends if min_new_tokens else [])]
        beams = num_beams or self.generation.num_beams or 1
        results = self._generated(
            heard, prompts, max_new_tokens, suppressed, beam_size=beams, return_logits_vocab=output_logits
        )
        if streamer is not None:
            streamer.whole()
        end = int(ends[0])
        made = [_cut(each.sequences_ids[0], ends if not min_new_tokens else ()) for each in results]
        longest = max(len(text) for text in made)
        texts = [prompt + text + [end] * (longest - len(text)) for prompt, text in zip(prompts, made, strict=True)]
        if not return_dict_in_generate:
            return torch.tensor(texts)
        logits = self._told_logits(heard, results, texts, len(prompts[0])) if output_logits else None
        return Output(torch.tensor(texts), logits)

    def _told_logits(self, heard: Heard, results: Sequence[Any], texts: list[list[int]], start: int) -> list[Any]:
        """Return the logits by which tokens were chosen; those of tokens that it hid, from a call with all."""
        import torch

        others = self._at_once(heard, [text[:-1] for text in texts], start)
        told = []
        for step, other in enumerate(others):
            logits = torch.stack([tensor_of(each.logits[0][step]) for each in results])
            told.append(torch.where(logits < _HIDDEN, other, logits))
        return told

    def _generated(
        self, heard: Heard, prompts: Sequence[list[int]], tokens: int, suppressed: Sequence[int], **options: Any
    ) -> Any:
        """Generate at most so many tokens: the library takes half of a length, or what the prompt leaves of it."""
        most = max(2 * tokens, tokens + len(prompts[0]))
        settings = {"beam_size": 1, "suppress_blank": True, **options}
        return self._model.generate(
            heard.states, list(prompts), max_length=most, suppress_tokens=sorted(set(suppressed)), **settings
        )

    def _prompts(self, heard: Heard) -> list[list[int]]:
        """Return the tokens that texts begin with, as `generate` of transformers chooses them.

        Source: WhisperGenerationMixin._retrieve_init_tokens of transformers.
        """
        settings = self.generation
        task, language = getattr(settings, "task", None), getattr(settings, "language", None)
        known: Mapping[str, int] = getattr(settings, "lang_to_id", None) or {}
        if language is not None:
            languages = [known[f"<|{language.strip('<|>')}|>"]] * heard.batch
        elif known:
            languages = [known[each] for each in self._languages(heard)]
        else:
            languages = []
        prompts = [[int(settings.decoder_start_token_id), *languages[each : each + 1]] for each in range(heard.batch)]
        tasks: Mapping[str, int] = getattr(settings, "task_to_id", None) or {}
        if task is not None or (language is not None and tasks):
            prompts = [[*prompt, tasks[task or "transcribe"]] for prompt in prompts]
        start, last = self.special
        before = [] if prompts[0][0] == start else [start]
        return [[*prompt, *before, last] for prompt in prompts]

    def _languages(self, heard: Heard) -> list[str]:
        """Return the likeliest language of each sound, as the library names it: `<|en|>`.

        Raises:
            Unsupported: the library does not take the model for one of several languages.
        """
        try:
            return [each[0][0] for each in self._model.detect_language(heard.states)]
        except RuntimeError as error:
            raise Unsupported(
                "CTranslate2 can't detect the language with this model: set language in its generation_config.json"
            ) from error


def special_tokens(config: Any, generation: Any) -> tuple[int, int]:
    """Return the tokens that the library must know as the start of a text, and as the one without time stamps.

    A prompt that ends with another token lets it choose tokens of time stamps alone. Random weights, whose settings
    name no such tokens, get the last two of the vocabulary: their prompts have two tokens more than in transformers.
    """
    if (last := getattr(generation, "no_timestamps_token_id", None)) is not None:
        return int(generation.decoder_start_token_id), int(last)
    return config.vocab_size - 2, config.vocab_size - 1


def vocabulary(tokens: Sequence[str], config: Any, generation: Any) -> list[str]:
    """Return the names of all tokens, one for each row of the embedding, with those that the library must find.

    Args:
        tokens: those of the tokenizer, by id.
        config: the model's.
        generation: its generation config.
    """
    names = [*tokens[: config.vocab_size]]
    names += [f"<|{number * 0.02:.2f}|>" for number in range(config.vocab_size - len(names))]
    end = generation.eos_token_id
    start, last = special_tokens(config, generation)
    ids = {_END: end[0] if isinstance(end, (list, tuple)) else end, _START: start, _NO_TIMES: last}
    ids |= getattr(generation, "lang_to_id", None) or {}
    ids |= {f"<|{task}|>": number for task, number in (getattr(generation, "task_to_id", None) or {}).items()}
    names = [f"{name}({number})" if name in ids and ids[name] != number else name for number, name in enumerate(names)]
    for name, number in ids.items():
        names[number] = name
    return names


def _cut(tokens: Sequence[int], ends: Sequence[int]) -> list[int]:
    """Return tokens up to the first that ends a text."""
    stop = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
    return list(tokens[:stop])
