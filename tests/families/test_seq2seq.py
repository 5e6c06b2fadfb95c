"""Text to text: the same output as transformers' generate, one by one, in batches and through graphs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from test_graphs import is_close, resized
from tiny import TINY

from mlflow_compress import registry
from mlflow_compress.errors import RecipeError
from mlflow_compress.networks import model_folder, transformer_layers
from mlflow_compress.networks.export_graphs import TorchCall
from mlflow_compress.networks.transformers_models import companions
from mlflow_compress.planning import chains
from mlflow_compress.records import Variant
from mlflow_compress.sockets import Family, Model

ASCII = 131  # ids of the byte tokenizer: three special tokens, and 7-bit characters
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "marian": {
        **TINY["seq2seq"]["architecture"],
        "max_position_embeddings": 128,
        "forced_eos_token_id": None,
        "init_std": 1.0,
        "scale_embedding": True,
    },
    "t5": {"model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2},
}
TOKENS = {"vocab_size": ASCII, "eos_token_id": 1, "pad_token_id": 0, "decoder_start_token_id": 0}
TEXTS = ["The boat left the harbour at dawn, and nobody knew.", "At dawn.", "x", "Nobody on the pier could say when."]


def loaded(name: str = "marian", **options: Any) -> tuple[Family, Model]:
    small = {"source_tokens": 8, "new_tokens": 4, "most_tokens": 12, "architecture": {**ARCHITECTURES[name], **TOKENS}}
    family: Family = registry.build("families", "seq2seq", {**small, **options})
    return family, family.load("tiny", "random", Path(), 0)


def generated(model: Model, text: str, **options: Any) -> str:
    """Generate from one text with transformers."""
    tokenizer = companions(model).tokenizer
    with torch.no_grad():
        output = model.module.generate(tokenizer(text, return_tensors="pt").input_ids, do_sample=False, **options)
    decoded: str = tokenizer.decode(output[0], skip_special_tokens=True)
    return decoded.strip()


def stored(family: Family, model: Model, folder: Path) -> Model:
    """Save a model and restore it."""
    chain, options = chains.parse_chain("original"), dataclasses.asdict(family)
    variant = Variant("m", "original", "t", "seq2seq", "tiny", "random", chain=chain, options=options)
    model_folder.save(model, family, model_folder.methods_of(chain), variant, folder)
    return model_folder.restore(folder).model


@pytest.mark.parametrize("beams", [1, 3])
def test_scores_are_those_of_sacrebleu_on_what_transformers_generates(tmp_path: Path, beams: int) -> None:
    import sacrebleu
    from rouge_score.rouge_scorer import RougeScorer

    family, model = loaded(beams=beams, most_tokens=40)
    expected = [generated(model, text, max_new_tokens=40, num_beams=beams) for text in TEXTS]
    targets = [f"{text[:-6]} etc." for text in expected]
    rows = [f'"{text}","{target}"' for text, target in zip(TEXTS, (quoted(sample) for sample in targets), strict=True)]
    (tmp_path / "a.csv").write_bytes("\n".join(["source,target", *rows]).encode())
    samples = family.samples(model, "a.csv", tmp_path, None, 0)
    answers = family.answers(model, [sample.inputs for sample in samples])
    assert answers == expected
    references = [sample.reference for sample in samples]
    assert references == targets
    scores = {name: registry.build("metrics", name).compute(references, answers) for name in family.metrics}
    assert scores["bleu"] == pytest.approx(sacrebleu.corpus_bleu(expected, [targets]).score)
    assert scores["chrf"] == pytest.approx(sacrebleu.corpus_chrf(expected, [targets]).score)
    assert 0 < scores["chrf"] < 100
    scorer = RougeScorer(["rougeL"])
    rouge = [scorer.score(*pair)["rougeL"].fmeasure for pair in zip(targets, expected, strict=True)]
    assert scores["rougeL"] == pytest.approx(sum(rouge) / len(rouge))


def quoted(text: str) -> str:
    return text.replace('"', '""')


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_neither_the_batch_nor_graphs_change_the_texts(name: str, beams: int) -> None:
    family, model = loaded(name, beams=beams)
    alone = [family.predict(model, [text])[0] for text in TEXTS]
    assert len(set(alone)) > 1
    assert family.predict(model, TEXTS) == alone
    calls = {}
    with torch.no_grad():
        for key, graph in family.graphs(model).items():
            traced = torch.jit.trace(graph.module, tuple(graph.inputs.values()), check_trace=False)
            inputs = resized(graph, {"batch": 3, "tokens": 1, "past": 0, "source": 5})
            assert is_close(traced(*inputs), graph.module(*inputs))
            calls[key] = TorchCall(traced)
    attached = family.attach(dataclasses.replace(model, module=None), calls)
    assert family.predict(attached, TEXTS) == alone


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_timed_call_generates_a_fixed_number_of_tokens(name: str) -> None:
    family, model = loaded(name, new_tokens=6)
    batch, stages = family.batch(model, 2, 0), list[str]()
    ends = family.run(model, batch, lambda stage: None)[0, :2].tolist()  # otherwise the text would end at once
    companions(model).generation.eos_token_id = ends
    companions(model).generation.forced_eos_token_id = None
    with torch.no_grad():
        produced = family.run(model, batch, stages.append)
        tokens = torch.zeros((2, 1), dtype=torch.long)
        for _ in range(6):  # without a cache
            logits = model.module(**batch, decoder_input_ids=tokens, use_cache=False).logits[:, -1]
            logits[:, ends] = -torch.inf
            tokens = torch.cat([tokens, logits.argmax(-1, keepdim=True)], 1)
    assert stages == ["encoder", "first_token", *["token"] * 5]
    assert torch.equal(produced, tokens[:, 1:])
    assert family.forward(model, batch).shape == (2, 6, ASCII)


def test_the_default_beams_are_those_of_the_model(tmp_path: Path) -> None:
    family, model = loaded()
    with_beams, _ = loaded(beams=4)
    greedy, _ = loaded(beams=1)
    companions(model).generation.num_beams = 4
    default = family.predict(model, TEXTS)
    assert default == with_beams.predict(model, TEXTS)
    assert default != greedy.predict(model, TEXTS)
    assert family.predict(stored(family, model, tmp_path), TEXTS) == default


def test_a_prefix_comes_first_and_a_text_ends() -> None:
    family, model = loaded()
    with_prefix, _ = loaded(prefix="translate: ")
    assert with_prefix.predict(model, TEXTS) == family.predict(model, [f"translate: {text}" for text in TEXTS])
    assert with_prefix.predict(model, TEXTS) != family.predict(model, TEXTS)
    limited, _ = loaded(most_tokens=2)
    assert all(len(output.encode()) <= 2 for output in limited.predict(model, TEXTS))
    unlimited, _ = loaded(most_tokens=10_000)
    unlimited.predict(model, ["x"])  # no more than the decoder has positions


def test_pairs_are_read_by_their_columns(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"translation": {"en": "a cat", "de": "eine Katze"}}\n')
    (tmp_path / "b.csv").write_text("en,de\nx,\n")
    family, model = loaded()
    (sample,) = family.samples(model, "a.jsonl:source=translation.en,target=translation.de", tmp_path, None, 0)
    assert (sample.inputs, sample.reference) == ("a cat", "eine Katze")
    with pytest.raises(RecipeError, match=r"b\.csv has no column 'source'.*source=COLUMN"):
        family.samples(model, "b.csv", tmp_path, None, 0)
    with pytest.raises(RecipeError, match=r"b\.csv, row 2: de is empty"):
        family.samples(model, "b.csv:source=en,target=de", tmp_path, None, 0)


def test_texts_to_calibrate_on_are_not_those_that_are_scored(tmp_path: Path) -> None:
    rows = [f"{chr(97 + index) * 5},y" for index in range(12)]
    (tmp_path / "a.csv").write_text("\n".join(["source,target", *rows]))
    family, model = loaded()
    scored = {sample.inputs for sample in family.samples(model, "a.csv", tmp_path, 6, 0)}
    batches = family.calibration(model, 3, 0, size=2)
    decode = companions(model).tokenizer.batch_decode
    drawn = {text for batch in batches for text in decode(batch["input_ids"], skip_special_tokens=True)}
    assert len(drawn) == 6
    assert not scored & drawn
    assert not model.cautions
    family.forward(model, batches[0])


def test_a_smaller_one_has_fewer_layers_in_the_decoder() -> None:
    family, model = loaded()
    student = family.student(model, 0.5)
    counts = [(config.encoder_layers, config.decoder_layers) for config in (student.config, model.config)]
    assert counts == [(1, 1), (1, 2)]


def test_layers_of_t5_are_dropped_and_the_first_one_has_the_bias_of_positions(tmp_path: Path) -> None:
    family, model = loaded("t5")
    batch = family.batch(model, 2, 0)
    with torch.no_grad():
        for stack in transformer_layers.stacks(model):
            first, second = stack.layers(model)
            for name, parameter in first.named_parameters():  # so that the first layer returns its input
                if name.endswith(("o.weight", "wo.weight")):
                    parameter.zero_()
            assert "relative_attention_bias" not in dict(second.layer[0].SelfAttention.named_children())
        before = family.forward(model, batch)
        for stack in transformer_layers.stacks(model):
            transformer_layers.keep_layers(model, stack, [1])
        torch.testing.assert_close(family.forward(model, batch), before)
        restored = stored(family, model, tmp_path)
        torch.testing.assert_close(family.forward(restored, batch), before)
    assert [restored.config.num_layers, restored.config.num_decoder_layers] == [1, 1]
    family, model = loaded("t5")
    assert len(family.student(model, 0.5).module.decoder.block) == 1
