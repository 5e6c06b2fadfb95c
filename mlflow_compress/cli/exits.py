"""How the commands behave when something goes wrong: one message on stderr, no traceback, and an exit code that tells.

`Command` and `Group` take the place of click's own: `@click.command(cls=Command)`. Click itself exits with 2 on a wrong
option, and names the nearest right one.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from mlflow_compress import terminal, user_home
from mlflow_compress.errors import CompressError
from mlflow_compress.plain_text import plain, visible


class Told(click.ClickException):
    """A `CompressError` on its way to the user. To click, the exit code is the class's: each has a subclass."""


class Stopped(click.ClickException):
    """Ctrl-C: its exit code is that of a program that SIGINT ends."""

    exit_code = 128 + signal.SIGINT


def _told(error: CompressError) -> Told:
    kind: type[Told] = type("Told", (Told,), {"exit_code": error.exit_code})
    return kind(plain(str(error)))


@contextmanager
def _telling() -> Iterator[None]:
    """Have errors reach the user as one line of plain text: click writes that of its own and of ours."""
    try:
        yield
    except CompressError as error:
        raise _told(error) from error
    except click.ClickException as error:
        vars(error)["message"] = visible(error.message).replace("\r", "")  # click's own have lines
        raise


def _refuse_repeated(command: click.Command, ctx: click.Context, args: Sequence[str]) -> None:
    """Raise where an option that takes one value is given several times: click takes the last, and says nothing.

    Raises:
        UsageError: it says what the option means, and with that how several are given.
    """
    *_, given = command.make_parser(ctx).parse_args(list(args))
    options = [option for option in given if isinstance(option, click.Option) and not (option.multiple or option.count)]
    by_field: dict[str | None, list[click.Option]] = {}
    for option in options:
        by_field.setdefault(option.name, []).append(option)
    for several in by_field.values():
        flags = dict.fromkeys(option.opts[0] for option in several)
        is_one_flag = several[0].is_flag and len(flags) == 1
        if len(several) > 1 and not is_one_flag and not ctx.resilient_parsing:
            raise click.UsageError(
                f"{' and '.join(flags)} would have {len(several)} values, and the last would count alone. Give one. "
                f"{several[0].opts[0]}: {several[0].help or 'one value'}",
                ctx,
            )


class Command(click.Command):
    """A command that turns a `CompressError` into a message on stderr and its exit code.

    Args:
        stopped: what a user who stops it with Ctrl-C is told: what is kept, and how to go on. Empty: its group's.
        given: as click's own command takes it.
    """

    def __init__(self, *given: Any, stopped: str = "", **named: Any) -> None:
        super().__init__(*given, **named)
        self.stopped = stopped

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the command line; options may be checked on the way."""
        with _telling():
            _refuse_repeated(self, ctx, args)
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with _telling():
            return super().invoke(ctx)


class Group(click.Group):
    """A command with subcommands. What any of them raises is turned into a message and an exit code.

    Args:
        stopped: what a user who stops it with Ctrl-C is told, where the subcommand has nothing of its own to say.
        given: as click's own group takes it.
    """

    command_class = Command
    group_class = type

    def __init__(self, *given: Any, stopped: str = "Stopped.", **named: Any) -> None:
        super().__init__(*given, **named)
        self._stopped = stopped

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the program. An error that nobody foresaw has its traceback, in plain text as well."""
        sys.excepthook = terminal.tell_error
        user_home.settle()
        return super().main(*args, **extra)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the command line up to the subcommand."""
        with _telling():
            _refuse_repeated(self, ctx, args)
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand."""
        try:
            with _telling():
                return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            command = self.commands.get(ctx.invoked_subcommand or "")
            raise Stopped(getattr(command, "stopped", "") or self._stopped) from interrupt
