"""`Model`: a model in memory, which families load, methods change, and the worker measures."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar

from mlflow_compress.records import Caution, CautionKind

if TYPE_CHECKING:
    from tempfile import TemporaryDirectory

Data = TypeVar("Data")

NOT_SAVED = "not_saved"  # the fact: names of values in a model that are not restored
SCORING = "scoring"  # the fact: how a family computed its answers, if there are several ways
TEXTS_SCORING = "scoring_texts"  # the same for its texts, if they are computed in another way than its other answers

RANDOM_WEIGHTS = CautionKind(
    "random_weights",
    short={},  # it has its own footnote, which says which numbers are affected
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
    """The data that quality will be scored on, for code that must not use it.

    Attributes:
        data, folder, limit, seed: See `Family.samples`.
    """

    data: str
    folder: Path
    limit: int | None = None
    seed: int = 0


class LayerSizes(TypedDict, total=False):
    """How a layer differs from the one that its family's code builds, as plain data for JSON.

    Attributes:
        numbers: Its integer attributes, or tuples of integers, by name.
        parameters: Shapes of its own parameters, by name.
        buffers: Shapes of its own buffers, by name.
        rank: Rank of the two thin layers that replace it.
        plain: Changes to plain layers, see `plain_layers`; only for the whole module.
    """

    numbers: dict[str, Any]
    parameters: dict[str, list[int]]
    buffers: dict[str, list[int]]
    rank: int
    plain: list[str]


class _LoadingCaution:
    """A family's caution about how it loaded a model; it becomes the first of the model's cautions."""

    def __get__(self, model: Model | None, owner: type[Model]) -> str:
        return ""

    def __set__(self, model: Model, text: str) -> None:
        if not hasattr(model, "cautions"):  # in the constructor
            model._loading_caution = text
        elif text:
            kind = RANDOM_WEIGHTS if model.weights == "random" else PARTLY_RANDOM_WEIGHTS
            model.cautions.insert(0, kind.of(obstacle=text))


class Assets(dict[str, Any]):
    """A family's own objects by name, for external plugins: nothing in this package reads them.

    In 0.1 this dictionary contained everything that a model had besides its module. So it still contains the names that
    are fields now, if they are not empty: `config` and `structure` of the model, others of its `family_data`. Writing
    to it sets the field. A copy is a plain dictionary.
    """

    _FIELDS = ("config", "structure")

    def __init__(self, model: Model) -> None:
        self.model = model
        data = model.family_data
        fields_of_data = [field.name for field in fields(data)] if is_dataclass(data) else []
        values = {name: getattr(self._holder(name), name) for name in (*self._FIELDS, *fields_of_data)}
        # Empty values are left out. Do not compare with `==`: a data frame or an array compares element by element.
        is_empty = {name: value is None or (isinstance(value, dict) and not value) for name, value in values.items()}
        super().__init__({name: value for name, value in values.items() if not is_empty[name]})
        super().update(model.things)

    def _holder(self, name: str) -> object:
        """Return the object that has this name as a field; None if there is none."""
        if name in self._FIELDS:
            return self.model
        return self.model.family_data if hasattr(self.model.family_data, name) else None

    def __setitem__(self, name: str, value: Any) -> None:
        """Store an object, or set a field."""
        super().__setitem__(name, value)
        if (holder := self._holder(name)) is None:
            self.model.things[name] = value
        else:
            setattr(holder, name, value)

    def __delitem__(self, name: str) -> None:
        """Delete an object, or clear a field."""
        super().__delitem__(name)
        if (holder := self._holder(name)) is None:
            del self.model.things[name]
        else:
            setattr(holder, name, {} if name == "structure" else None)

    def __ior__(self, others: Any) -> Assets:  # type: ignore[override, misc]
        """Update all items."""
        self.update(others)
        return self

    def __reduce__(self) -> Any:
        """Copy and pickle it as a plain dictionary."""
        return dict, (dict(self),)

    # The methods of `dict` would bypass __setitem__ and __delitem__.
    update = MutableMapping.update
    setdefault = MutableMapping.setdefault
    pop = MutableMapping.pop
    popitem = MutableMapping.popitem
    clear = MutableMapping.clear


class _AssetsOf:
    """The field `assets` of a model: created at each access, so that it belongs to this model, also in a copy."""

    def __get__(self, model: Model | None, owner: type[Model]) -> Any:
        return () if model is None else Assets(model)  # on the class, the field's default

    def __set__(self, model: Model, assets: Any) -> None:
        if hasattr(model, "things"):
            model.take(assets)
        else:  # in the constructor, before the fields that these may set exist
            model._initial_assets = assets


@dataclass
class Model:
    """A model in memory, on its way from loading to saving or measuring.

    Attributes:
        module: A `torch.nn.Module`, or its replacement by a method for another runtime (called in the same way).
        assets: Objects that an external family keeps by name.
        weights: Origin of the weights: `pretrained`, `random`, `local`, or `remote` if a service has them.
        device: Device of the module: `cpu`, `cuda`, `mps` or `xpu`.
        caution: A caution about how it was loaded. It can only be set, and is added to `cautions`.
        batch_size: Samples in the timed call, for methods whose result has a fixed batch size.
        cautions: Cautions for the reader of the numbers; loading and methods append to them.
        facts: What methods did, as text by name (`layers`: `36 of 38 linear layers`); methods add to them.
        progress: Called by long operations with the number of steps done and of all steps.
        warmed: Called when the warm-up has ended and its memory is known: a method that compiles in the warm-up stops
            its helpers here.
        first_calls: Number of calls after which everything is created that is created on demand.
        evaluation: Data that its quality will be scored on; None: no data.
        asked: Kinds of predictions that the metrics take (see `Metric.takes`), and `next_tokens.ASKED`; empty: not
            known.
        config: Config of a transformers model, from which it can be rebuilt; None for others.
        structure: For models without a config, the layers that differ from those of the family's code, by name. Methods
            write it, the family saves it.
        files: Files that the module of another runtime runs from, until they are saved.
        family_data: What the family needs besides the weights (a tokenizer, class names): an object of its own class
            that only the family reads.
        runtime: Distribution whose engine executes it. The code that opens an exported graph sets it.
        elsewhere: Why this machine can't run it but another can; empty if it can. Such a model is saved and sized only.
        origin: For a restored model, the file it was loaded from, to find samples next to it; None if unknown.
        folder: Folder where relative paths of the user start.
        things: The items of `assets` that are not fields.
    """

    module: Any
    assets: _AssetsOf = _AssetsOf()
    weights: Literal["pretrained", "random", "local", "remote"] = "random"
    device: str = "cpu"
    caution: _LoadingCaution = _LoadingCaution()
    batch_size: int = 1
    cautions: list[Caution] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    progress: Callable[[int, int], None] = lambda done, total: None
    warmed: Callable[[], object] = lambda: None
    first_calls: int = 1
    evaluation: Evaluation | None = None
    asked: frozenset[str] = frozenset()
    config: Any = None
    structure: dict[str, LayerSizes] = field(default_factory=dict)
    files: TemporaryDirectory[str] | None = None
    family_data: object = None
    runtime: str = "torch"
    elsewhere: str = ""
    origin: Path | None = None
    folder: Path = Path()
    things: dict[str, Any] = field(init=False, repr=False, compare=False)
    _initial_assets: Any = field(init=False, repr=False, compare=False)
    _loading_caution: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Set assets and the caution, now that the fields that they change exist."""
        assets, self._initial_assets = self._initial_assets, None  # do not keep another model in memory
        self.take(assets)
        self.caution = self._loading_caution

    def take(self, assets: Any) -> None:
        """Replace the assets by those of another model, or by a plain dictionary."""
        if not isinstance(assets, Assets):
            self.things = {}
            self.assets.update(assets)
            return
        loaded = assets.model
        self.things = loaded.things
        if self.config is None and self.family_data is None:  # built only from another model's assets
            self.config, self.structure, self.family_data = loaded.config, loaded.structure, loaded.family_data

    @property
    def is_transformer(self) -> bool:
        """Whether transformers can build it from a config."""
        return self.config is not None

    def data_as(self, kind: type[Data]) -> Data:
        """Return the family's data, which must be of this class.

        Raises:
            TypeError: It belongs to another family.
        """
        if not isinstance(self.family_data, kind):
            raise TypeError(f"this model has {type(self.family_data).__name__}, not {kind.__name__}")
        return self.family_data
