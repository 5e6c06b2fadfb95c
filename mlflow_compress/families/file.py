"""Ready files, measured as they are: ONNX, LiteRT, OpenVINO, torch.export, TorchScript and TensorRT."""

from __future__ import annotations

import dataclasses
import math
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt

from mlflow_compress.compression.runtime_files import (
    FORMATS,
    TYPES,
    Input,
    Opened,
    cause,
    files_of,
    format_of,
    open_file,
    random_input,
)
from mlflow_compress.data import array_files
from mlflow_compress.data.class_maps import mapped
from mlflow_compress.data.datasets import remember, scored
from mlflow_compress.data.labels import labels_of
from mlflow_compress.data.media import Picture
from mlflow_compress.data.spec import parse
from mlflow_compress.error_causes import is_out_of_memory
from mlflow_compress.errors import CompressError, RecipeError, Unsupported, WeightsError
from mlflow_compress.networks.native_flavors import graph_flavor
from mlflow_compress.networks.published_files import copy_plain
from mlflow_compress.networks.quantised_checkpoints import PACKED
from mlflow_compress.networks.stored_weights import SAFETENSORS, held
from mlflow_compress.sockets import Evaluation, Family, Mark, Model, NativeFlavor, Published, Sample

_BATCH = "batch"
_FILE = "model"  # stem of the file in a model folder
_GGUF = ".gguf"
_RANKED = 5  # labels in an answer, for top-5 accuracy
_ROLES = ("image", "label")
_GREY, _COLOURS = 1, 3  # channels of pictures
_HALF = 0.5  # the score above which the only class is true
_ONE_ARRAY = ".npy"
_SCRIPTS = (".pt", ".torchscript")
_INPUT = re.compile(
    rf"(?:(?P<name>[^\s;]+?)\s*:\s*)?(?P<dtype>{'|'.join(TYPES)})"
    rf"(?P<lengths>\s+(?:{_BATCH}|[1-9]\d*)(?:\s+[1-9]\d*)*)"
)


@dataclass
class File(Family):
    """A ready file of a runtime: no method applies to it, and it is measured as it is.

    Source: a `.onnx`, `.tflite`, `.xml` (OpenVINO, with its `.bin`), `.pt2` (torch.export), `.ts`, `.torchscript`
    (TorchScript) or `.engine` (TensorRT) file. It runs in its runtime's default settings, with as many threads as
    torch. A GGUF file belongs to the family `causal_lm`.

    Its inputs are those that the file describes. In a timed call they are numbers from 0 to 1, and integers are 1.
    Quality is scored on arrays (`.npz`) or on pictures for classifiers; other models are scored by a custom module
    (family `python`) or not at all.

    Attributes:
        inputs: the inputs, if the file does not describe them or leaves lengths open: `NAME: TYPE LENGTHS` for each,
            separated by `;`, with `batch` for the number of samples (`ids: int64 batch 128; mask: int64 batch 128`).
            With one input, its name may be left out.
        output: the output with the scores of classes: its name or index; empty: the only one, or `logits`.
        labels: names of the classes, in order; empty: their numbers.
        scale: factor for pixels (0 to 255) of pictures and of uint8 arrays; None: 1/255 for a floating-point input.
        mean: mean of each channel, subtracted after scaling.
        std: standard deviation of each channel, divided by.
        resize: length of a picture's shorter side before its centre is cropped to the input's size; None: the whole
            picture is stretched to that size.
        openvino_precision: precision in which OpenVINO computes: `f32`, or its choice for the CPU.
        trust: whether to load a file that may run code: a TensorRT engine, or a torch file with more than a graph.
    """

    call_options: ClassVar[tuple[str, ...]] = ("inputs",)
    timed: ClassVar[str] = "one run of the file's graph, by its own runtime, on inputs in memory"
    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "top5_accuracy", "precision", "recall", "f1")
    gives: ClassVar[tuple[str, ...]] = ("labels",)
    needs: ClassVar[tuple[str, ...]] = ("torch",)
    has_random_weights: ClassVar[bool] = False

    inputs: str = ""
    output: str | int = ""
    labels: list[str] = field(default_factory=list)
    scale: float | None = None
    mean: list[float] = field(default_factory=list)
    std: list[Annotated[float, Gt(0)]] = field(default_factory=list)
    resize: Annotated[int, Ge(1)] | None = None
    openvino_precision: Literal["f32", "default"] = "default"
    trust: bool = False

    def code(self, source: str, weights: str, folder: Path) -> str:
        """Describe code in the file that its reader may run."""
        path = self._path(source, weights, folder)
        if not path.is_file() or path.suffix.lower() not in FORMATS:
            return ""  # loading it raises an error
        code = format_of(path).code(path)
        return f"{path} holds {code}" if code else ""

    def load(self, source: str, weights: str, folder: Path, seed: int) -> Model:
        """Open the file (see `Family.load`).

        Raises:
            RecipeError: it is a GGUF file, or its inputs are not described.
            Unsupported: its runtime is not installed, or lacks an operator.
        """
        path = self._path(source, weights, folder)
        if path.suffix.lower() == _GGUF:
            raise RecipeError(f"{path} is a GGUF file: the family causal_lm measures it. Leave out the family.")
        model = self._opened(path)
        if self.inputs:
            self._require_running(model)
        model.facts[PACKED] = f"{format_of(path).name} {_main_type(model.module)}".rstrip()
        return model

    def _path(self, source: str, weights: str, folder: Path) -> Path:
        return folder / (source if weights in ("auto", "pretrained", "random") else weights)

    def _opened(self, path: Path) -> Model:
        module = _module(path, self.openvino_precision)
        model = Model(module, weights="local", family_data=module)
        model.runtime = getattr(module.opened.call, "runtime", "torch")
        self._shapes(module)
        return model

    def batch(self, model: Model, size: int, seed: int) -> Any:
        """Create inputs by the file's own description.

        Returns:
            A list of tensors, in the order of the file's inputs.

        Raises:
            RecipeError: the file takes another number of samples.
        """
        import torch

        generator = torch.Generator().manual_seed(seed)
        shapes = self._shapes(_of(model))
        least, most = self._in_a_call(model)
        if size < least or (most is not None and size > most):
            nearest = least if most is None else min(max(size, least), most)
            raise RecipeError(
                f"The file takes {_counted(least, most)} samples in a call, not {size}: use --batch-size {nearest}, or "
                "export it again."
            )
        tensors = [
            random_input(port, tuple(size if length is None else length for length in shape), generator)
            for port, shape in shapes
        ]
        return [tensor.to(model.device) for tensor in tensors]

    def run(self, model: Model, batch: Any, mark: Mark) -> Any:
        """Run the graph; return the tuple of its outputs."""
        return model.module(*batch)

    def refuses(self, model: Model) -> str:
        """Return why no method applies."""
        return "a ready file can't be compressed: compress the model that it was exported from"

    def samples(self, model: Model, data: str, folder: Path, limit: int | None, seed: int) -> Sequence[Sample]:
        """Read arrays and labels from a `.npz` file, or pictures and labels.

        Raises:
            RecipeError: the data can't be read, or a label is not one of the model's.
        """
        names = self._names(model)
        suffix = Path(parse(data).source).suffix
        if suffix == _ONE_ARRAY:
            raise RecipeError(
                f"{parse(data).source} holds one array without labels: save both in a {array_files.SUFFIX} file, with "
                "np.savez(FILE, input=x, label=y)."
            )
        if suffix == array_files.SUFFIX:
            table, arrays = array_files.read(data, folder, [port.name for port in self._inputs(model)], limit, seed)
            remember(model, table, Evaluation(data, folder, limit, seed))
            labels = labels_of(table.rows, names)
            return [
                Sample(_Arrays(sample, row.where), label)
                for sample, row, label in zip(arrays, table.rows, labels, strict=True)
            ]
        self._picture_axes(model)
        rows = mapped(scored(model, data, folder, _ROLES, limit, seed), data, folder, names)
        labels = labels_of(rows, names)
        return [Sample(row.values["image"], label) for row, label in zip(rows, labels, strict=True)]

    def predict(self, model: Model, inputs: Sequence[Any]) -> list[Any]:
        """Return the outputs for each input: an array, a picture or its path, or a mapping of input names to arrays.

        Returns:
            For each input its only output, or a dictionary of outputs, as arrays.
        """
        names = _of(model).opened.outputs
        results = []
        for outputs in self._outputs(model, inputs):
            arrays = [output.float().cpu().numpy() if output.is_floating_point() else output.cpu().numpy()
                      for output in outputs]  # fmt: skip
            keys = names or [f"output_{index}" for index in range(len(arrays))]
            results.append(arrays[0] if len(arrays) == 1 else dict(zip(keys, arrays, strict=True)))
        return results

    def answers(self, model: Model, inputs: Sequence[Any]) -> list[Any]:
        """Return the names of the five likeliest classes for each input, best first; NaN if no score is a number.

        A model with one score has two classes, 0 and 1; the second is true if the score is above 0.5.
        """
        names = self._names(model)
        index = self._index(model)
        rankings: list[Any] = []
        for outputs in self._outputs(model, inputs):
            scores = outputs[index].float().reshape(-1)
            if not scores.amax().isfinite():
                rankings.append(math.nan)
                continue
            if len(scores) == 1:
                is_true = bool(scores[0] > _HALF)
                rankings.append([names[int(is_true)], names[int(not is_true)]])
                continue
            best = scores.topk(min(_RANKED, len(scores))).indices.tolist()
            rankings.append([names[number] for number in best])
        return rankings

    def example(self, model: Model) -> list[Any]:
        """Return zeros for one sample, if the file has one input."""
        import numpy as np

        if len(shapes := self._shapes(_of(model))) != 1:
            raise Unsupported("the file has several inputs, which the signature of a logged model can't describe")
        port, shape = shapes[0]
        return [np.zeros([length for length in shape[1:] if length is not None], dtype=port.dtype or "float32")]

    def save(self, model: Model, folder: Path) -> None:
        """Copy the file, and the files beside it that belong to it."""
        path = _of(model).path
        for source in files_of(path):
            suffix = ".ts" if source == path and path.suffix in _SCRIPTS else source.suffix
            is_named_inside = path.suffix == ".onnx" and source != path  # the file names the one with its weights
            shutil.copyfile(source, folder / (source.name if is_named_inside else f"{_FILE}{suffix}"))

    def restore(self, folder: Path) -> Model:
        """Open the copy."""
        return self._opened(_saved_file(folder))

    def publish(self, saved: Path, folder: Path) -> Published:
        """Copy the file."""
        path = _saved_file(saved)
        copy_plain(saved, folder, [SAFETENSORS])
        kind = format_of(path)
        return Published(kind.loaded_by.replace("FILE", f"FOLDER/{path.name}"), (kind.distribution,))

    def native_flavor(self, saved: Path) -> NativeFlavor:
        """Return MLflow's flavor for an ONNX file, or for a graph of torch.export."""
        suffix = _saved_file(saved).suffix
        if suffix == ".onnx":
            return graph_flavor(saved, "onnx")
        if suffix == ".pt2":
            return graph_flavor(saved, "pytorch")
        return super().native_flavor(saved)

    def _inputs(self, model: Model) -> tuple[Input, ...]:
        inputs: tuple[Input, ...] = _of(model).opened.inputs
        return inputs

    def _shapes(self, module: Any) -> list[tuple[Input, tuple[int | None, ...]]]:
        """Return each input with its shape, None for the number of samples.

        Raises:
            RecipeError: an input is not described, neither by the file nor by the option.
        """
        described = _described(self.inputs, [port.name for port in module.opened.inputs])
        shapes = []
        for port in module.opened.inputs:
            if port.name in described:
                dtype, shape = described[port.name]
                _require_same(port, dtype, shape)
                shapes.append((dataclasses.replace(port, dtype=dtype, shape=shape), shape))
            elif port.shape is None or not port.dtype or None in port.shape[1:]:
                raise RecipeError(
                    f"{module.path.name} does not state all lengths of its input {port.name}"
                    f"{'' if port.shape is None else f' ({_written(port)})'}: set the option "
                    f'inputs="{port.name}: {port.dtype or "float32"} batch ..." with the length of each axis.'
                )
            else:
                shapes.append((port, port.shape))
        return shapes

    def _in_a_call(self, model: Model) -> tuple[int, int | None]:
        """Return the fewest and the most samples in a call; None: any number."""
        shapes = [(port, shape) for port, shape in self._shapes(_of(model)) if shape]
        firsts = {shape[0] for _, shape in shapes}
        numbers = [length for length in firsts if length is not None]
        if numbers and None not in firsts:
            return min(numbers), min(numbers)
        limits = [port.samples for port, shape in shapes if shape[0] is None]
        mosts = [most for _, most in limits if most is not None]
        return max([1, *(least for least, _ in limits)]), min(mosts, default=None)

    def _outputs(self, model: Model, inputs: Sequence[Any]) -> list[list[Any]]:
        """Run the graph on inputs, in calls of the file's batch size; return the outputs of each input.

        Raises:
            RecipeError: its runtime can't compute an input.
        """
        import torch

        count = self._in_a_call(model)[0]
        outputs: list[list[Any]] = []
        with torch.inference_mode():
            for start in range(0, len(inputs), count):
                samples = inputs[start : start + count]
                part = [self._tensors(model, sample) for sample in samples]
                filled = [*part, *part[-1:] * (count - len(part))]
                batch = [torch.stack(tensors).to(model.device) for tensors in zip(*filled, strict=True)]
                try:
                    results = model.module(*batch)
                except (CompressError, Unsupported):
                    raise
                except Exception as error:  # each runtime raises its own errors
                    if is_out_of_memory(error):
                        raise
                    path = _of(model).path
                    raise RecipeError(
                        f"{path.name} can't compute {_places(samples, start)}: {cause(error, path)}."
                    ) from error
                outputs += [[result[row] if result.dim() else result for result in results] for row in range(len(part))]
        return outputs

    def _tensors(self, model: Model, sample: Any) -> list[Any]:
        """Return one sample as tensors, one for each input of the file.

        Raises:
            RecipeError: it lacks an input, or has another shape.
        """
        import torch

        shapes = self._shapes(_of(model))
        if not isinstance(sample, Mapping):
            if isinstance(sample, (str, Path, Picture)) or hasattr(sample, "convert"):
                return [torch.from_numpy(self._pixels(model, sample))]
            sample = {shapes[0][0].name: sample}
        if missing := [port.name for port, _ in shapes if port.name not in sample]:
            raise RecipeError(f"An input lacks {', '.join(missing)}: the file takes {len(shapes)} inputs.")
        return [torch.from_numpy(self._array(sample[port.name], port, shape)) for port, shape in shapes]

    def _array(self, values: Any, port: Input, shape: Sequence[int | None]) -> Any:
        """Return an array in the shape and type of an input; pixels of an uint8 array are scaled.

        Raises:
            RecipeError: it has another shape, or values that the input's type can't hold.
        """
        import numpy as np

        array = np.asarray(values)
        target = [length for length in shape[1:] if length is not None]
        if [length for length in array.shape if length > 1] != [length for length in target if length > 1]:
            raise RecipeError(f"An array has shape {list(array.shape)}; the input {port.name} takes {target}.")
        if array.dtype.kind not in "biuf":
            raise RecipeError(f"The input {port.name} takes numbers, not an array of type {array.dtype}.")
        array = array.reshape(target)
        is_float = port.is_quantised or (port.dtype or "float32").startswith("float")
        if array.dtype == np.uint8 and is_float:
            array = self._scaled(array, _channel_axis(target))
        return _converted(array, port)

    def _pixels(self, model: Model, picture: Any) -> Any:
        """Return a picture as the file's input: resized, in its layout, scaled and normalised."""
        import numpy as np
        from torchvision.transforms import functional

        port, shape, axis = self._picture_axes(model)
        height, width = (length for place, length in enumerate(shape) if place != axis)
        if isinstance(picture, (str, Path)):
            picture = Picture.at(Path(picture))
        if not hasattr(picture, "convert"):
            picture = functional.to_pil_image(np.asarray(picture, dtype=np.uint8))
        picture = picture.convert("L" if shape[axis] == _GREY else "RGB")
        if self.resize is not None:
            picture = functional.center_crop(functional.resize(picture, [self.resize]), [height, width])
        else:
            picture = functional.resize(picture, [height, width])
        pixels = np.asarray(picture)
        pixels = pixels[..., None] if pixels.ndim == len(shape) - 1 else pixels
        pixels = np.moveaxis(pixels, -1, axis)
        is_float = port.is_quantised or port.dtype.startswith("float")
        return _converted(self._scaled(pixels, axis) if is_float else pixels, port)

    def _scaled(self, pixels: Any, axis: int | None) -> Any:
        """Return pixels as float32, scaled and normalised along the axis of channels.

        Raises:
            RecipeError: the option mean or std does not have one number for each channel.
        """
        import numpy as np

        scaled = pixels.astype(np.float32) * np.float32(1 / 255 if self.scale is None else self.scale)
        for name, numbers in (("mean", self.mean), ("std", self.std)):
            if not numbers:
                continue
            if axis is None or len(numbers) not in (1, pixels.shape[axis]):
                channels = "no channels" if axis is None else f"{pixels.shape[axis]} channels"
                raise RecipeError(f"options.{name} has {len(numbers)} numbers; the input has {channels}.")
            shape = [1] * pixels.ndim
            shape[axis] = len(numbers)
            vector = np.array(numbers, dtype=np.float32).reshape(shape)
            scaled = scaled - vector if name == "mean" else scaled / vector
        return scaled

    def _picture_axes(self, model: Model) -> tuple[Input, list[int], int]:
        """Return the input for pictures, its shape without the batch, and the axis of the channels.

        Raises:
            RecipeError: the file has several inputs, or its input is not that of pictures.
        """
        shapes = self._shapes(_of(model))
        port, shape = shapes[0]
        lengths = [length for length in shape[1:] if length is not None]
        axis = _channel_axis(lengths)
        if len(shapes) > 1 or len(shape) != 4 or axis is None:  # batch, channels, height, width in some order
            raise RecipeError(
                f"The file takes {'; '.join(_written(port) for port, _ in shapes)}, not one picture of 1 or 3 "
                "channels: give arrays as data, in a .npz file."
            )
        return port, lengths, axis

    def _index(self, model: Model) -> int:
        """Return the index of the output with the scores.

        Raises:
            RecipeError: there is no such output, or there are several and none is named.
        """
        names = _of(model).opened.outputs
        if isinstance(self.output, int) or self.output.isdecimal():
            index, count = int(self.output), len(self._one_run(model))
            if not 0 <= index < count:
                raise RecipeError(f"The file has no output {index}: its outputs are 0 to {count - 1}.")
            return index
        if self.output in names:
            return int(names.index(self.output))
        if self.output:
            raise RecipeError(f"The file has no output {self.output!r}: {', '.join(names) or 'they have no names'}.")
        return int(names.index("logits")) if "logits" in names else self._only(model)

    def _only(self, model: Model) -> int:
        count = len(self._one_run(model))
        if count > 1:
            raise RecipeError(f"The file has {count} outputs: name the one with the scores (options: output).")
        return 0

    def _names(self, model: Model) -> dict[int, str]:
        """Return the names of the classes by number.

        Raises:
            RecipeError: the scores of a sample are not one vector, or the numbers of labels and scores differ.
        """
        scores = self._one_run(model)[self._index(model)]
        lengths = [length for length in scores.shape[1:] if length > 1]
        if len(lengths) > 1:
            raise RecipeError(
                f"The output of the file has shape {list(scores.shape)}, not one score for each class: this family "
                "scores classifiers only. Set data=none, or write a custom module (family python) that loads the file."
            )
        count = max(2, *lengths) if lengths else 2
        if self.labels and len(self.labels) != count:
            raise RecipeError(f"options.labels names {len(self.labels)} classes; the file has {count}.")
        if twice := [name for name, times in Counter(self.labels).items() if times > 1]:
            raise RecipeError(f"options.labels names {twice[0]!r} twice.")
        return dict(enumerate(self.labels or map(str, range(count))))

    def _require_running(self, model: Model) -> None:
        """Run the file once with the inputs that the user described.

        Raises:
            RecipeError: it can't run with them.
        """
        try:
            self._one_run(model)
        except (CompressError, Unsupported):
            raise
        except Exception as error:  # each runtime raises its own errors
            path = _of(model).path
            raise RecipeError(f"option inputs: {path.name} can't run with such inputs: {cause(error, path)}") from error

    def _one_run(self, model: Model) -> tuple[Any, ...]:
        """Return the outputs of a first run, which is made once."""
        import torch

        module = _of(model)
        if module.first is None:
            with torch.inference_mode():
                module.first = model.module(*self.batch(model, self._in_a_call(model)[0], 0))
        first: tuple[Any, ...] = module.first
        return first


def _module(path: Path, precision: str) -> Any:
    """Open a file as a module without parameters of its own."""
    from torch import nn

    class FileModule(nn.Module):
        """Runs a file.

        Args:
            opened: The opened file.
        """

        def __init__(self, opened: Opened) -> None:
            super().__init__()
            self.path, self.opened, self.first = path, opened, None

        def forward(self, *inputs: Any) -> tuple[Any, ...]:
            return self.opened.call(*inputs)

        def to(self, device: str) -> Any:  # type: ignore[override]
            if self.opened.moves is not None:
                self.opened.moves(device)
            elif device != "cpu":
                raise Unsupported(f"{format_of(path).name} files run on the CPU only here")
            return self

        def held_weights(self) -> Any:
            return self.opened.call.held_weights()  # type: ignore[attr-defined]

    return FileModule(open_file(path, precision)).eval()


def _main_type(module: Any) -> str:
    """Return the type of most weights of a file; empty if they can't be read."""
    counts: dict[str, int] = {}
    for weight in held(module):
        name = str(weight.tensor.dtype).removeprefix("torch.")
        name = "packed" if weight.unpack is not None else name
        counts[name] = counts.get(name, 0) + weight.parameters
    return max(counts, key=lambda name: counts[name]) if counts else ""


def _of(model: Model) -> Any:
    """Return the module that runs the file."""
    return model.family_data


def _saved_file(folder: Path) -> Path:
    """Return the file in a model folder.

    Raises:
        WeightsError: there is none.
    """
    path = next((path for suffix in FORMATS if (path := folder / f"{_FILE}{suffix}").is_file()), None)
    if path is None:
        raise WeightsError(f"There is no {_FILE} file of a runtime in {folder}.")
    return path


def _described(text: str, names: Sequence[str]) -> dict[str, tuple[str, tuple[int | None, ...]]]:
    """Parse the option `inputs`: the type and shape of each input.

    Raises:
        RecipeError: it has another form, or the file has no such input.
    """
    described: dict[str, tuple[str, tuple[int | None, ...]]] = {}
    for part in filter(None, map(str.strip, text.split(";"))):
        match = _INPUT.fullmatch(part)
        name = match["name"] or (names[0] if len(names) == 1 else "") if match else ""
        if match is None or name not in names:
            raise RecipeError(
                f"option inputs: {part!r} is not NAME: TYPE LENGTHS for one of the file's inputs "
                f"({', '.join(names)}); an example: {names[0]}: float32 batch 3 224 224. Types: {', '.join(TYPES)}."
            )
        lengths = match["lengths"].split()
        described[name] = match["dtype"], tuple(None if length == _BATCH else int(length) for length in lengths)
    return described


def _require_same(port: Input, dtype: str, shape: Sequence[int | None]) -> None:
    """Check that an input's description fits what the file states.

    Raises:
        RecipeError: it does not.
    """
    lengths = port.shape if port.shape is not None else shape
    fits = len(lengths) == len(shape) and all(
        None in lengths_of_axis or len(set(lengths_of_axis)) == 1
        for lengths_of_axis in zip(lengths, shape, strict=True)
    )
    if not fits or port.dtype not in ("", dtype):
        raise RecipeError(f"option inputs: the file's input {port.name} is {_written(port)}.")


def _counted(least: int, most: int | None) -> str:
    """Return a number of samples as text: `8`, `1 to 8`, or `2 or more`."""
    if most is None:
        return f"{least} or more"
    return str(least) if least == most else f"{least} to {most}"


def _written(port: Input) -> str:
    """Return an input as the option `inputs` would describe it, with `?` for open lengths."""
    lengths = ["?" if length is None else str(length) for length in port.shape or ()]
    if lengths and lengths[0] == "?":
        lengths[0] = _BATCH
    return f"{port.name}: {port.dtype or '?'} {' '.join(lengths)}"


class _Arrays(dict[str, Any]):
    """The arrays of a sample by input.

    Attributes:
        place: its origin: `data.npz, sample 3`.
    """

    def __init__(self, arrays: Mapping[str, Any], place: str) -> None:
        super().__init__(arrays)
        self.place = place


def _places(samples: Sequence[Any], start: int) -> str:
    """Return where the samples of a call come from; `start` is the number of samples before them."""
    first = samples[0]
    if isinstance(first, _Arrays):
        place = first.place
    elif isinstance(first, Picture):
        place = first.name
    else:
        place = str(first) if isinstance(first, (str, Path)) else f"sample {start}"
    return place if len(samples) == 1 else f"{place} or one of the {len(samples) - 1} samples after it"


def _converted(array: Any, port: Input) -> Any:
    """Return an array in the type of an input; only digits after the point may be rounded, for a floating-point input.

    Raises:
        RecipeError: it has values that the type can't hold.
    """
    import numpy as np

    dtype = np.dtype("float32" if port.is_quantised else port.dtype or "float32")
    with np.errstate(invalid="ignore", over="ignore"):
        converted = array.astype(dtype)
    is_kept = np.isfinite(converted) == np.isfinite(array) if dtype.kind == "f" else converted == array
    if not is_kept.all():
        raise RecipeError(
            f"The input {port.name} takes {dtype}, which can't hold {array[~is_kept][0]} in an array of type "
            f"{array.dtype}: prepare the array as the model was trained, and save it as {dtype}."
        )
    return np.ascontiguousarray(converted)


def _channel_axis(lengths: Sequence[int]) -> int | None:
    """Return the axis of a picture's channels: the first or the last with 1 or 3 of them; None: neither."""
    if len(lengths) != 3:  # channels, height, width in some order
        return None
    return next((axis for axis in (0, 2) if lengths[axis] in (_GREY, _COLOURS)), None)
