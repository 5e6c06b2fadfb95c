"""Turn the options declared in `planning.options` into click options, and parsed values into an `Options`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import click

from mlflow_compress.planning.options import AUTO, NONE, Option, Options, Taker, declared


class Counts(click.ParamType[tuple[int, ...]]):
    """Whole numbers from 1, separated by commas; `auto` is an empty tuple."""

    name = "number,...|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Convert a value of the command line."""
        if isinstance(value, tuple) or value == AUTO:
            return value if isinstance(value, tuple) else ()
        integer: click.ParamType[Any] = click.IntRange(min=1)
        return tuple(dict.fromkeys(integer.convert(part.strip(), param, ctx) for part in str(value).split(",")))


class Duration(click.ParamType[float | None]):
    """A duration such as 90s, 30m or 1h30m, in seconds; `none` is None."""

    name = "duration|none"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        """Convert a value of the command line."""
        from mlflow_compress.planning import durations

        if value is None or value == NONE or isinstance(value, float):
            return value if isinstance(value, float) else None
        try:
            return durations.seconds(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Finite(click.FloatRange):
    """A number, but not `nan` or `inf`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Convert a value of the command line."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return float(number)


class AutoSwitch(click.ParamType[bool | None]):
    """True, false, or `auto`, which is None."""

    name = "true|false|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bool | None:
        """Convert a value of the command line."""
        if value is None or value == AUTO:
            return None
        try:
            return bool(click.BOOL.convert(value, param, ctx))
        except click.BadParameter:
            self.fail(f"{value!r} is not true, false or auto.", param, ctx)


class Count(click.ParamType[int | None]):
    """A whole number from 1, or `auto`, which is None."""

    name = "number|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """Convert a value of the command line."""
        if value is None or value == AUTO:
            return None
        return click.IntRange(min=1).convert(value, param, ctx)


def options_of(taker: Taker) -> list[click.Option]:
    """Return the options of a command, in the order of its help."""
    click_options = []
    for option in declared(taker):
        click_options.append(click.Option(_names(option), **_attributes(option)))
        if option.off is not None:
            flag, text = option.off
            click_options.append(click.Option((flag, option.name), flag_value=False, type=bool, help=text))
    return click_options


def read(taker: Taker, values: Mapping[str, Any]) -> Options:
    """Return the options of a command from its parsed values.

    Args:
        taker: The command.
        values: Values that click parsed, by field name. Arguments among them are ignored.
    """
    return Options(**{option.name: values[option.name] for option in declared(taker)})


def _names(option: Option) -> tuple[str, ...]:
    return (*(option.flags or (f"--{option.name.replace('_', '-')}",)), option.name)


def _attributes(option: Option) -> dict[str, Any]:
    """Return the keyword arguments of `click.Option` for an option."""
    attributes: dict[str, Any] = {"help": option.help, "metavar": option.metavar}
    if option.kind == "flag":
        return {"help": option.help, "is_flag": True}
    if option.kind == "repeated":
        return {**attributes, "multiple": True}
    attributes |= {"default": option.written_default, "show_default": _is_default_shown(option), "type": _type(option)}
    if option.kind in ("switch", "auto_switch"):
        attributes |= {"is_flag": False, "flag_value": True}
    return attributes


def _is_default_shown(option: Option) -> bool:
    """Return whether click adds the default to the help; the help text of counts names it already."""
    return option.is_default_shown and option.kind not in ("count", "counts")


def _type(option: Option) -> Any:
    """Return the click type of an option's kind."""
    if option.kind == "choice":
        return click.Choice(option.choices)
    if option.kind == "whole":
        return int if option.least is None else click.IntRange(min=int(option.least))
    if option.kind == "number":
        return Finite(min=option.least)
    builtin = {"text": str, "yes_no": bool, "switch": bool}
    custom = {"count": Count, "counts": Counts, "duration": Duration, "auto_switch": AutoSwitch}
    return builtin.get(option.kind) or custom[option.kind]()
