"""`command_pages`: the commands, their options and their exit codes, from click."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

from mlflow_compress import errors
from mlflow_compress.cli import bench, report
from mlflow_compress.planning.options import declared
from website.tables import code, prose, table

PROGRAMS = {"compress-bench": bench.main, "compress-report": report.main}
_EXIT_CODE = re.compile(r"^\s*(\d+)\s\s+(.+)$", re.MULTILINE)


def every_command() -> Iterator[tuple[str, click.Command]]:
    """Yield all commands with their full names, each program before its subcommands."""
    for program, group in PROGRAMS.items():
        yield program, group
        for name, command in sorted(group.commands.items()):
            yield f"{program} {name}", command


def commands() -> str:
    """Return usage, description and options of every command."""
    return "\n\n".join(_section(name, command) for name, command in every_command())


def options() -> str:
    """Return the table of the options of `run`, `sweep`, MLflow parameters and `evaluator_config`."""
    rows = [
        (
            ", ".join(map(code, option.flags or (f"--{option.name.replace('_', '-')}",))),
            ", ".join(code(taker) for taker in option.takers if taker != "evaluator"),
            code(f"-P {option.name}=") if option.is_parameter else "",
            code(option.name) if "evaluator" in option.takers else "",
            "" if option.written_default is None else code(option.written_default),
            prose(option.help),
        )
        for option in declared()
    ]
    return table(("option", "commands", "`mlflow run`", "`evaluator_config`", "default", "meaning"), rows)


def exit_codes() -> str:
    """Return the table of exit codes, as in the help of the programs."""
    meanings = {program: dict(_EXIT_CODE.findall(group.epilog or "")) for program, group in PROGRAMS.items()}
    kinds: dict[str, list[str]] = {}
    for kind in vars(errors).values():
        if inspect.isclass(kind) and issubclass(kind, errors.CompressError):
            kinds.setdefault(str(kind.exit_code), []).append(code(kind.__name__))
    rows = [
        (
            number,
            *(prose(of_program.get(number, "")) for of_program in meanings.values()),
            ", ".join(kinds.get(number, ())),
        )
        for number in sorted({number for of_program in meanings.values() for number in of_program}, key=int)
    ]
    return table(("exit code", *map(code, PROGRAMS), "error class"), rows)


def _section(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=name)
    level = "##" if " " not in name else "###"
    paragraphs = inspect.cleandoc(command.help or "").replace("\b", "").split("\n\n")
    usage = command.get_usage(context).removeprefix("Usage: ")
    parts = [f"{level} {name}", *map(prose, paragraphs), f"```text\n{usage}\n```"]
    records = [
        record
        for param in command.get_params(context)
        if isinstance(param, click.Option) and (record := param.get_help_record(context))
    ]
    rows = [(code(flags), prose(meaning)) for flags, meaning in records]
    return "\n\n".join([*parts, table(("option", "meaning"), rows)])
