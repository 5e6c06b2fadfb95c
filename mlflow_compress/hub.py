"""Where a transformers model comes from: the hub, its cache, a folder, or its architecture with random weights."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mlflow_compress.errors import RecipeError, WeightsError
from mlflow_compress.sockets import Model

_REACH_SECONDS = 6.0  # to find out whether the hub answers; "offline" must be said within 10 s


@dataclass(frozen=True)
class Origin:
    """Where weights come from.

    Attributes:
        kind: `pretrained` (hub or its cache), `local` (a path of the user's), `random`.
        location: a hub id or a path; empty for random weights.
        offline: whether the hub must not be asked.
        caution: what the user must hear; empty when there is nothing.
    """

    kind: Literal["pretrained", "local", "random"]
    location: str = ""
    offline: bool = False
    caution: str = ""


def find_weights(source: str, weights: str, folder: Path) -> Origin:
    """Decide where the weights of a hub model come from.

    Args:
        source: a hub id, or a local folder.
        weights: `auto`, `pretrained`, `random`, or a local folder.
        folder: what relative paths start from.

    Raises:
        WeightsError: a given path does not exist, or pretrained weights are wanted and can't be had.
    """
    if weights == "random":
        return Origin("random")
    if weights not in ("auto", "pretrained"):
        path = folder / weights
        if not path.exists():
            raise WeightsError(f"There are no weights at {path}. Give a folder that save_pretrained wrote, or auto.")
        return Origin("local", str(path), offline=True)
    if (folder / source).is_dir():
        return Origin("local", str(folder / source), offline=True)
    if is_cached(source):
        return Origin("pretrained", source, offline=True)
    if (obstacle := unreachable()) is None:
        return Origin("pretrained", source)
    if weights == "pretrained":
        raise WeightsError(
            f"The pretrained weights of {source} can't be had: {obstacle}, and they are not in the local cache. "
            "Connect, or give a folder (weights=PATH), or take weights=random for size, latency and memory only."
        )
    return Origin("random", caution=f"{obstacle}: {source} has its true architecture but RANDOM weights")


def is_cached(source: str) -> bool:
    """Say whether a hub model's configuration and weights are in the local cache."""
    from huggingface_hub import try_to_load_from_cache

    def cached(file: str) -> bool:
        return isinstance(try_to_load_from_cache(source, file), str)

    weights = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
    return cached("config.json") and any(cached(file) for file in weights)


def unreachable() -> str | None:
    """Say why the hub can't be reached, or None when it answers. Takes a few seconds at most."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    found: list[str | None] = []
    # a thread, because no time-out bounds the resolver
    asking = threading.Thread(target=lambda: found.append(_ask(constants.ENDPOINT)), daemon=True)
    asking.start()
    asking.join(_REACH_SECONDS)
    return found[0] if found else f"{constants.ENDPOINT} did not answer within {_REACH_SECONDS:.0f} s"


def _ask(endpoint: str) -> str | None:
    import http.client
    import urllib.error
    import urllib.request

    try:
        request = urllib.request.Request(endpoint, method="HEAD", headers={"User-Agent": "mlflow-compress"})  # noqa: S310
        urllib.request.urlopen(request, timeout=_REACH_SECONDS).close()  # noqa: S310
    except urllib.error.HTTPError:
        return None  # it answers
    except (OSError, ValueError, http.client.HTTPException) as error:
        return f"{endpoint} can't be reached ({getattr(error, 'reason', error)})"
    return None


def load_transformer(auto_class: str, source: str, origin: Origin, architecture: Mapping[str, Any], seed: int) -> Model:
    """Load a transformers model in float32 on the CPU, from where `find_weights` said.

    Args:
        auto_class: the transformers class that loads it (`AutoModelForCausalLM`).
        source: the hub id or folder, for messages.
        origin: where the weights come from.
        architecture: the config's fields with `model_type`, for random weights; empty when it is to be read from the
            origin.
        seed: of random weights.

    Returns:
        The model, its config as asset `config`.

    Raises:
        WeightsError: the files are missing, corrupt, gated or of another architecture.
        RecipeError: the architecture is none that transformers can build.
    """
    import torch
    import transformers

    loader = getattr(transformers, auto_class)
    torch.manual_seed(seed)
    if origin.kind == "random":
        config = _config(source, architecture)
        module = loader.from_config(config, dtype=torch.float32)
        caution = origin.caution
    else:
        module, caution = _from_pretrained(loader, origin)
        config = module.config
    module.requires_grad_(False)
    module.eval()
    return Model(module, {"config": config}, weights=origin.kind, caution=caution)


def _config(source: str, architecture: Mapping[str, Any]) -> Any:
    from transformers import AutoConfig

    if not architecture:
        raise WeightsError(
            f"The architecture of {source} is not known here. Connect to the hub, or write a recipe with "
            "options.architecture, or give a local folder."
        )
    fields = dict(architecture)
    try:
        return AutoConfig.for_model(fields.pop("model_type"), **fields)
    except Exception as error:  # KeyError, ValueError, and the config's own checks of each field
        message = " ".join(str(error).split())[:400]
        raise RecipeError(f"options.architecture of {source} describes no model: {message}") from error


def _from_pretrained(loader: Any, origin: Origin) -> tuple[Any, str]:
    import torch

    try:
        module, info = loader.from_pretrained(
            origin.location, dtype=torch.float32, local_files_only=origin.offline, output_loading_info=True
        )
    except Exception as error:  # safetensors, pickle, hub and config errors share no root
        message = " ".join(str(error).split())[:400]
        raise WeightsError(f"The weights in {origin.location} can't be loaded: {message}") from error
    missing = sorted(info["missing_keys"])
    names = {name for name, _ in module.named_parameters()}
    if len(set(missing) & names) > len(names) / 2:
        raise WeightsError(
            f"The weights in {origin.location} are not this model's: {len(missing)} of {len(names)} tensors are "
            f"missing, {missing[0]} among them."
        )
    if missing:
        return module, f"{origin.location} has no weights for {', '.join(missing[:3])}: these are random"
    return module, ""


def load_tokenizer(origin: Origin) -> Any:
    """Give the model's tokenizer; for random weights a stand-in that reads bytes and needs no file.

    Raises:
        WeightsError: it can't be loaded.
    """
    from transformers import AutoTokenizer, ByT5Tokenizer

    if origin.kind == "random":
        return ByT5Tokenizer(extra_ids=0)
    try:
        tokenizer = AutoTokenizer.from_pretrained(origin.location, local_files_only=origin.offline)
    except Exception as error:  # as above
        message = " ".join(str(error).split())[:400]
        raise WeightsError(f"The tokenizer in {origin.location} can't be loaded: {message}") from error
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # what transformers makes up where there are no files
        raise WeightsError(f"There is no tokenizer in {origin.location}: save it there too, with save_pretrained.")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def save_transformer(model: Model, folder: Path, *assets: str) -> None:
    """Write the config and the named assets (tokenizer, feature extractor) with transformers' own `save_pretrained`."""
    for name in ("config", *assets):
        model.assets[name].save_pretrained(folder / name if name != "config" else folder)


def restore_transformer(auto_class: str, model: Model) -> Model:
    """Put the unfilled module that the model's config describes into it."""
    import transformers

    from mlflow_compress.tensors import unfilled

    with unfilled():
        model.module = getattr(transformers, auto_class).from_config(model.assets["config"])
    return model


def restore_assets(folder: Path, **assets: str) -> Model:
    """Read what `save_transformer` wrote, without a module.

    Args:
        folder: the model folder.
        assets: the transformers class of each asset, by name.
    """
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    loaded = {
        name: getattr(transformers, cls).from_pretrained(folder / name, local_files_only=True)
        for name, cls in assets.items()
    }
    return Model(None, {"config": config, **loaded}, weights="local")
