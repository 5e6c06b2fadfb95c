"""Text classification: the same labels in batches and alone, and texts cut to the model's maximum."""

from __future__ import annotations

import torch
from tiny import tiny_model

from mlflow_compress.networks.transformers_models import companions

TEXTS = ["a fine film", "dull", "the pictures are beautiful, but the story is thin"]


def test_each_text_gets_the_label_that_the_model_gives_it_alone() -> None:
    family, model = tiny_model("text_classification", {"initializer_range": 1.0})
    expected = []
    for text in TEXTS:
        encoded = companions(model).tokenizer([text], return_tensors="pt")
        with torch.no_grad():
            logits = model.module(**{key: encoded[key] for key in ("input_ids", "attention_mask")}).logits
        expected.append(model.config.id2label[int(logits.argmax())])
    assert family.predict(model, TEXTS * 7) == expected * 7  # more than one batch
    assert [family.predict(model, [text])[0] for text in TEXTS] == expected


def test_texts_are_cut_to_the_tokens_that_the_options_say() -> None:
    family, model = tiny_model("text_classification", {"initializer_range": 1.0}, scored_tokens=4)
    lengths = []
    forward = model.module.forward

    def watched(**inputs: torch.Tensor) -> object:
        lengths.append(inputs["input_ids"].shape[1])
        return forward(**inputs)

    model.module.forward = watched
    family.predict(model, ["a", TEXTS[2]])
    assert lengths == [4]
    assert family.around(model, 2, 0)["preprocess"]()["input_ids"].shape == (2, 16)  # type: ignore[index]
