"""OpenVINO keeps a decoder's past: it generates the same as the module, for texts in any order."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_model

pytest.importorskip("openvino")

from mlflow_compress.compression.openvino_decoders import Stateful
from mlflow_compress.errors import WorkerError
from mlflow_compress.methods.openvino import Openvino
from mlflow_compress.networks import stored_weights
from mlflow_compress.networks.decoding import cache_keyword
from mlflow_compress.networks.native_precision import settle

_ALONE = """
import sys
import numpy as np
import openvino

model = openvino.Core().compile_model(sys.argv[1], "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
shapes = {port.get_any_name(): port.get_partial_shape() for port in model.inputs}
given = {"input_ids": np.array([[5, 6, 7]]), "kept": np.array([2])}
for name, shape in shapes.items():
    if name.startswith("past_"):
        given[name] = np.zeros((1, shape[1].get_length(), 0, shape[3].get_length()), np.float32)
np.save(sys.argv[2], model(given)["logits"])
"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Path]:
    """Return a module, its OpenVINO version, and the saved folder."""
    family, model = tiny_model("causal_lm")
    module = model.module
    method = Openvino()
    model = method.compress(model, family)
    folder = tmp_path_factory.mktemp("saved")
    method.save(model, family, folder)
    return module, method.load(model, family, folder).module, folder


def options(ids: Any, **changes: Any) -> dict[str, Any]:
    plain = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **plain, **changes}


def test_it_generates_what_the_module_does_text_after_text(pair: tuple[Any, Any, Path]) -> None:
    module, exported, _ = pair
    assert isinstance(exported.calls["model"], Stateful)
    for seed, shape in enumerate([(1, 5), (2, 7), (1, 3)]):
        ids = torch.randint(5, 290, shape, generator=torch.Generator().manual_seed(seed))
        settings = {"return_dict_in_generate": True, "output_logits": True}
        expected, generated = (model.generate(**options(ids, **settings)) for model in (module, exported))
        assert torch.equal(generated.sequences, expected.sequences)
        torch.testing.assert_close(torch.stack(generated.logits), torch.stack(expected.logits), rtol=0, atol=1e-5)


def test_beams_change_places_in_the_state(pair: tuple[Any, Any, Path]) -> None:
    module, exported, _ = pair
    ids = torch.randint(5, 290, (2, 6), generator=torch.Generator().manual_seed(3))
    texts = [model.generate(**options(ids, num_beams=3)) for model in (module, exported)]
    assert torch.equal(*texts)


def test_a_long_text_is_scored_in_one_pass_between_tokens_of_another(pair: tuple[Any, Any, Path]) -> None:
    module, exported, _ = pair
    ids = torch.randint(5, 290, (1, 200), generator=torch.Generator().manual_seed(4))
    start = exported(ids[:, :4])
    with torch.inference_mode():
        want = module(ids).logits
    torch.testing.assert_close(exported(ids).logits, want, rtol=0, atol=1e-4)
    continued = exported(ids[:, 4:6], **{cache_keyword(): start[cache_keyword()]})
    torch.testing.assert_close(continued.logits, want[:, 4:6], rtol=0, atol=1e-5)


def test_a_cropped_cache_crops_the_state(pair: tuple[Any, Any, Path]) -> None:
    module, exported, _ = pair
    ids = torch.randint(5, 290, (1, 9), generator=torch.Generator().manual_seed(5))
    cache = exported(ids)[cache_keyword()]
    cache.crop(-5)
    with torch.inference_mode():
        want = module(torch.cat([ids[:, :4], ids[:, :2]], dim=1)).logits[:, 4:]
    torch.testing.assert_close(exported(ids[:, :2], **{cache_keyword(): cache}).logits, want, rtol=0, atol=1e-5)


def test_a_text_whose_state_is_gone_is_an_error(pair: tuple[Any, Any, Path]) -> None:
    _, exported, _ = pair
    texts = [exported(torch.tensor([[5, 6]])) for _ in range(5)]
    with pytest.raises(WorkerError, match="from its beginning"):
        exported(torch.tensor([[7]]), **{cache_keyword(): texts[0][cache_keyword()]})
    exported(torch.tensor([[7]]), **{cache_keyword(): texts[4][cache_keyword()]})


def test_the_file_runs_in_openvino_without_this_package(pair: tuple[Any, Any, Path], tmp_path: Path) -> None:
    import numpy as np

    module, _, folder = pair
    command = [sys.executable, "-c", _ALONE, str(folder / "model.xml"), str(tmp_path / "logits.npy")]
    subprocess.run(command, check=True, timeout=240)
    with torch.inference_mode():
        want = module(torch.tensor([[5, 6, 7]])).logits[:, -1:]
    torch.testing.assert_close(torch.from_numpy(np.load(tmp_path / "logits.npy")), want, rtol=0, atol=1e-5)


def test_an_original_in_bfloat16_keeps_its_16_bits() -> None:
    family, model = tiny_model("causal_lm", dtype="bfloat16")
    settle(model, family)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.inference_mode():
        want = family.forward(model, ids)
    before = sum(part.tensor.nbytes for part in stored_weights.held(model.module))
    model = Openvino().compress(model, family)
    assert sum(part.tensor.nbytes for part in stored_weights.held(model.module)) <= before
    assert {part.tensor.dtype for part in stored_weights.held(model.module)} == {torch.bfloat16}
    assert stored_weights.distance(stored_weights.flat(family.forward(model, ids)), stored_weights.flat(want)) < 0.02
