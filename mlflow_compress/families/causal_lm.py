"""Decoders that continue a text: LLaMA, Mistral and their kin, through transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

from annotated_types import Ge

from mlflow_compress.hub import find_weights, load_tokenizer, load_transformer, restore_transformer, save_transformer
from mlflow_compress.sockets import Family, Mark, Model

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
        return restore_transformer(_AUTO_CLASS, folder, tokenizer="AutoTokenizer")
