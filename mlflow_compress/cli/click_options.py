"""Makes click's options of what `planning.options` declares, and an `Options` of what the command line says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import click

from mlflow_compress.planning.options import AUTO, NONE, Option, Options, Taker, declared


class Counts(click.ParamType[tuple[int, ...]]):
    """Whole numbers from 1 with commas between them, or `auto`: none."""

    name = "number,...|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Read them."""
        if isinstance(value, tuple) or value == AUTO:
            return value if isinstance(value, tuple) else ()
        one: click.ParamType[Any] = click.IntRange(min=1)
        return tuple(dict.fromkeys(one.convert(part.strip(), param, ctx) for part in str(value).split(",")))


class Duration(click.ParamType[float | None]):
    """A length of time such as 90s, 30m or 1h30m, in seconds; or `none`."""

    name = "duration|none"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        """Read it."""
        from mlflow_compress.planning import durations

        if value is None or value == NONE or isinstance(value, float):
            return value if isinstance(value, float) else None
        try:
            return durations.seconds(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Finite(click.FloatRange):
    """A number; neither `nan` nor `inf`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return float(number)


class AutoSwitch(click.ParamType[bool | None]):
    """True, false, or `auto`: None."""

    name = "true|false|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bool | None:
        """Read it."""
        if value is None or value == AUTO:
            return None
        try:
            return bool(click.BOOL.convert(value, param, ctx))
        except click.BadParameter:
            self.fail(f"{value!r} is none of true, false and auto.", param, ctx)


class Count(click.ParamType[int | None]):
    """A whole number from 1, or `auto`."""

    name = "number|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """Read it."""
        if value is None or value == AUTO:
            return None
        return click.IntRange(min=1).convert(value, param, ctx)


def options_of(taker: Taker) -> list[click.Option]:
    """Return what a command takes, in the order of its help."""
    made = []
    for option in declared(taker):
        made.append(click.Option(_names(option), **_attributes(option)))
        if option.off is not None:
            flag, text = option.off
            made.append(click.Option((flag, option.name), flag_value=False, type=bool, help=text))
    return made


def read(taker: Taker, values: Mapping[str, Any]) -> Options:
    """Return the options of a command whose line was parsed.

    Args:
        taker: the command.
        values: what click read, by field; what is no option is left out.
    """
    return Options(**{option.name: values[option.name] for option in declared(taker)})


def _names(option: Option) -> tuple[str, ...]:
    return (*(option.flags or (f"--{option.name.replace('_', '-')}",)), option.name)


def _attributes(option: Option) -> dict[str, Any]:
    """Return what click is told of an option."""
    about: dict[str, Any] = {"help": option.help, "metavar": option.metavar}
    if option.kind == "flag":
        return {"help": option.help, "is_flag": True}
    if option.kind == "repeated":
        return {**about, "multiple": True}
    about |= {"default": option.written_default, "show_default": _is_default_shown(option), "type": _type(option)}
    if option.kind in ("switch", "auto_switch"):
        about |= {"is_flag": False, "flag_value": True}
    return about


def _is_default_shown(option: Option) -> bool:
    """Return whether the help shows the default; that of counts is told in words."""
    return option.is_default_shown and option.kind not in ("count", "counts")


def _type(option: Option) -> Any:
    """Return click's type of a kind."""
    if option.kind == "choice":
        return click.Choice(option.choices)
    if option.kind == "whole":
        return int if option.least is None else click.IntRange(min=int(option.least))
    if option.kind == "number":
        return Finite(min=option.least)
    plain = {"text": str, "yes_no": bool, "switch": bool}
    own = {"count": Count, "counts": Counts, "duration": Duration, "auto_switch": AutoSwitch}
    return plain.get(option.kind) or own[option.kind]()
