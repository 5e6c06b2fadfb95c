"""A model comes from the hub, its cache, a folder or a Python package, or is not available."""

from __future__ import annotations

import http.client
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import huggingface_hub
import huggingface_hub.constants
import pytest
import torch
from tiny import gguf_file

from mlflow_compress.errors import WeightsError
from mlflow_compress.networks import hub
from mlflow_compress.networks.hub import Origin, find_weights, unreachable

SOURCE = "some/model"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the cache empty and the hub unreachable, unless a test changes this."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda source, file: None)
    monkeypatch.setattr(huggingface_hub, "file_exists", lambda source, file: False)
    monkeypatch.setattr(hub, "_ask", lambda endpoint: f"{endpoint} can't be reached (no network)")


def cache(patch: pytest.MonkeyPatch, *files: str) -> None:
    def look(source: str, file: str) -> Any:
        return f"/cache/{file}" if file in files else None

    patch.setattr(huggingface_hub, "try_to_load_from_cache", look)


def test_random_weights_need_nothing(tmp_path: Path) -> None:
    assert find_weights(SOURCE, "random", tmp_path) == Origin("random")


def test_without_a_network_auto_takes_random_weights_and_says_so(tmp_path: Path) -> None:
    origin = find_weights(SOURCE, "auto", tmp_path)
    assert (origin.kind, origin.location) == ("random", "")
    assert "RANDOM" in origin.caution
    assert SOURCE in origin.caution
    assert "no network" in origin.caution


def test_without_a_network_pretrained_weights_are_unavailable(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=SOURCE) as caught:
        find_weights(SOURCE, "pretrained", tmp_path)
    assert caught.value.exit_code == 3
    assert "weights=random" in str(caught.value)


@pytest.mark.parametrize("weights", ["auto", "pretrained"])
def test_the_hub_is_asked_when_it_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: str) -> None:
    monkeypatch.setattr(hub, "_ask", lambda endpoint: None)
    assert find_weights(SOURCE, weights, tmp_path) == Origin("pretrained", SOURCE)


@pytest.mark.parametrize("weights", ["auto", "pretrained"])
@pytest.mark.parametrize("file", ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"])
def test_cached_weights_need_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: str, file: str
) -> None:
    cache(monkeypatch, "config.json", file)
    assert find_weights(SOURCE, weights, tmp_path) == Origin("pretrained", SOURCE, offline=True)


@pytest.mark.parametrize("files", [["config.json"], ["model.safetensors"], []])
def test_half_a_cache_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[str]) -> None:
    cache(monkeypatch, *files)
    assert find_weights(SOURCE, "auto", tmp_path).kind == "random"


def test_a_file_known_to_be_missing_is_not_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda source, file: object())
    assert not hub.is_cached(SOURCE)


@pytest.mark.parametrize("absolute", [False, True])
def test_a_folder_given_as_weights_is_taken(tmp_path: Path, absolute: bool) -> None:
    (tmp_path / "mine").mkdir()
    weights = str(tmp_path / "mine") if absolute else "mine"
    assert find_weights(SOURCE, weights, tmp_path) == Origin("local", str(tmp_path / "mine"), offline=True)


@pytest.mark.parametrize("weights", ["auto", "pretrained"])
def test_a_folder_as_source_is_taken(tmp_path: Path, weights: str) -> None:
    (tmp_path / "mine").mkdir()
    assert find_weights("mine", weights, tmp_path) == Origin("local", str(tmp_path / "mine"), offline=True)


def cache_model(cache: Path, name: str, revision: str, number: str, folder: str = "") -> Path:
    """Put a model into a cache of the hub, as huggingface_hub does, and return its folder there."""
    repository = cache / f"models--{name.replace('/', '--')}"
    place = repository / "snapshots" / (number * 40) / folder
    for path in (repository / "refs", place):
        path.mkdir(parents=True, exist_ok=True)
    (repository / "refs" / revision).write_text(number * 40)
    (place / "config.json").write_text(f'{{"model_type": "{revision}"}}')
    (place / "model.safetensors").touch()
    return place


def test_a_revision_and_a_folder_of_the_hub_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def look(source: str, file: str, **kwargs: Any) -> Any:
        return original(source, file, cache_dir=tmp_path, **kwargs)

    original = huggingface_hub.file_download.try_to_load_from_cache
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", look)
    cache_model(tmp_path, "org/name", "main", "a")
    cache_model(tmp_path, "org/name", "v2", "b")
    cache_model(tmp_path, "org/parts", "main", "c", "inner/model")
    assert find_weights("org/name", "auto", tmp_path) == Origin("pretrained", "org/name", offline=True)
    origin = find_weights("org/name@v2", "auto", tmp_path)
    assert origin == Origin("pretrained", "org/name", offline=True, revision="v2")
    assert (origin.arguments["revision"], origin.source) == ("v2", "org/name@v2")
    assert [hub.config_fields(f"org/name{suffix}")["model_type"] for suffix in ("", "@v2", f"@{'b' * 40}")] == [
        "main",
        *["v2"] * 2,
    ]
    part = find_weights("org/parts:inner/model", "auto", tmp_path)
    assert part == Origin("pretrained", "org/parts", offline=True, subfolder="inner/model")
    assert part.arguments == {"local_files_only": True, "trust_remote_code": False, "subfolder": "inner/model"}
    assert (
        find_weights("org/name@v3", "auto", tmp_path).kind
        == find_weights("org/parts", "auto", tmp_path).kind
        == "random"
    )


def test_an_adapter_of_the_hub_is_fetched_with_its_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "org/base"}')
    monkeypatch.setattr(hub, "_ask", lambda endpoint: None)
    monkeypatch.setattr(huggingface_hub, "file_exists", lambda source, file: source == "org/adapter")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda source, allow_patterns: str(adapter))
    assert find_weights("org/adapter", "auto", tmp_path) == Origin("pretrained", "org/base", adapter=str(adapter))
    (adapter / "config.json").write_text("{}")  # some trainers save the base's config, but not its weights
    assert find_weights("org/adapter", "auto", tmp_path).location == "org/base"
    (adapter / "model.safetensors").touch()
    expected = Origin("pretrained", str(adapter), offline=True, adapter=str(adapter))
    assert find_weights("org/adapter", "auto", tmp_path) == expected


def test_an_adapter_of_the_hub_that_names_itself_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "adapter_config.json"
    config.write_text('{"peft_type": "LORA", "base_model_name_or_path": "org/adapter"}')
    monkeypatch.setattr(
        huggingface_hub, "try_to_load_from_cache", lambda source, file: str(config) if file == config.name else None
    )
    with pytest.raises(WeightsError, match=r"names itself as its base, org/adapter: give the base as MODEL"):
        find_weights("org/adapter", "auto", tmp_path)


@pytest.mark.parametrize("source", ["org/name:../../x", "org/name:a/../../x@v2", "org/name:..\\x", "org/name:.."])
def test_a_folder_outside_of_a_repository_is_refused(tmp_path: Path, source: str) -> None:
    for look in (hub.config_fields, hub.is_config_cached, lambda name: find_weights(name, "auto", tmp_path)):
        with pytest.raises(WeightsError, match=r"names a folder outside the repository: .* in org/name\."):
            look(source)
    with pytest.raises(FileNotFoundError):
        hub.in_package("package:torch/../torch/nn")


def test_a_missing_path_is_reported(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="nowhere"):
        find_weights(SOURCE, "nowhere", tmp_path)


def test_a_hub_that_must_not_be_asked_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "_ask", lambda endpoint: pytest.fail("it was asked"))
    assert unreachable() == "HF_HUB_OFFLINE is set"


def test_a_server_that_never_answers_is_given_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(hub, "_REACH_SECONDS", 0.05)
    monkeypatch.setattr(hub, "_ask", lambda endpoint: released.wait(60) and None)
    assert "did not answer" in str(unreachable())
    released.set()


class TestAsk:
    ask = staticmethod(hub._ask)  # the original, before the network is blocked

    def answer(self, patch: pytest.MonkeyPatch, error: Exception | None) -> None:
        class Response:
            def close(self) -> None:
                """Close nothing."""

        def open_(request: Any, timeout: float) -> Response:
            assert request.get_method() == "HEAD"
            assert 0 < timeout < 10
            if error is not None:
                raise error
            return Response()

        patch.setattr(urllib.request, "urlopen", open_)

    def test_an_answer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answer(monkeypatch, None)
        assert self.ask("https://hub") is None

    def test_a_refusal_is_an_answer_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answer(monkeypatch, urllib.error.HTTPError("https://hub", 503, "busy", None, None))  # type: ignore[arg-type]
        assert self.ask("https://hub") is None

    @pytest.mark.parametrize(
        "error",
        [
            urllib.error.URLError("Name or service not known"),
            TimeoutError("timed out"),
            ConnectionResetError("reset"),
            http.client.BadStatusLine("<html>"),
            http.client.RemoteDisconnected("gone"),
            ValueError("unknown url type"),
        ],
    )
    def test_no_answer(self, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
        self.answer(monkeypatch, error)
        assert "https://hub can't be reached" in str(self.ask("https://hub"))

    def test_an_invalid_endpoint(self) -> None:
        assert "can't be reached" in str(self.ask("not an address"))


# GGUF files and packages


def test_a_gguf_file_is_found_beside_nothing_else(tmp_path: Path) -> None:
    file = gguf_file(tmp_path / "mine" / "a.gguf")
    expected = Origin("local", str(tmp_path / "mine"), offline=True, file="a.gguf")
    assert find_weights("mine", "auto", tmp_path) == expected
    assert find_weights("mine/a.gguf", "auto", tmp_path) == expected
    assert find_weights(SOURCE, "mine", tmp_path) == expected
    assert find_weights(SOURCE, str(file), tmp_path) == expected
    gguf_file(tmp_path / "mine" / "b.gguf")
    with pytest.raises(WeightsError, match=r"several GGUF files: a\.gguf, b\.gguf"):
        find_weights("mine", "auto", tmp_path)
    assert find_weights("mine/b.gguf", "auto", tmp_path).file == "b.gguf"


def test_a_package_carries_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "site" / "some_weights_x"
    file = gguf_file(folder / "a.gguf")
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setattr(hub, "_ask", lambda endpoint: pytest.fail("it was asked"))
    for weights in ("auto", "pretrained"):
        origin = find_weights("package:some_weights_x", weights, tmp_path)
        assert origin == Origin("pretrained", str(folder), offline=True, file="a.gguf")
    assert find_weights("package:some_weights_x/a.gguf", "auto", tmp_path) == origin
    assert find_weights("package:some_weights_x", str(file), tmp_path).kind == "local"
    assert find_weights("package:some_weights_x", "random", tmp_path) == Origin("random")


@pytest.mark.parametrize("weights", ["auto", "pretrained"])
def test_a_missing_package_is_reported(tmp_path: Path, weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsError, match=r"no_such_x.*mlflow-compress\[demo\].*--no-deps no-such-x.*weights=random"):
        find_weights("package:no_such_x", weights, tmp_path)
    (tmp_path / "site" / "empty_x").mkdir(parents=True)
    (tmp_path / "site" / "empty_x" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "site")
    with pytest.raises(WeightsError, match=r"there is no 'a\.gguf' in the Python package 'empty_x'"):
        find_weights("package:empty_x/a.gguf", weights, tmp_path)


def test_the_version_of_a_package_is_that_of_its_distribution() -> None:
    path, version = hub.in_package("package:torch/nn")
    assert path.name == "nn"
    assert version.startswith(torch.__version__.partition("+")[0])


def test_a_folder_without_tokenizer_files_lacks_one(tmp_path: Path) -> None:
    origin = Origin("local", str(tmp_path), offline=True)
    assert origin.lacks_tokenizer
    (tmp_path / "tokenizer.json").write_text("{}")
    assert not origin.lacks_tokenizer
