from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import nn

from mlflow_compress.errors import Unsupported, WeightsError
from mlflow_compress.meters import size
from mlflow_compress.methods.int8_dynamic_torch import Int8DynamicTorch
from mlflow_compress.networks import stored_weights
from mlflow_compress.networks.stored_weights import (
    SAFETENSORS,
    TORCH,
    cast,
    fill,
    held,
    load_weights,
    read_state,
    save_weights,
)
from mlflow_compress.sockets import Model

MIB = 2**20
ANY_FAMILY: Any = None


class Tied(nn.Module):
    """An embedding that shares its weights with the head, and buffers of both kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 8)
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 50)
        self.head.weight = self.embedding.weight
        self.frequencies: torch.Tensor
        self.register_buffer("frequencies", torch.arange(4.0) / 3, persistent=False)

    def forward(self, ids: torch.Tensor) -> Any:
        return self.head(self.norm(self.embedding(ids)))


def seeded(module: type[nn.Module], seed: int) -> Any:
    torch.manual_seed(seed)
    return module().eval().requires_grad_(False)


def mlp() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 3, bias=False)).eval()


def quantised(per_channel: bool = False) -> Any:
    return Int8DynamicTorch(per_channel).compress(Model(mlp()), ANY_FAMILY).module


def test_tied_weights_are_written_once_and_tied_again(tmp_path: Path) -> None:
    first, second = seeded(Tied, 1), seeded(Tied, 2)
    save_weights(first, tmp_path)
    with safe_open(tmp_path / SAFETENSORS, framework="pt") as file:
        names = set(file.keys())
    assert len(names & {"embedding.weight", "head.weight"}) == 1
    assert "norm.running_mean" in names
    assert "frequencies" not in names
    load_weights(second, tmp_path)
    ids = torch.arange(20)
    assert torch.equal(first(ids), second(ids))
    assert second.head.weight is second.embedding.weight
    assert not any(parameter.requires_grad for parameter in second.parameters())


def test_tied_weights_stay_tied_when_they_are_cast(tmp_path: Path) -> None:
    first, second = seeded(Tied, 1), seeded(Tied, 2)
    save_weights(first, tmp_path)
    load_weights(second, tmp_path)
    before = size.in_memory(second)
    cast(second, torch.float16)
    assert second.head.weight.data_ptr() == second.embedding.weight.data_ptr()
    after = size.in_memory(second)
    assert after["size/params"] == before["size/params"]
    assert after["size/weights_mib"] == before["size/weights_mib"] / 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_back_bit_by_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    first, second = mlp(), mlp()
    cast(first, dtype)
    save_weights(first, tmp_path)
    load_weights(second, tmp_path)
    for name, tensor in first.state_dict().items():
        assert second.state_dict()[name].dtype == dtype
        assert torch.equal(tensor, second.state_dict()[name])


@pytest.mark.parametrize("per_channel", [False, True])
def test_packed_int8_is_read_back_without_running_code(tmp_path: Path, per_channel: bool) -> None:
    first = quantised(per_channel)
    save_weights(first, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [TORCH]
    second = Int8DynamicTorch(per_channel).rebuild(Model(mlp()), ANY_FAMILY).module
    load_weights(second, tmp_path)
    batch = torch.rand(5, 6)
    assert torch.equal(first(batch), second(batch))
    assert size.in_memory(second) == size.in_memory(first)


def test_views_that_overlap_in_part_are_kept(tmp_path: Path) -> None:
    class Overlapping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            memory = torch.rand(10)
            self.front = nn.Parameter(memory[:6])
            self.back = nn.Parameter(memory[4:])
            self.turned = nn.Parameter(torch.rand(3, 4).t())

    first, second = seeded(Overlapping, 1), seeded(Overlapping, 2)
    save_weights(first, tmp_path)
    load_weights(second, tmp_path)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name])


def test_there_may_be_no_weights_at_all(tmp_path: Path) -> None:
    save_weights(nn.ReLU(), tmp_path)
    load_weights(nn.ReLU(), tmp_path)
    assert size.in_memory(nn.ReLU()) == {}


def test_missing_weights_are_reported(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no weights in"):
        load_weights(mlp(), tmp_path)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("damage", ["cut in half", "cut to nothing", "noise", "header"])
def test_a_damaged_file_is_reported_with_its_path(tmp_path: Path, packed: bool, damage: str) -> None:
    save_weights(quantised() if packed else mlp(), tmp_path)
    path = tmp_path / (TORCH if packed else SAFETENSORS)
    valid = path.read_bytes()
    path.write_bytes(
        {
            "cut in half": valid[: len(valid) // 2],
            "cut to nothing": b"",
            "noise": b"\x00\xff" * 500,
            "header": b"\xff" * 8 + valid[8:],
        }[damage]
    )
    with pytest.raises(WeightsError) as caught:
        load_weights(mlp(), tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential(nn.Linear(6, 10)),
        nn.Sequential(nn.Linear(6, 11), nn.ReLU(), nn.Linear(11, 3, bias=False)),
        nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 3)),
        nn.Linear(6, 10),
        nn.ReLU(),
    ],
)
def test_another_models_weights_are_refused(tmp_path: Path, module: nn.Module) -> None:
    save_weights(mlp(), tmp_path)
    with pytest.raises(WeightsError, match="not this model's"):
        load_weights(module, tmp_path)


def test_packed_weights_do_not_fit_plain_layers(tmp_path: Path) -> None:
    save_weights(quantised(), tmp_path)
    with pytest.raises(WeightsError, match="not this model's"):
        load_weights(mlp(), tmp_path)


class Bomb:
    """What a trusted pickle can do."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("exploded"),))


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_a_pickle_with_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / TORCH
    if writer == "torch":
        torch.save({"0.weight": Bomb()}, path)
    else:
        path.write_bytes(pickle.dumps({"0.weight": Bomb()}))
    with pytest.raises(WeightsError, match=r"weights\.pt"):
        load_weights(mlp(), tmp_path)
    assert not (tmp_path / "exploded").exists()


def test_what_is_not_a_state_dict_is_refused(tmp_path: Path) -> None:
    torch.save(torch.ones(3), tmp_path / TORCH)
    with pytest.raises(WeightsError, match="not a state dict"):
        read_state(tmp_path / TORCH)


def test_a_users_own_state_dict_is_read(tmp_path: Path) -> None:
    torch.save(mlp().state_dict(), tmp_path / "mine.pth")
    module: Any = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 3, bias=False))
    fill(module, read_state(tmp_path / "mine.pth"), tmp_path / "mine.pth")
    assert torch.equal(module[0].weight, mlp()[0].weight)


def test_weights_are_counted_as_they_are_held() -> None:
    plain = size.in_memory(mlp())
    assert plain["size/params"] == 6 * 10 + 10 + 10 * 3
    assert plain["size/weights_mib"] == 4 * 100 / MIB
    half = mlp()
    cast(half, torch.float16)
    assert size.in_memory(half)["size/weights_mib"] == 2 * 100 / MIB


def test_tied_weights_are_counted_once_and_buffers_never() -> None:
    sizes = size.in_memory(seeded(Tied, 0))
    assert sizes["size/params"] == 50 * 8 + 50 + 2 * 8
    assert sizes["size/weights_mib"] == 4 * sizes["size/params"] / MIB


def test_packed_int8_is_opened() -> None:
    sizes = size.in_memory(quantised())
    assert sizes["size/params"] == 100
    assert sizes["size/weights_mib"] == (60 + 30 + 4 * 10) / MIB  # int8 weights, a float32 bias


def test_scales_and_zero_points_are_bytes_but_no_parameters() -> None:
    sizes = size.in_memory(quantised(per_channel=True))
    assert sizes["size/params"] == 100
    scales = (10 + 3) * (8 + 8)  # float64 scales and int64 zero points, for each output channel
    assert sizes["size/weights_mib"] == (60 + 30 + 4 * 10 + scales) / MIB


def test_zeros_are_counted() -> None:
    module = mlp()
    with torch.no_grad():
        module[0].weight[:5] = 0
        module[0].bias.zero_()
    sizes = size.in_memory(module)
    assert (sizes["size/params"], sizes["size/params_nonzero"]) == (100, 100 - 5 * 6 - 10)


def test_a_mix_of_packed_and_plain_is_counted_whole() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(7, 6)
            self.rest = mlp()

    module = Int8DynamicTorch().compress(Model(seeded(Mixed, 0)), ANY_FAMILY).module
    sizes = size.in_memory(module)
    assert sizes["size/params"] == 7 * 6 + 100
    assert sizes["size/weights_mib"] == (4 * 7 * 6 + 60 + 30 + 4 * 10) / MIB


def test_a_subclass_of_tensor_is_opened() -> None:
    class Packed(torch.Tensor):
        """4-bit weights, two in a byte, with a scale."""

        @staticmethod
        def __new__(cls, data: torch.Tensor, scale: torch.Tensor) -> Any:
            shape = (data.shape[0], data.shape[1] * 2)
            return torch.Tensor._make_wrapper_subclass(cls, shape, dtype=torch.float32)

        def __init__(self, data: torch.Tensor, scale: torch.Tensor) -> None:
            self.packed, self.scale = data, scale

        def __tensor_flatten__(self) -> tuple[list[str], None]:
            return ["packed", "scale"], None

        @classmethod
        def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
            if func is torch.ops.aten.detach.default:
                return cls(args[0].packed, args[0].scale)
            raise NotImplementedError(func)

    module = nn.Module()
    packed = Packed(torch.ones(4, 3, dtype=torch.uint8), torch.ones(4))
    module.weight = nn.Parameter(packed, requires_grad=False)
    opened = [(part.tensor.dtype, part.tensor.numel(), part.parameters) for part in held(module)]
    assert opened == [(torch.uint8, 12, 24), (torch.float32, 4, 0)]


def test_two_of_four_weights_that_are_packed_for_sparse_kernels_are_counted() -> None:
    from torch.sparse import SparseSemiStructuredTensorCUTLASS
    from torch.sparse._semi_structured_conversions import sparse_semi_structured_from_dense_cutlass

    dense = torch.zeros(32, 64, dtype=torch.float16)
    dense[:, ::4], dense[:, 3::4] = 1, 2
    dense[0] = 0
    packed, positions = sparse_semi_structured_from_dense_cutlass(dense)
    module = nn.Linear(64, 32, bias=False)
    weight = SparseSemiStructuredTensorCUTLASS(dense.shape, packed, positions, None, None, None)
    module.weight = nn.Parameter(weight, requires_grad=False)
    sizes = size.in_memory(module)
    assert (sizes["size/params"], sizes["size/params_nonzero"]) == (32 * 64, 31 * 32)
    assert (
        sizes["size/weights_mib"] == 32 * (64 / 2 * 2 + 64 / 4 / 4 * 2) / MIB
    )  # half of the weights, and 4 bits for each four weights


def test_casting_takes_all_that_is_floating_point_and_keeps_ties() -> None:
    module = seeded(Tied, 0)
    cast(module, torch.float16)
    assert module.frequencies.dtype == torch.float16
    assert module.norm.running_mean.dtype == torch.float16
    assert module.norm.num_batches_tracked.dtype == torch.int64
    assert module.head.weight is module.embedding.weight
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float16}


def test_casting_what_is_cast_already_does_not_apply() -> None:
    module = mlp()
    cast(module, torch.float16)
    with pytest.raises(Unsupported, match="float16"):
        cast(module, torch.float16)
    with pytest.raises(Unsupported):
        cast(nn.ReLU(), torch.float16)


def test_an_unfilled_module_holds_no_memory() -> None:
    with stored_weights.unfilled():
        module = nn.Sequential(nn.Linear(50_000, 50_000), nn.BatchNorm1d(4))  # 10 GB, if it were filled
    assert all(parameter.is_meta for parameter in module.parameters())
    assert not any(buffer.is_meta for buffer in module.buffers())
    assert not nn.Linear(2, 2).weight.is_meta


def test_an_unfilled_module_is_filled(tmp_path: Path) -> None:
    first = seeded(Tied, 1)
    save_weights(first, tmp_path)
    with stored_weights.unfilled():
        second: Any = Tied()
    load_weights(second, tmp_path)
    assert not any(parameter.is_meta for parameter in second.parameters())
    assert second.head.weight is second.embedding.weight
    assert torch.equal(first(torch.arange(9)), second(torch.arange(9)))


def test_an_unfilled_quantised_module_is_filled(tmp_path: Path) -> None:
    first = quantised()
    save_weights(first, tmp_path)
    with stored_weights.unfilled():
        empty = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 3, bias=False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        second = Int8DynamicTorch().rebuild(Model(empty), ANY_FAMILY).module
    load_weights(second, tmp_path)
    batch = torch.rand(2, 6)
    assert torch.equal(first(batch), second(batch))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for the memory in use")
def test_a_tensor_that_is_let_go_gives_its_memory_back_while_others_are_held(tmp_path: Path) -> None:
    save_weights(nn.ParameterDict({name: torch.ones(8 * MIB) for name in ("one", "other")}), tmp_path)
    state = dict(read_state(tmp_path / SAFETENSORS))
    assert all(float(tensor.sum()) == 8 * MIB for tensor in state.values())  # reads all of both
    before = mapped_mib()
    del state["one"]
    assert mapped_mib() < before - 24
    assert state["other"].count_nonzero() == 8 * MIB


def mapped_mib() -> float:
    """Return how many bytes of mapped files are in memory."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssFile")]
    return int(line.split()[1]) / 1024
