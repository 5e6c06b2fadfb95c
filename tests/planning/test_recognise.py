"""Models without a recipe: their family, and errors if there is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import huggingface_hub.constants
import pytest

from mlflow_compress.errors import RecipeError, UnknownName, WeightsError
from mlflow_compress.networks import hub
from mlflow_compress.planning import recipe
from mlflow_compress.planning.recognise import Recognised, recognise


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disable the cache and the network, unless a test changes that."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda source, file: None)
    monkeypatch.setattr(huggingface_hub, "file_exists", lambda source, file: False)
    monkeypatch.setattr(hub, "_ask", lambda endpoint: f"{endpoint} can't be reached (no network)")


def config(folder: Path, **fields: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(fields))
    return folder


@pytest.mark.parametrize(
    ("cls", "kind", "family"),
    [
        ("DistilBertForSequenceClassification", "distilbert", "text_classification"),
        ("RobertaForMaskedLM", "roberta", "masked_lm"),
        ("CLIPModel", "clip", "zero_shot_image_classification"),
        ("SiglipModel", "siglip", "zero_shot_image_classification"),
        ("BertForTokenClassification", "bert", "token_classification"),
        ("ViTForImageClassification", "vit", "image_classification"),
        ("LlamaForCausalLM", "llama", "causal_lm"),
        ("GPT2LMHeadModel", "gpt2", "causal_lm"),
        ("WhisperForConditionalGeneration", "whisper", "asr"),
        ("Wav2Vec2ForCTC", "wav2vec2", "asr_ctc"),
        ("HubertForCTC", "hubert", "asr_ctc"),
        ("T5ForConditionalGeneration", "t5", "seq2seq"),
        ("BartForConditionalGeneration", "bart", "seq2seq"),
        ("MarianMTModel", "marian", "seq2seq"),
    ],
)
def test_the_class_determines_the_family(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cls: str, kind: str, family: str
) -> None:
    folder = config(tmp_path / "mine", architectures=[cls], model_type=kind)
    assert recognise(str(folder)) == Recognised("mine", family, str(folder))
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda source, file: str(folder / file))
    assert recognise("org/name") == Recognised("org/name", family, "org/name")
    assert recognise("gpt2") == Recognised("gpt2", family, "gpt2")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"architectures": ["BertForMultipleChoice"], "model_type": "bert"},
            "is a BertForMultipleChoice, which no family supports",
        ),
        ({"architectures": ["BertModel"], "model_type": "bert"}, "is a BertModel"),
        ({"architectures": ["LlavaForConditionalGeneration"], "model_type": "llava"}, "is a LlavaForConditional"),
        ({"model_type": "bert"}, "a model of type 'bert' whose config.json names no class"),
        ({}, "not a transformers model"),
    ],
)
def test_unsupported_models_are_rejected(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message) as error:
        recognise(str(config(tmp_path / "mine", **fields)))
    assert "ForTokenClassification" in str(error.value)
    assert "--family" in str(error.value)


@pytest.mark.parametrize(
    ("name", "model", "source"),
    [
        ("yolo11s", "yolo11s", "yolo11s.pt"),
        ("yolov8n.pt", "yolov8n", "yolov8n.pt"),
        ("yolov5n6u", "yolov5n6u", "yolov5n6u.pt"),
        ("yolov3-tinyu", "yolov3-tinyu", "yolov3-tinyu.pt"),
        ("yolo26x", "yolo26x", "yolo26x.pt"),
        ("yolo11n-cls", "yolo11n-cls", "yolo11n-cls.pt"),
        ("yolo11n-seg.pt", "yolo11n-seg", "yolo11n-seg.pt"),
        ("yolov8x-pose-p6.pt", "yolov8x-pose-p6", "yolov8x-pose-p6.pt"),
        ("yolo11n-obb", "yolo11n-obb", "yolo11n-obb.pt"),
        ("yolov8n-oiv7", "yolov8n-oiv7", "yolov8n-oiv7.pt"),
        ("YOLO11n", "yolo11n", "yolo11n.pt"),
    ],
)
def test_ultralytics_names_are_recognised(name: str, model: str, source: str) -> None:
    assert recognise(name) == Recognised(model, "yolo", source)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("yolo26n-sem-ade20k", "semantic segmentation"),
        ("yolov8s-worldv2", "classes named by text"),
        ("yoloe-11s-seg-pf", "classes named by text"),
        ("rtdetr-l", "RT-DETR"),
        ("yolo_nas_s", "YOLO-NAS"),
        ("sam2.1_b.pt", "segmentation of marked objects"),
        ("FastSAM-s", "segmentation of marked objects"),
    ],
)
def test_unsupported_ultralytics_releases_are_rejected(name: str, message: str) -> None:
    with pytest.raises(
        RecipeError, match=rf"^{name} is an ultralytics model for {message}.*not supported.*yolo11n-cls"
    ):
        recognise(name)
    assert recognise(name, "yolo") is not None


def test_a_state_dict_is_not_a_yolo_model(tmp_path: Path) -> None:
    import torch

    for name, content in {"state": {"weight": torch.ones(2)}, "whole": torch.nn.Linear(2, 2)}.items():
        path = tmp_path / f"{name}.pt"
        torch.save(content, path)
        assert recognise(str(path)) is None
        with pytest.raises(
            RecipeError, match="holds only weights; their architecture is in the code that trained them"
        ):
            recipe.read(str(path))
        assert recognise(str(path), "yolo") == Recognised(name, "yolo", str(path))


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("org/name@v2.1", "org/name@v2.1"),
        ("org/name:inner/model@refs/pr/1", "org/name:inner/model@refs/pr/1"),
        ("https://huggingface.co/org/name", "org/name"),
        ("https://huggingface.co/org/name/tree/v2", "org/name@v2"),
    ],
)
def test_revisions_and_addresses_of_the_hub_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, source: str
) -> None:
    folder = config(tmp_path, architectures=["LlamaForCausalLM"], model_type="llama")
    monkeypatch.setattr(
        huggingface_hub, "try_to_load_from_cache", lambda source, file, **kwargs: str(folder / "config.json")
    )
    assert recognise(name) == Recognised(source, "causal_lm", source)


def test_files_are_recognised_by_their_suffix(tmp_path: Path) -> None:
    for name in ("best.pt", "small.gguf"):
        (tmp_path / name).touch()
    assert recognise(str(tmp_path / "best.pt")) == Recognised("best", "yolo", str(tmp_path / "best.pt"))
    assert recognise(str(tmp_path / "small.gguf")) == Recognised("small", "causal_lm", str(tmp_path / "small.gguf"))
    assert recognise(str(tmp_path)) == Recognised(tmp_path.name, "causal_lm", str(tmp_path))
    assert recognise(str(tmp_path / "gone.pt")) is None


def test_names_of_image_libraries_are_recognised() -> None:
    assert recognise("torchvision:resnet18") == Recognised("resnet18", "image_classification", "torchvision:resnet18")
    assert recognise("timm:vit_tiny") == Recognised("vit_tiny", "image_classification", "timm:vit_tiny")


def test_mlflow_models_are_recognised_by_uri_or_folder(tmp_path: Path) -> None:
    assert recognise("models:/tree/1") == Recognised("tree/1", "mlflow_model", "models:/tree/1")
    assert recognise("runs:/abc/model") == Recognised("abc/model", "mlflow_model", "runs:/abc/model")
    (tmp_path / "MLmodel").touch()
    assert recognise(str(tmp_path)) == Recognised(tmp_path.name, "mlflow_model", str(tmp_path))


def test_a_folder_without_a_configuration_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no config\.json in .*save_pretrained"):
        recognise(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(WeightsError, match="can't be read"):
        recognise(str(tmp_path))
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(WeightsError, match="not a mapping"):
        recognise(str(tmp_path))


def test_without_a_network_a_hub_model_is_unknown() -> None:
    with pytest.raises(WeightsError, match=r"org/name is unknown: .*no network.*config\.json") as raised:
        recipe.read("org/name")
    assert raised.value.exit_code == 3
    assert "\n" not in str(raised.value)


def test_errors_of_the_hub_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: str, file: str) -> str:
        raise OSError(f"404: there is no {source}")

    monkeypatch.setattr(hub, "_ask", lambda endpoint: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(WeightsError, match="The configuration of org/name can't be read: 404"):
        recognise("org/name")


def test_the_hub_is_asked_for_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = config(tmp_path, architectures=["BertForTokenClassification"], model_type="bert")
    monkeypatch.setattr(hub, "_ask", lambda endpoint: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda source, file: str(folder / file))
    model_recipe = recipe.read("dslim/bert-large-NER")
    assert (model_recipe.name, model_recipe.family, model_recipe.source) == (
        "dslim/bert-large-NER",
        "token_classification",
        model_recipe.name,
    )
    assert model_recipe.metrics == ("seqeval_f1", "seqeval_precision", "seqeval_recall")
    assert [name for name, _ in model_recipe.variants] == ["original"]
    assert model_recipe.data is None


@pytest.mark.parametrize("name", ["distilbrt", "yolo11q", "yolo11", "gpt2", "no such", "a/b/c", "../x", "", "."])
def test_other_names_are_unknown(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError) as raised:
        recipe.read(name)
    if name == "distilbrt":
        assert isinstance(raised.value, UnknownName)
        assert raised.value.nearest == "distilbert"


def test_sentence_encoders_are_recognised_by_their_modules(tmp_path: Path) -> None:
    folder = config(tmp_path / "mpnet", architectures=["MPNetForMaskedLM"], model_type="mpnet")
    (folder / "modules.json").write_text("[]")
    assert recognise(str(folder)) == Recognised("mpnet", "text_embedding", str(folder))


def test_the_user_can_choose_the_family(tmp_path: Path) -> None:
    model_recipe = recipe.read("org/name", "text_classification")
    assert (model_recipe.family, model_recipe.source) == ("text_classification", "org/name")
    folder = config(tmp_path / "mine", architectures=["BertForMaskedLM"])
    assert recipe.read(str(folder), "token_classification").family == "token_classification"
    with pytest.raises(UnknownName, match="Did you mean 'yolo'"):
        recipe.read("org/name", "yol")
    with pytest.raises(RecipeError, match="leave out --family"):
        recipe.read("distilbert", "text_classification")


def test_random_weights_take_the_architecture_of_the_folder(tmp_path: Path) -> None:
    from mlflow_compress import registry

    fields = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    folder = config(
        tmp_path / "mine", architectures=["BertForTokenClassification"], model_type="bert", vocab_size=300, **fields
    )
    model_recipe = recipe.read(str(folder))
    family = registry.build("families", model_recipe.family)
    model = family.load(model_recipe.source, "random", model_recipe.folder, 0)
    assert (model.weights, model.config.hidden_size) == ("random", 16)
