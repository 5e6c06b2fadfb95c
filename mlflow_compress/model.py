"""`Model`: a model in memory, as families load it, methods change it, and the worker measures it."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar

from mlflow_compress.records import Caution, CautionKind

if TYPE_CHECKING:
    from tempfile import TemporaryDirectory

Data = TypeVar("Data")

NOT_SAVED = "not_saved"  # the fact: what a model holds that is not restored, by name
SCORING = "scoring"  # the fact in which a family says how it took its answers, where that can be done in several ways

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
        plain: what was made plain in it, see `plain_layers`; of the whole module only.
    """

    numbers: dict[str, Any]
    parameters: dict[str, list[int]]
    buffers: dict[str, list[int]]
    rank: int
    plain: list[str]


class _LoadingCaution:
    """What a family says of how it loaded a model; it becomes the first of the model's cautions."""

    def __get__(self, model: Model | None, owner: type[Model]) -> str:
        return ""

    def __set__(self, model: Model, text: str) -> None:
        if not hasattr(model, "cautions"):  # it is being made
            model._said = text
        elif text:
            kind = RANDOM_WEIGHTS if model.weights == "random" else PARTLY_RANDOM_WEIGHTS
            model.cautions.insert(0, kind.of(obstacle=text))


class Assets(dict[str, Any]):
    """A family's own things by name, for plugins from outside: nothing in this package reads them.

    In 0.1 all that a model had beside its module was in this dictionary. So the names that are fields now are in it
    too, while they hold something: `config` and `structure` of the model, others of its `family_data`. What is written
    here goes there. A copy is a plain dictionary.
    """

    _FIELDS = ("config", "structure")

    def __init__(self, model: Model) -> None:
        self.model = model
        data = model.family_data
        fields_of_data = [field.name for field in fields(data)] if is_dataclass(data) else []
        held = {name: getattr(self._holder(name), name) for name in (*self._FIELDS, *fields_of_data)}
        # What is empty is left out; a data frame or an array says nothing of itself by `==`.
        is_empty = {name: value is None or (isinstance(value, dict) and not value) for name, value in held.items()}
        super().__init__({name: value for name, value in held.items() if not is_empty[name]})
        super().update(model.things)

    def _holder(self, name: str) -> object:
        """Return the object that has this name as a field; None if there is none."""
        if name in self._FIELDS:
            return self.model
        return self.model.family_data if hasattr(self.model.family_data, name) else None

    def __setitem__(self, name: str, value: Any) -> None:
        """Keep a thing, or set a field."""
        super().__setitem__(name, value)
        if (holder := self._holder(name)) is None:
            self.model.things[name] = value
        else:
            setattr(holder, name, value)

    def __delitem__(self, name: str) -> None:
        """Forget a thing, or empty a field."""
        super().__delitem__(name)
        if (holder := self._holder(name)) is None:
            del self.model.things[name]
        else:
            setattr(holder, name, {} if name == "structure" else None)

    def __ior__(self, others: Any) -> Assets:  # type: ignore[override, misc]
        """Write them all."""
        self.update(others)
        return self

    def __reduce__(self) -> Any:
        """Copy and pickle it as a plain dictionary."""
        return dict, (dict(self),)

    # A dictionary's own would pass by the two above.
    update = MutableMapping.update
    setdefault = MutableMapping.setdefault
    pop = MutableMapping.pop
    popitem = MutableMapping.popitem
    clear = MutableMapping.clear


class _AssetsOf:
    """The field `assets` of a model: made anew at each look, so that it is of this model, in a copy too."""

    def __get__(self, model: Model | None, owner: type[Model]) -> Any:
        return () if model is None else Assets(model)  # of none, the field's default

    def __set__(self, model: Model, given: Any) -> None:
        if hasattr(model, "things"):
            model.take(given)
        else:  # it is being made, and the fields that these may set are not there yet
            model._given = given


@dataclass
class Model:
    """A model in memory, on its way from loading to saving or measuring.

    Attributes:
        module: a `torch.nn.Module`, or what a method of another runtime puts in its place (it is called alike).
        assets: what a family from outside this package keeps by name.
        weights: where the weights came from: `pretrained`, `random` or `local`.
        device: where the module is: `cpu` or `cuda`.
        caution: what the user must hear about how it was loaded. It can only be set: it goes into `cautions`.
        batch_size: samples in the timed call, for methods whose result takes no other number.
        cautions: what the reader of the numbers must know, as loading and methods came upon it; they append.
        facts: what a method did, in words, by name (`layers`: `36 of 38 linear layers`); they add.
        progress: called by what takes long with how many of how many steps are done.
        warmed: called when the warm-up is over and its memory is known: a method that compiles meanwhile ends here what
            helped it.
        first_calls: after how many calls all is there that is made when it is first needed.
        evaluation: what its quality will be scored on; None: nothing.
        config: the config of a transformers model, from which it can be built again; None of others.
        structure: of what has no config, the layers that are not as the family's code builds them, by their names.
            Methods write it, the family saves it.
        files: those that the module of another runtime runs from, until they are saved.
        family_data: what the family needs beside the weights (a tokenizer, the names of classes): an object of a class
            of its own, which nobody else reads.
        runtime: the distribution whose engine executes it. What opens an exported graph says it.
        origin: of a restored model, what it was loaded from, for samples that lie beside that; None: not known.
        things: what is in `assets` and in no field.
    """

    module: Any
    assets: _AssetsOf = _AssetsOf()
    weights: Literal["pretrained", "random", "local"] = "random"
    device: str = "cpu"
    caution: _LoadingCaution = _LoadingCaution()
    batch_size: int = 1
    cautions: list[Caution] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    progress: Callable[[int, int], None] = lambda done, total: None
    warmed: Callable[[], object] = lambda: None
    first_calls: int = 1
    evaluation: Evaluation | None = None
    config: Any = None
    structure: dict[str, LayerSizes] = field(default_factory=dict)
    files: TemporaryDirectory[str] | None = None
    family_data: object = None
    runtime: str = "torch"
    origin: Path | None = None
    things: dict[str, Any] = field(init=False, repr=False, compare=False)
    _given: Any = field(init=False, repr=False, compare=False)
    _said: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Take assets and a caution in, now that the fields that they set are there."""
        given, self._given = self._given, None  # or another model would stay in memory
        self.take(given)
        self.caution = self._said

    def take(self, assets: Any) -> None:
        """Hold these assets instead of its own: another model's, or a plain dictionary."""
        if not isinstance(assets, Assets):
            self.things = {}
            self.assets.update(assets)
            return
        other = assets.model
        self.things = other.things
        if self.config is None and self.family_data is None:  # made of another model's assets alone
            self.config, self.structure, self.family_data = other.config, other.structure, other.family_data

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
