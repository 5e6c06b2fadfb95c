"""`Options`: the options of `run`, `sweep` and MLflow's evaluator. Each option is declared once, here.

The commands of `cli`, the keys of `evaluator_config`, and the test of `MLproject` are generated from these
declarations.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from mlflow_compress.budget import FEWEST_LAUNCHES, Budget
from mlflow_compress.errors import RecipeError, UnknownName
from mlflow_compress.torch_devices import CPU, LABELS
from mlflow_compress.words import ORIGINAL

if TYPE_CHECKING:
    from mlflow_compress.planning.recipe import Settings

AUTO, NONE = "auto", "none"  # on the command line: the user made no choice
_MOST_LAUNCHES = 999
_KEY = "option"

T = TypeVar("T")
Taker = Literal["run", "sweep", "evaluator"]
Kind = Literal[
    "text",
    "choice",
    "whole",
    "number",
    "count",
    "counts",
    "duration",
    "yes_no",
    "switch",
    "auto_switch",
    "flag",
    "repeated",
]


@dataclass(frozen=True, eq=False, repr=False)
class Option:
    """Declaration of one field of `Options`.

    Attributes:
        help: the help text, one or two sentences.
        kind: how its value is written. `count`: a whole number from 1, or `auto`; `counts`: several, separated by
            commas; `duration`: such as 30m, or `none`; `switch`: true, false, or no value for true; `auto_switch`: a
            switch, or `auto`; `flag`: no value; `repeated`: may be given several times.
        takers: which commands have it.
        flags: its names on the command line, if not `--` and the field's name.
        least: the smallest allowed number.
        choices: the allowed words.
        metavar: placeholder of its value in the help.
        is_default_shown: whether the help shows its default.
        off: a flag that switches it off, and the help of that flag.
        is_parameter: whether `MLproject` has it. MLflow itself passes the experiment and the server; a repeated option
            can't be a parameter; the others are for people at a terminal.
        logged_as: the parameter under which the requested value is logged; empty: it is not logged.
        in_evaluator: its default in `evaluator_config`, if it is a different one.
        name: name of the field.
        default: default of the field.
    """

    help: str
    kind: Kind = "text"
    takers: tuple[Taker, ...] = ("run", "sweep")
    flags: tuple[str, ...] = ()
    least: float | None = None
    choices: tuple[str, ...] = ()
    metavar: str | None = None
    is_default_shown: bool = True
    off: tuple[str, str] | None = None
    is_parameter: bool = True
    logged_as: str = ""
    in_evaluator: Any = None
    name: str = ""
    default: Any = None

    @property
    def written_default(self) -> Any:
        """Return the default as written on the command line."""
        if self.default in (None, ()):
            return {"count": AUTO, "counts": AUTO, "auto_switch": AUTO, "duration": NONE}.get(self.kind)
        return self.default

    @property
    def evaluator_default(self) -> Any:
        """Return the default in `evaluator_config`."""
        return self.default if self.in_evaluator is None else self.in_evaluator


def _option(default: T, text: str, kind: Kind = "text", **settings: Any) -> T:
    return field(default=default, metadata={_KEY: Option(text, kind, **settings)})


_RUN: tuple[Taker, ...] = ("run",)
_SWEEP: tuple[Taker, ...] = ("sweep",)
_ALL: tuple[Taker, ...] = ("run", "sweep", "evaluator")


@dataclass(frozen=True)
class Options:
    """Options of a command; `auto` and `none` as text, None, or an empty tuple mean that the user made no choice.

    The fields are in the order of the help.
    """

    method: str = _option(ORIGINAL, "A chain of methods: prune_magnitude:amount=0.5+int8_dynamic. For several, "
                          "sweep a recipe that names them, or --all-methods.",
                          takers=("run", "evaluator"))  # fmt: skip
    all_methods: bool = _option(False, "Measure the model with every method, each with its defaults.", "switch",
                                takers=_RUN)  # fmt: skip
    register: str = _option(NONE, "Register the logged model as a new version of NAME. none: do not register it.",
                            takers=_RUN, metavar="NAME")  # fmt: skip
    again: bool = _option(False, "Also measure variants that the experiment already has.", "switch", takers=_SWEEP)
    limit_time: float | None = _option(
        None, "Time limit for the whole sweep: 90s, 30m, 1h30m. The most informative variants run first; variants that "
        "do not fit are left out.", "duration",
        takers=_SWEEP)  # fmt: skip
    on: str = _option("here", "Where to measure: on this machine, or on all machines of a Ray cluster.", "choice",
                      takers=_SWEEP, choices=("here", "ray"))  # fmt: skip
    address: str = _option(AUTO, "Address of the Ray cluster. auto: the cluster of this machine.",
                           takers=_SWEEP, metavar="HOST:PORT")  # fmt: skip
    dry_run: bool = _option(False, "Show what would be measured and how long it would take. Nothing is run.", "flag",
                            takers=_SWEEP, is_parameter=False)  # fmt: skip
    family: str = _option(AUTO, "Family of a MODEL that has no recipe. auto: detected from its configuration.")
    team: str = _option(AUTO, "Team name for the row. [auto: COMPRESS_TEAM, or none]",
                        takers=_ALL, is_default_shown=False, in_evaluator="")  # fmt: skip
    device: str = _option(AUTO, "Where to measure. auto: on the CPU, and on the GPU if there is one: cuda (NVIDIA), "
                          "mps (Apple silicon) or xpu (Intel).", "choice",
                          takers=_ALL, choices=(AUTO, *LABELS), logged_as="device", in_evaluator=CPU)  # fmt: skip
    weights: str = _option(
        AUTO, "auto, pretrained, random, or a path. auto uses random weights if the hub is unreachable.",
        logged_as="weights")  # fmt: skip
    data: str = _option(AUTO, "Data to score quality on. auto: from the recipe; none: skip quality.",
                        logged_as="data")  # fmt: skip
    batch_size: tuple[int, ...] = _option((), "Samples in one timed call; 1,4,16 measures each.", "counts",
                                          takers=_ALL, logged_as="batch_size", in_evaluator=1)  # fmt: skip
    threads: tuple[int, ...] = _option((), "CPU threads; 1,2 measures each. [auto: physical cores allowed]", "counts",
                                       takers=_ALL, logged_as="threads", in_evaluator=0)  # fmt: skip
    limit: int | None = _option(None, "Maximum number of samples to score. [auto: all]", "count",
                                takers=_ALL, logged_as="limit", in_evaluator=0)  # fmt: skip
    seed: int = _option(0, "Seed for random weights and inputs.", "whole", takers=_ALL, logged_as="seed")
    iterations: int = _option(Budget.min_iterations, "Minimum number of timed calls.", "whole",
                              takers=_ALL, least=1, logged_as="iterations")  # fmt: skip
    seconds: float = _option(Budget.min_seconds, "Minimum duration of the timed calls, in seconds.", "number",
                             takers=_ALL, least=0, logged_as="seconds")  # fmt: skip
    max_seconds: float = _option(
        Budget.max_seconds, "Maximum duration of the timed calls, in seconds; overrides --iterations and --seconds, "
        "but at least 6 calls are timed.", "number",
        takers=_ALL, least=0, logged_as="max_seconds")  # fmt: skip
    energy_seconds: float = _option(
        Budget.energy_seconds, "Duration of the energy measurement, in seconds; 0: skip it.", "number",
        takers=_ALL, least=0, logged_as="energy_seconds")  # fmt: skip
    score_seconds: float = _option(
        Budget.score_seconds, "Maximum duration of scoring, in seconds; then the samples scored so far count.",
        "number", takers=_ALL, least=0, logged_as="score_seconds")  # fmt: skip
    timeout: float = _option(
        Budget.timeout_seconds, "Time limit for each process of a variant, in seconds (one compresses, one measures "
        "and scores). A process that exceeds it is stopped, and the variant fails.", "number",
        takers=_ALL, least=1)  # fmt: skip
    trust: bool = _option(False, "Run code that comes with the model: Python files, pickles, custom metrics.", "switch")
    launches: int = _option(
        Budget.launches, "Maximum number of fresh processes that share the timed calls; 3 or more show the noise. "
        "Fewer are used if starting them takes longer than timing.", "whole",
        takers=_ALL, least=1, logged_as="launches")  # fmt: skip
    interleave: bool | None = _option(
        None, "Measure the variant in turns with its original. auto: if this command measures both.", "auto_switch",
        logged_as="interleave")  # fmt: skip
    family_options: tuple[str, ...] = _option(
        (), "An option of the model's family; tokens=64,128 measures each. Can be repeated.", "repeated",
        flags=("--option", "-O"), metavar="KEY=VALUE", is_parameter=False, logged_as="option")  # fmt: skip
    requires: tuple[str, ...] = _option(
        (), "What the machine must have, else the variant is skipped: gpu=A100,min_ram_gb=64. Can be repeated.",
        "repeated",
        metavar="KEY=VALUE", is_parameter=False, logged_as="requires")  # fmt: skip
    experiment: str | None = _option(None, "Experiment to log to. [MLFLOW_EXPERIMENT_NAME, or Default]",
                                     flags=("--experiment", "-e"), is_parameter=False)  # fmt: skip
    tracking_uri: str | None = _option(None, "Tracking server. [MLFLOW_TRACKING_URI, or mlflow.db here]",
                                       metavar="URI", is_parameter=False)  # fmt: skip
    log_model: bool = _option(True, "Log the model itself as an artifact.", "yes_no",
                              off=("--no-log-model", "The same as --log-model false."))  # fmt: skip
    strict: bool = _option(
        False, "Fail with exit code 1, after measuring, unless the original's scores are as published: in the "
        "recipe, or in its model card.", "flag", is_parameter=False)  # fmt: skip
    as_json: bool = _option(False, "Print the results as JSON.", "flag", flags=("--json",), is_parameter=False)
    quiet: bool = _option(False, "Do not show progress on standard error.", "flag",
                          flags=("--quiet", "-q"), is_parameter=False)  # fmt: skip

    def asked(self) -> dict[str, str]:
        """Return the requested options, to be logged as parameters."""
        values = {option: getattr(self, option.name) for option in declared() if option.logged_as}
        return {option.logged_as: _logged(option, value) for option, value in values.items()}

    def settings(self) -> Settings:
        """Return the settings that recipes are planned with.

        Raises:
            RecipeError: an option is not of the form KEY=VALUE, or the number of launches is not useful.
            UnknownName: a requirement is unknown.
            WorkerError: this machine does not have the requested device.
        """
        from mlflow_compress.planning import requirements
        from mlflow_compress.planning.recipe import Settings

        _require_useful_launches(self.launches)
        if self.on == "here":
            requirements.require_device(self.device)
        required = (part for text in self.requires for part in text.split(",") if part.strip() != NONE)
        return Settings(
            team=self.team_name,
            devices=self.devices,
            weights=self.weights,
            data=self.data,
            batch_sizes=self.batch_size,
            threads=self.threads,
            seed=self.seed,
            limit=self.limit,
            options={key: value.split(",") for key, value in _pairs("option", self.family_options)},
            interleave=self.interleave,
            trust=self.trust,
            requires=requirements.check(dict(_pairs("requires", required))),
            budget=Budget(
                min_iterations=self.iterations,
                min_seconds=self.seconds,
                max_seconds=self.max_seconds,
                energy_seconds=self.energy_seconds,
                score_seconds=self.score_seconds,
                timeout_seconds=self.timeout,
                launches=self.launches,
            ),
        )

    @property
    def team_name(self) -> str:
        """Return the team's name for the row."""
        return (os.environ.get("COMPRESS_TEAM") or NONE) if self.team in ("", AUTO) else self.team

    @property
    def family_name(self) -> str:
        """Return the requested family; empty for none."""
        return "" if self.family == AUTO else self.family

    @property
    def registered_name(self) -> str:
        """Return the name to register the model under; empty for none."""
        return "" if self.register == NONE else self.register

    @property
    def devices(self) -> tuple[str, ...]:
        """Return the devices to measure on."""
        from mlflow_compress.meters import accelerators

        if self.device != AUTO:
            return (self.device,)
        return (CPU, *(accelerator.device for accelerator in accelerators.visible()[:1]))


def declared(taker: Taker | None = None) -> list[Option]:
    """Return the options of a taker, in the order of the help; for None: all options."""
    options = [
        dataclasses.replace(spec.metadata[_KEY], name=spec.name, default=spec.default)
        for spec in dataclasses.fields(Options)
    ]
    return [option for option in options if taker is None or taker in option.takers]


def from_config(config: Mapping[str, Any], others: Mapping[str, str]) -> tuple[Options, dict[str, Any]]:
    """Read an `evaluator_config`.

    Args:
        config: the user's configuration.
        others: defaults of the keys that no command has; all are texts.

    Returns:
        The options, and all keys with their values.

    Raises:
        UnknownName: a key or a choice is unknown.
        RecipeError: a value has another type than the default.
    """
    options = declared("evaluator")
    defaults = {**others, **{option.name: option.evaluator_default for option in options}}
    for name, value in config.items():
        if name not in defaults:
            raise UnknownName("key of evaluator_config", str(name), defaults)
        kind = type(defaults[name])
        if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):
            raise RecipeError(f"evaluator_config: {name}={value!r} is rejected: it must be {kind.__name__}.")
    values = {**defaults, **config}
    fields = {option.name: _of_config(option, values[option.name]) for option in options}
    return Options(**fields), values


def _of_config(option: Option, value: Any) -> Any:
    """Return the value of a field: in `evaluator_config` one number replaces a list, and 0 means `auto`."""
    least = 0 if option.kind in ("count", "counts") else option.least
    if isinstance(value, (int, float)) and not (math.isfinite(value) and (least is None or value >= least)):
        raise RecipeError(
            f"evaluator_config: {option.name}={value!r} is rejected: it must be a number, at least {least or 0:g}."
        )
    if option.kind == "counts":
        return (value,) if value else ()
    if option.kind == "count":
        return value or None
    if option.choices and value not in option.choices:
        raise UnknownName(f"{option.name} in evaluator_config", value, option.choices)
    return value


def _require_useful_launches(launches: int) -> None:
    """Check that the number of launches shows the noise in a reasonable time.

    Raises:
        RecipeError: it is too small to show the spread, or too large.
    """
    if 1 < launches < FEWEST_LAUNCHES:
        raise RecipeError(
            f"--launches {launches} is rejected: it is too few to show how much launches differ. Use "
            f"{FEWEST_LAUNCHES} or more, or 1, which leaves the noise unknown."
        )
    if launches > _MOST_LAUNCHES:
        raise RecipeError(f"--launches {launches:,} is more than the maximum of {_MOST_LAUNCHES}.")


def _logged(option: Option, value: Any) -> str:
    if option.kind == "repeated":
        return " ".join(value)
    if option.kind == "counts":
        return ",".join(map(str, value)) or AUTO
    return AUTO if value is None else str(value)


def _pairs(option: str, texts: Iterable[str]) -> Iterator[tuple[str, str]]:
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise RecipeError(f"--{option} {text!r} is not of the form KEY=VALUE.")
        yield key.strip(), value
