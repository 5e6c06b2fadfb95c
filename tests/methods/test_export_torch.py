"""torchscript, torch_export, torch_compile: restored without the model's code to the same numbers and weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mlflow_compress import registry
from mlflow_compress.errors import RecipeError, UnknownName, Unsupported
from mlflow_compress.methods import torch_compile
from mlflow_compress.methods.torchscript import _move_constants
from mlflow_compress.networks import model_folder, stored_weights
from mlflow_compress.planning.recipe import parse_chain
from mlflow_compress.records import Variant
from mlflow_compress.sockets import Family, Method, Model

NET = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 64), nn.Linear(64, 8)
        self.second.weight = nn.Parameter(self.first.weight.detach().t().clone())
        self.register_buffer("scale", torch.full((8,), 2.0))
    def forward(self, x):
        return self.second(torch.relu(self.first(x * self.scale))) + torch.arange(8, device=x.device)

def model():
    return Net()

def batch(size):
    return torch.rand(size, 8)
"""
PARAMETERS = 8 * 64 + 64 + 64 * 8 + 8


def loaded(folder: Path, code: str = NET) -> tuple[Family, Model, Variant]:
    (folder / "own.py").write_text("import torch\nfrom torch import nn\n" + code)
    family: Family = registry.build("families", "python")
    model = family.load("own.py", "random", folder, 0)
    return family, model, Variant("own", "x", "t", "python", "own.py", "random", folder=str(folder))


def saved(chain: str, folder: Path, code: str = NET) -> tuple[Any, torch.Tensor, Path]:
    """Compress and save; give what the original gives, what the compressed one gives, and the model's folder."""
    family, model, variant = loaded(folder, code)
    steps = parse_chain(chain)
    methods: list[Method] = model_folder.methods_of(steps)
    batch = family.batch(model, 3, 0)
    with torch.inference_mode():
        want = stored_weights.flat(family.forward(model, batch))
    for method in methods:
        model = method.compress(model, family)
    target = folder / "model"
    target.mkdir()
    model_folder.save(model, family, methods, Variant(**{**vars(variant), "chain": steps}), target)
    return model, want, target


def outputs(restored: model_folder.Restored, size: int = 3) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = stored_weights.flat(
            restored.family.forward(restored.model, restored.family.batch(restored.model, size, 0))
        )
    return found


@pytest.mark.parametrize(("method", "suffix"), [("torchscript", "ts"), ("torch_export", "pt2")])
def test_an_exported_model_is_one_file_with_the_weights_once(method: str, suffix: str, tmp_path: Path) -> None:
    code = NET.replace("torch.rand(size, 8)", "torch.rand(size, 10_000, 8)")  # an example as large is not to be saved
    _, want, target = saved(method, tmp_path, code)
    (file,) = target.glob(f"*.{suffix}")
    assert file.stem == "model"
    assert not list(target.glob("weights.*"))
    assert 4 * PARAMETERS < file.stat().st_size < 4 * PARAMETERS + 100_000

    restored = model_folder.restore(target)
    assert stored_weights.distance(outputs(restored), want) < 1e-6
    assert outputs(restored, size=1).shape == (80_000,), "another batch size than the example's"
    held = list(stored_weights.held(restored.model.module))
    assert sum(each.parameters for each in held) == sum(each.tensor.numel() for each in held) == PARAMETERS


@pytest.mark.parametrize("method", ["torchscript", "torch_export"])
def test_an_exported_model_needs_no_code_of_the_model(method: str, tmp_path: Path) -> None:
    _, want, target = saved(method, tmp_path)
    code = (target / "model.py").read_text()
    (target / "model.py").write_text(code.replace("def model():\n    return Net()", "def model():\n    raise OSError"))
    assert stored_weights.distance(outputs(model_folder.restore(target)), want) < 1e-6


@pytest.mark.parametrize("method", ["torchscript", "torch_export"])
def test_half_precision_stays_half(method: str, tmp_path: Path) -> None:
    _, want, target = saved(f"bf16+{method}", tmp_path)
    restored = model_folder.restore(target)
    assert {each.tensor.dtype for each in stored_weights.held(restored.model.module)} == {torch.bfloat16}
    assert restored.family.batch(restored.model, 1, 0)[0].dtype == torch.bfloat16
    assert stored_weights.distance(outputs(restored), want) < 0.02


@pytest.mark.parametrize("method", ["torchscript", "torch_export"])
def test_tied_weights_are_written_once(method: str, tmp_path: Path) -> None:
    code = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(5000, 16), nn.Linear(16, 5000, bias=False)
        self.head.weight = self.embedding.weight
    def forward(self, ids):
        return self.head(self.embedding(ids))

def model():
    return Net()

def batch(size):
    return torch.ones(size, 3, dtype=torch.long)
"""
    _, want, target = saved(method, tmp_path, code)
    (file,) = (path for path in target.iterdir() if path.suffix in (".ts", ".pt2"))
    assert file.stat().st_size < 4 * 5000 * 16 * 1.2
    restored = model_folder.restore(target)
    assert stored_weights.distance(outputs(restored), want) < 1e-6
    assert sum(each.parameters for each in stored_weights.held(restored.model.module)) == 5000 * 16


def test_what_depends_on_values_is_not_exported(tmp_path: Path) -> None:
    code = NET.replace(
        "        return self.second", "        if x.sum() > 0:\n            x = x + 1\n        return self.second"
    )
    family, model, _ = loaded(tmp_path, code)
    with pytest.raises(Unsupported, match=r"torch.export can't export it: .+"):
        registry.build("methods", "torch_export").compress(model, family)


def test_what_fails_in_tracing_says_why(tmp_path: Path) -> None:
    code = NET.replace(
        "        return self.second", "        assert not torch.jit.is_tracing(), 'not me'\n        return self.second"
    )
    family, model, _ = loaded(tmp_path, code)
    with pytest.raises(Unsupported, match=r"torch.jit.trace can't trace it: not me"):
        registry.build("methods", "torchscript").compress(model, family)


def test_a_trace_makes_its_tensors_on_the_device_it_was_restored_to(tmp_path: Path) -> None:
    _, _, target = saved("torchscript", tmp_path)
    module = torch.jit.load(str(target / "model.ts"), map_location="cpu")
    _move_constants(module, "meta")
    devices = {
        node.s("value")
        for part in module.modules()
        for node in part.graph.findAllNodes("prim::Constant")
        if node.output().type().kind() == "DeviceObjType"
    }
    assert devices == {"meta"}


@pytest.mark.parametrize("after", ["int8_dynamic", "torchscript", "bf16"])
def test_nothing_follows_what_is_exported_or_compiled(after: str) -> None:
    for method in ("torchscript", "torch_export", "torch_compile"):
        with pytest.raises(RecipeError, match=f"{after} can't follow {method}"):
            parse_chain(f"{method}+{after}")


def test_a_compiled_model_is_saved_as_it_is_and_computes_the_same(tmp_path: Path) -> None:
    model, want, target = saved("torch_compile", tmp_path)
    assert model.facts["compiled"] == "by inductor in the warm-up, in mode default"
    assert (target / "weights.safetensors").is_file()
    restored = model_folder.restore(target)
    assert restored.model.module._compiled_call_impl is None, "the first call runs as it is"
    assert stored_weights.distance(outputs(restored), want) < 1e-6
    assert restored.model.module._compiled_call_impl is not None
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert stored_weights.distance(outputs(restored), want) < 1e-6
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before + 1
    assert not restored.model.module._forward_hooks


def test_the_backend_and_the_mode_are_those_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: asked.append(options))
    _, _, target = saved("torch_compile:mode=max-autotune", tmp_path)
    outputs(model_folder.restore(target))
    assert asked == [{"backend": "inductor", "mode": "max-autotune"}]


def test_a_key_value_cache_is_not_put_into_cuda_graphs(tmp_path: Path) -> None:
    family, model, _ = loaded(tmp_path)
    model.module.can_generate = lambda: True
    with pytest.raises(Unsupported, match="a key-value cache can't live there"):
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
    refused = pytest.raises(Unsupported, match="needs a C\\+\\+ compiler, and no-such-compiler can't be run")
    with config.patch({"cpp.cxx": (None, "no-such-compiler")}), refused:
        method.compress(model, family)
    cpp_builder.cpp_compiler_search.cache_clear()


def test_without_pythons_headers_it_is_unsupported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family, model, _ = loaded(tmp_path)
    monkeypatch.setattr("sysconfig.get_paths", lambda *which: {"include": str(tmp_path)})
    with pytest.raises(Unsupported, match="Python's headers"):
        torch_compile.TorchCompile().compress(model, family)
