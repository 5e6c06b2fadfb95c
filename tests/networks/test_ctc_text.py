"""Texts of CTC: repeated tokens count once, and a blank separates two equal letters."""

from __future__ import annotations

import pytest

from mlflow_compress.networks.ctc_text import text_of, tokenizer_of_letters


@pytest.mark.full
@pytest.mark.parametrize("blank", [0, 3])
def test_the_text_of_the_best_tokens(blank: int) -> None:
    tokenizer = tokenizer_of_letters(32, blank)
    assert tokenizer.pad_token_id == blank
    ids = tokenizer.get_vocab()
    frames = [
        ids[name] for name in ["<pad>", "h", "h", "e", "<pad>", "l", "l", "<pad>", "l", "o", "|", "|", "a", "<s>"]
    ]
    assert text_of(tokenizer, frames, blank) == "hello a"
    assert text_of(tokenizer, [], blank) == ""
    assert text_of(tokenizer, [blank, blank], blank) == ""


def test_a_tokenizer_that_does_not_know_ctc_gets_the_collapsed_tokens() -> None:
    class Plain:
        def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
            return "".join(chr(96 + number) for number in ids)

        def _decode(self, ids: list[int]) -> str:
            raise NotImplementedError

    assert text_of(Plain(), [8, 8, 5, 0, 12, 12, 0, 12, 15], 0) == "hello"


@pytest.mark.full
@pytest.mark.parametrize("size", [4, 32, 154])
def test_there_are_as_many_tokens_as_scores(size: int) -> None:
    tokenizer = tokenizer_of_letters(size, 0)
    assert sorted(tokenizer.encoder.values()) == list(range(size))
