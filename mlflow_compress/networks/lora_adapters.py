"""LoRA adapters as peft saves them: read as data, and merged into the weights of their base.

Only plain LoRA is merged. Other features are rejected, because the merged model would be a different one.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow_compress.errors import WeightsError, one_line

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_PREFIX = "base_model.model."
_WRAPPERS = (".base_layer", ".modules_to_save")  # peft adds these between a layer and its tensors
_PAIRS = {  # name endings of the two thin matrices
    ".lora_A.weight": ".lora_B.weight",
    ".lora_embedding_A": ".lora_embedding_B",
}
_HEADS = (".classifier.weight", ".score.weight", ".classifier.out_proj.weight")
_LAYER_NAME = re.compile(r"\^?[\w.]+")
_STARTS = (True, False, None, "gaussian", "orthogonal", "eva")  # initialisations that do not change the base
# config fields that do not affect merging, or that are read here
_UNDERSTOOD = frozenset(
    (
        "alpha_pattern",
        "auto_mapping",
        "base_model_name_or_path",
        "bias",
        "ensure_weight_tying",
        "eva_config",
        "exclude_modules",
        "fan_in_fan_out",
        "inference_mode",
        "init_lora_weights",
        "layers_pattern",
        "layers_to_transform",
        "lora_alpha",
        "lora_dropout",
        "megatron_core",
        "modules_to_save",
        "peft_type",
        "peft_version",
        "qalora_group_size",
        "r",
        "rank_pattern",
        "revision",
        "runtime_config",
        "target_modules",
        "task_type",
        "use_rslora",
    )
)


@dataclass(frozen=True)
class Adapter:
    """A saved adapter.

    Attributes:
        folder: its folder.
        fields: fields of its config.
    """

    folder: Path
    fields: Mapping[str, Any]

    @property
    def base(self) -> str:
        """The hub id or folder of the model that it was trained on; empty: unknown."""
        return str(self.fields.get("base_model_name_or_path") or "")

    @property
    def revision(self) -> str:
        """The revision of the base; empty: not named."""
        return str(self.fields.get("revision") or "")

    @property
    def task(self) -> str:
        """The task that it was trained for, as peft names it (`CAUSAL_LM`); empty: unknown."""
        return str(self.fields.get("task_type") or "")

    @property
    def trained_class(self) -> str:
        """The class of its base, if peft saved it instead of a task; else empty."""
        mapping = self.fields.get("auto_mapping")
        return str(mapping.get("base_model_class") or "") if isinstance(mapping, Mapping) else ""


@dataclass
class _Sorted:
    """The tensors of an adapter, by the name of the base's parameter that they change.

    Attributes:
        pairs: the two thin matrices whose product is added to a parameter: right and left factor.
        whole: the tensor that replaces a parameter.
    """

    pairs: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    whole: dict[str, Any] = field(default_factory=dict)


def read(folder: Path) -> Adapter | None:
    """Return the adapter in a folder; None if there is none.

    Raises:
        WeightsError: its config is not JSON.
    """
    path = folder / CONFIG
    if not path.is_file():
        return None
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"The adapter in {folder} can't be read: {CONFIG}: {one_line(error)}") from error
    if not isinstance(fields, dict):
        raise WeightsError(f"The adapter in {folder} can't be read: {CONFIG} is not a mapping.")
    return Adapter(folder, fields)


class Opened:
    """An adapter with its checked tensors.

    Args:
        adapter: the saved adapter.

    Raises:
        WeightsError: it is not plain LoRA, or its tensors are not available.
    """

    def __init__(self, adapter: Adapter) -> None:
        from mlflow_compress.networks.stored_weights import read_state

        _require_plain(adapter)
        self.adapter = adapter
        path = next((adapter.folder / name for name in WEIGHTS if (adapter.folder / name).is_file()), None)
        if path is None:
            raise WeightsError(f"{adapter.folder} holds {CONFIG}, but not the adapter's weights ({WEIGHTS[0]}).")
        self._tensors = _sorted(read_state(path), adapter.folder)

    @property
    def labels(self) -> int | None:
        """Number of labels of the classifier head in the adapter; None if it has no head."""
        heads = [tensor for name, tensor in self._tensors.whole.items() if f".{name}".endswith(_HEADS)]
        return int(heads[0].shape[0]) if len(heads) == 1 else None

    def merge(self, module: Any) -> frozenset[str]:
        """Change the weights of the base, in place.

        Returns:
            Names of the parameters that were replaced as a whole.

        Raises:
            WeightsError: a tensor belongs to no layer of the base, or has another shape.
        """
        import torch

        parameters = dict(module.named_parameters(remove_duplicate=False))
        self._require_separate(parameters)
        with torch.no_grad():
            for name, tensor in self._tensors.whole.items():
                self._parameter(parameters, name, tensor).copy_(tensor)
            changed: set[int] = set()
            for name, (down, up) in self._tensors.pairs.items():
                if id(parameters.get(name)) in changed:
                    continue  # the tied layer has the same change
                change = up.float().flatten(1) @ down.float().flatten(1)
                layer = module.get_submodule(name.removesuffix(".weight")) if name in parameters else None
                if type(layer).__name__ == "Conv1D":  # transformers' linear layer with its weight transposed
                    change = change.T
                weight = self._parameter(parameters, name, change)
                weight += self._scale(name, int(down.shape[0])) * change.reshape(weight.shape)
                changed.add(id(weight))
        return frozenset(self._tensors.whole)

    def describe(self, base: str) -> str:
        """Return a description of the merge for the run's page."""
        ranks = sorted({int(down.shape[0]) for down, _ in self._tensors.pairs.values()})
        text = f"LoRA of rank {', '.join(map(str, ranks))} in {len(self._tensors.pairs)} layers"
        replaced = f", {len(self._tensors.whole)} tensors replaced" if self._tensors.whole else ""
        return f"{text}{replaced}, merged into the weights of {base}"

    def _parameter(self, parameters: Mapping[str, Any], name: str, change: Any) -> Any:
        parameter = parameters.get(name)
        if parameter is None:
            raise WeightsError(
                f"The adapter in {self.adapter.folder} changes {name}, which its base does not have: the base is not "
                f"{self.adapter.base or 'the model it was trained on'}."
            )
        if name in self._tensors.whole and change.ndim > 1 and change.shape[1:] == parameter.shape[1:]:
            self._require_no_new_tokens(name, len(change), len(parameter))
        if change.numel() != parameter.numel() or (change.ndim > 1 and change.shape[0] != parameter.shape[0]):
            raise WeightsError(
                f"The adapter in {self.adapter.folder} was trained on another base: its change of {name} has shape "
                f"{list(change.shape)}, but the weight has {list(parameter.shape)}."
            )
        return parameter

    def _require_no_new_tokens(self, name: str, rows: int, rows_of_base: int) -> None:
        if rows > rows_of_base:
            raise WeightsError(
                f"The adapter in {self.adapter.folder} was trained with {rows - rows_of_base} more rows of {name} than "
                f"its base's {rows_of_base}, as when tokens are added. Merge it with peft "
                f"(resize_token_embeddings({rows}), then merge_and_unload), write the result with save_pretrained, and "
                "give that folder."
            )

    def _scale(self, name: str, rank: int) -> float:
        """Return the factor of a change: alpha over the rank, or over its square root.

        Source: Hu et al. 2021, arXiv:2106.09685; rank-stabilised: Kalajdzievski 2023, arXiv:2312.03732.
        """
        layer = name.removesuffix(".weight")
        patterns = self.adapter.fields.get("alpha_pattern") or {}
        alphas = [alpha for key, alpha in patterns.items() if _names(key, layer)]
        alpha = alphas[0] if alphas else self.adapter.fields.get("lora_alpha", 8)
        return float(alpha) / (math.sqrt(rank) if self.adapter.fields.get("use_rslora") else rank)

    def _require_separate(self, parameters: Mapping[str, Any]) -> None:
        """Reject a change to a tensor that is shared by layers, unless all of them are changed equally.

        peft trains a change for each layer, so one tensor of the base may become several in the adapted model.
        """
        tied: dict[int, list[str]] = {}
        for name, parameter in parameters.items():
            tied.setdefault(id(parameter), []).append(name)
        changes: tuple[Mapping[str, tuple[Any, ...]], ...] = (
            {name: (tensor,) for name, tensor in self._tensors.whole.items()},
            {name: (*pair, self._scale(name, 1)) for name, pair in self._tensors.pairs.items()},
        )
        for names in tied.values():
            for of_kind in changes:
                changed = [name for name in names if name in of_kind]
                if not changed:
                    continue
                if len(changed) < len(names) and not self.adapter.fields.get("ensure_weight_tying"):
                    raise WeightsError(
                        f"The adapter in {self.adapter.folder} changes {changed[0]}, which is tied to another layer "
                        "that it does not change: this can't be merged."
                    )
                if not all(_are_equal(of_kind[changed[0]], of_kind[name]) for name in changed[1:]):
                    raise WeightsError(
                        f"The adapter in {self.adapter.folder} changes {' and '.join(changed)} differently, but they "
                        "are one tensor in its base: this can't be merged."
                    )


def _require_plain(adapter: Adapter) -> None:
    fields = adapter.fields
    kind = fields.get("peft_type")
    unsupported = sorted(str(name) for name, value in fields.items() if name not in _UNDERSTOOD and value)
    start = fields.get("init_lora_weights")
    patterns = fields.get("alpha_pattern") or {}
    if kind != "LORA":
        feature = f"of the kind {kind!r:.40}"
    elif unsupported:
        feature = f"with {', '.join(unsupported[:3])}"
    elif start not in _STARTS:
        feature = f"with init_lora_weights={start!r:.40}, which changes the base"
    elif not all(_LAYER_NAME.fullmatch(str(key)) for key in patterns):
        feature = "with an alpha_pattern of regular expressions"
    else:
        return
    raise WeightsError(
        f"{adapter.folder} holds an adapter {feature}; only plain LoRA is merged here. Merge it with peft "
        "(merge_and_unload), write the result with save_pretrained, and give that folder."
    )


def _sorted(state: Mapping[str, Any], folder: Path) -> _Sorted:
    """Sort the tensors of a file by the parameters that they change."""
    tensors = _Sorted()
    for name, tensor in state.items():
        parameter = _place(name)
        if "lora_" not in parameter:
            tensors.whole[parameter] = tensor
            continue
        ending = next((ending for ending in _PAIRS if parameter.endswith(ending)), "")
        if not ending:
            if not parameter.endswith(tuple(_PAIRS.values())):
                raise WeightsError(f"The adapter in {folder} holds {name}, which is not part of plain LoRA.")
            continue
        partner = name.removesuffix(ending) + _PAIRS[ending]
        if partner not in state:
            raise WeightsError(f"The adapter in {folder} is incomplete: it has {name} but not {partner}.")
        layer = parameter.removesuffix(ending)
        # the matrices of an embedding are stored in the opposite order
        pair = (state[partner].T, tensor.T) if "embedding" in ending else (tensor, state[partner])
        tensors.pairs[f"{layer}.weight"] = pair
    if not tensors.pairs and not tensors.whole:
        raise WeightsError(f"The adapter in {folder} holds no tensors.")
    return tensors


def _are_equal(some: tuple[Any, ...], others: tuple[Any, ...]) -> bool:
    """Return whether tensors and numbers are equal."""
    import torch

    return all(
        torch.equal(torch.as_tensor(one).float(), torch.as_tensor(other).float())
        for one, other in zip(some, others, strict=True)
    )


def _names(key: str, layer: str) -> bool:
    """Return whether a key of a pattern matches a layer: its full name after `^`, else the end of its name."""
    return layer == key[1:] if key.startswith("^") else f".{layer}".endswith(f".{key}")


def _place(name: str) -> str:
    """Return the name of the base's parameter in a tensor's name."""
    module_path = name.removeprefix(_PREFIX)
    for wrapper in _WRAPPERS:
        module_path = module_path.replace(wrapper + ".", ".")
    return module_path
