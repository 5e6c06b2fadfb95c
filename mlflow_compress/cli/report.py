"""`compress-report`: build the comparison of experiments. It reads tracking servers, and writes only on request."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlflow_compress import terminal
from mlflow_compress.cli.exits import Group
from mlflow_compress.cli.gate import gate
from mlflow_compress.cli.selecting import compare_selected, experiments_of, selecting
from mlflow_compress.errors import CompressError, RecipeError, UnknownName
from mlflow_compress.torch_devices import ACCELERATORS

if TYPE_CHECKING:
    from mlflow_compress.records import Comparison
    from mlflow_compress.sockets import Renderer

_EPILOG = """\b
Examples:
  compress-report --experiment hw1
  compress-report -e hw1 --lang ru -o table.md -o page.html
  compress-report -e 'hw*' --team alpha --pareto quality,size --sort cpu
  compress-report -e hw1 --tracking-uri sqlite:///ann.db --tracking-uri sqlite:///bob.db
  compress-report -e hw1 --update README.md
  compress-report gate -e hw1 --min-speedup 1.5 --max-quality-drop 1%
  compress-report import README.md -e hw1 --team alpha --dry-run

\b
Exit codes:
  0  done; gate: every variant that was checked passes
  1  a file can't be read or written
  2  a wrong option
  4  no tracking server, no such experiment, or nothing in it
  5  --check: the file is not up to date
  6  gate: a variant fails
  7  gate: no variant fails, but some are undecided, or nothing was checked
"""
_OUT_OF_DATE = 5
_MOST_BYTES = 4 * 2**20  # of a text with tables: thousands of rows
_LANGUAGES = click.Choice(["en", "ru"])
_LOGGED = ("md", "html", "png")


@click.group(
    "compress-report",
    cls=Group,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 110},
    epilog=_EPILOG,
)
@selecting
@click.option(
    "--device",
    type=click.Choice(["cpu", "gpu", *ACCELERATORS]),
    help="Only results measured on this device; gpu: on any accelerator.",
)
@click.option("--lang", type=_LANGUAGES, default="en", help="Language of the table; with --update, that of the file.")
@click.option(
    "--columns",
    metavar="A,B",
    help="Columns of the table: team, model, method, hardware, pareto, quality, size, disk, params, cpu, gpu, ram, "
    "vram, energy, throughput, or names of metrics. Default: the course's columns.",
)
@click.option("--sort", "sorting", default="", metavar="COLUMN", help="Sort by a column; -COLUMN reverses the order.")
@click.option(
    "--group-by",
    "grouping",
    type=click.Choice(["team", "model", "method", "hardware"]),
    help="Group rows with the same value. Default: group rows with the same original, by hardware.",
)
@click.option(
    "--pareto",
    metavar="A,B",
    help="Mark the rows that no other beats in all of these: quality, size, cpu, ram, energy, or names of metrics.",
)
@click.option(
    "--best",
    metavar="COLUMN",
    help="For each team's model, show only the original and the comparable variant that is best in this column.",
)
@click.option("--all-runs", is_flag=True, help="Show a row for every run, not only for the newest of each variant.")
@click.option(
    "-o",
    "--output",
    "outputs",
    multiple=True,
    metavar="FILE",
    help="Write a file instead. The suffix sets the format (.md, .csv, .json, .html, .tex, .png, .xlsx). Can be "
    "repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the Markdown table.")
@click.option(
    "--update",
    "readme",
    metavar="FILE",
    help="Update the table in a Markdown file: between its markers, or in place of its table in the course's format.",
)
@click.option("--check", is_flag=True, help="With --update: change nothing; exit with 5 if the file is out of date.")
@click.option("--all-teams", is_flag=True, help="With --update: change the rows of all teams, not only of --team.")
@click.option("--log", is_flag=True, help="Save table, page and picture in the experiment's run `comparison`.")
@click.version_option(package_name="mlflow-compress")
@click.pass_context
def main(
    context: click.Context,
    /,
    lang: str,
    columns: str | None,
    sorting: str,
    grouping: str | None,
    pareto: str | None,
    best: str | None,
    all_runs: bool,
    outputs: tuple[str, ...],
    as_json: bool,
    readme: str | None,
    check: bool,
    all_teams: bool,
    log: bool,
    **selected: Any,
) -> None:
    """Build the comparison table: every team's models, before and after compression.

    Prints a Markdown table, or writes the files given with -o.
    """
    if context.invoked_subcommand:
        if any(source.name == "COMMANDLINE" for source in map(context.get_parameter_source, context.params) if source):
            raise click.UsageError(f"Put options after the command: compress-report {context.invoked_subcommand} ...")
        return
    if check and not readme:
        raise click.UsageError("--check requires --update FILE.")
    files = [_writer(name) for name in outputs]
    if readme and context.get_parameter_source("lang") is click.core.ParameterSource.DEFAULT:
        lang = _language_of(Path(readme))

    comparison = compare_selected(selected, lang, all_runs)
    comparison = _arranged(comparison, columns, sorting, grouping, pareto, best)

    for path, content in [(path, renderer.render(comparison)) for path, renderer in files]:
        _write(path, content)
        terminal.warn(f"Wrote {path}")
    if log:
        _log(comparison, selected)
    if readme:
        _update(Path(readme), comparison, () if all_teams else selected["teams"], check)
    if as_json or not (files or readme or log):
        from mlflow_compress import registry

        text = registry.build("renderers", "json" if as_json else "md").render(comparison).decode()
        (terminal.give_json_text if as_json else terminal.give_table)(text)


main.add_command(gate)


@main.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option(
    "-e", "--experiment", metavar="NAME", help="Target experiment; created if missing. [MLFLOW_EXPERIMENT_NAME]"
)
@click.option("--tracking-uri", metavar="URI", help="Tracking server. [MLFLOW_TRACKING_URI]")
@click.option("--team", default="", help="Team of the rows, unless the table has a team column. [COMPRESS_TEAM]")
@click.option("--model", default="", help="Model of tables that have no method column and list methods as models.")
@click.option(
    "--scale",
    "scales",
    multiple=True,
    metavar="METRIC=SCALE",
    help="Scale of a score's numbers without %: bleu=share (0.63 is 63 of 100) or bleu=percent. Can be repeated.",
)
@click.option("--dry-run", is_flag=True, help="Store nothing; show what would happen to every cell.")
def import_tables(
    files: tuple[Path, ...],
    experiment: str | None,
    tracking_uri: str | None,
    team: str,
    model: str,
    scales: tuple[str, ...],
    dry_run: bool,
) -> None:
    """Import hand-made tables from Markdown files as runs, so that a course keeps its history.

    Every table marks these rows "by hand". Cells that can't be read are listed; their text is kept with the run.
    Importing the same file again changes nothing; a changed row becomes a newer run.
    """
    from mlflow_compress.reporting import import_listing, import_tables
    from mlflow_compress.reporting.written_scores import scale_of
    from mlflow_compress.sweeping.progress import PATIENCE_SECONDS, Progress
    from mlflow_compress.tracking import experiment_note, imported_rows, writing
    from mlflow_compress.tracking.connection import open_store

    team = team or os.environ.get("COMPRESS_TEAM", "")
    try:
        scale_by_metric = dict(map(scale_of, scales))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--scale") from None
    imports = [
        import_tables.read(_read(file), team=team, source=source, model=model, scales=scale_by_metric)
        for file, source in zip(files, _sources(files), strict=True)
    ]
    rows = [row for file in imports for row in file.rows]
    if not dry_run and any(not row.team for row in rows):
        raise click.UsageError("The table does not name the team of its rows. Give --team NAME.")
    if dry_run:
        terminal.say_lines("\n".join(map(import_listing.listing, imports)).removesuffix("\n").split("\n"))
        return
    (name,) = experiments_of((experiment,) if experiment else ())
    store = open_store(tracking_uri)
    with contextlib.closing(Progress(sys.stderr, patience=PATIENCE_SECONDS)) as progress:
        progress.begin(", ".join(file.source for file in imports))

        def report_stored(done: int, total: int, seconds_left: float) -> None:
            progress.event({"stage": "storing rows", "done": done, "total": total, "seconds_left": seconds_left})

        experiment_id = writing.experiment_id(store, name)
        stored = imported_rows.write_rows(store, experiment_id, rows, report_stored)
        left = imported_rows.left_behind(store, experiment_id, rows)
        experiment_note.describe(store, experiment_id, name)
    for file in imports:
        for cell in (*file.unread, *file.doubtful):
            terminal.warn(f"{file.source}, {cell.remark}")
        for line, ignored_part, why in file.ignored:
            terminal.warn(f"{file.source}, line {line}, {ignored_part}: ignored: {why}")
    if left:
        terminal.warn(
            f"{left} rows from earlier imports of this file and team are no longer in the file, but tables still show "
            "them. To remove them, delete their runs in MLflow's UI."
        )
    terminal.say(f"{stored} rows stored, {len(rows) - stored} already stored.")


def _sources(files: Sequence[Path]) -> list[str]:
    """Return the files' names, with their folders if two files have the same name."""
    names = [file.name for file in files]
    return [file.as_posix() if names.count(file.name) > 1 else file.name for file in files]


def _arranged(
    comparison: Comparison,
    columns: str | None,
    sorting: str,
    grouping: str | None,
    pareto: str | None,
    best: str | None,
) -> Comparison:
    from dataclasses import replace

    from mlflow_compress.reporting import ranking

    if columns is not None:
        keys = tuple(ranking.key(column, comparison.rows, texts=True) for column in _listed(columns))
        comparison = replace(comparison, columns=keys)
    if pareto is not None:
        comparison = ranking.marked(comparison, _listed(pareto))
    if best is not None:
        comparison = ranking.best(comparison, best)
    return ranking.ordered(comparison, sorting, grouping or "")


def _listed(text: str) -> list[str]:
    return [stripped for part in text.split(",") if (stripped := part.strip())]


def _log(comparison: Comparison, selected: dict[str, Any]) -> None:
    """Log the comparison to the tracking server of its experiment."""
    from mlflow_compress import registry
    from mlflow_compress.reporting.table_text import summary
    from mlflow_compress.tracking import writing
    from mlflow_compress.tracking.connection import set_up_client
    from mlflow_compress.tracking.query import named

    set_up_client()
    experiment, store = named(experiments_of(selected["experiments"]), selected["tracking_uris"])
    files = {f"comparison.{form}": registry.build("renderers", form).render(comparison) for form in _LOGGED}
    teams = {row.team for row in comparison.rows}
    lines = [summary(method, comparison.language, comparison.metrics) for method in comparison.summaries]
    intro = f"{len(comparison.rows)} rows of {len(teams)} teams: see the run `comparison`, artifact `comparison.html`."
    summaries = "\n\n".join([intro, "\n".join(f"- {line}" for line in lines)])
    run_id = writing.write_comparison(store, experiment, files, summaries)
    terminal.warn(f"Saved in the run comparison ({run_id})")


def _language_of(path: Path) -> str:
    """Return the language of the table in a Markdown file."""
    from mlflow_compress.reporting import update_readme

    return update_readme.language_of(_read(path))


def _update(path: Path, comparison: Comparison, teams: Sequence[str], check: bool) -> None:
    """Update the table in a Markdown file; with `check`, only report whether it is up to date."""
    from mlflow_compress.reporting import update_readme

    old_text = _read(path)
    try:
        new_text = update_readme.update(old_text, comparison, teams=teams)
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from error
    if new_text == old_text:
        terminal.warn(f"{path} is up to date")
    elif check:
        terminal.warn(f"{path} is not up to date: compress-report --update {path} would change it.")
        raise SystemExit(_OUT_OF_DATE)
    else:
        _write(path, new_text.encode())
        terminal.warn(f"Updated {path}")


def _read(path: Path) -> str:
    try:
        if path.is_file() and path.stat().st_size > _MOST_BYTES:
            raise CompressError(
                f"{path} is too large: it has {path.stat().st_size / 2**20:,.0f} MiB; a text with tables may have "
                f"{_MOST_BYTES / 2**20:.0f} MiB."
            )
        return path.read_bytes().decode()  # line endings as they are
    except FileNotFoundError:
        raise CompressError(f"The file {path} does not exist.") from None
    except UnicodeDecodeError as error:
        raise CompressError(f"{path} is not UTF-8 text (byte {error.start}).") from error
    except OSError as error:
        raise CompressError(f"{path} can't be read: {error.strerror or error}.") from error


def _writer(name: str) -> tuple[Path, Renderer]:
    """Return a file's path and renderer. Raise for a file that could not be written, before the server is asked."""
    from mlflow_compress import registry

    path = Path(name)
    by_suffix = {registry.find("renderers", renderer).suffix: renderer for renderer in registry.names("renderers")}
    if path.suffix.lower() not in by_suffix:
        raise RecipeError(f"{name}: {UnknownName('file suffix', path.suffix, by_suffix)}")
    if not path.parent.is_dir():
        raise RecipeError(f"{name}: the folder {str(path.parent)!r} does not exist. Create it, or give another one.")
    if path.is_dir():
        raise RecipeError(f"{name} is a folder. Give the name of a file.")
    renderer: Renderer = registry.build("renderers", by_suffix[path.suffix.lower()])
    renderer.check()
    return path, renderer


def _write(path: Path, content: bytes) -> None:
    """Write a file atomically: a reader sees all of it or nothing."""
    from mlflow_compress.files import whole_file

    target = path.resolve()  # a link stays a link
    try:
        with whole_file(target) as partial_path:
            partial_path.write_bytes(content)
    except OSError as error:
        raise CompressError(f"{path} can't be written: {error.strerror or error}.") from error


if __name__ == "__main__":
    main()
