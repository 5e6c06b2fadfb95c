"""A command that creates its options on demand: the program's own help lists only commands and needs no options."""

from __future__ import annotations

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

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        from mlflow_compress.cli.click_options import read

        options = read(self._taker, ctx.params)
        arguments = {param.name for param in self.params if isinstance(param, click.Argument)}
        ctx.params = {name: value for name, value in ctx.params.items() if name in arguments} | {"options": options}
        return super().invoke(ctx)
