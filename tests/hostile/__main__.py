"""`python -m tests.hostile MODULE:FUNCTION [KIND]`: all hostile inputs on one reader, with the result of each."""

from __future__ import annotations

import importlib
import sys

import click

from .harmless import inputs, play


@click.command()
@click.argument("reader")
@click.argument("kind", default="")
def main(reader: str, kind: str) -> None:
    """Try the inputs of a KIND (all of them) on a READER, `module:function`, which takes a path."""
    module, _, function = reader.partition(":")
    read = getattr(importlib.import_module(module), function)
    outcomes = {name: play(read, make) for name, make in inputs(kind).items()}
    for name, outcome in outcomes.items():
        ran = "CODE RAN, " if outcome.code_ran else ""
        verdict = "ok  " if outcome.is_harmless else "HARM"
        click.echo(f"{verdict} {name}: {ran}{outcome.ending}: {outcome.message[:200]}")
    harmful = sum(not outcome.is_harmless for outcome in outcomes.values())
    click.echo(f"\n{len(outcomes)} inputs, {harmful} of them did harm")
    sys.exit(harmful > 0)


if __name__ == "__main__":
    main()
