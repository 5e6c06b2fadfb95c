from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_compress.errors import RecipeError
from mlflow_compress.planning.chains import chain_name, named_chains, parse_chain
from mlflow_compress.records import Scalar, Step


@pytest.mark.parametrize(
    ("text", "chain"),
    [
        ("fp16", [Step("fp16")]),
        ("  fp16\n", [Step("fp16")]),
        ("prune_magnitude", [Step("prune_magnitude")]),
        ("prune_magnitude:", [Step("prune_magnitude")]),
        ("prune_magnitude:amount=0.5", [Step("prune_magnitude", {"amount": 0.5})]),
        ("prune_magnitude:amount=5e-1+fp16", [Step("prune_magnitude", {"amount": 0.5}), Step("fp16")]),
        ("prune_magnitude:amount=0.005e+2+fp16", [Step("prune_magnitude", {"amount": 0.5}), Step("fp16")]),
        (
            " prune_magnitude : amount = 0.5 , scope = global + int8_dynamic ",
            [Step("prune_magnitude", {"amount": 0.5, "scope": "global"}), Step("int8_dynamic")],
        ),
        ("int8_dynamic:per_channel=yes", [Step("int8_dynamic", {"per_channel": True})]),
    ],
)
def test_a_chain_is_read(text: str, chain: list[Step]) -> None:
    assert parse_chain(text) == tuple(chain)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "+",
        "fp16+",
        "+fp16",
        "fp16++fp16",
        "fp16 bf16",
        "fp16;bf16",
        "fp16:amount=1",
        "fp61",
        "prune_magnitude:amount",
        "prune_magnitude:=0.5",
        "prune_magnitude:amount=0.5,",
        "prune_magnitude:amount=0.5,amount=0.6",
        "prune_magnitude:amount=2",
        "prune_magnitude:amount=0.5:scope=global",
        "prune_magnitude(amount=0.5)",
        "$(reboot)",
        "../../etc/passwd",
        "fp16\0",
        "оригинал",
        "1e+3",
    ],
)
def test_invalid_chains_are_rejected(text: str) -> None:
    with pytest.raises(RecipeError) as raised:
        parse_chain(text)
    assert raised.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("fp16+fp16", "fp16 can't follow fp16, which leaves half-precision weights: fp16 takes float32 weights."),
        ("bf16+int8_dynamic", "int8_dynamic can't follow bf16"),
        ("int8_dynamic+prune_magnitude", "which leaves packed weights: prune_magnitude takes float32 weights or half"),
        ("bf16+prune_magnitude+int8_dynamic", "int8_dynamic can't follow prune_magnitude, which leaves half"),
    ],
)
def test_methods_in_an_impossible_order_are_rejected(text: str, reason: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(reason)):
        parse_chain(text)


def test_pruning_keeps_the_precision() -> None:
    assert len(parse_chain("prune_magnitude+prune_magnitude+bf16+prune_magnitude")) == 4


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=30) | st.text("fp16+:=,. eamountglb05", max_size=30))
def test_hostile_text_is_a_chain_or_is_rejected(text: str) -> None:
    try:
        chain = parse_chain(text)
    except RecipeError:
        return
    assert chain


def step(method: str, **options: st.SearchStrategy[Scalar]) -> st.SearchStrategy[Step]:
    given_options: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries({}, optional=options)
    return st.builds(Step, st.just(method), given_options)


shares = st.floats(0, 1, exclude_min=True, exclude_max=True, allow_subnormal=False)


steps = st.one_of(
    step("original"),
    step("prune_magnitude", amount=shares, scope=st.sampled_from(["layer", "global"])),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(steps, max_size=3), st.one_of(step("fp16"), step("int8_dynamic", per_channel=st.booleans())))
def test_a_chains_name_reads_back_as_the_chain(first: list[Step], last: Step) -> None:
    chain = (*first, last)
    assert parse_chain(chain_name(chain)) == chain


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("+".join(["bf16"] * 17), "A chain has at most 16 methods, not 17: "),
        ("+".join(["bf16"] * 10_000), "A chain of methods has at most 2,000 characters, not 49,999."),
        ("fp16" + ":a=1" * 1000, "A chain of methods has at most 2,000 characters, not 4,004."),
        ("fp16" + ":a=1" * 100, "Unknown option of fp16 'a'."),
        ("-" * 1999, "'-----"),
        ("x" * 1999, f"Unknown method '{'x' * 200}…'."),
    ],
)
def test_an_error_about_a_long_chain_is_short(text: str, sentence: str) -> None:
    with pytest.raises(RecipeError) as raised:
        parse_chain(text)
    assert str(raised.value).startswith(sentence)
    assert len(str(raised.value)) < 1000


@pytest.mark.parametrize("name", ["original", "Original [batch 4]", " original-ish", "ORIGINAL", "оригинал"])
def test_a_compressed_variant_can_not_be_named_original(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        RecipeError, match=r"is int8_dynamic, so it can't be named like the original. Give it another name"
    ):
        named_chains(tmp_path / "r.yaml", "variants", [{"name": name, "method": "int8_dynamic"}])
    for allowed, method in (("originality", "int8_dynamic"), (name, "original"), ("base", "original")):
        assert named_chains(tmp_path / "r.yaml", "variants", [{"name": allowed, "method": method}])[0][0] == allowed


def test_two_variants_with_the_same_name_are_rejected(tmp_path: Path) -> None:
    twice = [{"name": "small", "method": "fp16"}, {"name": "small", "method": "bf16"}]
    with pytest.raises(RecipeError, match=r"two variants have the name 'small', 'fp16' and 'bf16'.*one row"):
        named_chains(tmp_path / "r.yaml", "variants", twice)
    with pytest.raises(RecipeError, match="two variants have the name 'bf16'"):
        named_chains(tmp_path / "r.yaml", "variants", ["bf16", {"name": "bf16", "method": "fp16"}])
    assert len(named_chains(tmp_path / "r.yaml", "variants", ["bf16", "bf16", "fp16"])) == 3
