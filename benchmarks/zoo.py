"""Every method over a zoo of small odd modules: each cell is right, or skipped with the reason in a sentence.

The modules are in `tests/zoo/`, each a file as a user would write it, whose first line says what is odd. A cell loads
the module, compresses it, saves it, restores it, and compares the outputs, by the code that the worker runs.
"""

from __future__ import annotations

import ast
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from mlflow_compress.errors import RecipeError, Unsupported, WeightsError, named_line
from mlflow_compress.plain_text import plain
from mlflow_compress.planning import recipe
from mlflow_compress.records import Variant

ZOO = Path(__file__).parents[1] / "tests" / "zoo"
MODULES = tuple(sorted(path.stem for path in ZOO.glob("*.py")))
OPTIONS: Mapping[str, str] = {  # of a method, where its defaults are more than a small module takes
    "distill": "distill:steps=2,batch_size=2",
    "gptq": "gptq:samples=4",
    "awq": "awq:samples=4",
    "wanda": "wanda:samples=4",
    "int8_static": "int8_static:samples=2",
    "onnx_int8": "onnx_int8:samples=2",
    "openvino_int8": "openvino_int8:samples=2",
    "prune_structured": "prune_structured:steps=2,batch_size=1",
    "torch_compile": "torch_compile:backend=eager",
}
_LONGEST_REASON = 240  # characters
_ALWAYS_TOLD = {"random_calibration", "dense_zeros", "stored_only", "no_kernel", "random_weights"}


class Cell(NamedTuple):
    """What came of one method on one module.

    Attributes:
        status: `refused` where the module itself is not taken; `failed` is a defect of this package, and an error that
            is no sentence counts as one.
        reason: why it was not `ok`, or what its reader is told.
    """

    status: Literal["ok", "skipped", "refused", "failed"]
    reason: str = ""


def oddity(module: str) -> str:
    """Return the sentence that says what is odd about a module of the zoo."""
    return ast.get_docstring(ast.parse((ZOO / f"{module}.py").read_text(encoding="utf-8"))) or ""


def variant_of(module: str, method: str, folder: Path = ZOO) -> Variant:
    """Return a module of the zoo under a method, with a batch of two."""
    chain = recipe.parse_chain(OPTIONS.get(method, method))
    return Variant(
        module, method, "zoo", "python", f"{module}.py", "random", chain=chain, batch_size=2, folder=str(folder)
    )


def tried(variant: Variant, folder: Path) -> Cell:
    """Compress, save, restore and compare a variant, in this process.

    Args:
        variant: what to try.
        folder: an empty folder.
    """
    from mlflow_compress import registry
    from mlflow_compress.measuring import output_error, worker
    from mlflow_compress.networks import model_folder

    try:
        registry.build("families", "python").load(variant.source, "random", Path(variant.folder), 0)
    except (RecipeError, WeightsError) as error:
        return _sentence("refused", str(error))
    except Exception as error:
        return Cell("failed", named_line(error))
    try:
        part = worker.prepare(variant, folder, worker.Report(io.StringIO()))
        restored = model_folder.restore(folder / worker.MODEL_FOLDER)
        output_error.compare(restored.family, restored.model, variant, folder / worker.OUTPUTS, "cpu")
    except Unsupported as reason:
        return _sentence("skipped", str(reason))
    except Exception as error:
        return Cell("failed", named_line(error))
    return Cell("ok", "; ".join(caution.message for caution in part.cautions if caution.code not in _ALWAYS_TOLD))


def _sentence(status: Literal["skipped", "refused"], reason: str) -> Cell:
    """Return a cell that was not served for a reason; `failed` where that is nothing to read."""
    is_sentence = 0 < len(reason) <= _LONGEST_REASON and plain(reason) == reason and "AttributeError" not in reason
    return Cell(status, reason) if is_sentence else Cell("failed", f"no sentence: {plain(reason)}")
