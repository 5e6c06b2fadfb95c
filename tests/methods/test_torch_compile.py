"""torch.compile: the model is saved uncompiled, with the requested backend and mode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from exported_by_torch import loaded, outputs, saved

from mlflow_compress.errors import UnknownName, Unsupported
from mlflow_compress.methods import torch_compile
from mlflow_compress.networks import model_folder, stored_weights


def test_a_compiled_model_is_saved_as_it_is_and_computes_the_same(tmp_path: Path) -> None:
    model, want, target = saved("torch_compile", tmp_path)
    assert model.facts["compiled"] == "by inductor in the warm-up, in mode default"
    assert (target / "model.safetensors").is_file()
    restored = model_folder.restore(target)
    assert restored.model.module._compiled_call_impl is None, "the first call runs as it is"
    assert stored_weights.distance(outputs(restored), want) < 1e-6
    assert restored.model.module._compiled_call_impl is not None
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert stored_weights.distance(outputs(restored), want) < 1e-6
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before + 1
    assert not restored.model.module._forward_hooks


def test_the_processes_that_compile_end_with_the_warm_up(tmp_path: Path) -> None:
    from torch._inductor import async_compile, config

    _, _, target = saved("torch_compile", tmp_path)
    restored = model_folder.restore(target)
    of_other_tests = _children()
    with config.patch(compile_threads=2, worker_start_method="subprocess"):
        pool = async_compile.AsyncCompile.process_pool()
        pool.submit(int).result()
        assert _children() - of_other_tests
        restored.model.warmed()
        assert not _children() - of_other_tests
        pool = async_compile.AsyncCompile.process_pool()
        assert pool.submit(int).result() == 0, "what is compiled later starts them again"
        restored.model.warmed()


def _children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def test_the_backend_and_the_mode_are_the_requested_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[dict[str, Any]] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: requests.append(options))
    _, _, target = saved("torch_compile:mode=max-autotune", tmp_path)
    outputs(model_folder.restore(target))
    assert requests == [{"backend": "inductor", "mode": "max-autotune"}]


def test_a_key_value_cache_is_not_put_into_cuda_graphs(tmp_path: Path) -> None:
    family, model, _ = loaded(tmp_path)
    model.module.can_generate = lambda: True
    with pytest.raises(Unsupported, match="a key-value cache can't be kept there"):
        torch_compile.TorchCompile(mode="reduce-overhead").compress(model, family)
    torch_compile.TorchCompile(mode="max-autotune-no-cudagraphs").compress(model, family)


def test_an_unknown_backend_is_answered_with_the_nearest(tmp_path: Path) -> None:
    family, model, _ = loaded(tmp_path)
    with pytest.raises(UnknownName, match="inductor"):
        torch_compile.TorchCompile(backend="inducter").compress(model, family)


def test_without_a_compiler_it_is_unsupported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import config, cpp_builder

    family, model, _ = loaded(tmp_path)
    method = torch_compile.TorchCompile()
    cpp_builder.cpp_compiler_search.cache_clear()
    monkeypatch.setenv("CXX", "no-such-compiler")
    refused = pytest.raises(Unsupported, match="needs a C\\+\\+ compiler, but no-such-compiler can't be run")
    with config.patch({"cpp.cxx": (None, "no-such-compiler")}), refused:
        method.compress(model, family)
    cpp_builder.cpp_compiler_search.cache_clear()


def test_without_pythons_headers_it_is_unsupported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family, model, _ = loaded(tmp_path)
    monkeypatch.setattr("sysconfig.get_paths", lambda *names: {"include": str(tmp_path)})
    with pytest.raises(Unsupported, match="Python's headers"):
        torch_compile.TorchCompile().compress(model, family)


def test_a_model_that_cannot_be_compiled_is_skipped_with_a_message(tmp_path: Path) -> None:
    def broken(graph: Any, inputs: Any) -> Any:
        raise NotImplementedError("no kernel for this")

    torch._dynamo.register_backend(broken, name="broken")
    _, _, target = saved("torch_compile:backend=broken", tmp_path)
    restored = model_folder.restore(target)
    outputs(restored)  # the first call runs as it is
    with pytest.raises(Unsupported, match=r"^torch.compile can't compile the model: no kernel for this"):
        outputs(restored)
