"""Sentence encoders: sentence-transformers and other transformers encoders that return one vector for a text."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge

from mlflow_compress.data.datasets import draw_labelled, draw_rows, scored, unscored_texts
from mlflow_compress.errors import RecipeError, Unsupported
from mlflow_compress.networks.export_graphs import Attached, Calls, graph
from mlflow_compress.networks.long_texts import note_cut
from mlflow_compress.networks.sentence_modules import Sentences, described, pooled
from mlflow_compress.networks.text_encoders import TextEncoder
from mlflow_compress.networks.text_inputs import longest, taken
from mlflow_compress.networks.transformers_models import Companions, companions, load_tokenizer, load_transformer
from mlflow_compress.sockets import Graph, Labelled, Mark, Model, NativeFlavor, Published, Sample

_PREDICT_BATCH = 32
_RANKED = 100  # documents in an answer
_PAIR, _RETRIEVAL = ("sentence1", "sentence2", "similarity"), ("query", "document")
_SCALE = 20.0  # of cosines in the losses, the default of sentence-transformers
_TEXT = "The pictures are beautiful, but the story is thin and the ending came as no surprise to anyone in the room. "


@dataclass
class Corpus:
    """The documents of a retrieval, with their embeddings once they are computed.

    Attributes:
        documents: their texts.
        vectors: embeddings [documents, width]; None: not computed yet.
    """

    documents: list[str]
    vectors: Any = None


@dataclass
class TextEmbedding(TextEncoder):
    """A transformers encoder whose states are pooled into one vector for a text, as by sentence-transformers.

    Pooling, normalising, prompts and the maximum length are those in the files of sentence-transformers beside the
    model (`modules.json`), unless an option sets them; without files the vector is the mean of the tokens.

    `protocol=similarity` scores pairs of sentences with a true similarity: the correlation of the cosine with it.
    `protocol=retrieval` scores pairs of query and relevant document: for each query, all documents of the data are
    ranked by their cosine.

    Source: Reimers and Gurevych, Sentence-BERT, arXiv 1908.10084; the protocols: Muennighoff et al., MTEB, arXiv
    2210.07316, section 3.

    Attributes:
        tokens: length of the timed input, in tokens.
        protocol: what is scored: `similarity` or `retrieval`.
        pooling: mean of the tokens, the first token (cls), maximum, last token, or that of the model's files (auto).
        normalize: whether vectors are divided by their length; None: as the model's files say.
        prompt: text before every text; None: the default prompt in the model's files.
        query_prompt: text before every query of a retrieval; None: the prompt `query` in the model's files.
        calibration_tokens: maximum length of texts for calibration and training, in tokens.
        scored_tokens: maximum length of texts in predicting and scoring, in tokens; None: the model's maximum.
        architecture: for random weights, fields of the config, including `model_type`.
        trust: whether Python code beside a local model may build it (`auto_map` in its `config.json`).
        students: for random weights, the `architecture` of each model that distill:student names.
    """

    auto_class: ClassVar[str] = "AutoModel"
    pipeline: ClassVar[str] = "feature-extraction"
    timed: ClassVar[str] = (
        "one forward pass on token ids [batch, tokens] on the device, and pooling to one vector for each text; "
        "tokenising is timed apart"
    )
    logits_axes: ClassVar[Mapping[int, str]] = {0: "batch"}
    metrics: ClassVar[tuple[str, ...]] = ("spearman", "pearson")
    gives: ClassVar[tuple[str, ...]] = ()

    protocol: Literal["similarity", "retrieval"] = "similarity"
    pooling: Literal["auto", "mean", "cls", "max", "last"] = "auto"
    normalize: bool | None = None
    prompt: str | None = None
    query_prompt: str | None = None
    scored_tokens: Annotated[int, Ge(1)] | None = None
    calibration_tokens: Annotated[int, Ge(1)] = 128
    architecture: dict[str, Any] = field(default_factory=dict)

    @property
    def _roles(self) -> tuple[str, ...]:
        return _PAIR if self.protocol == "similarity" else _RETRIEVAL

    def load(self, source: str, weights: str, folder: Path, seed: int) -> Model:
        """Load the encoder, its tokenizer and the description of its pooling (see `Family.load`)."""
        origin = self.origin(source, weights, folder)
        model = load_transformer(self.auto_class, source, origin, self.architecture, seed, self.precision)
        sentences = Sentences() if origin.kind == "random" else described(origin)
        changes: dict[str, Any] = {
            name: value
            for name in ("pooling", "normalize", "prompt", "query_prompt")
            if (value := getattr(self, name)) not in (None, "auto")
        }
        if "prompt" in changes:
            changes.setdefault("query_prompt", changes["prompt"])
        replace(sentences, **changes).keep(model.config)
        model.family_data = Companions(tokenizer=load_tokenizer(origin), code=origin.code)
        self.settle(model)
        return model

    def run(self, model: Model, batch: Any, mark: Mark) -> Any:
        """Run the encoder and pool; return vectors [batch, width]."""
        return _vectors(model.module, model.config, batch)

    def outputs_are_scores(self, model: Model) -> bool:
        """Return False: the output is a vector."""
        return False

    def classes(self, model: Model) -> int:
        """Return 0: the output is a vector."""
        return 0

    def classes_to_teach(self, model: Model) -> Mapping[int, str]:
        """Return nothing: there are no classes."""
        return {}

    def graphs(self, model: Model) -> Mapping[str, Graph]:
        """Return one graph, `model`: from `input_ids` and `attention_mask` [batch, tokens] to `sentence_embedding`."""
        inputs = self.batch(model, 2, 0)
        config = model.config

        def embed(parts: Any, input_ids: Any, attention_mask: Any) -> tuple[Any, ...]:
            batch = {"input_ids": input_ids, "attention_mask": attention_mask}
            return (_vectors(parts.encoder, config, batch),)

        dynamic = {**{name: {0: "batch", 1: "tokens"} for name in inputs}, "sentence_embedding": {0: "batch"}}
        return {"model": graph(embed, inputs, ["sentence_embedding"], dynamic, encoder=model.module)}

    def attach(self, model: Model, calls: Calls) -> Model:
        """Replace the module by the exported encoder with its pooling."""
        model.module = _Exported(calls)
        return model

    def around(self, model: Model, size: int, seed: int) -> Mapping[str, Callable[[], object]]:
        """Time the tokenizer on `size` texts of at least the timed length."""
        texts = [_TEXT * (self.tokens // 16 + 1)] * size
        return {"preprocess": lambda: self._encode(model, texts, self.tokens)}

    def metrics_for(self, model: Model) -> tuple[str, ...]:
        """Return the metrics of the protocol."""
        return self.metrics if self.protocol == "similarity" else ("retrieval_recall", "mrr")

    def kinds(self, model: Model) -> tuple[str, ...]:
        """Return the kind of the answers: similarities, or rankings of documents."""
        return ("numbers",) if self.protocol == "similarity" else ("rankings",)

    def samples(self, model: Model, data: str, folder: Path, limit: int | None, seed: int) -> Sequence[Sample]:
        """Read pairs of sentences with their similarity, or queries with their relevant documents.

        Rows with the same query are one sample; its documents are numbered in the order of the data.

        Raises:
            RecipeError: the data can't be read (see `datasets.read`), or a similarity is not a number.
        """
        rows = scored(model, data, folder, self._roles, limit, seed)
        pairs = [[str(row.values[role]) for role in self._roles[:2]] for row in rows]
        note_cut(model, [text for pair in pairs for text in pair], self._limit(model))
        if self.protocol == "similarity":
            return [
                Sample(tuple(pair), _number(row.values["similarity"], row.where))
                for pair, row in zip(pairs, rows, strict=True)
            ]
        numbers = {text: number for number, text in enumerate(dict.fromkeys(document for _, document in pairs))}
        corpus = Corpus(list(numbers))
        relevant: dict[str, list[int]] = {}
        for query, document in pairs:
            of_query = relevant.setdefault(query, [])
            of_query += [numbers[document]] if numbers[document] not in of_query else []
        return [Sample((query, corpus), documents) for query, documents in relevant.items()]

    def calibration(self, model: Model, count: int, seed: int, size: int = 1) -> list[Any]:
        """Draw texts that are not scored, cut to `calibration_tokens`; without any, see `Family.calibration`."""
        tokens = min(self.calibration_tokens, self._limit(model) or self.calibration_tokens)
        rows = draw_rows(model, self._roles, 2, -(-count * size // 2), seed)
        if not rows:
            return TextEncoder.calibration(replace(self, tokens=tokens), model, count, seed, size)
        texts = [text for row in rows for text in self._prompted(model, row)]
        parts = [texts[start : start + size] for start in range(0, count * size, size)]
        return [self._encode(model, part, tokens) for part in parts]

    def labelled(self, model: Model, count: int, seed: int, size: int = 1) -> list[Labelled]:
        """Draw pairs that are not scored: `size` first texts followed by their second ones (see `Family.labelled`).

        The targets are the similarities [size]; empty for queries with their documents.
        """
        import torch

        rows = draw_labelled(model, self._roles, 2, count * size, seed)
        tokens = min(self.calibration_tokens, self._limit(model) or self.calibration_tokens)
        if not rows and model.weights == "random":
            batches = self.calibration(model, count, seed, 2 * size)
            return [Labelled(batch, torch.arange(float(size), device=model.device)) for batch in batches]
        if not rows:
            return super().labelled(model, count, seed, size)
        batches = []
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            pairs = [self._prompted(model, row.values) for row in part]
            texts = [pair[side] for side in (0, 1) for pair in pairs]
            scores = [_number(row.values[role], row.where) for row in part for role in self._roles[2:]]
            targets = torch.tensor(scores, dtype=torch.float32, device=model.device)
            batches.append(Labelled(self._encode(model, texts, tokens), targets))
        return batches

    def forward_labelled(self, model: Model, labelled: Labelled) -> tuple[Any, Any]:
        """Embed pairs; the loss is CoSENT for similarities, and cross-entropy over the batch's documents for queries.

        Source: CoSENTLoss and MultipleNegativesRankingLoss of sentence-transformers; Henderson et al., arXiv
        1705.00652, section 4.
        """
        import torch
        from torch.nn import functional

        vectors = self.forward(model, labelled.batch)
        first, second = (functional.normalize(side, dim=-1) for side in vectors.chunk(2))
        if not labelled.targets.numel():
            cosines = first @ second.T * _SCALE
            return vectors, functional.cross_entropy(cosines, torch.arange(len(first), device=first.device))
        cosines = (first * second).sum(-1) * _SCALE
        is_more = labelled.targets.unsqueeze(1) < labelled.targets.unsqueeze(0)  # [one, other]: the other is more alike
        excess = (cosines.unsqueeze(1) - cosines.unsqueeze(0))[is_more]
        return vectors, torch.logsumexp(torch.cat([excess.new_zeros(1), excess]), dim=0)

    def token_lists(self, model: Model, most: int) -> list[list[int]]:
        """Return the tokens of all texts that are not scored (see `Family.token_lists`)."""
        rows = unscored_texts(model, self._roles, 2, most)
        texts = [text for row in rows for text in self._prompted(model, row)]
        return list(companions(model).tokenizer(texts, verbose=False)["input_ids"]) if texts else []

    def predict(self, model: Model, inputs: Sequence[Any]) -> list[list[float]]:
        """Return the embedding of each text."""
        prompt = Sentences.of(model.config).prompt
        vectors = self._embed(model, [prompt + str(text) for text in inputs])
        embeddings: list[list[float]] = vectors.float().cpu().tolist()
        return embeddings

    def answers(self, model: Model, inputs: Sequence[Any]) -> list[Any]:
        """Return the cosine of each pair; for queries the numbers of the nearest 100 documents, best first."""
        import torch
        from torch.nn import functional

        sentences = Sentences.of(model.config)
        if self.protocol == "similarity":
            texts = [sentences.prompt + text for pair in inputs for text in pair]
            vectors = functional.normalize(self._embed(model, texts).float(), dim=-1)
            cosines: list[float] = (vectors[::2] * vectors[1::2]).sum(-1).tolist()
            return cosines
        corpus: Corpus = inputs[0][1]
        if corpus.vectors is None:
            documents = [sentences.prompt + text for text in corpus.documents]
            corpus.vectors = functional.normalize(self._embed(model, documents).float(), dim=-1)
        queries = self._embed(model, [sentences.query_prompt + query for query, _ in inputs]).float()
        cosines_of = functional.normalize(queries, dim=-1) @ corpus.vectors.T
        best = torch.topk(cosines_of, min(_RANKED, len(corpus.documents))).indices
        are_numbers = cosines_of.isfinite().all(-1).tolist()
        return [row if is_number else math.nan for row, is_number in zip(best.tolist(), are_numbers, strict=True)]

    def _embed(self, model: Model, texts: Sequence[str]) -> Any:
        """Return the vectors of texts [texts, width], computed in the order of their length."""
        import torch

        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        vectors: list[Any] = []
        with torch.inference_mode():
            for start in range(0, len(order), _PREDICT_BATCH):
                part = [texts[index] for index in order[start : start + _PREDICT_BATCH]]
                vectors.append(self.run(model, self._encode(model, part, self._limit(model)), lambda stage: None))
        together = torch.cat(vectors)
        return torch.empty_like(together).index_copy_(0, torch.tensor(order, device=together.device), together)

    def _prompted(self, model: Model, values: Mapping[str, Any]) -> list[str]:
        """Return the two texts of a row with their prompts."""
        sentences = Sentences.of(model.config)
        prompts = (sentences.query_prompt if self.protocol == "retrieval" else sentences.prompt, sentences.prompt)
        return [prompt + str(values[role]) for prompt, role in zip(prompts, self._roles[:2], strict=True)]

    def _limit(self, model: Model) -> int | None:
        """Return the maximum number of tokens of a text; None: unlimited."""
        limits = (self.scored_tokens, Sentences.of(model.config).tokens, longest(model))
        return min((limit for limit in limits if limit is not None), default=None)

    def _encode(self, model: Model, texts: Sequence[str], tokens: int | None) -> dict[str, Any]:
        encoded = companions(model).tokenizer(
            list(texts),
            return_tensors="pt",
            padding=True,
            truncation=tokens is not None,
            max_length=tokens,
            return_token_type_ids=False,
            return_attention_mask=True,
        )
        return {name: encoded[name].to(model.device) for name in ("input_ids", "attention_mask")}

    def example(self, model: Model) -> list[Any]:
        """Return a text."""
        return ["A film that stays with you."]

    def publish(self, saved: Path, folder: Path) -> Published:
        """Copy the files that `from_pretrained` reads; the note says how to pool."""
        published = super().publish(saved, folder)
        sentences = Sentences.of(self.restore_assets(saved).config)
        normalized = ", then divide by its length" if sentences.normalize else ""
        return replace(published, note=f"The vector of a text is the {sentences.pooling} of its tokens{normalized}.")

    def native_flavor(self, saved: Path) -> NativeFlavor:
        """Raise `Unsupported`: MLflow's transformers flavor would return the states of all tokens."""
        raise Unsupported("MLflow's transformers flavor would return one vector for each token, without pooling")


class _Exported(Attached):
    def __call__(self, input_ids: Any, attention_mask: Any) -> Any:
        return self.calls["model"](input_ids, attention_mask)[0]


def _vectors(module: Any, config: Any, batch: Mapping[str, Any]) -> Any:
    if isinstance(module, _Exported):
        return module(**batch)
    states = module(**taken(module, batch))["last_hidden_state"]
    return pooled(states, batch["attention_mask"], Sentences.of(config))


def _number(value: Any, where: str) -> float:
    """Return a similarity.

    Raises:
        RecipeError: it is not a number.
    """
    try:
        return float(value)
    except (TypeError, ValueError):
        raise RecipeError(f"{where}: the similarity {value!r:.60} is not a number.") from None
