"""`compress-report`: the comparison table of some experiments. It reads the tracking server and never writes to it."""

from __future__ import annotations

import contextlib
import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlflow_compress.errors import CompressError, RecipeError, StoreError, UnknownName
from mlflow_compress.manners import Command

if TYPE_CHECKING:
    from mlflow_compress.records import Comparison
    from mlflow_compress.sockets import Renderer

_EPILOG = """\b
Examples:
  compress-report --experiment hw1
  compress-report -e hw1 --lang ru -o table.md -o table.csv

\b
Exit codes:
  0  done
  1  a file can't be written
  2  a wrong option
  4  no tracking server, no such experiment, or nothing in it
"""


@click.command(
    "compress-report",
    cls=Command,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 110},
    epilog=_EPILOG,
)
@click.option(
    "-e",
    "--experiment",
    "experiments",
    multiple=True,
    metavar="NAME",
    help="The experiment to report on; give it again for more. Without it, MLFLOW_EXPERIMENT_NAME.",
)
@click.option(
    "--tracking-uri", metavar="URI", help="The tracking server. Without it, MLFLOW_TRACKING_URI, or mlflow.db here."
)
@click.option("--team", "teams", multiple=True, metavar="NAME", help="Show this team only; may be given again.")
@click.option("--model", "models", multiple=True, metavar="NAME", help="Show this model only; may be given again.")
@click.option("--method", "methods", multiple=True, metavar="NAME", help="Show this method only; may be given again.")
@click.option("--lang", type=click.Choice(["en", "ru"]), default="en", help="The table's language.")
@click.option(
    "-o",
    "--output",
    "outputs",
    multiple=True,
    metavar="FILE",
    help="Write a file instead; its suffix chooses the form (.md, .csv, .json); may be given again.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the Markdown table.")
@click.version_option(package_name="mlflow-compress")
def main(
    experiments: tuple[str, ...],
    tracking_uri: str | None,
    teams: tuple[str, ...],
    models: tuple[str, ...],
    methods: tuple[str, ...],
    lang: str,
    outputs: tuple[str, ...],
    as_json: bool,
) -> None:
    """Build the comparison table: every team's models, before and after compression.

    Prints a Markdown table, or writes the files given with -o.
    """
    # MLflow's own variable; click would split a name with spaces in it.
    named = experiments or tuple(filter(None, [os.environ.get("MLFLOW_EXPERIMENT_NAME")]))
    if not named:
        raise click.UsageError("Which experiment? Give --experiment NAME, or set MLFLOW_EXPERIMENT_NAME.")
    files = [_writer(name) for name in outputs]

    comparison = _compare(named, tracking_uri, lang, teams, models, methods)

    for path, content in [(path, renderer.render(comparison)) for path, renderer in files]:
        _write(path, content)
        click.echo(f"Wrote {path}", err=True)
    if as_json or not files:
        from mlflow_compress import registry

        click.echo(registry.build("renderers", "json" if as_json else "md").render(comparison), nl=False)


def _compare(
    experiments: tuple[str, ...],
    tracking_uri: str | None,
    language: str,
    teams: tuple[str, ...],
    models: tuple[str, ...],
    methods: tuple[str, ...],
) -> Comparison:
    from mlflow_compress.compare import compare
    from mlflow_compress.store import open_store

    store = open_store(tracking_uri, create=False)
    collecting = gc.isenabled()
    gc.disable()  # thousands of runs are millions of objects that all stay: collecting takes four times the query
    try:
        runs = store.query(experiments, "tags.`compress.role` = 'variant'")
    finally:
        if collecting:
            gc.enable()
    if not runs:
        names = ", ".join(repr(name) for name in experiments)
        raise StoreError(
            f"Nothing was measured in {names} yet. Measure a model (compress-bench run RECIPE --experiment "
            f"{experiments[0]}), or name another experiment with --experiment."
        )
    title = ", ".join(dict.fromkeys(experiments))
    return compare(runs, title=title, language=language, teams=teams, models=models, methods=methods)


def _writer(name: str) -> tuple[Path, Renderer]:
    """Find the renderer for a file, and what would keep it from being written, before the server is asked."""
    from mlflow_compress import registry

    path = Path(name)
    by_suffix = {registry.find("renderers", each).suffix: each for each in registry.names("renderers")}
    if path.suffix.lower() not in by_suffix:
        raise RecipeError(f"{name}: {UnknownName('file suffix', path.suffix, by_suffix)}")
    if not path.parent.is_dir():
        raise RecipeError(f"{name}: there is no folder {str(path.parent)!r}. Make it first, or choose another one.")
    if path.is_dir():
        raise RecipeError(f"{name} is a folder. Give a file's name.")
    renderer: Renderer = registry.build("renderers", by_suffix[path.suffix.lower()])
    return path, renderer


def _write(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees all of it or nothing."""
    target = path.resolve()  # a link stays a link
    aside = target.with_name(f"{target.name}.partial")
    try:
        aside.write_bytes(content)
        aside.replace(target)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise CompressError(f"{path} can't be written: {error.strerror or error}.") from error


if __name__ == "__main__":
    main()
