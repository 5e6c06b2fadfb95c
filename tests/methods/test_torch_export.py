"""torch.export: value-dependent paths are rejected; properties that it shares with a trace."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from exported_by_torch import NET, loaded, outputs, saved

from mlflow_compress import registry
from mlflow_compress.errors import RecipeError, Unsupported
from mlflow_compress.networks import model_folder, stored_weights
from mlflow_compress.planning.chains import parse_chain

PARAMETERS = 8 * 64 + 64 + 64 * 8 + 8


@pytest.mark.parametrize(("method", "suffix"), [("torchscript", "ts"), ("torch_export", "pt2")])
def test_an_exported_model_is_one_file_with_the_weights_once(method: str, suffix: str, tmp_path: Path) -> None:
    code = NET.replace("torch.rand(size, 8)", "torch.rand(size, 10_000, 8)")  # a large example, which must not be saved
    _, want, target = saved(method, tmp_path, code)
    (file,) = target.glob(f"*.{suffix}")
    assert file.stem == "model"
    assert not [*target.glob("weights.*"), *target.glob("*.safetensors")]
    assert 4 * PARAMETERS < file.stat().st_size < 4 * PARAMETERS + 100_000

    restored = model_folder.restore(target)
    assert stored_weights.distance(outputs(restored), want) < 1e-6
    assert outputs(restored, size=1).shape == (80_000,), "another batch size than the example's"
    parts = list(stored_weights.held(restored.model.module))
    assert sum(part.parameters for part in parts) == sum(part.tensor.numel() for part in parts) == PARAMETERS


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
    assert {part.tensor.dtype for part in stored_weights.held(restored.model.module)} == {torch.bfloat16}
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
    assert sum(part.parameters for part in stored_weights.held(restored.model.module)) == 5000 * 16


def test_what_depends_on_values_is_not_exported(tmp_path: Path) -> None:
    code = NET.replace(
        "        return self.second", "        if x.sum() > 0:\n            x = x + 1\n        return self.second"
    )
    family, model, _ = loaded(tmp_path, code)
    with pytest.raises(Unsupported, match=r"torch.export can't convert the model: .+"):
        registry.build("methods", "torch_export").compress(model, family)


@pytest.mark.parametrize("follower", ["int8_dynamic", "torchscript", "bf16"])
def test_nothing_follows_what_is_exported_or_compiled(follower: str) -> None:
    for method in ("torchscript", "torch_export", "torch_compile"):
        with pytest.raises(RecipeError, match=f"{follower} can't follow {method}"):
            parse_chain(f"{method}+{follower}")
