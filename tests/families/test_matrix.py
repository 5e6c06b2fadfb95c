"""Every family under every method: restored equal to what was saved, or skipped with a reason."""

from __future__ import annotations

import io
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from alone import alone
from tiny import INPUTS, OWN, SOURCE, TINY

from mlflow_compress import registry
from mlflow_compress.errors import MachineLacks, Unsupported
from mlflow_compress.measuring import output_error, worker
from mlflow_compress.meters import size
from mlflow_compress.networks import generation_check, model_folder
from mlflow_compress.networks.exported_program_scan import code_in_program
from mlflow_compress.planning import chains
from mlflow_compress.records import Variant
from mlflow_compress.sockets import Family

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("exported_once")]

ON_OTHER_SYSTEMS = {"coreml"}  # macOS runs it: test_phones.py
OPTIONS: dict[str, str] = {  # for methods whose defaults are too large for a tiny model or a test
    "distill": "distill:steps=2,batch_size=2",
    "executorch_int8": "executorch_int8:samples=2",
    "onnx_int8": "onnx_int8:samples=2",
    "openvino_int8": "openvino_int8:samples=2",
    "prune_vocabulary": "prune_vocabulary:most=280",
    "fine_tune": "fine_tune:batch_size=2",
    "torch_compile": "torch_compile:backend=eager",  # captured as usual; Inductor would take minutes
}
CHAINS = [
    *(OPTIONS.get(name, name) for name in registry.own("methods") if name not in ON_OTHER_SYSTEMS),
    "int8_dynamic:per_channel=true",
    "openvino_int4:group_size=-1",
    "prune_magnitude:amount=0.9,scope=global",
    "prune_magnitude:amount=0.5+int8_dynamic",
    "prune_magnitude:amount=0.5+bf16",
]
SOME = {
    "original",
    "fp16",
    "int8_dynamic",
    "int8_weight_only",
    "prune_magnitude",
    "cluster",
    "onnx",
    "openvino",
    OPTIONS["distill"],
}
TEXT_ONLY = {OPTIONS["prune_vocabulary"]}
BRIEF = {  # families built like others: some methods of each kind are enough
    "asr_ctc": SOME,
    "image_classification": SOME | {"litert_int8", OPTIONS["executorch_int8"]},
    "token_classification": SOME - {"onnx", "openvino"},  # its graph is that of text_classification
    "seq2seq": SOME | {"ctranslate2", *TEXT_ONLY, OPTIONS["fine_tune"]},
    "text_embedding": SOME | TEXT_ONLY,
    "masked_lm": SOME | TEXT_ONLY,
    "zero_shot_image_classification": SOME | {OPTIONS["openvino_int8"]},
    "object_detection": SOME,
    "semantic_segmentation": SOME,
}
NAMED_STUDENTS = {"object_detection", "semantic_segmentation", "yolo", "zero_shot_image_classification"}
IMPOSSIBLE = {  # too narrow for any group size; a smaller model must be named
    ("python", "openvino_int4"),
    *((name, OPTIONS["distill"]) for name in NAMED_STUDENTS),
}
LARGE = {"asr", "causal_lm", "yolo"}  # whose exports take long
EXTRA_CHAINS = (  # for them: other families are exported by the same code
    *("int8_static", "onnx_fp16", "onnx_int", "openvino_int", "torch_compile", "torch_export", "torchscript"),
)
EXTRA = {  # their own tests export such a model too, or another family is exported by the same code
    ("masked_lm", "onnx"),
    ("object_detection", "onnx"),
    ("semantic_segmentation", "onnx"),
    ("text_embedding", "onnx"),
    ("zero_shot_image_classification", OPTIONS["openvino_int8"]),
}
ELSEWHERE = {  # families of what others made: own tests
    "endpoint": "test_endpoint.py",
    "file": "test_file.py",
    "mlflow_model": "test_mlflow_model.py",
}
CELLS = [
    (name, chain)
    for name in TINY
    for chain in CHAINS
    if chain in BRIEF.get(name, CHAINS) and (name, chain) not in IMPOSSIBLE
]


PARAMETERS = [
    pytest.param(name, chain, marks=pytest.mark.extra)
    if (name, chain) in EXTRA or (name in LARGE and chain.startswith(EXTRA_CHAINS))
    else (name, chain)
    for name, chain in CELLS
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    (folder / "own.py").write_text(OWN)
    return folder


def variant_of(name: str, chain: str, folder: Path) -> Variant:
    return Variant(
        name,
        chain,
        "t",
        name,
        SOURCE.get(name, "tiny"),
        "random",
        chain=chains.parse_chain(chain),
        options=TINY[name],
        batch_size=2,
        folder=str(folder),
    )


def compressed(name: str, chain: str, folder: Path) -> tuple[Family, Any, list[Any], Variant]:
    family = registry.build("families", name, TINY[name])
    variant = variant_of(name, chain, folder)
    model = family.load(variant.source, "random", folder, 0)
    methods = model_folder.methods_of(variant.chain)
    with torch.inference_mode(False):
        for method in methods:
            model = method.compress(model, family)
    return family, model, methods, variant


def obstacle(name: str, variant: Variant) -> str | None:
    """Return why the methods' declarations skip a cell of the matrix; None if it must work."""
    for step in variant.chain:
        method = registry.find("methods", step.method)
        if method.devices == ("cuda",) and not torch.cuda.is_available():
            return f"models of {step.method} run on an NVIDIA GPU only"
        for distribution in method.needs:
            try:
                metadata.version(distribution)
            except metadata.PackageNotFoundError:
                return f"needs {distribution}"
        if name in method.excludes:
            return str(method.excludes[name])
    return None


@pytest.mark.parametrize(("name", "chain"), PARAMETERS)
def test_what_is_restored_is_what_was_saved(name: str, chain: str, folder: Path, tmp_path: Path) -> None:
    variant = variant_of(name, chain, folder)
    if (reason := obstacle(name, variant)) is not None:
        with pytest.raises(Unsupported, match=re.escape(reason)):
            worker.prepare(variant, tmp_path, worker.Report(io.StringIO()))
        return
    if chain.startswith("openvino_int8"):  # its runtime can crash with a segmentation fault on CPUs with AMX
        alone(check_cell, variant, tmp_path)
    else:
        check_cell(variant, tmp_path)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize(("name", "chain"), CELLS)
def test_what_is_restored_on_a_gpu_is_what_was_saved(name: str, chain: str, folder: Path, tmp_path: Path) -> None:
    variant = variant_of(name, chain, folder)
    if (reason := obstacle(name, variant)) is not None:
        pytest.skip(reason)
    if any("cuda" not in registry.find("methods", step.method).devices for step in variant.chain):
        worker.prepare(variant, tmp_path, worker.Report(io.StringIO()))
        with pytest.raises(Unsupported, match="runs on cpu only"):
            model_folder.restore(tmp_path / worker.MODEL_FOLDER, "cuda")
        return
    try:
        check_cell(variant, tmp_path, "cuda")
    except MachineLacks as reason:  # an onnxruntime without a provider for the GPU
        pytest.skip(str(reason))


def check_cell(variant: Variant, tmp_path: Path, device: str = "cpu") -> None:
    worker.prepare(variant, tmp_path, worker.Report(io.StringIO()))
    restored = model_folder.restore(tmp_path / worker.MODEL_FOLDER, device)
    assert not [code for path in tmp_path.rglob("*.pt2") if (code := code_in_program(path))]
    family, model = restored.family, restored.model
    assert restored.manifest.chain == variant.chain
    assert model.weights == "random"
    with torch.inference_mode():
        family.run(model, family.batch(model, variant.batch_size, 1), lambda stage: None)
    moved = output_error.compare(family, model, variant, tmp_path / worker.OUTPUTS, device)
    generation_check.compare(family, model, tmp_path / worker.GENERATED, device)
    assert 0 <= moved.get("quality/output_error_rel_l2", 0) < 10
    assert all(numbers > 0 for numbers in size.in_memory(model.module).values())
    if isinstance(model.module, torch.nn.Module):
        assert not any(parameter.requires_grad for parameter in model.module.parameters())
        assert not model.module.training
    assert len(family.predict(model, INPUTS[variant.family])) == len(INPUTS[variant.family])


@pytest.mark.parametrize("name", TINY)
def test_stages_are_marked_and_rates_follow(name: str, folder: Path) -> None:
    family, model, _, _ = compressed(name, "original", folder)
    stages: list[str] = []
    with torch.inference_mode():
        family.run(model, family.batch(model, 1, 0), stages.append)
    assert all(value > 0 for value in family.rates(10.0, dict.fromkeys(stages, 1.0), 1).values())
    if name == "causal_lm":
        assert stages == ["prefill", "token", "token"]
    if name == "seq2seq":
        assert stages == ["encoder", "first_token", "token", "token"]
    if name == "asr":
        assert stages == ["features", "encoder", "first_token", "token", "token"]
    if name == "asr_ctc":
        assert stages == ["features", "encoder"]
    for call in family.around(model, 2, 0).values():
        call()


def test_pruned_weights_are_zero_and_no_mask_is_saved(folder: Path, tmp_path: Path) -> None:
    family, model, methods, variant = compressed("python", "prune_magnitude:amount=0.75", folder)
    model_folder.save(model, family, methods, variant, tmp_path)
    module = model_folder.restore(tmp_path).model.module
    assert set(module.state_dict()) == {
        *(f"{layer}.{part}" for layer in (0, 2, 3) for part in ("weight", "bias")),
        "2.running_mean",
        "2.running_var",
        "2.num_batches_tracked",
    }
    for layer in (module[0], module[3]):
        assert (layer.weight == 0).float().mean() == 0.75


def test_int8_does_not_run_on_cuda(folder: Path, tmp_path: Path) -> None:
    family, model, methods, variant = compressed("python", "int8_dynamic", folder)
    model_folder.save(model, family, methods, variant, tmp_path)
    with pytest.raises(Unsupported, match="the output of int8_dynamic runs on cpu only"):
        model_folder.restore(tmp_path, "cuda")


def test_every_method_and_family_is_in_the_matrix() -> None:
    """A new method is in it by its name; a new family needs a tiny model in `tiny.py`, or a matrix of its own."""
    families = set(registry.own("families"))
    assert families == set(TINY) | (ELSEWHERE.keys() & families)
    tried = {step.method for _, chain in CELLS for step in chains.parse_chain(chain)}
    assert tried == set(registry.own("methods")) - ON_OTHER_SYSTEMS
    folder = Path(__file__).parent
    assert all((folder / file).is_file() for name, file in ELSEWHERE.items() if name in families)
