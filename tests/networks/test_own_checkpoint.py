"""The tensors of a module are found in checkpoints as people save them, without running code in them."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mlflow_compress.errors import WeightsError
from mlflow_compress.networks.own_checkpoint import Fit, fill_from

State = dict[str, torch.Tensor]


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


def state(value: float = 3.0) -> State:
    return {name: torch.full_like(tensor, value) for name, tensor in net().state_dict().items()}


def under(prefix: str, tensors: State) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def filled(path: Path, module: nn.Module | None = None) -> tuple[Fit, float]:
    module = module or net()
    fit = fill_from(module, path)
    means = {float(tensor.float().mean()) for tensor in module.state_dict().values()}
    assert len(means) == 1
    return fit, means.pop()


OPTIMIZER: Any = {"state": {0: {"exp_avg": torch.ones(3, 4)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}


@pytest.mark.parametrize(
    ("content", "steps"),
    [
        (state(), ()),
        ({"state_dict": state(), "optimizer": OPTIMIZER, "epoch": 3}, ("the entry 'state_dict' was used",)),
        ({"model": state(), "optimizer": OPTIMIZER}, ("the entry 'model' was used",)),
        (under("module.", state()), ("'module.' was removed from its names",)),
        (under("_orig_mod.", state()), ()),
        (under("module._orig_mod.model.", state()), ("'module.model.' was removed from its names",)),
        (under("anything.", state()), ("'anything.' was removed from its names",)),
        (
            {"state_dict": under("model.", state()) | {"criterion.weight": torch.ones(2)}, "hyper_parameters": {}},
            (
                "the entry 'state_dict' was used",
                "'model.' was removed from its names",
                "1 tensors with other names were ignored",
            ),
        ),
        ({"model": state(1.0), "model_ema": state()}, ("the entry 'model_ema' was used, not 'model'",)),
        (
            {"ema": {"module": state()}, "model": state(1.0)},
            ("the entry 'ema.module' was used, not 'model'",),
        ),
    ],
)
def test_the_state_dict_is_found_and_its_prefix_taken_off(content: Any, steps: tuple[str, ...], tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.ckpt")
    assert filled(tmp_path / "w.ckpt") == (Fit(steps), 3.0)


def test_a_prefix_that_only_the_module_has_is_put_before(tmp_path: Path) -> None:
    module = nn.Module()
    module.backbone = net()
    torch.save(state(), tmp_path / "w.pt")
    assert filled(tmp_path / "w.pt", module)[0].steps == ("'backbone.' was added to its names",)


def test_a_layer_of_a_larger_model_is_not_mistaken_for_the_whole(tmp_path: Path) -> None:
    torch.save(
        under("decoder.3.", dict(nn.Linear(4, 3).state_dict())) | {"encoder.weight": torch.ones(2)}, tmp_path / "w"
    )
    with pytest.raises(WeightsError, match=r"missing: weight, bias; unexpected: decoder\.3\.weight, decoder\.3\.bias"):
        fill_from(nn.Linear(4, 3), tmp_path / "w")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_another_precision_is_cast_to_the_modules_and_reported(dtype: torch.dtype, tmp_path: Path) -> None:
    cast = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state().items()}
    save_file(cast, str(tmp_path / "w.safetensors"))
    module = net()
    fit, _ = filled(tmp_path / "w.safetensors", module)
    assert fit.cast == f"{str(dtype).removeprefix('torch.')} to float32"
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    fit, _ = filled(tmp_path / "w.safetensors", net().to(dtype))
    assert fit == Fit()


@pytest.mark.parametrize("saved", [lambda module: module.state_dict(), lambda module: module])
def test_tied_tensors_stay_tied_when_they_are_cast(saved: Callable[[Any], Any], tmp_path: Path) -> None:
    def tied() -> nn.Sequential:
        module = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5, bias=False), nn.Linear(5, 4, bias=False))
        module[1].weight = module[0].weight
        return module

    module, half = tied(), tied().half()
    torch.save(saved(half), tmp_path / "w.pt")
    assert fill_from(module, tmp_path / "w.pt").cast == "float16 to float32"
    assert module[1].weight is module[0].weight
    assert sum(parameter.numel() for parameter in module.parameters()) == 40
    for tensor, half_tensor in zip(module.parameters(), half.parameters(), strict=True):
        assert torch.equal(tensor, half_tensor.float())


class Bomb:
    def __reduce__(self) -> Any:
        return (os.mkdir, ("exploded",))


@pytest.mark.parametrize("wrapped", [lambda module: module, lambda module: {"model": module, "epoch": 1}])
def test_a_module_that_was_pickled_whole_is_read_and_not_run(
    wrapped: Callable[[Any], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    module: Any = net()
    module.load_state_dict(state())
    module.register_buffer("made", torch.ones(2), persistent=False)
    module.bomb, module.settings = Bomb(), argparse.Namespace(width=3)
    torch.save(wrapped(module), tmp_path / "w.pt")
    assert filled(tmp_path / "w.pt")[1] == 3.0
    assert not (tmp_path / "exploded").exists()


def test_shards_are_put_together(tmp_path: Path) -> None:
    names = sorted(state())
    files = {name: f"model-{index % 2}.safetensors" for index, name in enumerate(names)}
    for file in set(files.values()):
        save_file({name: state()[name] for name in names if files[name] == file}, str(tmp_path / file))
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": files}))
    for path in (tmp_path, index):
        assert filled(path)[1] == 3.0
    (tmp_path / "model-1.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"names model-1\.safetensors, but there is no such file"):
        fill_from(net(), tmp_path)


def test_the_only_file_of_a_folder_is_taken(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "w.pth")
    assert filled(tmp_path) == (Fit(("read from w.pth",)), 3.0)
    torch.save(state(), tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"holds w\.pth, x\.pth: name the weights file"):
        fill_from(net(), tmp_path)


def test_what_is_not_this_models_is_listed_in_short(tmp_path: Path) -> None:
    torch.save({"0.weight": torch.ones(5, 4), **{f"x{index}": torch.ones(1) for index in range(5)}}, tmp_path / "w")
    with pytest.raises(WeightsError) as caught:
        fill_from(net(), tmp_path / "w")
    assert str(caught.value).partition("not this model's: ")[2] == (
        "missing: 0.bias, 1.weight, 1.bias and 4 more; unexpected: x0, x1, x2 and 2 more; "
        "different shapes: 0.weight; 0.weight is [5, 4] in the file, [3, 4] in the model"
    )


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_a_pointer_of_git_lfs_is_reported(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    with pytest.raises(WeightsError, match="run git lfs pull"):
        fill_from(net(), tmp_path / name)


@pytest.mark.parametrize("content", [torch.ones(3), {"epoch": 3}, [1, 2]])
def test_files_without_weights_are_reported(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="not a state dict"):
        fill_from(net(), tmp_path / "w.pt")


def test_a_pickle_that_calls_what_it_looked_up_is_rejected_with_a_message(tmp_path: Path) -> None:
    class Strange:
        def __reduce__(self) -> Any:
            return (Path.touch, (Path("exploded"),))

    torch.save({"model": state(), "strange": Strange()}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"without running code from it: .*Save the state dict alone"):
        fill_from(net(), tmp_path / "w.pt")
