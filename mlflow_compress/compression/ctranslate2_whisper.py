"""Whisper in CTranslate2 as a replacement of a transformers model: one library call generates all tokens of a text."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow_compress.compression.ctranslate2_module import Converted, Output, require_known, tensor_of
from mlflow_compress.errors import Unsupported

_HIDDEN = -1e30  # lower logits belong to suppressed tokens
_END, _START, _NO_TIMES = "<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>"


@dataclasses.dataclass
class Heard:
    """Output of the encoder.

    Attributes:
        states: `ctranslate2.StorageView` [batch, frames, width].
        batch: Number of sounds.
    """

    states: Any
    batch: int


class Whisper(Converted):
    """Whisper in CTranslate2, with `generate`, `get_encoder` and a forward pass like transformers' models.

    Args:
        folder: Folder of the converted model.
        config: Config of the model.
        generation: Generation config of the model.
    """

    specification = "WhisperSpec"

    def __init__(self, folder: Path, config: Any, generation: Any) -> None:
        super().__init__(folder, config, generation)
        self.special = special_tokens(config, generation)

    def _opened(self) -> Any:
        import ctranslate2

        return ctranslate2.models.Whisper

    def get_encoder(self) -> Any:
        """Return the function that encodes features [batch, mels, frames], like transformers' models."""
        return self._encode

    def _encode(self, features: Any) -> Heard:
        import ctranslate2

        array = features.detach().float().contiguous().numpy()
        return Heard(self._model.encode(ctranslate2.StorageView.from_array(array)), len(array))

    def __call__(self, input_features: Any = None, decoder_input_ids: Any = None, use_cache: bool = False) -> Output:
        """Return the logits for given tokens after the prompt [batch, tokens, vocabulary].

        The library decodes the tokens at the end of a prompt as if it had chosen them itself. It requires a Whisper
        prompt: without one there are no logits.
        """
        import torch

        texts = decoder_input_ids.tolist()
        last_special = self.special[1]
        if any(text[0] != self.generation.decoder_start_token_id or last_special not in text for text in texts):
            return Output(logits=torch.zeros(0))
        encoded = self._encode(input_features)
        return Output(logits=torch.stack(self._forced(encoded, texts, texts[0].index(last_special) + 1), dim=1))

    def _forced(self, encoded: Heard, texts: Sequence[list[int]], first: int) -> list[Any]:
        """Return the logits [batch, vocabulary] after each prefix of the texts that has `first` tokens or more."""
        import torch

        steps = len(texts[0]) - first + 1
        results = self._generated(encoded, texts, steps, [], return_logits_vocab=True, suppress_blank=False)
        return [torch.stack([tensor_of(result.logits[0][step]) for result in results]) for step in range(steps)]

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
        """Decode like `generate` of transformers with these options: greedily, or by beam search.

        Returns:
            The tokens [batch, prompt and new]; with `return_dict_in_generate` an object that has them as `sequences`,
            and `logits` for each new token [batch, vocabulary]. A text that ends early is padded with its end token.

        Raises:
            Unsupported: An option would change the output and is not supported.
        """
        import torch

        require_known(options)
        encoded = encoder_outputs or self._encode(input_features)
        prompts = self._prompts(encoded)
        if streamer is not None:
            streamer.put(torch.tensor(prompts))
        ends = self.ends()
        suppressed = [*(self.generation.suppress_tokens or []), *(ends if min_new_tokens else [])]
        beams = num_beams or self.generation.num_beams or 1
        results = self._generated(
            encoded, prompts, max_new_tokens, suppressed, beam_size=beams, return_logits_vocab=output_logits
        )
        if streamer is not None:
            streamer.whole()
        end = int(ends[0])
        generated = [_cut(result.sequences_ids[0], ends if not min_new_tokens else ()) for result in results]
        longest = max(len(text) for text in generated)
        texts = [prompt + text + [end] * (longest - len(text)) for prompt, text in zip(prompts, generated, strict=True)]
        if not return_dict_in_generate:
            return torch.tensor(texts)
        logits = self._full_logits(encoded, results, texts, len(prompts[0])) if output_logits else None
        return Output(torch.tensor(texts), logits)

    def _full_logits(self, encoded: Heard, results: Sequence[Any], texts: list[list[int]], start: int) -> list[Any]:
        """Return the logits that chose the tokens; those of suppressed tokens come from a second call without rules."""
        import torch

        unsuppressed = self._forced(encoded, [text[:-1] for text in texts], start)
        full = []
        for step, plain in enumerate(unsuppressed):
            logits = torch.stack([tensor_of(result.logits[0][step]) for result in results])
            full.append(torch.where(logits < _HIDDEN, plain, logits))
        return full

    def _generated(
        self, encoded: Heard, prompts: Sequence[list[int]], tokens: int, suppressed: Sequence[int], **options: Any
    ) -> Any:
        """Generate at most `tokens` tokens: the library's limit is half of max_length, or what the prompt leaves."""
        max_length = max(2 * tokens, tokens + len(prompts[0]))
        settings = {"beam_size": 1, "suppress_blank": True, **options}
        return self._model.generate(
            encoded.states, list(prompts), max_length=max_length, suppress_tokens=sorted(set(suppressed)), **settings
        )

    def _prompts(self, encoded: Heard) -> list[list[int]]:
        """Return the prompt of each text, as `generate` of transformers chooses it.

        Source: WhisperGenerationMixin._retrieve_init_tokens of transformers.
        """
        settings = self.generation
        task, language = getattr(settings, "task", None), getattr(settings, "language", None)
        language_ids: Mapping[str, int] = getattr(settings, "lang_to_id", None) or {}
        if language is not None:
            languages = [language_ids[f"<|{language.strip('<|>')}|>"]] * encoded.batch
        elif language_ids:
            languages = [language_ids[name] for name in self._languages(encoded)]
        else:
            languages = []
        prompts = [[int(settings.decoder_start_token_id), *languages[row : row + 1]] for row in range(encoded.batch)]
        tasks: Mapping[str, int] = getattr(settings, "task_to_id", None) or {}
        if task is not None or (language is not None and tasks):
            prompts = [[*prompt, tasks[task or "transcribe"]] for prompt in prompts]
        start, last = self.special
        prefix = [] if prompts[0][0] == start else [start]
        return [[*prompt, *prefix, last] for prompt in prompts]

    def _languages(self, encoded: Heard) -> list[str]:
        """Return the most likely language of each sound, as the library names it: `<|en|>`.

        Raises:
            Unsupported: The library does not recognise the model as multilingual.
        """
        try:
            return [ranking[0][0] for ranking in self._model.detect_language(encoded.states)]
        except RuntimeError as error:
            raise Unsupported(
                "CTranslate2 can't detect the language with this model: set language in its generation_config.json"
            ) from error


def special_tokens(config: Any, generation: Any) -> tuple[int, int]:
    """Return the ids of the start token and of the no-timestamps token for the library.

    After a prompt that ends with another token the library chooses only timestamps. Settings of random weights have no
    such tokens and get the last two of the vocabulary: their prompts have two tokens more than in transformers.
    """
    if (no_timestamps := getattr(generation, "no_timestamps_token_id", None)) is not None:
        return int(generation.decoder_start_token_id), int(no_timestamps)
    return config.vocab_size - 2, config.vocab_size - 1


def vocabulary(tokens: Sequence[str], config: Any, generation: Any) -> list[str]:
    """Return the names of all tokens, one per row of the embedding, including those that the library requires.

    Args:
        tokens: Tokens of the tokenizer, by id.
        config: Config of the model.
        generation: Generation config of the model.
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
    """Return the tokens before the first end token."""
    stop = next((index for index, token in enumerate(tokens) if token in ends), len(tokens))
    return list(tokens[:stop])
