"""Translators and summarisers in CTranslate2: one call of the library encodes texts and makes all tokens of theirs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mlflow_compress.compression.ctranslate2_module import Converted, Output, require_known, tensor_of
from mlflow_compress.compression.ctranslate2_settings import settings_of
from mlflow_compress.errors import WeightsError

VOCABULARY = "shared_vocabulary.json"
_HIDDEN = -1e30  # logits below are those of tokens that were not to be chosen
_ALL: Any = object()  # an option that a call leaves to the settings


class Translation(Converted):
    """An encoder and a decoder of text in CTranslate2: answers `generate` and a forward pass as transformers' models.

    Args:
        folder: with the converted model.
        config: the model's.
        generation: its generation config.

    Raises:
        Unsupported: the library can't generate as that config says.
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
        """Return nothing: the library does not run the encoder apart."""

    def __call__(
        self, input_ids: Any = None, attention_mask: Any = None, decoder_input_ids: Any = None, use_cache: bool = False
    ) -> Output:
        """Return the logits of given tokens of the decoder [batch, tokens, vocabulary]."""
        return Output(logits=self._forced(self._sources(input_ids, attention_mask), decoder_input_ids.tolist()))

    def _forced(self, sources: list[list[str]], tokens: list[list[int]]) -> Any:
        """Return the logits after each token: the library chooses none but the one after the last."""
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
        return torch.stack([torch.stack([tensor_of(step) for step in each.logits[0]]) for each in results])

    def generate(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        max_new_tokens: int = 0,
        min_new_tokens: int | None = None,
        min_length: Any = _ALL,
        num_beams: int | None = None,
        return_dict_in_generate: bool = False,
        output_logits: bool = False,
        streamer: Any = None,
        **options: Any,
    ) -> Any:
        """Decode, as `generate` of transformers does with these options: greedily, or by beam search.

        A beam search ends as the library's does, when as many texts as there are beams have ended.

        Returns:
            The tokens [batch, start and new]; with `return_dict_in_generate` an object that has them as `sequences`,
            and `logits` for each new token [batch, vocabulary]. Behind its end a text is filled up.

        Raises:
            Unsupported: there is an option that would change what is generated, and that it does not know.
        """
        import torch

        require_known(options)
        settings = self.settings
        beams = num_beams or settings.beams
        sources = self._sources(input_ids, attention_mask)
        prefix = [settings.start, *(() if settings.first is None else (settings.first,))]
        # what stands in the last place whatever is likely must not choose among beams
        most = max(1, max_new_tokens - 1) if beams > 1 and settings.last is not None else max_new_tokens
        own_least = settings.least if min_length is _ALL and min_new_tokens is None else 0
        results = self._model.translate_batch(
            sources,
            target_prefix=[self._named(prefix)] * len(sources),
            max_decoding_length=most,
            min_decoding_length=min(max(own_least, min_new_tokens or 0), most),
            beam_size=beams,
            end_token=self._named(settings.ends),
            suppress_sequences=[self._named(tokens) for tokens in settings.never] or None,
            max_input_length=0,
            return_logits_vocab=output_logits and beams == 1,
            callback=self._marking(streamer, prefix, len(sources)) if streamer is not None and beams == 1 else None,
            **settings.options,
        )
        if streamer is not None and beams > 1:
            streamer.put(torch.tensor(prefix[:1]))
            streamer.whole()
        made = [self._ended(each.hypotheses[0], most, max_new_tokens) for each in results]
        longest = max(len(text) for text in made)
        texts = [[settings.start, *text, *[settings.fill] * (longest - len(text))] for text in made]
        sequences = torch.tensor(texts)
        if not return_dict_in_generate:
            return sequences
        if not output_logits:
            return Output(sequences)
        logits = self._forced(sources, [text[:-1] for text in texts])
        if beams == 1:
            chosen_by = torch.stack([torch.stack([tensor_of(step) for step in each.logits[0]]) for each in results])
            logits = torch.where(chosen_by < _HIDDEN, logits, chosen_by)
        rows = torch.arange(len(texts))[:, None].expand(-1, longest)
        return Output(sequences, list(logits.unbind(1)), rows)

    def _marking(self, streamer: Any, prefix: Sequence[int], batch: int) -> Callable[[Any], bool]:
        """Return what the library calls for each token of each text: it tells the streamer of each step, once."""
        import torch

        streamer.put(torch.tensor([list(prefix[:1])] * batch))
        told = -1

        def step_made(step: Any) -> bool:
            nonlocal told
            if step.step > told:
                told = step.step
                streamer.put(torch.tensor([step.token_id]))
            return False

        return step_made

    def _ended(self, names: Sequence[str], made: int, most: int) -> list[int]:
        """Return the ids of a text, with its end, or what is to stand in the last place.

        Args:
            names: of what was generated.
            made: how many there are at most.
            most: how many tokens the text may have.
        """
        tokens = [self._ids[name] for name in names]
        if len(tokens) < made:
            return [*tokens, self.settings.ends[0]]
        return tokens if self.settings.last is None else [*tokens[: most - 1], self.settings.last]

    def _named(self, tokens: Sequence[int]) -> list[str]:
        return [self._names[token] for token in tokens]

    def _sources(self, input_ids: Any, attention_mask: Any) -> list[list[str]]:
        if attention_mask is None:
            return [self._named(text) for text in input_ids.tolist()]
        kept = attention_mask.bool()
        return [self._named(text[mask].tolist()) for text, mask in zip(input_ids, kept, strict=True)]


def _vocabulary(path: Path) -> list[str]:
    """Read the names of tokens.

    Raises:
        WeightsError: they are not there.
    """
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("it is not a list of names")
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} is not a CTranslate2 vocabulary: {error}") from error
    return names
