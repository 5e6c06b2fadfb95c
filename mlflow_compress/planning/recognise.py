"""Which family serves a model without a recipe: told by its name, or by the configuration beside its weights.

Nothing of the model is loaded here, and no weights are downloaded: at most the hub is asked for a configuration.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_compress.errors import RecipeError
from mlflow_compress.networks import ultralytics_checkpoint, weight_files
from mlflow_compress.networks.hub import adapter_of, cached_file, config_fields, gguf_files, is_config_cached
from mlflow_compress.networks.lora_adapters import Adapter

_YOLO = r"yolo(v3(-tiny|-spp)?|(v\d+|\d+)[nstmblxce]6?)u?"
_ULTRALYTICS = re.compile(rf"{_YOLO}(-cls|-seg|-oiv7)?(\.pt)?")
_ULTRALYTICS_TASKS: Mapping[str, str] = {  # names of ultralytics' releases that no family serves: what they are for
    rf"{_YOLO}-pose(-p6)?": "poses",
    rf"{_YOLO}-obb": "rotated boxes",
    rf"{_YOLO}-sem(-\w+)?": "semantic segmentation",
    rf"{_YOLO}-depth": "depth",
    rf"{_YOLO}-(world(v2)?|objv1-\w+)|yoloe-\w+(-seg)?(-pf)?": "classes that are named by text",
    r"rtdetr-\w+": "RT-DETR, whose boxes are of another form",
    r"yolo_nas_[sml]": "YOLO-NAS, whose boxes are of another form",
    r"(mobile_)?sam|sam(2|2\.1|3)?(_[tsbl])?|FastSAM-[sx]": "segmenting what is pointed at",
}
_OF_YOLO = re.compile(r"yolo[\w.+-]*", re.IGNORECASE)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(:[\w./-]+)?(@[\w./-]+)?", re.ASCII)
_OLD_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(@[\w./-]+)?", re.ASCII)  # of the first models there: `gpt2`
_HUB_ADDRESS = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/([^/?#]+/[^/?#]+)(?:/tree/([^/?#]+))?/?")
_ZOOS = ("torchvision:", "timm:")
_LOGGED, _LOGGED_FOLDER = ("models:/", "runs:/"), "MLmodel"
_CLASSES: Mapping[str, str] = {
    "ForSequenceClassification": "text_classification",
    "ForTokenClassification": "token_classification",
    "ForImageClassification": "image_classification",
    "ForCausalLM": "causal_lm",
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
        name: what it is called in tables.
        family: which family serves it.
        source: what that family loads.
    """

    name: str
    family: str
    source: str


def recognise(name: str, family: str = "") -> Recognised | None:
    """Tell which family serves what a name means: a model of the hub or of MLflow, a local path, an ultralytics name.

    Args:
        name: as the user gave it.
        family: which family it must be; empty: it is found out.

    Returns:
        None where the name can mean no model.

    Raises:
        RecipeError: no family serves it, or a folder has no configuration.
        WeightsError: its configuration can't be had.
    """
    if (address := _HUB_ADDRESS.fullmatch(name)) is not None:
        name = "@".join(filter(None, address.groups()))
    path = Path(name)
    if path.suffix in (".pt", ".gguf") and _is_file(path):
        weight_files.require_no_pointer(path)
    if path.suffix == ".pt" and not family and _is_file(path) and ultralytics_checkpoint.is_of_others(path):
        return None
    if path.suffix in (".pt", ".gguf") and _is_file(path):
        kind = "yolo" if path.suffix == ".pt" else "causal_lm"
        return Recognised(path.stem, family or kind, str(path.resolve()))
    if name.startswith(_ZOOS):
        return Recognised(name.partition(":")[2], family or "image_classification", name)
    if name.startswith(_LOGGED) or (name and _is_file(path / _LOGGED_FOLDER)):
        place = name if name.startswith(_LOGGED) else str(path.resolve())
        return Recognised(name.partition(":/")[2] or path.resolve().name, family or "mlflow_model", place)
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
            f"{name} is a model of ultralytics for {task}, and that is not served. Served are those that detect "
            "(yolo11n), segment (yolo11n-seg) and classify (yolo11n-cls)."
        )
    if _HUB_ID.fullmatch(name) or (_OLD_HUB_ID.fullmatch(name) and is_config_cached(name)):
        return Recognised(name, _family_of(name), name)
    return None


def _family_of(source: str) -> str:
    """Tell the family of a transformers model by the class that its configuration names."""
    adapter = adapter_of(source)
    if adapter is not None and (family := _TRAINED_FOR.get(adapter.task)):
        return family
    fields = config_fields(source)
    classes = _classes(fields, adapter)
    for name in classes:
        ending = next((ending for ending in _CLASSES if name.endswith(ending)), "")
        if family := _CLASSES.get(ending) or _generator(ending, fields):
            return family
    if _embeds(source):
        raise RecipeError(weight_files.embeds(source))
    raise RecipeError(
        f"{source} is {_told(classes, fields)}, and no family serves that. Served are models of transformers that end "
        f"in {', '.join(ending for ending, family in _CLASSES.items() if family)}, or in ForConditionalGeneration for "
        "speech and for text. If it can be loaded as one of these, say so: --family NAME, or write a recipe."
    )


def _classes(fields: Mapping[str, Any], adapter: Adapter | None) -> list[str]:
    """Return the classes that a configuration names; of an adapter, that which it was trained as."""
    if adapter is not None and adapter.trained_class:
        return [adapter.trained_class]
    return [str(name) for name in fields.get("architectures") or []]


def _embeds(source: str) -> bool:
    """Return whether a folder, or a hub id in the local cache, is a model of sentence-transformers."""
    if _is_folder(Path(source)):
        return _is_file(Path(source, weight_files.SENTENCE_MODULES))
    return cached_file(source, weight_files.SENTENCE_MODULES) is not None


def _ultralytics_task(name: str) -> str:
    """Return what a release of ultralytics is for that no family serves; empty where the name is of none."""
    stem = name.removesuffix(".pt")
    return next((task for names, task in _ULTRALYTICS_TASKS.items() if re.fullmatch(names, stem)), "")


def _generator(ending: str, fields: Mapping[str, Any]) -> str:
    """Tell speech from text by the type of model; empty where it is neither, or makes more than text."""
    if ending != "ForConditionalGeneration":
        return ""
    return next((family for family, types in _GENERATORS.items() if fields.get("model_type") in types), "")


def _told(classes: Sequence[str], fields: Mapping[str, Any]) -> str:
    if classes:
        return f"a {' or '.join(classes)}"
    kind = fields.get("model_type")
    return f"a model of type {kind!r} whose config.json names no class" if kind else "no model of transformers"


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
