"""Decoders that continue a text: LLaMA, Mistral and their kin, through transformers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

from annotated_types import Ge

from mlflow_compress.decoding import cache_names, cache_of, generator, refill, tensors_of
from mlflow_compress.errors import Unsupported
from mlflow_compress.graphs import Attached, Calls, graph
from mlflow_compress.hub import (
    find_weights,
    load_tokenizer,
    load_transformer,
    restore_assets,
    restore_transformer,
    save_transformer,
)
from mlflow_compress.sockets import Family, Graph, Mark, Model
from mlflow_compress.stacks import thinned

_AUTO_CLASS = "AutoModelForCausalLM"
_TEXT = "The little boat left the harbour at dawn, and nobody on the pier could say when it would be back. "


@dataclass
class CausalLm(Family):
    """A transformers causal language model, decoding greedily with a key-value cache.

    Every variant makes exactly `new_tokens` tokens, whatever it says, so that all do equal work.

    Attributes:
        prompt_tokens: length of the prompt, in tokens.
        new_tokens: how many tokens one call makes.
        architecture: the config's fields with `model_type`, for random weights.
    """

    timed: ClassVar[str] = (
        "prefill of a prompt [batch, prompt_tokens] and greedy decoding of exactly new_tokens tokens with a key-value "
        "cache; tokenising is timed apart"
    )
    needs: ClassVar[tuple[str, ...]] = ("torch", "transformers", "accelerate", "safetensors")
    imports: ClassVar[tuple[str, ...]] = ("torch", "transformers.modeling_utils", "accelerate", "safetensors.torch")

    prompt_tokens: Annotated[int, Ge(1)] = 128
    new_tokens: Annotated[int, Ge(2)] = 32
    architecture: dict[str, Any] = field(default_factory=dict)

    def load(self, source: str, weights: str, folder: Path, seed: int) -> Model:
        """Load the language model and its tokenizer (see `Family.load`)."""
        origin = find_weights(source, weights, folder)
        model = load_transformer(_AUTO_CLASS, source, origin, self.architecture, seed)
        model.assets["tokenizer"] = load_tokenizer(origin)
        return model

    def batch(self, model: Model, size: int, seed: int) -> Any:
        """Make random token ids [size, prompt_tokens], int64."""
        import torch

        generator = torch.Generator().manual_seed(seed)
        vocabulary = model.assets["config"].vocab_size
        return torch.randint(0, vocabulary, (size, self.prompt_tokens), generator=generator).to(model.device)

    def run(self, model: Model, batch: Any, mark: Mark) -> Any:
        """Prefill and decode; marks `prefill` (up to the first token) and one `token` for each later one.

        Returns:
            The last logits [batch, vocabulary].
        """
        output = model.module(input_ids=batch, use_cache=True, logits_to_keep=1)
        token = output.logits[:, -1:].argmax(-1)
        mark("prefill")
        for _ in range(self.new_tokens - 1):
            output = model.module(input_ids=token, past_key_values=output.past_key_values, use_cache=True)
            token = output.logits[:, -1:].argmax(-1)
            mark("token")
        return output.logits[:, -1]

    def forward(self, model: Model, batch: Any) -> Any:
        """Run the model once over the prompt; gives logits [batch, prompt_tokens, vocabulary]."""
        return model.module(input_ids=batch, use_cache=False).logits

    def graphs(self, model: Model) -> Mapping[str, Graph]:
        """Give one graph, `model`, for the prompt and for every later token.

        From `input_ids` [batch, tokens], `kept` [kept] (the positions among the tokens whose logits are wanted) and the
        keys and values of all tokens before, `past_key_0`, `past_value_0` and so on [batch, heads, past, width], to
        `logits` [batch, kept, vocabulary] and `present_key_0`, `present_value_0` and so on [batch, heads, past +
        tokens, width]. The first call has a past of length 0.

        Raises:
            Unsupported: the model's cache is not one key and one value of that shape for each layer.
        """
        import torch

        layers, heads, width = _cache_shape(model.assets["config"])
        tokens = torch.zeros((2, 3), dtype=torch.long, device=model.device)
        with torch.no_grad():
            cache = model.module(input_ids=tokens, use_cache=True).past_key_values
        if [tuple(each.shape) for each in tensors_of(cache)] != [(2, heads, 3, width)] * (2 * layers):
            raise Unsupported(
                "its cache is not one key and one value for each token, head and layer, so it is not exported"
            )
        dtype = tensors_of(cache)[0].dtype
        past = {name: torch.rand((2, heads, 5, width)).to(model.device, dtype) for name in cache_names("past", layers)}
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
        """Put the exported model in the module's place."""
        model.module = _Exported(calls, model.assets["config"], model.device)
        return model

    def student(self, model: Model, keep: float) -> Model:
        """Take over a share of the layers, spaced evenly (see `Family.student`)."""
        return thinned(model, keep)

    def classes(self, model: Model) -> int:
        """Give the number of tokens in the vocabulary."""
        return int(model.assets["config"].vocab_size)

    def around(self, model: Model, size: int, seed: int) -> Mapping[str, Callable[[], object]]:
        """Time the tokenizer on as many texts of about the prompt's length."""
        texts = [_TEXT * (self.prompt_tokens // 20 + 1)] * size
        tokenizer = model.assets["tokenizer"]
        return {
            "preprocess": lambda: tokenizer(texts, return_tensors="pt", truncation=True, max_length=self.prompt_tokens)
        }

    def rates(self, latency_ms: float, stages_ms: Mapping[str, float], size: int) -> Mapping[str, float]:
        """Give tokens per second over the whole call and in decoding alone, over the batch."""
        return {
            "tokens_per_s": size * self.new_tokens / latency_ms * 1000,
            "decode_tokens_per_s": size / stages_ms["token"] * 1000,
            "prefill_tokens_per_s": size * self.prompt_tokens / stages_ms["prefill"] * 1000,
        }

    def predict(self, model: Model, inputs: Sequence[Any]) -> list[str]:
        """Continue each text by at most `new_tokens` tokens; gives the continuations."""
        import torch

        tokenizer = model.assets["tokenizer"]
        found = []
        with torch.inference_mode():
            for text in inputs:
                encoded = tokenizer(str(text), return_tensors="pt").to(model.device)
                ids = encoded["input_ids"]
                made = model.module.generate(
                    input_ids=ids,
                    attention_mask=encoded["attention_mask"],
                    max_new_tokens=self.new_tokens,
                    do_sample=False,
                    pad_token_id=tokenizer.pad_token_id,
                )
                known = [token for token in made[0, ids.shape[1] :].tolist() if token < len(tokenizer)]
                found.append(tokenizer.decode(known, skip_special_tokens=True))
        return found

    def save(self, model: Model, folder: Path) -> None:
        """Write config and tokenizer."""
        save_transformer(model, folder, "tokenizer")

    def restore(self, folder: Path) -> Model:
        """Build the unfilled language model and its tokenizer."""
        return restore_transformer(_AUTO_CLASS, self.restore_assets(folder))

    def restore_assets(self, folder: Path) -> Model:
        """Give config and tokenizer."""
        return restore_assets(folder, tokenizer="AutoTokenizer")


class _Exported(Attached):
    """An exported model; its caches are transformers', so that transformers' decoding takes it too."""

    def __init__(self, calls: Calls, config: Any, device: str) -> None:
        super().__init__(calls)
        self.config, self.device = config, device

    def __call__(self, input_ids: Any, past_key_values: Any = None, logits_to_keep: int = 0, **ignored: Any) -> Any:
        import torch
        from transformers.modeling_outputs import CausalLMOutputWithPast

        length = input_ids.shape[1]
        kept = torch.arange(length - (logits_to_keep or length), length, device=input_ids.device)
        cache = cache_of(()) if past_key_values is None else past_key_values
        past = tensors_of(cache) if cache.get_seq_length() else self._empty(len(input_ids))
        logits, *present = self.calls["model"](input_ids, kept, *past)
        refill(cache, present)
        return CausalLMOutputWithPast(logits=logits, past_key_values=cache)

    def generate(self, **inputs: Any) -> Any:
        return self._generator.generate(**inputs)

    @functools.cached_property
    def _generator(self) -> Any:
        return generator(_AUTO_CLASS, self.config, self.__call__, self.device, self.dtype)

    def _empty(self, size: int) -> list[Any]:
        import torch

        layers, heads, width = _cache_shape(self.config)
        return [torch.zeros((size, heads, 0, width), dtype=self.dtype, device=self.device)] * (2 * layers)


def _continue(parts: Any, input_ids: Any, kept: Any, *past: Any) -> tuple[Any, ...]:
    output = parts.decoder(input_ids=input_ids, past_key_values=cache_of(past), use_cache=True, logits_to_keep=kept)
    return output.logits, *tensors_of(output.past_key_values)


def _cache_shape(config: Any) -> tuple[int, int, int]:
    """Give how many layers there are, how many heads of keys in each, and how wide a key is."""
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return config.num_hidden_layers, getattr(config, "num_key_value_heads", None) or heads, width
