"""Find the family of a model without a recipe, by its name or by the configuration beside its weights.

This loads nothing of the model and downloads no weights, at most a configuration from the hub.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_compress.compression.runtime_files import FORMATS
from mlflow_compress.errors import RecipeError
from mlflow_compress.networks import http_service, ultralytics_checkpoint, weight_files
from mlflow_compress.networks.hub import adapter_of, cached_file, config_fields, gguf_files, is_config_cached
from mlflow_compress.networks.lora_adapters import Adapter
from mlflow_compress.networks.torchscript_scan import is_script

_YOLO = r"yolo(v3(-tiny|-spp)?|(v\d+|\d+)[nstmblxce]6?)u?"
_ULTRALYTICS = re.compile(rf"{_YOLO}(-cls|-seg|-pose(-p6)?|-obb|-oiv7)?(\.pt)?")
_ULTRALYTICS_TASKS: Mapping[str, str] = {  # names of ultralytics releases that no family supports, and their task
    rf"{_YOLO}-sem(-\w+)?": "semantic segmentation",
    rf"{_YOLO}-depth": "depth",
    rf"{_YOLO}-(world(v2)?|objv1-\w+)|yoloe-\w+(-seg)?(-pf)?": "classes named by text",
    r"rtdetr-\w+": "RT-DETR, whose boxes have another form",
    r"yolo_nas_[sml]": "YOLO-NAS, whose boxes have another form",
    r"(mobile_)?sam|sam(2|2\.1|3)?(_[tsbl])?|FastSAM-[sx]": "segmentation of marked objects",
}
_OF_YOLO = re.compile(r"yolo[\w.+-]*", re.IGNORECASE)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(:[\w./-]+)?(@[\w./-]+)?", re.ASCII)
_OLD_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(@[\w./-]+)?", re.ASCII)  # ids of the hub's first models: `gpt2`
_HUB = r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/"
_HUB_ADDRESS = re.compile(rf"{_HUB}([^/?#]+/[^/?#]+)(?:/tree/([^/?#]+))?/?")
_ZOOS = ("torchvision:", "timm:")
_LOGGED, _LOGGED_FOLDER = ("models:/", "runs:/"), "MLmodel"
_CLASSES: Mapping[str, str] = {
    "ForSequenceClassification": "text_classification",
    "ForTokenClassification": "token_classification",
    "ForImageClassification": "image_classification",
    "ForMaskedLM": "masked_lm",
    "CLIPModel": "zero_shot_image_classification",
    "SiglipModel": "zero_shot_image_classification",
    "Siglip2Model": "zero_shot_image_classification",
    "ForObjectDetection": "object_detection",
    "ForSemanticSegmentation": "semantic_segmentation",
    "ForCausalLM": "causal_lm",
    "ForCTC": "asr_ctc",
    "LMHeadModel": "causal_lm",
    "MTModel": "seq2seq",
    "ForConditionalGeneration": "",  # decided by the type of model
}  # endings of the names of transformers' classes
_TRAINED_FOR: Mapping[str, str] = {  # tasks of adapters, as peft calls them
    "SEQ_CLS": "text_classification",
    "TOKEN_CLS": "token_classification",
    "CAUSAL_LM": "causal_lm",
}
_GENERATORS: Mapping[str, tuple[str, ...]] = {
    "asr": ("whisper",),
    "seq2seq": ("t5", "mt5", "umt5", "bart", "mbart", "pegasus", "m2m_100", "blenderbot", "blenderbot-small", "plbart"),
}


@dataclass(frozen=True)
class Recognised:
    """A model without a recipe.

    Attributes:
        name: its name in tables.
        family: its family.
        source: the source that the family loads.
    """

    name: str
    family: str
    source: str


def recognise(name: str, family: str = "") -> Recognised | None:
    """Find the family of a model: one on the hub or in MLflow, a local path, an ultralytics name, or a service.

    Args:
        name: the model as the user wrote it.
        family: the family that it must have; empty: detect it.

    Returns:
        None if the name can't mean a model.

    Raises:
        RecipeError: no family supports it, a folder has no configuration, or an address contains a secret.
        WeightsError: its configuration is not available.
    """
    if (address := _HUB_ADDRESS.fullmatch(name)) is not None:
        name = "@".join(filter(None, address.groups()))
    if http_service.is_address(name) and not re.match(_HUB, name):
        return Recognised(http_service.address_of(name).name, family or "endpoint", name)
    path = Path(name)
    if path.suffix in (".pt", ".gguf") and _is_file(path):
        weight_files.require_no_pointer(path)
    if path.suffix.lower() in FORMATS and (path.suffix != ".pt" or is_script(path)) and _is_file(path):
        return Recognised(path.stem, family or "file", str(path.resolve()))
    if path.suffix == ".pt" and not family and _is_file(path) and ultralytics_checkpoint.is_of_others(path):
        return None
    if path.suffix in (".pt", ".gguf") and _is_file(path):
        kind = "yolo" if path.suffix == ".pt" else "causal_lm"
        return Recognised(path.stem, family or kind, str(path.resolve()))
    if name.startswith(_ZOOS):
        return Recognised(name.partition(":")[2], family or "image_classification", name)
    if name.startswith(_LOGGED) or (name and _is_file(path / _LOGGED_FOLDER)):
        source = name if name.startswith(_LOGGED) else str(path.resolve())
        return Recognised(name.partition(":/")[2] or path.resolve().name, family or "mlflow_model", source)
    if _OF_YOLO.fullmatch(name) and _ULTRALYTICS.fullmatch(name.lower()):  # YOLO11n, as ultralytics writes it
        name = name.lower()
    if _ULTRALYTICS.fullmatch(name):
        stem = name.removesuffix(".pt")
        return Recognised(stem, family or "yolo", f"{stem}.pt")
    if name and _is_folder(path):
        is_gguf = not (path / "config.json").exists() and bool(gguf_files(path))
        kind = family or ("causal_lm" if is_gguf else _family_of(name))
        return Recognised(path.resolve().name, kind, str(path.resolve()))
    if family:
        return Recognised(name, family, name)
    if task := _ultralytics_task(name):
        raise RecipeError(
            f"{name} is an ultralytics model for {task}, which is not supported. Supported tasks are detection "
            "(yolo11n), segmentation (yolo11n-seg), poses (yolo11n-pose), rotated boxes (yolo11n-obb) and "
            "classification (yolo11n-cls)."
        )
    if _HUB_ID.fullmatch(name) or (_OLD_HUB_ID.fullmatch(name) and is_config_cached(name)):
        return Recognised(name, _family_of(name), name)
    return None


def _family_of(source: str) -> str:
    """Return the family of a transformers model by the class that its configuration names."""
    adapter = adapter_of(source)
    if adapter is not None and (family := _TRAINED_FOR.get(adapter.task)):
        return family
    fields = config_fields(source)
    if _embeds(source):  # its config may name the class that it was trained from: MPNetForMaskedLM
        return "text_embedding"
    classes = _classes(fields, adapter)
    for name in classes:
        ending = next((ending for ending in _CLASSES if name.endswith(ending)), "")
        if family := _CLASSES.get(ending) or _generator(ending, fields):
            return family
    raise RecipeError(
        f"{source} is {_described(classes, fields)}, which no family supports. Supported are transformers classes that "
        f"end in {', '.join(ending for ending, family in _CLASSES.items() if family)}, and in ForConditionalGeneration "
        "for speech and for text. If it can be loaded as one of these, use --family NAME, or write a recipe."
    )


def _classes(fields: Mapping[str, Any], adapter: Adapter | None) -> list[str]:
    """Return the classes that a configuration names; for an adapter, the class that it was trained as."""
    if adapter is not None and adapter.trained_class:
        return [adapter.trained_class]
    return [str(name) for name in fields.get("architectures") or []]


def _embeds(source: str) -> bool:
    """Return whether a folder, or a hub id in the local cache, is a sentence-transformers model."""
    name = weight_files.SENTENCE_MODULES
    path = Path(source, name) if _is_folder(Path(source)) else cached_file(source, name)
    try:
        return path is not None and isinstance(json.loads(path.read_text(encoding="utf-8")), list)
    except (OSError, ValueError):
        return False


def _ultralytics_task(name: str) -> str:
    """Return the task of an ultralytics release that no family supports; empty for any other name."""
    stem = name.removesuffix(".pt")
    return next((task for names, task in _ULTRALYTICS_TASKS.items() if re.fullmatch(names, stem)), "")


def _generator(ending: str, fields: Mapping[str, Any]) -> str:
    """Return the family by the type of model, speech or text; empty if it is neither, or generates more than text."""
    if ending != "ForConditionalGeneration":
        return ""
    return next((family for family, types in _GENERATORS.items() if fields.get("model_type") in types), "")


def _described(classes: Sequence[str], fields: Mapping[str, Any]) -> str:
    if classes:
        return f"a {' or '.join(classes)}"
    kind = fields.get("model_type")
    return f"a model of type {kind!r} whose config.json names no class" if kind else "not a transformers model"


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # longer than a name can be, or with a null byte
        return False


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False
