"""A decoder that loses its past, or generates other tokens after restoring, fails with the first wrong token."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TINY

from mlflow_compress import registry
from mlflow_compress.errors import WorkerError
from mlflow_compress.networks import exported_decoders, generation_check, model_folder
from mlflow_compress.planning.chains import parse_chain
from mlflow_compress.sockets import Continuation, Family, Model

DECODERS = ("asr", "causal_lm", "seq2seq")
CHAINS = ("torchscript", "onnx_int8:mode=dynamic", "openvino_int8:samples=2")


def loaded(name: str) -> tuple[Family, Model]:
    family: Family = registry.build("families", name, TINY[name])
    return family, family.load("tiny", "random", Path(), 0)


def compress(chain: str, family: Family, model: Model) -> Model:
    (method,) = model_folder.methods_of(parse_chain(chain))
    return method.compress(model, family)


@pytest.fixture
def forgets(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Make exported decoders ignore the cache, as version 0.1 did when transformers renamed it."""
    take = exported_decoders.take_cache

    def dropped(arguments: dict[str, Any]) -> None:
        take(arguments)

    def plant() -> None:
        monkeypatch.setattr(exported_decoders, "take_cache", dropped)
        monkeypatch.setattr(exported_decoders, "require_plain", lambda arguments, past, tokens: None)

    return plant


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("name", DECODERS)
def test_an_exported_decoder_that_drops_its_cache_fails(name: str, chain: str, forgets: Callable[[], None]) -> None:
    forgets()
    with pytest.raises(WorkerError, match=r"wrong cache: token 2 of text 1 is \d+, but .*(est|different) in one pass"):
        compress(chain, *loaded(name))


@pytest.mark.parametrize("name", DECODERS)
def test_what_a_restored_decoder_says_is_what_was_saved(name: str, tmp_path: Path, forgets: Callable[[], None]) -> None:
    family, model = loaded(name)
    model = compress("torchscript", family, model)
    path = tmp_path / "generated.pt"
    generation_check.keep(family, model, path)
    generation_check.compare(family, model, path, "cpu")
    forgets()
    with pytest.raises(WorkerError, match=r"before it was saved: token 2 of text 1 is \d+ and was \d+"):
        generation_check.compare(family, model, path, "cpu")


@pytest.mark.parametrize("name", DECODERS)
def test_other_weights_say_something_else(name: str, tmp_path: Path) -> None:
    family, model = loaded(name)
    path = tmp_path / "generated.pt"
    generation_check.keep(family, model, path)
    with torch.no_grad():
        for parameter in model.module.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    with pytest.raises(WorkerError, match="token 1 of text 1"):
        generation_check.compare(family, model, path, "cpu")


def test_what_generates_nothing_is_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family, model = loaded("text_classification")
    monkeypatch.setattr(type(family), "calibration", lambda *args: pytest.fail("data were read for nothing"))
    path = tmp_path / "generated.pt"
    generation_check.keep(family, model, path)
    assert not path.exists()
    generation_check.compare(family, model, path, "cpu")


@pytest.mark.parametrize("name", DECODERS)
def test_one_text_and_two_are_generated_from_calibration_inputs(name: str) -> None:
    family, model = loaded(name)
    continuations = generation_check.generate(family, model)
    assert [len(c.tokens) for c in continuations] == [1, 2]
    for generated in continuations:
        assert generated.tokens.shape == (len(generated.tokens), TINY[name]["new_tokens"])
        assert generated.logits.shape == generated.at_once.shape == (*generated.tokens.shape, 300)
        torch.testing.assert_close(generated.logits, generated.at_once, rtol=1e-3, atol=1e-5)
    assert not model.cautions, "of inputs that only this check takes"


def test_beams_are_checked_as_they_score() -> None:
    family: Family = registry.build("families", "seq2seq", {**TINY["seq2seq"], "beams": 3})
    model = family.load("tiny", "random", Path(), 0)
    (single, double) = generation_check.generate(family, model)
    for generated in (single, double):
        torch.testing.assert_close(generated.logits, generated.at_once, rtol=1e-3, atol=1e-5)
    before = [single, double]
    model = compress("torchscript", family, model)
    after = generation_check.generate(family, model)
    assert [c.tokens.tolist() for c in after] == [c.tokens.tolist() for c in before]


def continuation(tokens: list[int], logits: list[list[float]], at_once: list[list[float]]) -> Continuation:
    return Continuation(*(torch.tensor([values]) for values in (tokens, logits, at_once)))


def test_the_message_speaks_of_the_likeliest_token_only_where_it_is_another() -> None:
    lost = continuation([0], [[4.0, 1.0]], [[1.0, 4.0]])
    with pytest.raises(WorkerError, match="is 0, but 1 is the likeliest in one pass"):
        generation_check.require_past([continuation([0], [[1.0, 4.0]], [[1.0, 4.0]])], [lost])
    equal = continuation([0], [[4.0, 1.0, 1.0]], [[4.0, 3.0, -9.0]])
    with pytest.raises(WorkerError, match="is 0, but its probability is different in one pass"):
        generation_check.require_past([continuation([0], [[4.0, 3.0, -9.0]], [[4.0, 3.0, -9.0]])], [equal])


@pytest.mark.parametrize(("timed", "sizes"), [(1, [1, 2]), (3, [1, 2, 3]), (64, [1, 2, 4])])
def test_a_batch_of_the_timed_size_is_generated_too(timed: int, sizes: list[int]) -> None:
    family, model = loaded("causal_lm")
    model.batch_size = timed
    assert [len(c.tokens) for c in generation_check.generate(family, model)] == sizes


def test_a_tie_that_rounding_breaks_is_not_a_difference() -> None:
    tied = continuation([0, 1], [[1.0, 0.999, -2.0], [0.0, 1.0, -2.0]], [[0.999, 1.0, -2.0], [0.0, 1.0, -2.0]])
    generation_check.require_past([tied], [tied])


def test_what_compressing_changed_in_one_pass_explains_as_much_in_generating() -> None:
    original = continuation([0, 1], [[3.0, 1.0], [0.0, 1.0]], [[3.0, 1.0], [0.0, 1.0]])
    coarse = continuation([0, 1], [[2.9, 1.0], [0.2, 1.0]], [[2.6, 1.0], [0.0, 1.0]])
    generation_check.require_past([original], [coarse])
    with pytest.raises(WorkerError, match=r"differ by 18\.8%"):
        generation_check.require_past([coarse], [coarse])


def test_too_large_a_change_to_check_is_reported() -> None:
    original = continuation([0], [[3.0, 1.0]], [[3.0, 1.0]])
    near = continuation([0], [[2.9, 1.0]], [[2.9, 1.0]])
    far = continuation([0], [[1.5, 1.0]], [[1.5, 1.0]])
    assert generation_check.require_past([original, original], [near, near]) == []
    (caution,) = generation_check.require_past([original, original], [near, far])
    assert caution.code == "unchecked_past"
    assert "by up to 75%" in caution.message


def test_logits_that_are_not_numbers_fail() -> None:
    nan = float("nan")
    broken = continuation([0], [[nan, 1.0]], [[1.0, 0.0]])
    with pytest.raises(WorkerError, match="token 1 of text 1"):
        generation_check.require_past([broken], [broken])
