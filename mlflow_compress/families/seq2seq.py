"""Text-to-text models for translation and summarisation: Marian, T5, BART and similar models."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

from annotated_types import Ge

from mlflow_compress.compression.layers import replace
from mlflow_compress.data.datasets import draw, draw_labelled, scored, unscored_texts
from mlflow_compress.errors import Unsupported
from mlflow_compress.networks.decoding import (
    ONE_ANSWER,
    cache_keyword,
    cache_of,
    continuation,
    generate,
    settings_of,
    tensors_of,
)
from mlflow_compress.networks.encoder_decoder_graphs import decoder_graph, encoder_graph, take_projections
from mlflow_compress.networks.export_graphs import Calls, twin
from mlflow_compress.networks.exported_decoders import EncoderDecoder
from mlflow_compress.networks.long_texts import note_cut
from mlflow_compress.networks.text_inputs import (
    longest,
    must_fit,
    note_positions,
    positions,
    require_pass,
    require_two_parts,
    token_ids,
    vocabulary,
)
from mlflow_compress.networks.transformer_layers import thinned
from mlflow_compress.networks.transformers_models import (
    Companions,
    TransformersFamily,
    companions,
    load_tokenizer,
    load_transformer,
)
from mlflow_compress.sockets import Continuation, Graph, Labelled, Mark, Model, Sample

_ROLES = ("source", "target")
_NO_TARGET = -100  # of padding, which does not count in the loss
_PREDICT_BATCH = 8
_TEXT = "The little boat left the harbour at dawn, and nobody on the pier could say when it would be back. "
# names of the key projection, the value projection and the number of heads in a cross-attention
_PROJECTIONS = (("k_proj", "v_proj", "num_heads"), ("k", "v", "n_heads"))
_CROSS = ("encoder_attn", "EncDecAttention")


@dataclass
class Seq2Seq(TransformersFamily):
    """A transformers encoder-decoder for text, decoding with a key-value cache.

    Every timed call generates exactly `new_tokens` tokens greedily, whatever the text, so that all variants do equal
    work. Quality is scored on the output of the model's own `generate`.

    Attributes:
        source_tokens: length of the timed input, in tokens.
        new_tokens: number of tokens that one timed call generates.
        calibration_tokens: maximum length of source texts for calibration and training, in tokens.
        most_tokens: maximum number of tokens in a prediction.
        beams: width of the beam search for predictions, 1 for greedy decoding; None: from the model's generation
            config.
        prefix: text before every source, such as `translate English to German: `.
        architecture: for random weights, fields of the config, including `model_type`.
        trust: whether Python code beside a local model may build it (`auto_map` in its `config.json`).
        students: for random weights, the `architecture` of each model that distill:student names.
    """

    auto_class: ClassVar[str] = "AutoModelForSeq2SeqLM"
    keeps: ClassVar[tuple[str, ...]] = ("tokenizer", "generation")
    call_options: ClassVar[tuple[str, ...]] = ("new_tokens",)
    timed: ClassVar[str] = (
        "the encoder on token ids [batch, source_tokens], and generate of transformers: greedy decoding of exactly "
        "new_tokens tokens with a key-value cache; tokenising is timed apart"
    )
    metrics: ClassVar[tuple[str, ...]] = ("bleu", "chrf", "rougeL")
    gives: ClassVar[tuple[str, ...]] = ("texts",)
    needs: ClassVar[tuple[str, ...]] = ("torch", "transformers", "accelerate", "safetensors", "sentencepiece")

    source_tokens: Annotated[int, Ge(1)] = 64
    new_tokens: Annotated[int, Ge(2)] = 32
    calibration_tokens: Annotated[int, Ge(1)] = 64
    most_tokens: Annotated[int, Ge(1)] = 256
    beams: Annotated[int, Ge(1)] | None = None
    prefix: str = ""
    architecture: dict[str, Any] = field(default_factory=dict)

    def load(self, source: str, weights: str, folder: Path, seed: int) -> Model:
        """Load the model and its tokenizer (see `Family.load`)."""
        origin = self.origin(source, weights, folder)
        model = load_transformer(self.auto_class, source, origin, self.architecture, seed, self.precision)
        require_two_parts(model, "text")
        model.family_data = Companions(
            tokenizer=load_tokenizer(origin),
            generation=settings_of(model.module, model.facts),
            code=origin.code,
        )
        note_positions(model.module, model.config)
        max_positions = positions(model.config) or self.source_tokens
        short_family = dataclasses.replace(self, source_tokens=min(self.source_tokens, max_positions), new_tokens=2)
        require_pass(
            model, lambda: short_family.run(model, short_family.batch(model, 1, 0), lambda stage: None), "token ids"
        )
        return model

    def batch(self, model: Model, size: int, seed: int) -> dict[str, Any]:
        """Create random token ids and a full attention mask, both [size, source_tokens], int64.

        Raises:
            RecipeError: the model can't take that many tokens.
        """
        import torch

        must_fit(model, max(self.source_tokens, self.new_tokens), "source_tokens or new_tokens")
        ids = token_ids(model, size, self.source_tokens, seed)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def run(self, model: Model, batch: Any, mark: Mark) -> Any:
        """Encode and decode; mark `encoder`, `first_token`, and one `token` for each later token.

        A runtime that does not run the encoder separately includes it in `first_token` and does not mark `encoder`.

        Returns:
            The new tokens [batch, new_tokens].
        """
        encoder = model.module.get_encoder()
        if encoder is None:
            return generate(model.module, self.new_tokens, mark, "first_token", **batch)
        encoded = encoder(**batch)
        mark("encoder")
        inputs = {"encoder_outputs": encoded, "attention_mask": batch["attention_mask"]}
        return generate(model.module, self.new_tokens, mark, "first_token", **inputs)

    def generate(self, model: Model, batch: Any, new_tokens: int) -> Continuation:
        """Generate from token ids, with the beam width of predictions (see `Family.generate`)."""
        return continuation(
            model.module,
            min(new_tokens, self.new_tokens),
            lambda ids: model.module(**batch, decoder_input_ids=ids, use_cache=False).logits,
            beams=self.beams or companions(model).generation.num_beams or 1,
            **batch,
        )

    def forward(self, model: Model, batch: Any) -> Any:
        """Run encoder and decoder once; return logits [batch, target, vocabulary].

        The target tokens are those of the batch (`decoder_input_ids`), or `new_tokens` random ones.
        """
        import torch

        if "decoder_input_ids" in batch:
            return model.module(**batch, use_cache=False).logits
        generator = torch.Generator().manual_seed(0)
        mask = batch["attention_mask"]
        tokens = torch.randint(0, self.classes(model), (1, self.new_tokens), generator=generator).expand(len(mask), -1)
        return model.module(**batch, decoder_input_ids=tokens.to(mask.device), use_cache=False).logits

    def graphs(self, model: Model) -> Mapping[str, Graph]:
        """Return two graphs, `encoder` and `decoder`; both contain the shared embedding.

        `encoder_decoder_graphs` describes their inputs and outputs. The encoder takes `input_ids` and `attention_mask`
        [batch, source]; the decoder uses the mask too.

        Raises:
            Unsupported: its decoder is not built like that of Marian, BART or T5.
        """
        from torch import nn

        module = twin(model.module)
        attentions = [layer for name, layer in module.named_modules() if name.rpartition(".")[2] in _CROSS]
        names = next((names for names in _PROJECTIONS if attentions and hasattr(attentions[0], names[0])), None)
        if names is None:
            raise Unsupported("only decoders built like those of Marian, BART or T5 can be exported")
        cross = take_projections(attentions, *names)
        model.config.cache_shape = cross.cache_shape  # for the empty past of the first call
        inputs = self.batch(model, 2, 0)
        encoder = module.get_encoder()
        axes = {name: {0: "batch", 1: "source"} for name in inputs}
        encode = encoder_graph(encoder, cross, inputs, axes, {0: "batch", 2: "source"})
        without_encoder = replace(module, {encoder: nn.Identity()})
        decode = decoder_graph(_decode, cross, encode, ["attention_mask"], model=without_encoder)
        return {"encoder": encode, "decoder": decode}

    def attach(self, model: Model, calls: Calls) -> Model:
        """Replace the module by the exported encoder and decoder."""
        config, generation = model.config, companions(model).generation
        model.module = EncoderDecoder(calls, self.auto_class, config, generation, model.device, heeds_mask=True)
        return model

    def student(self, model: Model, keep: float) -> Model:
        """Keep the encoder and an evenly spaced share of the decoder's layers; train all of it.

        Source: shrink and fine-tune, Shleifer and Rush, Pre-trained Summarization Distillation, arXiv 2010.13002.
        """
        return thinned(model, keep, "decoder")

    def classes(self, model: Model) -> int:
        """Return the number of tokens in the vocabulary."""
        return vocabulary(model)

    def around(self, model: Model, size: int, seed: int) -> Mapping[str, Callable[[], object]]:
        """Time the tokenizer on `size` texts of at least the timed length."""
        texts = [_TEXT * (self.source_tokens // 20 + 1)] * size
        return {"preprocess": lambda: self._encoded(model, texts, self.source_tokens)}

    def rates(self, latency_ms: float, stages_ms: Mapping[str, float], size: int) -> Mapping[str, float]:
        """Return tokens per second of the whole batch, over the whole call and in decoding alone."""
        return {
            "tokens_per_s": size * self.new_tokens / latency_ms * 1000,
            "decode_tokens_per_s": size / stages_ms["token"] * 1000,
        }

    def samples(self, model: Model, data: str, folder: Path, limit: int | None, seed: int) -> Sequence[Sample]:
        """Read source texts and target texts.

        Raises:
            RecipeError: the data can't be read (see `datasets.read`).
        """
        rows = scored(model, data, folder, _ROLES, limit, seed)
        note_cut(model, [self.prefix + str(row.values["source"]) for row in rows], longest(model))
        return [Sample(str(row.values["source"]), str(row.values["target"])) for row in rows]

    def calibration(self, model: Model, count: int, seed: int, size: int = 1) -> list[Any]:
        """Draw texts that are not scored, cut to `calibration_tokens`; without any, see `Family.calibration`."""
        tokens = min(self.calibration_tokens, longest(model) or self.calibration_tokens)
        texts = draw(model, _ROLES, count * size, seed)
        if not texts:
            return TransformersFamily.calibration(
                dataclasses.replace(self, source_tokens=tokens), model, count, seed, size
            )
        parts = [texts[start : start + size] for start in range(0, len(texts), size)]
        return [self._encoded(model, [str(text) for text in part], tokens) for part in parts]

    def labelled(self, model: Model, count: int, seed: int, size: int = 1) -> list[Labelled]:
        """Draw pairs of source and target that are not scored, both cut to `calibration_tokens`.

        The decoder reads the target shifted by one token, so that each token is predicted from those before it; padding
        does not count (see `Family.labelled`).
        """
        import torch

        rows = draw_labelled(model, _ROLES, 1, count * size, seed)
        if not rows:
            return super().labelled(model, count, seed, size)
        tokens = min(self.calibration_tokens, longest(model) or self.calibration_tokens)
        batches = []
        for start in range(0, len(rows), size):
            part = [row.values for row in rows[start : start + size]]
            batch = self._encoded(model, [str(values["source"]) for values in part], tokens)
            encoded = (
                companions(model)
                .tokenizer(
                    text_target=[str(values["target"]) for values in part],
                    return_tensors="pt",
                    padding=True,
                    padding_side="right",
                    truncation=True,
                    max_length=tokens,
                )
                .to(model.device)
            )
            targets = encoded["input_ids"].masked_fill(encoded["attention_mask"] == 0, _NO_TARGET)
            shifted = encoded["input_ids"].roll(1, dims=1)
            shifted[:, 0] = _start_token(model)
            batches.append(Labelled({**batch, "decoder_input_ids": torch.as_tensor(shifted)}, targets))
        return batches

    def token_lists(self, model: Model, most: int) -> list[list[int]]:
        """Return the tokens of all sources and targets that are not scored (see `Family.token_lists`)."""
        rows = unscored_texts(model, _ROLES, 1, most)
        tokenizer = companions(model).tokenizer
        sources = [self.prefix + str(values["source"]) for values in rows]
        targets = [str(values["target"]) for values in rows]
        if not rows:
            return []
        encoded = (
            tokenizer(sources, verbose=False)["input_ids"],
            tokenizer(text_target=targets, verbose=False)["input_ids"],
        )
        return [*encoded[0], *encoded[1]]

    def predict(self, model: Model, inputs: Sequence[Any]) -> list[str]:
        """Return the model's output for each text, complete, by beam search or greedy decoding."""
        import torch

        tokenizer = companions(model).tokenizer
        length = positions(model.config)
        max_new_tokens = min(self.most_tokens, length - 1 if length else self.most_tokens)
        beams = {} if self.beams is None else {"num_beams": self.beams}
        predictions = []
        with torch.inference_mode():
            for start in range(0, len(inputs), _PREDICT_BATCH):
                texts = [str(text) for text in inputs[start : start + _PREDICT_BATCH]]
                batch = self._encoded(model, texts, longest(model))
                output = model.module.generate(
                    **batch, **ONE_ANSWER, max_new_tokens=max_new_tokens, max_length=None, **beams
                )
                ids = [[token for token in row if token < len(tokenizer)] for row in output.tolist()]
                predictions += [text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]
        return predictions

    def _encoded(self, model: Model, texts: list[str], tokens: int | None) -> dict[str, Any]:
        """Return token ids and attention mask [texts, tokens], padded on the right."""
        batch = companions(model).tokenizer(
            [self.prefix + text for text in texts],
            return_tensors="pt",
            padding=True,
            padding_side="right",
            truncation=tokens is not None,
            max_length=tokens,
        )
        return {name: batch[name].to(model.device) for name in ("input_ids", "attention_mask")}

    def example(self, model: Model) -> list[Any]:
        """Return a text."""
        return ["The weather is fine today."]


def _start_token(model: Model) -> int:
    """Return the token with which the decoder starts."""
    generation = companions(model).generation
    for config in (generation, model.config):
        if isinstance(token := getattr(config, "decoder_start_token_id", None), int):
            return token
    return int(companions(model).tokenizer.pad_token_id)


def _decode(parts: Any, input_ids: Any, attention_mask: Any, *caches: Any) -> tuple[Any, ...]:
    from transformers import EncoderDecoderCache
    from transformers.modeling_outputs import BaseModelOutput

    past, cross = caches[: len(caches) // 2], caches[len(caches) // 2 :]
    cache = EncoderDecoderCache(cache_of(past), cache_of(cross))
    # with keys and values given, the decoder uses only the shape of the encoder's states
    states = cross[0].transpose(1, 2).flatten(2)
    output = parts.model(
        encoder_outputs=BaseModelOutput(last_hidden_state=states),
        attention_mask=attention_mask,
        decoder_input_ids=input_ids,
        use_cache=True,
        **{cache_keyword(): cache},
    )
    return output.logits, *tensors_of(cache.self_attention_cache)
