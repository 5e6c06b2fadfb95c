"""A command that creates its options on demand: the program's own help lists only commands and needs no options."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import click

from mlflow_compress.cli.exits import Command

if TYPE_CHECKING:
    from mlflow_compress.planning.options import Taker


class LateOptions(Command):
    """A command with the options of `planning.options`. It is called with an `Options` named `options`.

    Args:
        taker: Command whose declared options it takes.
        attributes: Attributes of click's own command.
    """

    def __init__(self, *, taker: Taker, **attributes: Any) -> None:
        super().__init__(**attributes)
        self._taker = taker
        self._has_options = False

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return its arguments, its options, and `--help`."""
        from mlflow_compress.cli.click_options import options_of

        if not self._has_options:
            self.params += options_of(self._taker)
            self._has_options = True
        return super().get_params(ctx)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line. An option of a family may stand there by its own name."""
        return super().parse_args(ctx, self._with_family_options(ctx, args))

    def _with_family_options(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Write options of families as `--option NAME=VALUE`: `mlflow run -P language=ru` passes `--language ru`."""
        declared = {flag for param in self.get_params(ctx) for flag in (*param.opts, *param.secondary_opts)}
        written: list[str] = []
        waiting = list(args)
        while waiting:
            argument = waiting.pop(0)
            flag, equals, value = argument.partition("=")
            name = flag.removeprefix("--").replace("-", "_")
            is_declared = not flag.startswith("--") or flag.replace("_", "-") in declared
            if is_declared or not (equals or waiting) or name not in _family_options():
                written.append(argument)
                continue
            written += ["--option", f"{name}={value if equals else waiting.pop(0)}"]
        return written

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        from mlflow_compress.cli.click_options import read

        options = read(self._taker, ctx.params)
        arguments = {param.name for param in self.params if isinstance(param, click.Argument)}
        ctx.params = {name: value for name, value in ctx.params.items() if name in arguments} | {"options": options}
        return super().invoke(ctx)


def _family_options() -> set[str]:
    """Return the names of the options of all families."""
    from mlflow_compress import registry
    from mlflow_compress.errors import CompressError

    names: set[str] = set()
    for family in registry.names("families"):
        with contextlib.suppress(CompressError):  # a broken plugin of another distribution
            names |= registry.options_of("families", family).keys()
    return names
