"""How the commands report errors: one message on stderr, no traceback, and an exit code for each kind of error.

`Command` and `Group` replace click's own classes: `@click.command(cls=Command)`. Click itself exits with 2 on a wrong
option, and suggests the nearest one.
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


class ReportedError(click.ClickException):
    """A `CompressError` as click reports it. Click reads the exit code from the class, so each error has a subclass."""


class Stopped(click.ClickException):
    """The user pressed Ctrl-C. The exit code is that of a program ended by SIGINT."""

    exit_code = 128 + signal.SIGINT


def _reported(error: CompressError) -> ReportedError:
    kind: type[ReportedError] = type("ReportedError", (ReportedError,), {"exit_code": error.exit_code})
    return kind(plain(str(error)))


@contextmanager
def _reporting() -> Iterator[None]:
    """Turn errors into plain text that click prints."""
    try:
        yield
    except CompressError as error:
        raise _reported(error) from error
    except click.ClickException as error:
        vars(error)["message"] = visible(error.message).replace("\r", "")  # click's own messages have several lines
        raise


def _refuse_repeated(command: click.Command, ctx: click.Context, args: Sequence[str]) -> None:
    """Reject an option that takes one value but is given several times: click would silently use the last value.

    Raises:
        UsageError: An option was repeated. The message includes its help, which says how to give several values.
    """
    *_, params = command.make_parser(ctx).parse_args(list(args))
    options = [param for param in params if isinstance(param, click.Option) and not (param.multiple or param.count)]
    by_field: dict[str | None, list[click.Option]] = {}
    for option in options:
        by_field.setdefault(option.name, []).append(option)
    for occurrences in by_field.values():
        flags = dict.fromkeys(option.opts[0] for option in occurrences)
        first = occurrences[0]
        is_one_flag = first.is_flag and len(flags) == 1
        if len(occurrences) > 1 and not is_one_flag and not ctx.resilient_parsing:
            raise click.UsageError(
                f"{' and '.join(flags)}: {len(occurrences)} values were given, but only one is allowed. "
                f"{first.opts[0]}: {first.help or 'one value'}",
                ctx,
            )


class Command(click.Command):
    """A command that turns a `CompressError` into a message on stderr and its exit code.

    Args:
        stopped: Message after Ctrl-C: what is kept, and how to continue. Empty: the message of its group.
        args, attributes: Arguments of click's own command.
    """

    def __init__(self, *args: Any, stopped: str = "", **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.stopped = stopped

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line. Options may be checked here, too."""
        with _reporting():
            _refuse_repeated(self, ctx, args)
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with _reporting():
            return super().invoke(ctx)


class Group(click.Group):
    """A command with subcommands. Their errors become a message and an exit code.

    Args:
        stopped: Message after Ctrl-C for subcommands without their own.
        args, attributes: Arguments of click's own group.
    """

    command_class = Command
    group_class = type

    def __init__(self, *args: Any, stopped: str = "Stopped.", **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self._stopped = stopped

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the program. An unexpected error prints its traceback, also as plain text."""
        sys.excepthook = terminal.tell_error
        user_home.settle()
        return super().main(*args, **extra)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line up to the subcommand."""
        with _reporting():
            _refuse_repeated(self, ctx, args)
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand."""
        try:
            with _reporting():
                return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            command = self.commands.get(ctx.invoked_subcommand or "")
            raise Stopped(getattr(command, "stopped", "") or self._stopped) from interrupt
