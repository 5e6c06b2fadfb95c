"""Causal language models: LLaMA, Mistral and similar models, through transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge

from mlflow_compress.data.datasets import draw, scored, scored_whole, unscored_texts
from mlflow_compress.data.spec import parse
from mlflow_compress.errors import Unsupported
from mlflow_compress.model import SCORING, TEXTS_SCORING
from mlflow_compress.networks import next_tokens
from mlflow_compress.networks.continuations import Continued, split, stopping
from mlflow_compress.networks.decoding import (
    ONE_ANSWER,
    cache_keyword,
    cache_names,
    cache_of,
    continuation,
    generate,
    settings_of,
    tensors_of,
    uses_cache,
)
from mlflow_compress.networks.export_graphs import Calls, graph
from mlflow_compress.networks.exported_decoders import DecoderOnly
from mlflow_compress.networks.first_texts import settle_decoder
from mlflow_compress.networks.gguf_checkpoints import load_config, open_checkpoint
from mlflow_compress.networks.hub import Origin
from mlflow_compress.networks.native_precision import NATIVE
from mlflow_compress.networks.next_tokens import Recorder, TextLikelihood
from mlflow_compress.networks.perplexity_protocols import Protocol
from mlflow_compress.networks.text_inputs import (
    longest,
    must_fit,
    note_positions,
    positions,
    taken,
    token_ids,
    vocabulary,
)
from mlflow_compress.networks.token_windows import likelihoods
from mlflow_compress.networks.transformer_layers import thinned
from mlflow_compress.networks.transformers_models import (
    Companions,
    TransformersFamily,
    companions,
    load_tokenizer,
    load_transformer,
)
from mlflow_compress.sockets import Continuation, Graph, Labelled, Mark, Model, Sample, TextModel

_ROLES = ("text",)
_NO_TARGET = -100  # of a token that does not count in the loss
_ANSWER = "answer"
_TEXT = "The little boat left the harbour at dawn, and nobody on the pier could say when it would be back. "


@dataclass
class CausalLm(TransformersFamily):
    """A transformers causal language model, decoding greedily with a key-value cache.

    Every timed call generates exactly `new_tokens` tokens, whatever the text, so that all variants do equal work.

    Attributes:
        prompt_tokens: length of the prompt, in tokens.
        new_tokens: number of tokens that one call generates.
        calibration_tokens: length of texts for calibration and training, in tokens; at most half of the model's
            maximum.
        protocol: how texts are scored, see `perplexity_protocols`: `lm_eval` (lm-evaluation-harness: every token is
            predicted, in windows that do not overlap), `wikitext2` (as in GPTQ, AWQ and Wanda: all texts joined, in
            blocks of 2,048 tokens) or `sliding` (overlapping windows, as in version 0.1). Their numbers can't be
            compared.
        window: number of tokens that the model sees at once in scoring, at most its maximum. None: `lm_eval` uses the
            maximum, up to 8,192; `wikitext2` 2,048; `sliding` 1,024.
        stride: for `sliding`, the distance between windows, in tokens: each window scores that many. None: half the
            window.
        with_bos: for `sliding`, whether to put a beginning-of-sequence token before a text if the tokenizer adds none,
            so that the first token is predicted too.
        continuation_prompt: for metrics of texts, such as BLEU or exact match: number of tokens of a text that the
            model continues greedily; the next tokens are the reference. None: half of the text, at most 512. If the
            data names a column `answer`, the whole text is the prompt, that column is the reference, and the first line
            of the continuation counts.
        continuation_tokens: maximum number of tokens that it generates then, and of the reference.
        architecture: for random weights, fields of the config, including `model_type`.
        trust: whether Python code beside a local model may build it (`auto_map` in its `config.json`).
        students: for random weights, the `architecture` of each model that distill:student names.
    """

    auto_class: ClassVar[str] = "AutoModelForCausalLM"
    pipeline: ClassVar[str] = "text-generation"
    auto_dtype: ClassVar[Literal["native", "float32"]] = "native"  # what the field measures
    revision: ClassVar[int] = 2
    keeps: ClassVar[tuple[str, ...]] = ("tokenizer", "generation")
    call_options: ClassVar[tuple[str, ...]] = ("new_tokens",)
    timed: ClassVar[str] = (
        "generate of transformers: prefill of a prompt [batch, prompt_tokens] and greedy decoding of exactly "
        "new_tokens tokens with a key-value cache; tokenising is timed apart"
    )
    metrics: ClassVar[tuple[str, ...]] = ("perplexity", "word_perplexity", "bits_per_byte")
    gives: ClassVar[tuple[str, ...]] = ("likelihoods", "texts", "requests")

    prompt_tokens: Annotated[int, Ge(1)] = 128
    new_tokens: Annotated[int, Ge(2)] = 32
    protocol: Literal["lm_eval", "wikitext2", "sliding"] = "lm_eval"
    window: Annotated[int, Ge(2)] | None = None
    stride: Annotated[int, Ge(1)] | None = None
    with_bos: bool = False
    continuation_prompt: Annotated[int, Ge(1)] | None = None
    continuation_tokens: Annotated[int, Ge(1)] = 32
    calibration_tokens: Annotated[int, Ge(1)] = 128
    architecture: dict[str, Any] = field(default_factory=dict)

    def load(self, source: str, weights: str, folder: Path, seed: int) -> Model:
        """Load the language model and its tokenizer (see `Family.load`)."""
        origin = self.origin(source, weights, folder)
        if origin.file and self.precision == NATIVE:
            return self._open_gguf(origin)
        model = load_transformer(self.auto_class, source, origin, self.architecture, seed, self.precision)
        model.family_data = Companions(
            tokenizer=load_tokenizer(origin),
            generation=settings_of(model.module, model.facts),
            code=origin.code,
        )
        note_positions(model.module, model.config)
        settle_decoder(model, lambda ids: self.forward(model, ids), lambda ids: self.generate(model, ids, 3))
        return model

    def _open_gguf(self, origin: Origin) -> Model:
        """Open a GGUF file in llama.cpp."""
        from transformers import GenerationConfig

        config = load_config(origin)
        model = Model(None, weights=origin.kind, config=config)
        model.family_data = Companions(load_tokenizer(origin), generation=GenerationConfig.from_model_config(config))
        model = open_checkpoint(model, self, Path(origin.location, origin.file))
        settle_decoder(model, lambda ids: self.forward(model, ids), lambda ids: self.generate(model, ids, 3))
        return model

    def batch(self, model: Model, size: int, seed: int) -> Any:
        """Create random token ids [size, prompt_tokens], int64.

        Raises:
            RecipeError: the model can't take that many tokens.
        """
        must_fit(model, self.prompt_tokens + self.new_tokens - 1, "prompt_tokens or new_tokens")
        return token_ids(model, size, self.prompt_tokens, seed)

    def run(self, model: Model, batch: Any, mark: Mark) -> Any:
        """Prefill and decode; mark `prefill` (up to the first token) and one `token` for each later token.

        Returns:
            The new tokens [batch, new_tokens].
        """
        return generate(model.module, self.new_tokens, mark, "prefill", **self._prompt(model, batch))

    def generate(self, model: Model, batch: Any, new_tokens: int) -> Continuation:
        """Continue prompts [batch, tokens] by `new_tokens` tokens (see `Family.generate`)."""
        return continuation(
            model.module,
            min(new_tokens, self.new_tokens),
            lambda ids: self.forward(model, ids),
            **self._prompt(model, batch),
        )

    def _prompt(self, model: Model, ids: Any) -> dict[str, Any]:
        """Return the arguments of `generate` for token ids without padding."""
        import torch

        pad = companions(model).tokenizer.pad_token_id
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pad_token_id": pad}

    def forward(self, model: Model, batch: Any) -> Any:
        """Run the model once over the prompt; return logits [batch, prompt_tokens, vocabulary]."""
        return model.module(**taken(model.module, {"input_ids": batch, "use_cache": False})).logits

    def graphs(self, model: Model) -> Mapping[str, Graph]:
        """Return one graph, `model`, for the prompt and for every later token.

        Inputs: `input_ids` [batch, tokens], `kept` [kept] (positions of the tokens whose logits are returned), and the
        keys and values of all earlier tokens, `past_key_0`, `past_value_0` and so on [batch, heads, past, width].
        Outputs: `logits` [batch, kept, vocabulary] and `present_key_0`, `present_value_0` and so on [batch, heads,
        past + tokens, width]. The past of the first call has length 0.

        Raises:
            Unsupported: the model's cache is not one key and one value of that shape per layer.
        """
        import torch

        tokens = torch.zeros((2, 3), dtype=torch.long, device=model.device)
        with torch.no_grad():
            example = tensors_of(getattr(model.module(input_ids=tokens, use_cache=True), cache_keyword(), None))
        layers, (_, heads, _, width) = len(example) // 2, example[0].shape
        if any(tensor.shape != (2, heads, 3, width) for tensor in example):
            raise Unsupported(
                "its cache is not one key and one value for each token, head and layer: it can't be exported"
            )
        model.config.cache_shape = [layers, heads, width]  # for the empty past of the first call
        past = {name: example[0].new_zeros((2, heads, 5, width)) for name in cache_names("past", layers)}
        present = cache_names("present", layers)
        inputs = {"input_ids": tokens, "kept": torch.arange(2, device=model.device), **past}
        dynamic = {
            "input_ids": {0: "batch", 1: "tokens"},
            "kept": {0: "kept"},
            **{name: {0: "batch", 2: "past"} for name in past},
            "logits": {0: "batch", 1: "kept"},
            **{name: {0: "batch", 2: "present"} for name in present},
        }
        return {"model": graph(_continue, inputs, ["logits", *present], dynamic, decoder=model.module)}

    def attach(self, model: Model, calls: Calls) -> Model:
        """Replace the module by the exported model."""
        generation = companions(model).generation
        model.module = DecoderOnly(calls, self.auto_class, model.config, model.device, generation)
        return model

    def student(self, model: Model, keep: float) -> Model:
        """Keep an evenly spaced share of the layers (see `Family.student`)."""
        return thinned(model, keep)

    def classes(self, model: Model) -> int:
        """Return the number of tokens in the vocabulary."""
        return vocabulary(model)

    def around(self, model: Model, size: int, seed: int) -> Mapping[str, Callable[[], object]]:
        """Time the tokenizer on `size` texts of about the prompt's length."""
        texts = [_TEXT * (self.prompt_tokens // 20 + 1)] * size
        tokenizer = companions(model).tokenizer
        return {
            "preprocess": lambda: tokenizer(texts, return_tensors="pt", truncation=True, max_length=self.prompt_tokens)
        }

    def rates(self, latency_ms: float, stages_ms: Mapping[str, float], size: int) -> Mapping[str, float]:
        """Return tokens per second of the whole batch, over the whole call, in decoding, and in prefill."""
        return {
            "tokens_per_s": size * self.new_tokens / latency_ms * 1000,
            "decode_tokens_per_s": size / stages_ms["token"] * 1000,
            "prefill_tokens_per_s": size * self.prompt_tokens / stages_ms["prefill"] * 1000,
        }

    def samples(self, model: Model, data: str, folder: Path, limit: int | None, seed: int) -> Sequence[Sample]:
        """Read texts; for `protocol=wikitext2`, join all texts and cut them into blocks of tokens.

        If a metric takes texts, each text is split into a prompt and the reference of its continuation.

        Raises:
            RecipeError: the data can't be read (see `datasets.read`), or the protocol is not possible.
        """
        protocol, tokenizer = self._protocol(model), companions(model).tokenizer
        model.facts[SCORING] = protocol.text
        roles = _roles(data)
        if protocol.name == "wikitext2" and roles == _ROLES:
            rows, max_blocks = scored_whole(model, data, folder, _ROLES, limit)
            blocks = protocol.blocks(tokenizer, [str(row.values["text"]) for row in rows], max_blocks)
            samples = [Sample(ids, tokenizer.decode(ids)) for ids in blocks]
        else:
            rows = scored(model, data, folder, roles, limit, seed)
            texts = [str(row.values["text"]) for row in rows]
            references = [str(row.values.get(_ANSWER, text)) for row, text in zip(rows, texts, strict=True)]
            samples = list(map(Sample, texts, references))
        if "texts" not in model.asked:
            return samples
        prompt = "the whole text"
        if roles == _ROLES:
            prompt = f"{self.continuation_prompt or 'half the text, at most 512'} tokens"
        model.facts[TEXTS_SCORING] = f"greedy continuation of {prompt} by at most {self.continuation_tokens} tokens"
        return [self._continued(tokenizer, sample, roles != _ROLES) for sample in samples]

    def _continued(self, tokenizer: Any, sample: Sample, has_answer: bool) -> Sample:
        """Return a sample whose input is a text to be continued."""
        is_text = isinstance(sample.inputs, str)
        ids = tokenizer(sample.inputs, verbose=False)["input_ids"] if is_text else list(sample.inputs)
        if has_answer:
            text = Continued(sample.inputs, tuple(ids), sample.reference, is_line=True)
        else:
            text = split(tokenizer, sample.inputs, ids, self.continuation_prompt, self.continuation_tokens)
        return Sample(text, text.reference)

    def calibration(self, model: Model, count: int, seed: int, size: int = 1) -> list[Any]:
        """Draw texts that are not scored, and cut their tokens into rows; without any, see `Family.calibration`.

        The texts are joined, so that every row has `calibration_tokens` tokens.
        """
        import torch

        length = min(self.calibration_tokens, max(1, (longest(model) or 2 * self.calibration_tokens) // 2))
        needed_tokens = count * size * length
        tokens: list[int] = []
        while len(tokens) < needed_tokens:
            texts = draw(model, _scored_roles(model), count * size, seed + len(tokens))
            if not texts:
                return TransformersFamily.calibration(replace(self, prompt_tokens=length), model, count, seed, size)
            tokens += [token for ids in companions(model).tokenizer(texts, verbose=False)["input_ids"] for token in ids]
        rows = torch.tensor(tokens[:needed_tokens]).reshape(count, size, length)
        return list(rows.to(model.device))

    def labelled(self, model: Model, count: int, seed: int, size: int = 1) -> list[Labelled]:
        """Return rows of tokens as for `calibration`: the target of each token is the next one."""
        if not draw(model, _scored_roles(model), 1, seed) and model.weights != "random":
            return super().labelled(model, count, seed, size)
        rows = self.calibration(model, count, seed, size)
        return [Labelled(ids, _next_tokens(ids)) for ids in rows]

    def token_lists(self, model: Model, most: int) -> list[list[int]]:
        """Return the tokens of all texts that are not scored (see `Family.token_lists`)."""
        texts = [str(values["text"]) for values in unscored_texts(model, _scored_roles(model), 1, most)]
        return list(companions(model).tokenizer(texts, verbose=False)["input_ids"]) if texts else []

    def answers(self, model: Model, inputs: Sequence[Any]) -> list[Any]:
        """Return the likelihood of each text by the protocol; if a metric takes texts, also its continuation.

        Args:
            model: the model.
            inputs: texts, blocks of tokens, or texts to be continued.

        Returns:
            For each text `nll`, its negative log-likelihood in nats, summed over its predicted `tokens`, and its length
            in `words` (separated by white space) and in `bytes` of UTF-8; all 0 if no token is predicted. For a text to
            be continued `text`, the continuation; the others only if a metric takes them.
        """
        continued = [item for item in inputs if isinstance(item, Continued)]
        if len(continued) < len(inputs):
            return self._likelihoods(model, inputs)
        texts = [item.cut(self._continue(model, item.prompt, self.continuation_tokens)) for item in continued]
        if not model.asked & set(CausalLm.gives[:1]):
            return list(texts)
        likelihood = self._likelihoods(model, [item.text for item in continued])
        return [
            TextLikelihood({**numbers, "text": text}, numbers.predicted)
            for numbers, text in zip(likelihood, texts, strict=True)
        ]

    def _likelihoods(self, model: Model, inputs: Sequence[Any]) -> list[TextLikelihood]:
        import torch

        protocol, tokenizer = self._protocol(model), companions(model).tokenizer
        texts = [item if isinstance(item, str) else tokenizer.decode(item) for item in inputs]
        ids = [list(item) for item in inputs] if protocol.name == "wikitext2" else protocol.encoded(tokenizer, texts)
        recorder = Recorder(ids, next_tokens.MOST_COMPARED if next_tokens.ASKED in model.asked else 0)
        with torch.inference_mode():
            losses = likelihoods(
                lambda batch: self.forward(model, batch.to(model.device)),
                ids,
                protocol.windows(ids),
                vocabulary(model),
                recorder.see,
            )
        texts = [text if tokens else "" for (_, tokens), text in zip(losses, texts, strict=True)]
        counts = [(protocol.words(text) if text else 0, len(text.encode())) for text in texts]
        return [
            TextLikelihood({"nll": loss, "tokens": tokens, "words": words, "bytes": size}, recorder.of_text(index))
            for index, ((loss, tokens), (words, size)) in enumerate(zip(losses, counts, strict=True))
        ]

    def _protocol(self, model: Model) -> Protocol:
        tokenizer = companions(model).tokenizer
        return Protocol.of(self.protocol, model.config, tokenizer, self.window, self.stride, self.with_bos)

    def predict(self, model: Model, inputs: Sequence[Any]) -> list[str]:
        """Continue each text by at most `new_tokens` tokens; return the continuations."""
        tokenizer = companions(model).tokenizer
        return [self._continue(model, tokenizer(str(text))["input_ids"], self.new_tokens) for text in inputs]

    def text_model(self, model: Model) -> TextModel:
        """Return the model as functions of tokens; all runtimes compute them (see `Family.text_model`)."""
        tokenizer = companions(model).tokenizer
        limit = positions(model.config) or getattr(model.config, "n_positions", None)
        return TextModel(
            tokenizer=tokenizer,
            logits=lambda ids: self.forward(model, ids.to(model.device)),
            proceed=lambda ids, new_tokens, stops: self._continue(model, ids, new_tokens, stops),
            vocabulary=vocabulary(model),
            longest=limit or longest(model),
        )

    def _continue(self, model: Model, ids: Sequence[int], new_tokens: int, stops: Sequence[str] = ()) -> str:
        """Continue a text greedily by at most `new_tokens` tokens, or until it contains one of `stops`."""
        import torch

        tokenizer = companions(model).tokenizer
        criteria = {"stopping_criteria": stopping(tokenizer, len(ids), stops)} if stops else {}
        prompt = torch.tensor([list(ids)], dtype=torch.long, device=model.device)
        with torch.inference_mode():
            output = model.module.generate(
                **self._prompt(model, prompt),
                **ONE_ANSWER,
                max_new_tokens=new_tokens,
                max_length=None,
                use_cache=uses_cache(model.module),
                **criteria,
            )
        tokens = [token for token in output[0, prompt.shape[1] :].tolist() if token < len(tokenizer)]
        return str(tokenizer.decode(tokens, skip_special_tokens=True))

    def example(self, model: Model) -> list[Any]:
        """Return the beginning of a text."""
        return ["Once upon a time"]


def _next_tokens(ids: Any) -> Any:
    """Return the token after each one, [batch, tokens]; the last has none."""
    targets = ids.roll(-1, dims=1)
    targets[:, -1] = _NO_TARGET
    return targets


def _scored_roles(model: Model) -> tuple[str, ...]:
    """Return the roles of the columns of the data that a model is scored on."""
    return _ROLES if model.evaluation is None else _roles(model.evaluation.data)


def _roles(data: str) -> tuple[str, ...]:
    """Return the roles of the columns to read: the answer if the data names its column."""
    return (*_ROLES, _ANSWER) if _ANSWER in parse(data).columns else _ROLES


def _continue(parts: Any, input_ids: Any, kept: Any, *past: Any) -> tuple[Any, ...]:
    cache = {cache_keyword(): cache_of(past)}
    output = parts.decoder(input_ids=input_ids, use_cache=True, logits_to_keep=kept, **cache)
    return output.logits, *tensors_of(output[cache_keyword()])
