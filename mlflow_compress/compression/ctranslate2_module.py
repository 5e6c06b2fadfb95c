"""Common part of CTranslate2 models that replace a transformers model: files, weights and options of `generate`."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from mlflow_compress.errors import Unsupported
from mlflow_compress.networks.ctranslate2_files import variables
from mlflow_compress.networks.decoding import ONE_ANSWER
from mlflow_compress.networks.stored_weights import Held

WEIGHTS = "model.bin"


@dataclasses.dataclass
class Output:
    """Result of `generate` and of a forward pass, with transformers' names.

    Attributes:
        sequences: Tokens [batch, tokens].
        logits: Logits of each new token [batch, vocabulary], or of all tokens [batch, tokens, vocabulary].
        beam_indices: Row of each token's logits [batch, tokens].
    """

    sequences: Any = None
    logits: Any = None
    beam_indices: Any = None


class Converted:
    """A model that CTranslate2 runs on the CPU, with as many threads as torch.

    Args:
        folder: Folder of the converted model.
        config: Config of the model.
        generation: Generation config of the model.

    Raises:
        WeightsError: The files are missing or incomplete.
    """

    runtime = "ctranslate2"
    specification: ClassVar[str]  # the library's name for the kind of model in its file

    def __init__(self, folder: Path, config: Any, generation: Any) -> None:
        import ctranslate2
        import torch

        self.path, self.config, self.generation = folder / WEIGHTS, config, generation
        self.device, self.dtype = "cpu", torch.float32
        self._variables = variables(self.path, self.specification)
        ctranslate2.set_log_level(logging.ERROR)  # the row states the compute type
        self._model = self._opened()(
            str(folder), device="cpu", compute_type="default", inter_threads=1, intra_threads=torch.get_num_threads()
        )
        self.arithmetic = str(self._model.compute_type)

    def _opened(self) -> Any:
        """Return the library's class that opens the folder."""
        raise NotImplementedError

    def held_weights(self) -> Iterator[Held]:
        """Yield every tensor that holds weights, in the type that the library holds in memory."""
        for variable in self._variables:
            if not variable.shape:
                continue
            tensor = variable.read(self.path)
            if tensor.is_floating_point() and self.arithmetic.endswith("float32"):
                tensor = tensor.float()
            yield Held(tensor, tensor.numel() if variable.is_parameter else 0)

    def ends(self) -> list[int]:
        """Return the tokens that end a text."""
        ends = self.generation.eos_token_id
        return list(ends) if isinstance(ends, (list, tuple)) else [int(ends)]


def require_known(options: Mapping[str, Any]) -> None:
    """Reject options of `generate` that would change the output and are not supported.

    Raises:
        Unsupported: There is such an option.
    """
    supported = {**ONE_ANSWER, "use_cache": True}
    if unknown := sorted(name for name, value in options.items() if value and value != supported.get(name)):
        raise Unsupported(f"CTranslate2 can't generate with the options {', '.join(unknown)}")


def tensor_of(view: Any) -> Any:
    """Return a flat copy of a library view as a tensor."""
    import numpy as np
    import torch

    return torch.from_numpy(np.array(view, dtype=np.float32)).flatten()
