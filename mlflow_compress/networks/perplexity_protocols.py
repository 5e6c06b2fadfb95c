"""Protocols for the likelihood of texts under a language model: which tokens are predicted, from which context.

Numbers from different protocols are not comparable, so each run names its protocol.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mlflow_compress.errors import RecipeError
from mlflow_compress.networks.text_inputs import positions
from mlflow_compress.networks.token_windows import Window, blocks, rolling, sliding

Name = Literal["lm_eval", "wikitext2", "sliding"]

JOINED_BY = "\n\n"  # as in the papers that measure on WikiText-2
_WINDOWS: dict[Name, int] = {"lm_eval": 8192, "wikitext2": 2048, "sliding": 1024}  # default lengths in tokens


@dataclass(frozen=True)
class Protocol:
    """How texts are read and cut.

    Attributes:
        name: `lm_eval` (lm-evaluation-harness: every token is predicted, the first from a prefix token, and only the
            last window overlaps), `wikitext2` (the papers of GPTQ, AWQ and Wanda: all texts joined, cut into blocks,
            the rest left out), or `sliding` (transformers' documentation: windows overlap).
        window: maximum number of tokens in one pass.
        stride: distance between sliding windows.
        prefix: the token before each text; None: none, or the tokenizer's own.
    """

    name: Name
    window: int
    stride: int
    prefix: int | None

    @classmethod
    def of(cls, name: Name, config: Any, tokenizer: Any, window: int | None, stride: int | None, bos: bool) -> Protocol:
        """Choose the open options according to the model's limits.

        Args:
            name: name of the protocol.
            config: config of the model.
            tokenizer: tokenizer of the model.
            window: maximum number of tokens in one pass; None: 8,192 for `lm_eval`, 2,048 for `wikitext2`, 1,024 for
                `sliding`; never more than the model can take.
            stride: stride of `sliding`; None: half of the window.
            bos: whether `sliding` adds a prefix to each text.

        Raises:
            RecipeError: the protocol has no such option, or the tokenizer has no prefix token.
        """
        if name != "sliding" and (stride is not None or bos):
            option = "with_bos" if bos else "stride"
            raise RecipeError(
                f"{option} is an option of protocol=sliding: set protocol=sliding, or leave {option} out."
            )
        longest = positions(config) or getattr(config, "n_positions", None)
        window = min(window or _WINDOWS[name], longest or window or _WINDOWS[name])
        if (stride or 0) > window:
            raise RecipeError(f"stride={stride} would skip tokens: it is larger than window={window}.")
        prefix = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        if name == "lm_eval" and prefix is None:
            raise RecipeError("protocol=lm_eval requires a prefix token, which this tokenizer lacks: use another one.")
        has_prefix = name == "lm_eval" or bos
        return cls(name, window, stride or max(1, window // 2), prefix if has_prefix else None)

    @property
    def text(self) -> str:
        """The protocol as one line, which is logged with the numbers."""
        if self.name == "lm_eval":
            return f"lm-evaluation-harness: prefix token {self.prefix}, rolling windows of {self.window} tokens"
        if self.name == "wikitext2":
            return f"as GPTQ, AWQ and Wanda: texts joined by two line breaks, blocks of {self.window} tokens"
        begin = "" if self.prefix is None else f", prefix token {self.prefix}"
        return f"sliding windows of {self.window} tokens, stride {self.stride}{begin}"

    def encoded(self, tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of each text, after the prefix if there is one."""
        specials = self.name != "lm_eval"  # lm_eval puts only the prefix before a text
        ids: list[list[int]] = tokenizer(list(texts), verbose=False, add_special_tokens=specials)["input_ids"]
        if self.prefix is None:
            return ids
        return [tokens if specials and tokens[:1] == [self.prefix] else [self.prefix, *tokens] for tokens in ids]

    def blocks(self, tokenizer: Any, texts: Sequence[str], limit: int | None) -> list[list[int]]:
        """Return the tokens of the joined texts, cut into blocks; with a limit only the first blocks.

        Raises:
            RecipeError: the texts are shorter than one block.
        """
        (ids,) = self.encoded(tokenizer, [JOINED_BY.join(texts)])
        windows = [ids[start : start + self.window] for start in range(0, len(ids) - self.window + 1, self.window)]
        if not windows:
            raise RecipeError(
                f"protocol=wikitext2 requires blocks of {self.window} tokens, but all texts together have {len(ids)}: "
                "use more texts, or a smaller window=N."
            )
        return windows if limit is None else windows[:limit]

    def windows(self, texts: Sequence[Sequence[int]]) -> list[Window]:
        """Cut tokenised texts into windows."""
        return [part for index, ids in enumerate(texts) for part in self._cut(index, len(ids))]

    def words(self, text: str) -> int:
        """Count words between white space; lm-evaluation-harness also counts empty ones at both ends."""
        return len(re.split(r"\s+", text)) if self.name == "lm_eval" else len(text.split())

    def _cut(self, index: int, length: int) -> Iterable[Window]:
        if self.name == "lm_eval":
            return rolling(index, length, self.window)
        return blocks(index, length) if self.name == "wikitext2" else sliding(index, length, self.window, self.stride)
