"""The model in OpenVINO, with 4-bit weights."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le

from mlflow_compress.compression import openvino_graphs, openvino_weights
from mlflow_compress.compression.calibration import require_data_to_score
from mlflow_compress.compression.exporting import Call, ExportMethod, Values, array, record, require_integers
from mlflow_compress.compression.openvino_decoders import opened
from mlflow_compress.errors import RecipeError
from mlflow_compress.sockets import Family, Graph, Model

_LEAST_GROUP = 16


@dataclass
class OpenvinoInt4(ExportMethod):
    """OpenVINO on the CPU with 4-bit weights by NNCF: its kernels multiply them without unpacking.

    Matrices of products have 4 bits; embeddings, the last layer and convolutions have 8, as in NNCF. Groups of weights
    along a row share a scale. If the group size does not divide a matrix, half of it, a quarter and so on are tried,
    down to 16; a matrix that none of these divides has 8 bits. The row states how many weights have each.

    Biases, norms and activations stay in floating point. Without `awq` and `scale_estimation` weights are rounded to
    the nearest, and no data is needed. The files are plain OpenVINO, with the same inputs as for `openvino`.

    Source: nncf.compress_weights; Lin et al., AWQ, arXiv 2306.00978.

    Attributes:
        mode: `asym`: each group has a zero point too; `sym`: 0 is in the middle.
        group_size: Weights that share a scale; -1: a whole row.
        ratio: Share of the weights with 4 bits; the most sensitive ones have 8.
        awq: Scale important channels, as seen on samples, before rounding.
        scale_estimation: Choose scales by the error of the outputs on samples.
        samples: Calibration samples for these two; None: up to 128, fewer if they are large.
        all_layers: Whether embeddings and the last layer have 4 bits too.
        precision: Precision of the computation; `default` uses bfloat16 on CPUs with instructions for it (AMX,
            AVX512-BF16) and float32 on others.
    """

    excludes: ClassVar[Mapping[str, str]] = {"yolo": "its weights belong to convolutions: it has no matrix products"}
    needs: ClassVar[tuple[str, ...]] = ("openvino", "nncf")
    converts: ClassVar[bool] = False
    extra: ClassVar[str] = "openvino"
    exporter: ClassVar[str] = "OpenVINO"
    loaded_by: ClassVar[str] = 'openvino.compile_model("*.xml")'

    mode: Literal["sym", "asym"] = "asym"
    group_size: Annotated[int, Ge(-1)] = 128
    ratio: Annotated[float, Gt(0), Le(1)] = 1.0
    awq: bool = False
    scale_estimation: bool = False
    samples: Annotated[int | None, Ge(1)] = None
    all_layers: bool = False
    precision: Literal["f32", "default"] = "default"

    def compress(self, model: Model, family: Family) -> Model:
        """Export and quantise.

        Raises:
            Unsupported: The family gives no graphs of the model, no matrix can have 4 bits, or `awq` or
                `scale_estimation` has no data for trained weights.
        """
        if self.group_size != -1 and self.group_size < _LEAST_GROUP:
            raise RecipeError(f"group_size={self.group_size}: OpenVINO takes groups of {_LEAST_GROUP} or more, or -1")
        if self.awq or self.scale_estimation:
            require_data_to_score(model, family)
        return require_integers(super().compress(model, family))

    def export(self, model: Model, family: Family, graphs: Mapping[str, Graph], folder: Path) -> Model:
        """Export in float32, run the export on calibration data if needed, and write `NAME.xml` in 4 bits."""
        with tempfile.TemporaryDirectory(prefix="mlflow-compress-") as plain:
            calls = openvino_graphs.in_float(graphs, Path(plain))
            paths, inputs = list(calls), {}
            if self.awq or self.scale_estimation:
                inputs = record(model, family, {path.stem: call for path, call in calls.items()}, self.samples)
            del calls
            for path in paths:
                openvino_weights.compress(path, folder / path.name, **self._settings(inputs.get(path.stem)))
        openvino_weights.record_bits(model, (folder / f"{name}.xml" for name in graphs), self.group_size)
        return model

    def _settings(self, inputs: Sequence[tuple[Any, ...]] | None) -> dict[str, Any]:
        """Return NNCF's settings for a graph with these recorded inputs."""
        import nncf

        advanced = nncf.AdvancedCompressionParameters(
            group_size_fallback_mode=nncf.GroupSizeFallbackMode.ADJUST, min_adjusted_group_size=_LEAST_GROUP
        )
        settings = {
            "mode": nncf.CompressWeightsMode.INT4_SYM if self.mode == "sym" else nncf.CompressWeightsMode.INT4_ASYM,
            "group_size": self.group_size,
            "ratio": self.ratio,
            "all_layers": self.all_layers,
            "advanced_parameters": advanced,
        }
        if inputs is None:
            return settings
        dataset = nncf.Dataset([[array(tensor) for tensor in tensors] for tensors in inputs])
        with_data = {"dataset": dataset, "subset_size": len(inputs), "awq": self.awq}
        return {**settings, **with_data, "scale_estimation": self.scale_estimation}

    def open(self, name: str, buffers: Sequence[Values], model: Model, folder: Path) -> Call:
        """Compile a file."""
        return opened(folder / f"{name}.xml", buffers, self.precision)
