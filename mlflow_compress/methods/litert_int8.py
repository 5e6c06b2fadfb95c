"""The model in LiteRT, in int8."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge

from mlflow_compress.compression.calibration import require_data_to_score
from mlflow_compress.compression.export_check import require_alike
from mlflow_compress.compression.exporting import Call, ExportMethod, Values, record, require_integers
from mlflow_compress.compression.fixed_shapes import NO_CACHE
from mlflow_compress.compression.litert_files import (
    INSTALL,
    NEEDS,
    SIGNATURE,
    TOLERANCE,
    LiteRtCall,
    constant_scopes,
    final_scopes,
    fit_biases,
    flatten_biases,
    write,
)
from mlflow_compress.sockets import Family, Graph, Model


@dataclass
class LitertInt8(ExportMethod):
    """LiteRT (TensorFlow Lite) on the CPU in int8: weights, and activations at each call or calibrated.

    Weights of convolutions, matrix products and embeddings are stored in int8, with one scale per output channel.

    `dynamic`: activations are rounded at each call, and no data is needed. `static` (full int8): activations have
    calibrated ranges, and all operators up to the last layers compute in int8, as accelerators of phones require;
    inputs and outputs stay in float32, and so do divisions and everything after the last layers.

    A file takes one sample of one length: samples of a batch run one after the other, and shorter texts are filled
    with zeros.

    Source: ai_edge_quantizer.recipe.dynamic_wi8_afp32 and static_wi8_ai8.

    Attributes:
        mode: Ranges of activations: found at each call (`dynamic`), or calibrated (`static`).
        samples: Calibration samples for `static`; None: up to 128, fewer if they are large.
    """

    needs: ClassVar[tuple[str, ...]] = NEEDS
    install: ClassVar[str] = INSTALL
    converts: ClassVar[bool] = False
    extra: ClassVar[str] = "litert-convert"
    exporter: ClassVar[str] = "LiteRT"
    loaded_by: ClassVar[str] = 'ai_edge_litert.interpreter.Interpreter("*.tflite")'
    excludes: ClassVar[Mapping[str, str]] = dict.fromkeys(("asr", "causal_lm", "seq2seq"), NO_CACHE)

    mode: Literal["dynamic", "static"] = "dynamic"
    samples: Annotated[int | None, Ge(1)] = None

    def compress(self, model: Model, family: Family) -> Model:
        """Export and quantise.

        Raises:
            Unsupported: The family gives no graphs of the model, there is nothing to quantise, or there is no data for
                trained weights.
        """
        if self.mode == "static":
            require_data_to_score(model, family)
        return require_integers(super().compress(model, family))

    def export(self, model: Model, family: Family, graphs: Mapping[str, Graph], folder: Path) -> Model:
        """Export in float32, run the export on calibration data if needed, and write `NAME.tflite` in int8."""
        with tempfile.TemporaryDirectory(prefix="mlflow-compress-") as plain:
            paths = {name: Path(plain) / f"{name}.tflite" for name in graphs}
            for name, graph in graphs.items():
                write(graph, paths[name])
                require_alike(graph, LiteRtCall(paths[name], ()), TOLERANCE)
            inputs: dict[str, list[tuple[Any, ...]]] = {name: [] for name in graphs}
            if self.mode == "static":
                inputs = record(model, family, {name: graph.module for name, graph in graphs.items()}, self.samples)
            for name, path in paths.items():
                self._quantise(path, folder / path.name, inputs[name])
                shutil.copy(path.with_suffix(".json"), folder)
        model.facts["activations"] = "ranges from calibration" if self.mode == "static" else "ranges found at each call"
        return model

    def _quantise(self, plain: Path, path: Path, inputs: Sequence[tuple[Any, ...]]) -> None:
        from ai_edge_quantizer import quantizer

        flatten_biases(plain)
        rules, ranges = self._rules(plain), None
        if self.mode == "static":
            ranges = _ranges(plain, rules, inputs)
            fit_biases(plain, ranges)
        quantizer.Quantizer(str(plain), rules).quantize(ranges).export_model(str(path))

    def _rules(self, plain: Path) -> Any:
        """Return which operators are quantised and how, as a recipe of ai-edge-quantizer."""
        from ai_edge_quantizer import qtyping, recipe, recipe_manager

        kinds, in_float = qtyping.TFLOperationName, recipe.AlgorithmName.NO_QUANTIZE
        is_static = self.mode == "static"
        manager = recipe_manager.RecipeManager()
        manager.load_quantization_recipe(recipe.static_wi8_ai8() if is_static else recipe.dynamic_wi8_afp32())
        for scope in (*constant_scopes(plain), *(final_scopes(plain) if is_static else ())):
            manager.add_quantization_config(f"^{re.escape(scope)}$", kinds.ALL_SUPPORTED, algorithm_key=in_float)
        if is_static:
            for kind in (kinds.INPUT, kinds.OUTPUT, kinds.DIV):  # a divisor rounded to 0 stops the interpreter
                manager.add_quantization_config(".*", kind, algorithm_key=in_float)
        return manager.get_quantization_recipe()

    def open(self, name: str, buffers: Sequence[Values], model: Model, folder: Path) -> Call:
        """Open a file in the interpreter."""
        return LiteRtCall(folder / f"{name}.tflite", buffers)


def _ranges(plain: Path, rules: Any, inputs: Sequence[tuple[Any, ...]]) -> Any:
    """Return the smallest and largest value of each activation, by name, over all calibration samples.

    `Quantizer.calibrate` takes moving averages of the ranges: it cuts values of all samples but the first ones.
    """
    from ai_edge_quantizer import calibrator, recipe_manager
    from ai_edge_quantizer.utils import qsv_utils

    call = LiteRtCall(plain, ())
    samples = [
        {f"args_{position}": values for position, values in enumerate(sample)}
        for tensors in inputs
        for sample in call.arrays(*tensors)
    ]
    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(rules)
    calibration = calibrator.Calibrator(str(plain), qsv_update_func=qsv_utils.min_max_update)
    calibration.calibrate({SIGNATURE: samples}, manager)
    return calibration.get_model_qsvs()
