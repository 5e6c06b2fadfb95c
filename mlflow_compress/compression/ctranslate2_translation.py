"""Translation and summarisation in CTranslate2: one library call encodes texts and generates all their tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mlflow_compress.compression.ctranslate2_module import Converted, Output, require_known, tensor_of
from mlflow_compress.compression.ctranslate2_settings import settings_of
from mlflow_compress.errors import WeightsError

VOCABULARY = "shared_vocabulary.json"
_HIDDEN = -1e30  # lower logits belong to suppressed tokens
_UNSET: Any = object()  # an option that a call leaves to the settings


class Translation(Converted):
    """An encoder-decoder of text in CTranslate2, with `generate` and a forward pass like transformers' models.

    Args:
        folder: Folder of the converted model.
        config: Config of the model.
        generation: Generation config of the model.

    Raises:
        Unsupported: The library does not support the generation config.
    """

    specification = "TransformerSpec"

    def __init__(self, folder: Path, config: Any, generation: Any) -> None:
        self.settings = settings_of(generation)
        self._names = _vocabulary(folder / VOCABULARY)
        self._ids = {name: number for number, name in enumerate(self._names)}
        super().__init__(folder, config, generation)

    def _opened(self) -> Any:
        import ctranslate2

        return ctranslate2.Translator

    def get_encoder(self) -> None:
        """Return None: the library does not run the encoder separately."""

    def __call__(
        self, input_ids: Any = None, attention_mask: Any = None, decoder_input_ids: Any = None, use_cache: bool = False
    ) -> Output:
        """Return the logits for given decoder tokens [batch, tokens, vocabulary]."""
        return Output(logits=self._forced(self._sources(input_ids, attention_mask), decoder_input_ids.tolist()))

    def _forced(self, sources: list[list[str]], tokens: list[list[int]]) -> Any:
        """Return the logits after each token: the library chooses only the token after the last one."""
        import torch

        results = self._model.translate_batch(
            sources,
            target_prefix=[self._named(text) for text in tokens],
            max_decoding_length=len(tokens[0]),
            min_decoding_length=0,
            beam_size=1,
            max_input_length=0,
            return_logits_vocab=True,
        )
        return torch.stack([torch.stack([tensor_of(step) for step in result.logits[0]]) for result in results])

    def generate(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        max_new_tokens: int = 0,
        min_new_tokens: int | None = None,
        min_length: Any = _UNSET,
        num_beams: int | None = None,
        return_dict_in_generate: bool = False,
        output_logits: bool = False,
        streamer: Any = None,
        **options: Any,
    ) -> Any:
        """Decode like `generate` of transformers with these options: greedily, or by beam search.

        A beam search ends as in the library, when as many texts as there are beams have ended.

        Returns:
            The tokens [batch, start and new]; with `return_dict_in_generate` an object that has them as `sequences`,
            and `logits` for each new token [batch, vocabulary]. Shorter texts are padded after their end.

        Raises:
            Unsupported: An option would change the output and is not supported.
        """
        import torch

        require_known(options)
        settings = self.settings
        beams = num_beams or settings.beams
        sources = self._sources(input_ids, attention_mask)
        prefix = [settings.start, *(() if settings.first is None else (settings.first,))]
        # a forced last token must not influence the choice among beams
        max_length = max(1, max_new_tokens - 1) if beams > 1 and settings.last is not None else max_new_tokens
        default_least = settings.least if min_length is _UNSET and min_new_tokens is None else 0
        results = self._model.translate_batch(
            sources,
            target_prefix=[self._named(prefix)] * len(sources),
            max_decoding_length=max_length,
            min_decoding_length=min(max(default_least, min_new_tokens or 0), max_length),
            beam_size=beams,
            end_token=self._named(settings.ends),
            suppress_sequences=[self._named(tokens) for tokens in settings.never] or None,
            max_input_length=0,
            return_logits_vocab=output_logits and beams == 1,
            callback=self._streaming(streamer, prefix, len(sources)) if streamer is not None and beams == 1 else None,
            **settings.options,
        )
        if streamer is not None and beams > 1:
            streamer.put(torch.tensor(prefix[:1]))
            streamer.whole()
        generated = [self._ended(result.hypotheses[0], max_length, max_new_tokens) for result in results]
        longest = max(len(text) for text in generated)
        texts = [[settings.start, *text, *[settings.fill] * (longest - len(text))] for text in generated]
        sequences = torch.tensor(texts)
        if not return_dict_in_generate:
            return sequences
        if not output_logits:
            return Output(sequences)
        logits = self._forced(sources, [text[:-1] for text in texts])
        if beams == 1:
            chosen_by = torch.stack([torch.stack([tensor_of(step) for step in result.logits[0]]) for result in results])
            logits = torch.where(chosen_by < _HIDDEN, logits, chosen_by)
        rows = torch.arange(len(texts))[:, None].expand(-1, longest)
        return Output(sequences, list(logits.unbind(1)), rows)

    def _streaming(self, streamer: Any, prefix: Sequence[int], batch: int) -> Callable[[Any], bool]:
        """Return the library's callback for each token of each text: it notifies the streamer once per step."""
        import torch

        streamer.put(torch.tensor([list(prefix[:1])] * batch))
        last_step = -1

        def after_token(step: Any) -> bool:
            nonlocal last_step
            if step.step > last_step:
                last_step = step.step
                streamer.put(torch.tensor([step.token_id]))
            return False

        return after_token

    def _ended(self, names: Sequence[str], generated: int, max_length: int) -> list[int]:
        """Return the ids of a text, with its end token or the forced last token.

        Args:
            names: Names of the generated tokens.
            generated: Maximum number of generated tokens.
            max_length: Maximum number of tokens of the text.
        """
        tokens = [self._ids[name] for name in names]
        if len(tokens) < generated:
            return [*tokens, self.settings.ends[0]]
        return tokens if self.settings.last is None else [*tokens[: max_length - 1], self.settings.last]

    def _named(self, tokens: Sequence[int]) -> list[str]:
        return [self._names[token] for token in tokens]

    def _sources(self, input_ids: Any, attention_mask: Any) -> list[list[str]]:
        if attention_mask is None:
            return [self._named(text) for text in input_ids.tolist()]
        masks = attention_mask.bool()
        return [self._named(text[mask].tolist()) for text, mask in zip(input_ids, masks, strict=True)]


def _vocabulary(path: Path) -> list[str]:
    """Read the names of tokens.

    Raises:
        WeightsError: The file is missing or invalid.
    """
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("it is not a list of names")
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} is not a CTranslate2 vocabulary: {error}") from error
    return names
