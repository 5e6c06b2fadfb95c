"""`Model`: a model in memory, as families load it, methods change it, and the worker measures it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar

from mlflow_compress.records import Caution, CautionKind

if TYPE_CHECKING:
    from tempfile import TemporaryDirectory

Data = TypeVar("Data")

RANDOM_WEIGHTS = CautionKind(
    "random_weights",
    short={},  # it has a footnote of its own, which says of which numbers it is true
    message={"en": "{obstacle}", "ru": "{obstacle}"},
    advice={"en": "Quality is not measured.", "ru": "Качество не измеряется."},
)
PARTLY_RANDOM_WEIGHTS = CautionKind(
    "partly_random_weights",
    short={
        "en": "some weights are random, so quality means little",
        "ru": "часть весов случайна, качество мало что значит",
    },
    message={"en": "{obstacle}", "ru": "{obstacle}"},
    advice={"en": "Quality means little.", "ru": "Качество мало что значит."},
)


@dataclass(frozen=True)
class Evaluation:
    """What quality will be scored on, for those who must keep away from it.

    Attributes:
        data, folder, limit, seed: as `Family.samples` takes them.
    """

    data: str
    folder: Path
    limit: int | None = None
    seed: int = 0


class LayerSizes(TypedDict, total=False):
    """How a layer differs from the one that its family's code builds, in plain data that is saved as JSON.

    Attributes:
        numbers: its attributes that are whole numbers, or tuples of them, by name.
        parameters: shapes of its own parameters, by name.
        buffers: shapes of its own buffers, by name.
        rank: of the two thin layers that stand in its place.
    """

    numbers: dict[str, Any]
    parameters: dict[str, list[int]]
    buffers: dict[str, list[int]]
    rank: int


class _LoadingCaution:
    """What a family says of how it loaded a model; it becomes the first of the model's cautions."""

    def __get__(self, model: Model | None, owner: type[Model]) -> str:
        return ""

    def __set__(self, model: Model, text: str) -> None:
        if not text:
            return
        kind = RANDOM_WEIGHTS if model.weights == "random" else PARTLY_RANDOM_WEIGHTS
        model.cautions.insert(0, kind.of(obstacle=text))


class Assets(MutableMapping[str, Any]):
    """A family's own things by name, for plugins from outside: nothing in this package reads them.

    In 0.1 all that a model had beside its module was here. So the names that are fields now still lead there: `config`
    and `structure` to the model's, others to those of its `family_data`.
    """

    _FIELDS = ("config", "structure")

    def __init__(self, model: Model, given: Mapping[str, Any]) -> None:
        self._model: Model = weakref.proxy(model)  # a circle would keep the weights in memory
        self._things: dict[str, Any] = {}
        if not isinstance(given, Assets):
            self.update(given)
            return
        self._things = given._things
        if model.config is None and model.family_data is None:  # made of another model's assets alone
            other = given._model
            model.config, model.structure, model.family_data = other.config, other.structure, other.family_data

    def _holder(self, name: str) -> object:
        """Return the object that has this name as a field; None if there is none."""
        if name in self._FIELDS:
            return self._model
        return self._model.family_data if hasattr(self._model.family_data, name) else None

    def __getitem__(self, name: str) -> Any:
        """Return a thing, or a field that holds something."""
        if (holder := self._holder(name)) is None:
            return self._things[name]
        value = getattr(holder, name)
        if value is None or (name == "structure" and not value):
            raise KeyError(name)
        return value

    def __setitem__(self, name: str, value: Any) -> None:
        """Keep a thing, or set a field."""
        if (holder := self._holder(name)) is None:
            self._things[name] = value
        else:
            setattr(holder, name, value)

    def __delitem__(self, name: str) -> None:
        """Forget a thing, or empty a field."""
        if (holder := self._holder(name)) is None:
            del self._things[name]
        else:
            setattr(holder, name, {} if name == "structure" else None)

    def __iter__(self) -> Iterator[str]:
        """Name the fields that hold something, and all things."""
        data = self._model.family_data
        held = [field.name for field in fields(data)] if is_dataclass(data) else []
        yield from (name for name in (*self._FIELDS, *held) if name in self)
        yield from self._things

    def __len__(self) -> int:
        """Count them."""
        return sum(1 for _ in self)


@dataclass
class Model:
    """A model in memory, on its way from loading to saving or measuring.

    Attributes:
        module: a `torch.nn.Module`, or what a method of another runtime puts in its place (it is called alike).
        assets: what a family from outside this package keeps by name.
        weights: where the weights came from: `pretrained`, `random` or `local`.
        device: where the module is: `cpu` or `cuda`.
        batch_size: samples in the timed call, for methods whose result takes no other number.
        cautions: what the reader of the numbers must know, as loading and methods came upon it; they append.
        caution: what the user must hear about how it was loaded. It can only be set: it goes into `cautions`.
        facts: what a method did, in words, by name (`layers`: `36 of 38 linear layers`); they add.
        progress: called by what takes long with how many of how many steps are done.
        evaluation: what its quality will be scored on; None: nothing.
        config: the config of a transformers model, from which it can be built again; None of others.
        structure: of what has no config, the layers that are not as the family's code builds them, by their names.
            Methods write it, the family saves it.
        files: those that the module of another runtime runs from, until they are saved.
        family_data: what the family needs beside the weights (a tokenizer, the names of classes): an object of a class
            of its own, which nobody else reads.
    """

    module: Any
    assets: MutableMapping[str, Any] = field(default_factory=dict)
    weights: Literal["pretrained", "random", "local"] = "random"
    device: str = "cpu"
    batch_size: int = 1
    cautions: list[Caution] = field(default_factory=list)
    caution: _LoadingCaution = _LoadingCaution()
    facts: dict[str, str] = field(default_factory=dict)
    progress: Callable[[int, int], None] = lambda done, total: None
    evaluation: Evaluation | None = None
    config: Any = None
    structure: dict[str, LayerSizes] = field(default_factory=dict)
    files: TemporaryDirectory[str] | None = None
    family_data: object = None

    def __post_init__(self) -> None:
        """Take plain assets in."""
        self.assets = Assets(self, self.assets)

    @property
    def is_transformer(self) -> bool:
        """Whether transformers builds it, from a config."""
        return self.config is not None

    def data_as(self, kind: type[Data]) -> Data:
        """Return the family's data, which must be of this class.

        Raises:
            TypeError: it is another family's.
        """
        if not isinstance(self.family_data, kind):
            raise TypeError(f"this model holds {type(self.family_data).__name__}, not {kind.__name__}")
        return self.family_data
