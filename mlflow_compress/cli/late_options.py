"""A command that makes its options when they are asked for: the help of the program names commands and needs none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mlflow_compress.cli.exits import Command

if TYPE_CHECKING:
    from mlflow_compress.planning.options import Taker


class LateOptions(Command):
    """A command that takes what `planning.options` declares, and is called with an `Options` named `options`.

    Args:
        taker: which of the declared options it takes.
        given: as click's own command takes it.
    """

    def __init__(self, *, taker: Taker, **given: Any) -> None:
        super().__init__(**given)
        self._taker = taker
        self._is_made = False

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return its arguments, its options, and `--help`."""
        from mlflow_compress.cli.click_options import options_of

        if not self._is_made:
            self.params += options_of(self._taker)
            self._is_made = True
        return super().get_params(ctx)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        from mlflow_compress.cli.click_options import read

        options = read(self._taker, ctx.params)
        is_argument = {param.name for param in self.params if isinstance(param, click.Argument)}
        ctx.params = {name: value for name, value in ctx.params.items() if name in is_argument} | {"options": options}
        return super().invoke(ctx)
