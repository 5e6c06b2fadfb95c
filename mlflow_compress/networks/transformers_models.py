"""Loads models that transformers builds, with their tokenizers and the like, and saves them to be built again."""

from __future__ import annotations

import copy
import importlib.util
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from mlflow_compress.errors import RecipeError, Unsupported, WeightsError, one_line
from mlflow_compress.networks import (
    custom_code,
    memory_need,
    plain_layers,
    quantised_checkpoints,
    saved_models,
    weight_files,
)
from mlflow_compress.networks.export_graphs import dtype_of
from mlflow_compress.networks.gguf_checkpoints import add_special_tokens, file_of
from mlflow_compress.networks.hub import Origin, config_fields, find_weights, is_config_cached
from mlflow_compress.networks.native_flavors import transformers_flavor
from mlflow_compress.networks.native_precision import NATIVE, of_config
from mlflow_compress.networks.published_files import copy_plain, require_weights
from mlflow_compress.sockets import Family, Model, NativeFlavor, Published

_KERNELS = "_implementation"  # part of the names of config fields for kernels of attention and experts
_GENERATION = "generation_config.json"
_AUTO_CLASSES = {  # the class that reads each; version 0.1 saved each in a folder with its name
    "tokenizer": "AutoTokenizer",
    "features": "AutoFeatureExtractor",
    "processor": "AutoImageProcessor",
}
_COMPONENTS = {"tokenizer": "tokenizer", "features": "feature_extractor", "processor": "image_processor"}  # in MLflow


@dataclass
class Companions:
    """The parts of a transformers model besides its weights and its config; None: its family has no such part.

    Attributes:
        tokenizer: the tokenizer: text to token ids and back.
        features: the feature extractor: sound to the encoder's input.
        processor: the image processor: an image to pixels.
        generation: the generation config.
        code: the folder with the Python code that builds the model; None: transformers builds it.
    """

    tokenizer: Any = None
    features: Any = None
    processor: Any = None
    generation: Any = None
    code: Path | None = None


@dataclass
class TransformersFamily(Family):
    """A family of models that transformers builds; its subclasses differ in inputs and outputs.

    Attributes:
        auto_class: the transformers class that builds the model (`AutoModelForCausalLM`).
        keeps: the parts of a model, as named in `Companions`.
        pipeline: name of the pipeline in transformers; empty: it has none.
        labels_of_teacher: the classes, by number, that a loaded model must have because it is the student of a model
            with these; empty: it keeps its own.
        trust: whether Python code beside a local model may build it (`auto_map` in its `config.json`).
        students: for random weights, the `architecture` of each model that distill:student names.
    """

    needs: ClassVar[tuple[str, ...]] = ("torch", "transformers", "accelerate", "safetensors")
    imports: ClassVar[tuple[str, ...]] = ("torch", "transformers.modeling_utils", "accelerate", "safetensors.torch")
    auto_class: ClassVar[str]
    keeps: ClassVar[tuple[str, ...]] = ("tokenizer",)
    pipeline: ClassVar[str] = ""
    auto_dtype: ClassVar[Literal["native", "float32"]] = "float32"

    labels_of_teacher: ClassVar[Mapping[int, str]] = {}

    trust: bool = False
    students: dict[str, dict[str, Any]] = field(default_factory=dict)

    def code(self, source: str, weights: str, folder: Path) -> str:
        """Return a message if a local model is built by code beside it (see `Family.code`)."""
        model_folder = folder / (source if weights in ("auto", "pretrained") else weights)
        if weights == "random" or not custom_code.is_needed(
            _saved_fields(str(model_folder)) if model_folder.is_dir() else {}
        ):
            return ""
        return f"{model_folder} holds Python code that builds the model (auto_map in its config.json)"

    def origin(self, source: str, weights: str, folder: Path) -> Origin:
        """Find the weights (see `find_weights`), and whether code beside them builds the model."""
        origin = find_weights(source, weights, folder)
        if not self.trust or not Path(origin.location or folder / "none").is_dir():
            return origin
        fields = _saved_fields(origin.location)
        may_run = custom_code.is_needed(fields) and not custom_code.obstacle(Path(origin.location))
        return replace(origin, runs_code=may_run)

    def weights_bytes(self, source: str, weights: str, folder: Path) -> int | None:
        """Return the bytes that the weights will take in memory (see `Family.weights_bytes`)."""
        try:
            origin = self.origin(source, weights, folder)
        except (RecipeError, WeightsError):  # loading raises the error
            return None
        if origin.kind == "random":
            fields = getattr(self, "architecture", {})
            return memory_need.of_architecture(self.auto_class, fields, self.precision) if fields else None
        if origin.file:
            weight_files.require_no_pointer(Path(origin.location, origin.file))
            return memory_need.of_gguf(Path(origin.location, origin.file), self.precision)
        if origin.folder is None:
            return None
        return memory_need.of_files(origin.folder, origin.variant, self.precision)

    def named_student(self, model: Model, source: str, weights: str, seed: int) -> Model:
        """Load another model with the teacher's classes (see `Family.named_student`).

        A head for other classes is replaced by a new one with random weights.
        """
        family: Any = copy.copy(self)
        family.architecture = self.students.get(source, {})
        family.labels_of_teacher = self.classes_to_teach(model)
        student: Model = family.load(source, weights, model.folder, seed)
        return student

    def classes_to_teach(self, model: Model) -> Mapping[int, str]:
        """Return the names of the classes, by number, that a student must have; empty for models without classes."""
        return {}

    def refuses(self, model: Model) -> str:
        """Return a message if the weights are already quantised and can't be compressed (see `Family.refuses`)."""
        if (file := file_of(model.module)) is not None:
            return f"{file.name} is already quantised: set dtype=float32 to unpack it, or give the original float model"
        if not quantised_checkpoints.is_quantised(model.module):
            return ""
        packed = model.facts.get(quantised_checkpoints.PACKED, "").partition(",")[0]
        return f"it is already quantised ({packed}): give the original float model"

    def save(self, model: Model, folder: Path) -> None:
        """Write the config and the companions to the same files as `save_pretrained` of transformers."""
        _config_of(model).save_pretrained(folder)
        if (code := companions(model).code) is not None:
            custom_code.copy(code, folder)
        for name in self.keeps:
            if (companion := getattr(companions(model), name)) is None:
                continue
            if name in _AUTO_CLASSES:
                companion.save_pretrained(folder)
            else:  # save_pretrained rejects contradictory settings, which exist in published models
                companion.to_json_file(folder / _GENERATION, use_diff=True, keys_to_pop=["compile_config"])
        if quantised_checkpoints.is_quantised(model.module):
            quantised_checkpoints.copy(model.module, folder)
            quantised_checkpoints.note(model.module, model.facts)

    def restore(self, folder: Path) -> Model:
        """Build the unfilled module that the config describes, and read its companions."""
        from mlflow_compress.networks.stored_weights import unfilled

        model = self.restore_assets(folder)
        if quantised_checkpoints.lies_in(folder):
            _restore_quantised(self.auto_class, model, folder)
        else:
            with unfilled():
                model.module = built(self.auto_class, model.config)
            model.module.tie_weights()  # moving to the meta device has untied them
        if (generation := companions(model).generation) is not None:
            model.module.generation_config = generation
        return model

    def publish(self, saved: Path, folder: Path) -> Published:
        """Copy the files that `from_pretrained` reads: they are in the folder unchanged.

        Raises:
            Unsupported: transformers alone would not find all weights.
        """
        require_weights(saved)
        _require_own_layout(saved)
        copy_plain(saved, folder)
        trusted = ", trust_remote_code=True" if custom_code.is_needed(_saved_fields(str(saved))) else ""
        code = f'import transformers; transformers.{self.auto_class}.from_pretrained("FOLDER", dtype="auto"{trusted})'
        return Published(code, ("transformers",))

    def native_flavor(self, saved: Path) -> NativeFlavor:
        """Return the transformers flavor, unless code beside the model builds it (see `Family.native_flavor`).

        MLflow runs such code without asking.
        """
        if custom_code.is_needed(_saved_fields(str(saved))):
            raise Unsupported(
                "the model is built by code beside it, which MLflow's transformers flavor would run without asking"
            )
        _require_own_layout(saved)
        names = [name for name in self.keeps if name in _AUTO_CLASSES]
        components = {_COMPONENTS[name]: _reader_name(name, saved) for name in names}
        return transformers_flavor(saved, self.auto_class, self.pipeline, components)

    def restore_assets(self, folder: Path) -> Model:
        """Read the config and the companions.

        Raises:
            WeightsError: untrusted code, or code or kernels from the hub, would run.
        """
        import transformers

        fields = _saved_fields(str(folder))
        _require_own_kernels(fields, str(folder))
        runs_code = custom_code.is_needed(fields)
        if runs_code and not self.trust:
            raise WeightsError(
                f"The model in {folder} is not restored: it is built by Python code beside it (auto_map in its "
                "config.json), and it was measured without trust."
            )
        if runs_code and (obstacle := custom_code.obstacle(folder, _AUTO_CLASSES)):
            raise WeightsError(f"The model in {folder} is not restored: code from the hub is never run ({obstacle}).")
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=runs_code)
        companions = Companions(code=folder if runs_code else None)
        for name in self.keeps:
            if name in _AUTO_CLASSES:
                part_folder = folder / name if (folder / name).is_dir() else folder
                part = _reader(name, part_folder).from_pretrained(
                    part_folder, local_files_only=True, trust_remote_code=runs_code
                )
            elif (folder / _GENERATION).is_file():  # version 0.1 wrote none for language models
                part = transformers.GenerationConfig.from_pretrained(folder, local_files_only=True)
            else:
                part = None
            setattr(companions, name, part)
        return Model(None, weights="local", config=config, family_data=companions)


def _reader(name: str, folder: Path) -> Any:
    """Return the class that reads a companion."""
    import transformers

    return getattr(transformers, _reader_name(name, folder))


def _reader_name(name: str, folder: Path) -> str:
    """Return the name of the class that reads a companion.

    For some configs (Mistral), AutoTokenizer does not choose the class of the tokenizer that replaces a missing one for
    random weights.
    """
    config_file = folder / "tokenizer_config.json"
    if name == "tokenizer" and config_file.is_file():
        kind = json.loads(config_file.read_text(encoding="utf-8")).get("tokenizer_class")
        if kind == "ByT5Tokenizer":
            return "ByT5Tokenizer"
    return _AUTO_CLASSES[name]


def _restore_quantised(auto_class: str, model: Model, folder: Path) -> None:
    """Load the quantised weights in a model folder with transformers."""
    import transformers

    packing = quantised_checkpoints.packing(_saved_fields(str(folder)), str(folder))
    if packing is None:
        return
    quantised_checkpoints.require_runs(packing, _saved_fields(str(folder)), str(folder))
    loader = getattr(transformers, auto_class)
    runs_code = companions(model).code is not None
    module = loader.from_pretrained(
        folder, dtype="auto", use_safetensors=True, local_files_only=True, trust_remote_code=runs_code
    )
    module.requires_grad_(False)
    module.eval()
    model.config = module.config
    quantised_checkpoints.prepare(module, folder)
    model.module = module


def companions(model: Model) -> Companions:
    """Return the companions of a model that transformers built."""
    return model.data_as(Companions)


def _config_of(model: Model) -> Any:
    """Return the config that describes the current model: its class, and the precision of its weights."""
    import torch

    config = copy.deepcopy(model.config)
    if isinstance(model.module, torch.nn.Module):
        config.dtype = dtype_of(model.module) or config.dtype
        config.architectures = config.architectures or [type(model.module).__name__]
    return config


def built(auto_class: str, config: Any) -> Any:
    """Build the module that a config describes; with custom code if the config's class is from such code."""
    import transformers

    loader = getattr(transformers, auto_class)
    if custom_code.is_built_by_it(type(config)):
        return loader.from_config(config, trust_remote_code=True)
    if type(config) in loader._model_mapping:
        return loader.from_config(config, trust_remote_code=False)
    # the language model inside a multimodal one (Mllama): only the config of the whole model is registered
    attributes = [getattr(transformers, name, None) for name in config.architectures or []]
    classes = [kind for kind in attributes if isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)]
    if not classes:  # raises, and lists the configs that transformers knows
        return loader.from_config(config, trust_remote_code=False)
    return classes[0]._from_config(config)


def load_transformer(
    auto_class: str,
    source: str,
    origin: Origin,
    architecture: Mapping[str, Any],
    seed: int,
    precision: str = "float32",
    labels: Mapping[int, str] | None = None,
    arguments: Mapping[str, Any] | None = None,
    replaced: Collection[str] = (),
) -> Model:
    """Load a transformers model on the CPU from its origin, with its weights directly in their precision.

    Args:
        auto_class: the transformers class that loads it (`AutoModelForCausalLM`).
        source: the hub id or folder, for messages.
        origin: the origin of the weights, from `find_weights`.
        architecture: config fields with `model_type`, for random weights; empty: read from the origin.
        seed: seed for random weights.
        precision: `native`: that of the checkpoint, or of the architecture for random weights; or the name of a type,
            to which a GGUF file is unpacked.
        labels: names of the classes, by number, that the model must have; None or empty: it keeps its own.
        arguments: further arguments of `from_pretrained`.
        replaced: names of weights that these arguments replace, so that the checkpoint's own may be missing.

    Returns:
        The model with its config.

    Raises:
        WeightsError: the files are missing, corrupt, gated or for another architecture.
        RecipeError: transformers can't build the architecture.
    """
    import torch
    import transformers

    loader = getattr(transformers, auto_class)
    torch.manual_seed(seed)
    if origin.kind == "random":
        module = _from_architecture(loader, source, architecture, origin, precision, _head(labels))
        model = Model(module, caution=origin.caution)
    else:
        model = _from_pretrained(loader, origin, precision, _head(labels), arguments or {}, replaced)
    model.module.requires_grad_(False)
    model.module.eval()
    model.config = model.module.config
    if type(model.config) not in loader._model_mapping:
        model.config.architectures = [type(model.module).__name__]
    if getattr(model.config, "rescale_every", 0):
        # RWKV divides its weights in place at its first call, and would do so again after saving and restoring
        model.config.rescale_every = 0
    return model


def _head(labels: Mapping[int, str] | None) -> dict[str, Any]:
    """Return the config fields of a head for these classes; empty for None or no classes."""
    if not labels:
        return {}
    return {"id2label": dict(labels), "label2id": {name: number for number, name in labels.items()}}


def _from_architecture(
    loader: Any,
    source: str,
    architecture: Mapping[str, Any],
    origin: Origin,
    precision: str,
    head: Mapping[str, Any],
) -> Any:
    import torch
    from transformers import AutoConfig

    is_out_of_reach = bool(origin.caution) and not is_config_cached(source)
    if not architecture and is_out_of_reach:
        raise WeightsError(
            f"The architecture of {source} is unknown. Connect to the hub, write a recipe with options.architecture, "
            "or give a local folder."
        )
    fields = {**(architecture or config_fields(source)), **head}
    if head:
        fields.pop("num_labels", None)
    _require_own_kernels(fields, source)
    dtype = of_config(fields) if precision == NATIVE else getattr(torch, precision)
    try:
        config = AutoConfig.for_model(fields.pop("model_type"), **fields)
        config.architectures = config.architectures or []  # transformers iterates over it
        return loader.from_config(config, dtype=dtype, trust_remote_code=False)
    except Exception as error:  # KeyError, ValueError, the config's own checks, or an error of the model
        raise RecipeError(f"options.architecture of {source} does not describe a model: {one_line(error)}") from error


def _from_pretrained(
    loader: Any,
    origin: Origin,
    precision: str,
    head: Mapping[str, Any],
    further: Mapping[str, Any],
    replaced: Collection[str],
) -> Model:
    import torch

    fields = {} if origin.file else _saved_fields(origin.source)
    packing = quantised_checkpoints.packing(fields, origin.location)
    is_native = (precision == NATIVE and not origin.file) or packing is not None
    dtype = "auto" if is_native else torch.float32 if precision == NATIVE else getattr(torch, precision)
    if not origin.file:
        _require_own_kernels(fields, origin.location)
    with saved_models.opened(origin) as saved:
        arguments = {**saved.arguments, **origin.arguments, **further}
        if head:
            arguments |= {**head, "ignore_mismatched_sizes": True}
        try:
            module, info = loader.from_pretrained(
                saved.location,
                dtype=dtype,
                output_loading_info=True,
                **_unpacked(origin),
                **({} if packing is None else {"use_safetensors": True}),
                **arguments,
            )
        except Exception as error:  # errors of safetensors, pickle, the hub and configs have no common base class
            raise WeightsError(f"The weights in {origin.location} can't be loaded: {one_line(error)}") from error
        unread = {*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])}
        missing = sorted(unread - saved.merge(module) - {*replaced})
    names = {name for name, _ in module.named_parameters()}
    if len(set(missing) & names) > len(names) / 2:
        raise WeightsError(
            f"The weights in {origin.location} are not this model's: {len(missing)} of {len(names)} tensors are "
            f"missing, {missing[0]} among them."
        )
    if origin.file:
        module = _plain(loader, module)
    if packing is not None:
        if missing:
            raise WeightsError(f"The quantised weights in {origin.location} are incomplete: {missing[0]} is missing.")
        quantised_checkpoints.prepare(module, Path(origin.folder or origin.location))
        return Model(module, weights=origin.kind, cautions=saved.cautions, facts=saved.notes | packing.facts())
    caution = f"{origin.location} has no weights for {', '.join(missing[:3])}: these are random" if missing else ""
    facts = saved.facts(str(module.dtype).removeprefix("torch."))
    return Model(module, weights=origin.kind, caution=caution, cautions=saved.cautions, facts=facts)


def _unpacked(origin: Origin) -> dict[str, Any]:
    """Return arguments to unpack the weights of a GGUF file; else it depends on the installed packages."""
    import transformers

    packing = getattr(transformers, "GgufConfig", None)
    return {"quantization_config": packing(dequantize=True)} if origin.file and packing is not None else {}


def _require_own_kernels(fields: Mapping[str, Any], origin: str) -> None:
    """Check that a config names no kernels from the hub (`owner/name`), which transformers would fetch and run.

    Args:
        fields: fields of the config.
        origin: origin of the config, for messages.

    Raises:
        WeightsError: it names such kernels.
    """
    waiting: list[tuple[str, Any]] = [("", fields)]
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, Mapping):
            waiting += [(key if _KERNELS in key else str(name), inner) for name, inner in value.items()]
        elif isinstance(value, list):
            waiting += [(key, inner) for inner in value]
        elif _KERNELS in key and isinstance(value, str) and "/" in value:
            raise WeightsError(
                f"The config of {origin} says {key}={value!r:.100}. That is code from the hub, which is never run: "
                "remove this line from its config.json."
            )


def _saved_fields(location: str) -> Mapping[str, Any]:
    """Return the fields of a config; empty if it can't be read: then transformers raises the error."""
    try:
        return config_fields(location)
    except (RecipeError, WeightsError):
        return {}


def _require_own_layout(saved: Path) -> None:
    """Check that transformers alone finds the weights that its class computes from others, such as by weight norm.

    Raises:
        Unsupported: The method replaced these by their product.
    """
    if plain_layers.MADE in (_saved_fields(str(saved)).get("plain_layers") or ()):
        raise Unsupported(
            "transformers computes some of its weights by weight norm or similar, but the method saved the results: "
            "only this package loads them"
        )


def _plain(loader: Any, module: Any) -> Any:
    """Return a model with the same weights, without traces of their packing in it or in its config."""
    from mlflow_compress.networks.stored_weights import unfilled

    config = module.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with unfilled():
        plain = loader.from_config(config)
    plain.load_state_dict(module.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = module.generation_config
    return plain


def load_tokenizer(origin: Origin, **options: Any) -> Any:
    """Return the model's tokenizer; for random weights a tokenizer of bytes, which needs no file.

    Args:
        origin: the origin of the weights.
        options: further arguments of the tokenizer's `from_pretrained`.

    Raises:
        WeightsError: it can't be loaded.
    """
    from transformers import AutoTokenizer, ByT5Tokenizer

    if origin.kind == "random":
        return ByT5Tokenizer(extra_ids=0)
    origin = origin.companions
    try:
        tokenizer = AutoTokenizer.from_pretrained(origin.location, **origin.arguments, **options)
    except Exception as error:  # as above
        if origin.lacks_tokenizer:
            raise WeightsError(
                f"There is no tokenizer in {origin.location}: save it there with save_pretrained."
            ) from error
        message = one_line(error)
        is_missing = importlib.util.find_spec("sentencepiece") is None
        hint = " It may require sentencepiece (pip install sentencepiece). The error:" if is_missing else ""
        raise WeightsError(f"The tokenizer in {origin.location} can't be loaded.{hint} {message}") from error
    if origin.file:
        add_special_tokens(tokenizer, origin)
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # made up by transformers without files
        raise WeightsError(f"There is no tokenizer in {origin.location}: save it there with save_pretrained.")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)  # any token: padding is masked
    return tokenizer
