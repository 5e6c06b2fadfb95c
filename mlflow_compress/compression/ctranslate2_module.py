"""A model in CTranslate2 in the place of a transformers model: its files, its weights, and what it is asked."""

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
    """What `generate` and a forward pass return: as transformers names it.

    Attributes:
        sequences: tokens [batch, tokens].
        logits: of each new token [batch, vocabulary], or all of them [batch, tokens, vocabulary].
        beam_indices: from which row each token's logits are [batch, tokens].
    """

    sequences: Any = None
    logits: Any = None
    beam_indices: Any = None


class Converted:
    """A model that CTranslate2 runs on the CPU, on as many threads as torch has.

    Args:
        folder: with the converted model.
        config: the model's.
        generation: its generation config.

    Raises:
        WeightsError: the files are not there, or not whole.
    """

    runtime = "ctranslate2"
    specification: ClassVar[str]  # how the library names the kind of model in its file

    def __init__(self, folder: Path, config: Any, generation: Any) -> None:
        import ctranslate2
        import torch

        self.path, self.config, self.generation = folder / WEIGHTS, config, generation
        self.device, self.dtype = "cpu", torch.float32
        self._variables = variables(self.path, self.specification)
        ctranslate2.set_log_level(logging.ERROR)  # what it computes in is said in the row
        self._model = self._opened()(
            str(folder), device="cpu", compute_type="default", inter_threads=1, intra_threads=torch.get_num_threads()
        )
        self.arithmetic = str(self._model.compute_type)

    def _opened(self) -> Any:
        """Return the library's class that opens the folder."""
        raise NotImplementedError

    def held_weights(self) -> Iterator[Held]:
        """Return every tensor that holds weights, in the type that the library holds it in."""
        for each in self._variables:
            if not each.shape:
                continue
            tensor = each.read(self.path)
            if tensor.is_floating_point() and self.arithmetic.endswith("float32"):
                tensor = tensor.float()
            yield Held(tensor, tensor.numel() if each.is_parameter else 0)

    def ends(self) -> list[int]:
        """Return the tokens that end a text."""
        ends = self.generation.eos_token_id
        return list(ends) if isinstance(ends, (list, tuple)) else [int(ends)]


def require_known(options: Mapping[str, Any]) -> None:
    """Raise where a call of `generate` has options that would change what is generated, and that nobody handles.

    Raises:
        Unsupported: there is one.
    """
    known = {**ONE_ANSWER, "use_cache": True}
    if unknown := sorted(name for name, value in options.items() if value and value != known.get(name)):
        raise Unsupported(f"CTranslate2 can't generate with the options {', '.join(unknown)}")


def tensor_of(view: Any) -> Any:
    """Return a view of the library as a tensor of its own, flat."""
    import numpy as np
    import torch

    return torch.from_numpy(np.array(view, dtype=np.float32)).flatten()
