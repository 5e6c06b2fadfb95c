"""`compress-bench`: measure models before and after compression, and write the results to MLflow."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlflow_compress import terminal
from mlflow_compress.cli.exits import Group
from mlflow_compress.cli.late_options import LateOptions
from mlflow_compress.errors import StoreError, UnsentError, WorkerError, failure
from mlflow_compress.planning.new_model import KINDS, write

if TYPE_CHECKING:
    from mlflow_compress.planning.options import Options
    from mlflow_compress.planning.order import Queue
    from mlflow_compress.records import Result, Variant
    from mlflow_compress.sweeping.delivery import Delivery
    from mlflow_compress.tracking.log import Log

_EPILOG = """\b
Exit codes:
  0  measured, or skipped because the method does not apply
  1  a variant failed, or `run` named a method or device that this machine does not support
  2  a wrong name or option: nothing was run
  3  the weights are not available
  4  the tracking server can't be reached: nothing was measured
  5  measured, but some results are not on the tracking server yet: `compress-bench sync` sends them
  130  stopped with Ctrl-C: the results so far are kept; run the same sweep again to continue
"""


@click.group(
    cls=Group,
    epilog=_EPILOG,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": lambda name: name.replace("_", "-"),  # `mlflow run -P batch_size=4` writes --batch_size
        "max_content_width": 110,
    },
)
@click.version_option(package_name="mlflow-compress")
def main() -> None:
    """Measure models before and after compression, all the same way, and log them to MLflow."""


@main.command(
    cls=LateOptions,
    taker="run",
    epilog=_EPILOG,
    stopped="Stopped. Every measured variant is kept; `compress-bench sync` sends results that are not on the server "
    "yet. The same command measures everything again.",
)
@click.argument("model")
def run(model: str, options: Options) -> None:
    """Measure MODEL with one method, or with all of them.

    If you name a method that needs a GPU or a library that this machine lacks, the command fails with exit code 1. With
    --all-methods, and in a sweep, such a method is skipped.

    MODEL is the name of a recipe, a recipe.yaml file, or a model without a recipe: your own my_model.py (see
    `compress-bench init`), ORG/NAME on the Hugging Face hub, a local transformers folder, an ultralytics name or .pt
    file, or torchvision:NAME.
    """
    import dataclasses

    from mlflow_compress import registry
    from mlflow_compress.planning import recipe
    from mlflow_compress.planning.chains import chain_name, parse_chain
    from mlflow_compress.words import ORIGINAL

    options = dataclasses.replace(options, again=True)
    settings = options.settings()
    names = [options.method]
    if options.all_methods:
        names = sorted(registry.names("methods"), key=lambda name: (name != ORIGINAL, name))
    chains = [parse_chain(name) for name in names]
    model_recipe = recipe.read(model, options.family_name, is_named=True)
    variants = recipe.plan(model_recipe, [(chain_name(chain), chain) for chain in chains], settings)
    results = _measure(variants, [model], {} if options.all_methods else {"method": options.method}, options)
    _exit(results, is_named=not options.all_methods)
    if options.strict:
        _require_published(results)


@main.command(
    cls=LateOptions,
    taker="sweep",
    epilog=_EPILOG,
    stopped="Stopped. Every measured variant is kept. Run the same sweep without --again to continue with the others; "
    "`compress-bench sync` sends results that are not on the server yet.",
)
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
def sweep(models: tuple[str, ...], options: Options) -> None:
    """Measure every variant in the recipes of MODEL...; for a model without a recipe, measure the original.

    A sweep recipe combines several models, methods, batch sizes and thread counts. A variant is skipped if the
    experiment already has its result: measured successfully, with the same settings, on the same kind of machine.
    """
    from mlflow_compress.planning import order, sweep_recipe

    variants = sweep_recipe.plan(models, options.settings(), options.family_name)
    if options.limit_time is not None:
        variants = order.most_informative_first(variants)
    if options.dry_run:
        _show_plan(variants, options)
    else:
        results = _measure(variants, models, {}, options)
        _exit(results, is_named=False)
        if options.strict:
            _require_published(results)


@main.command(epilog=_EPILOG, stopped="Stopped. Unsent results are kept; run `compress-bench sync` again to continue.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
@click.option("--tracking-uri", metavar="URI",
              help="Also end dead runs on this server, with the credentials in URI. [MLFLOW_TRACKING_URI]")  # fmt: skip
def sync(dry_run: bool, tracking_uri: str | None) -> None:
    """Send results that are not on their MLflow server yet, each exactly once, and end runs whose process died."""
    from mlflow_compress.tracking.connection import set_up_client
    from mlflow_compress.tracking.spool import Spool
    from mlflow_compress.tracking.sync import Sync

    set_up_client()
    spool = Spool()
    if (count := Sync(spool, terminal.say, dry_run).everything(tracking_uri)) and not dry_run:
        raise UnsentError(f"Results not sent: {count}. They are kept in {spool.folder}.")
    if not count:
        terminal.say("There are no unsent results.")


@main.command("list")
@click.argument("kind", type=click.Choice(["models", "families", "methods", "metrics", "renderers"]))
@click.option("--json", "form", flag_value="json", help="Print JSON.")
@click.option("--markdown", "form", flag_value="markdown", help="Print a Markdown table (methods only).")
def list_(kind: str, form: str | None) -> None:
    """List all plugins or models of a KIND, with their options."""
    from mlflow_compress.planning import catalogue

    if form == "markdown" and kind != "methods":
        raise click.UsageError("--markdown works for methods only.")
    rows = catalogue.rows(kind)
    if form == "json":
        terminal.give_json(rows)
    else:
        terminal.say_lines((catalogue.markdown if form == "markdown" else catalogue.text)(rows))


@main.command()
@click.argument("run_id", metavar="RUN")
@click.option("--metric", "metrics", multiple=True, metavar="NAME",
              help="Name of a metric, as in recipes; can be repeated. [the run's metrics]")  # fmt: skip
@click.option("--log", is_flag=True, help="Add the scores to the run.")
@click.option("--tracking-uri", metavar="URI", help="Tracking server. [MLFLOW_TRACKING_URI, or mlflow.db here]")
@click.option("--json", "as_json", is_flag=True, help="Print the scores as JSON.")
def rescore(run_id: str, metrics: tuple[str, ...], log: bool, tracking_uri: str | None, as_json: bool) -> None:
    """Score the saved predictions of RUN (a run id or a predictions.json file) again, without its model."""
    from mlflow_compress.sweeping.progress import PATIENCE_SECONDS, Progress
    from mlflow_compress.tracking.connection import open_store, set_up_client
    from mlflow_compress.tracking.rescore import of_file, of_run

    set_up_client()
    path = Path(run_id)
    if path.is_file() and log:
        raise click.UsageError("--log adds scores to a run, but a file was given.")
    with contextlib.closing(Progress(sys.stderr, patience=PATIENCE_SECONDS)) as progress:
        progress.begin(run_id)
        if path.is_file():
            rescored = of_file(path, metrics, listener=progress.event)
        else:
            rescored = of_run(open_store(tracking_uri, create=False), run_id, metrics, log, progress.event)
    if as_json:
        terminal.give_json(rescored.scores.numbers())
    else:
        terminal.say_lines(rescored.lines())


@main.command()
@click.argument("run_id", metavar="RUN")
@click.option("--to", "folder", required=True, metavar="FOLDER", help="A new or empty folder.")
@click.option("--tracking-uri", metavar="URI", help="Tracking server. [MLFLOW_TRACKING_URI, or mlflow.db here]")
def export(run_id: str, folder: str, tracking_uri: str | None) -> None:
    """Export the model of RUN (a run id or a model folder) in a format that other programs load.

    Float transformers models, and those of int8_weight_only, int8_dynamic, int4_weight_only, gptq and awq, become a
    folder that from_pretrained and vLLM load. Other methods become the plain files of their runtime. A three-line
    README.md says what the model is and how to load it. No code that belongs to the model is run.
    """
    from mlflow_compress.tracking.connection import open_store, set_up_client
    from mlflow_compress.tracking.published_models import export as write_model

    set_up_client()
    terminal.say_lines(write_model(run_id, Path(folder), lambda: open_store(tracking_uri, create=False)))


@main.command()
@click.argument("name", metavar="NAME")
@click.option("--kind", type=click.Choice(KINDS), default=KINDS[0], show_default=True, help="Kind of model.")
@click.option("--force", is_flag=True, help="Overwrite existing files.")
def init(name: str, kind: str, force: bool) -> None:
    """Write NAME.py and NAME.yaml as templates for your own model. They run as they are.

    The Python file defines the architecture, its weights and its data, and explains what else it can define. The recipe
    lists what is measured. A language model in a transformers folder needs only the recipe.
    """
    terminal.say_lines(write(name, kind, force))


@main.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option("--deep", is_flag=True, help="Also load and try models that are not Python code. This can take long.")
@click.option("--trust", type=bool, is_flag=False, flag_value=True, default=False,
              help="Run code that comes with a recipe. A my_model.py named here does not need it.")  # fmt: skip
@click.option("--weights", default="auto", show_default=True, help="Weights of the models to try, as in `run`.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Batch size to try, as in `run`. [the recipe's]")
def check(models: tuple[str, ...], deep: bool, trust: bool, weights: str, batch_size: int | None) -> None:
    """Check recipes, try your own models, and list what a sweep would measure. Nothing is timed or logged.

    A model of the family python is tried in seconds: it is built and loaded, runs one batch, is saved and restored, and
    predicts and scores two samples. Errors name the file, line and function.
    """
    from mlflow_compress.cli.checking import check_models
    from mlflow_compress.planning.recipe import Settings

    check_models(models, Settings(weights=weights, batch_sizes=(batch_size,) if batch_size else (), trust=trust), deep)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(as_json: bool) -> None:
    """Check this machine for problems that affect measurements, and say how to fix them. Nothing is measured."""
    from mlflow_compress.cli.doctor import examine
    from mlflow_compress.records import to_json

    findings = []
    for finding in examine():
        findings.append(finding)
        if not as_json:
            terminal.say(f"{'ok  ' if finding.is_well else 'LOOK'}  {finding.subject}: {finding.message}")
            if finding.advice:
                terminal.say(f"      {finding.advice}")
    if as_json:
        terminal.give_json([to_json(finding) for finding in findings])


def _measure(
    variants: Sequence[Variant], models: Sequence[str], arguments: Mapping[str, str], options: Options
) -> list[Result]:
    """Connect, measure, and print; each result is logged before the next variant begins.

    MLflow, whose import takes seconds, is loaded while the first worker prepares.
    """
    from mlflow_compress.planning import order, tested_versions
    from mlflow_compress.sweeping import known
    from mlflow_compress.sweeping.delivery import Delivery
    from mlflow_compress.tracking import connection, run_summary
    from mlflow_compress.tracking.spool import Spool

    connection.probe(options.tracking_uri)
    if untested := list(tested_versions.untested(only=tested_versions.DELICATE)):
        versions = ", ".join(map(str, untested))
        terminal.warn(f"Not tested with {versions}. `compress-bench doctor` says how to install tested versions.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that workers are stopped too

    has_parent = len(variants) > 1 or "method" not in arguments
    spool = Spool()
    connect = _connector(models if has_parent else (), {**options.asked(), **arguments}, options)
    delivery = Delivery(spool, connect, terminal.warn)
    knowledge = known.Known()
    if options.limit_time is not None:
        log = delivery.log
        knowledge = known.ask(log.store, log.experiment_id, spool, options.again, options.on == "ray")
    queue = order.Queue(variants, knowledge.seconds, options.limit_time)

    def show(result: Result) -> None:
        knowledge.forecast.learn(result)
        if not options.as_json:
            terminal.say_lines(run_summary.text(result).split("\n"))

    results = _sweep(queue, delivery, show, options)
    if options.as_json:
        terminal.give_json([_brief(result) for result in results])
    if queue.left_out:
        names = "; ".join(f"{variant.model}, {variant.label}" for variant in queue.left_out)
        count = f"{len(queue.left_out)} of {len(variants)}"
        terminal.warn(f"Not started because they would fail for the same reason ({count}): {names}.")
    if queue.waiting:
        names = "; ".join(f"{variant.model}, {variant.label}" for variant in queue.waiting)
        count = f"{len(queue.waiting)} of {len(variants)}"
        terminal.warn(
            f"Not started because --limit-time is too short ({count}): {names}. Run the same command again to continue."
        )
    delivery.close(results)
    return results


def _sweep(queue: Queue, delivery: Delivery, show: Callable[[Result], None], options: Options) -> list[Result]:
    """Measure the queued variants, on this machine or on the machines of a Ray cluster."""
    from mlflow_compress.sweeping.progress import Board, Progress

    if options.on == "here":
        from mlflow_compress.sweeping import here

        return here.sweep(queue, delivery, Progress(sys.stderr, options.quiet), show, options.again)
    from mlflow_compress.sweeping import ray_sweep

    task = ray_sweep.Task(
        tracking_uri=options.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", ""),
        with_model=options.log_model,
        again=options.again,
        auto_device=options.device == "auto",
    )
    return ray_sweep.sweep(queue, options.address, task, delivery, Board(sys.stderr, options.quiet), show)


def _connector(models: Sequence[str], arguments: Mapping[str, str], options: Options) -> Callable[[], Log]:
    """Return a function that opens the log of this command."""

    def connect() -> Log:
        from mlflow_compress.tracking.connection import open_store
        from mlflow_compress.tracking.log import Log

        store = open_store(options.tracking_uri)
        return Log(store, arguments, options.experiment, models, options.log_model, options.registered_name)

    return connect


def _show_plan(variants: Sequence[Variant], options: Options) -> None:
    """Print what a sweep would do. A store that does not exist is not created."""
    from mlflow_compress.planning import requirements
    from mlflow_compress.sweeping import dry_run, known
    from mlflow_compress.tracking.connection import open_store
    from mlflow_compress.tracking.log import experiment_asked
    from mlflow_compress.tracking.spool import Spool

    knowledge, on_cluster = known.Known(), options.on == "ray"
    try:
        store = open_store(options.tracking_uri, create=False)
        experiment_id, _ = experiment_asked(store, options.experiment)
        knowledge = known.ask(store, experiment_id, Spool(), options.again, on_cluster)
    except StoreError as error:
        terminal.warn(f"No earlier results are known: {str(error).partition('. ')[0]}.")
    machine = {} if on_cluster else requirements.here()
    planned = dry_run.look(
        variants,
        knowledge.forecast,
        is_measured=knowledge.is_measured,
        unmet=lambda variant: requirements.unmet(variant.requires, machine) if machine else "",
        limit=options.limit_time,
    )
    if options.as_json:
        terminal.give_json(dry_run.data(planned))
    else:
        terminal.say_lines((*dry_run.text(planned), dry_run.summary(planned, options.limit_time)))


def _brief(result: Result) -> dict[str, Any]:
    from mlflow_compress.records import to_json

    data = to_json(result)
    del data["samples"]
    return data


def _exit(results: Sequence[Result], *, is_named: bool) -> None:
    """Raise the error whose exit code fits the results, if any variant failed.

    Args:
        results: Results of all variants.
        is_named: Whether the user named one method: then a device or library that this machine lacks is a failure.

    Raises:
        WorkerError, WeightsError, RecipeError: A variant failed.
    """
    from mlflow_compress.measuring.model_trial import fails_all

    failed = [result for result in results if result.status == "failed" or (is_named and result.cause == "machine")]
    if not failed:
        return
    if is_named:
        raise failure(failed[0].cause, failed[0].reason)
    models = {result.variant.model: result for result in failed if fails_all(result)}
    if len(models) == len(failed):
        reasons = "; ".join(f"{model} can't be measured: {result.reason}" for model, result in models.items())
        raise failure(failed[0].cause, reasons)
    names = "; ".join(f"{result.variant.model}, {result.variant.label}" for result in failed)
    raise WorkerError(f"{len(failed)} of {len(results)} variants failed: {names}")


def _require_published(results: Sequence[Result]) -> None:
    """Check that the scores of all originals are as published.

    Raises:
        WorkerError: An original differs, can't be compared, or has no published score; or there is no original.
    """
    from mlflow_compress.records import PUBLISHED
    from mlflow_compress.reporting import published_scores

    problems = []
    originals = [result for result in results if result.variant.is_original]
    for result in originals:
        verdicts = published_scores.recorded(result.facts, PUBLISHED)
        pairs = ((name.partition("/")[2], verdict) for name, verdict in verdicts.items())
        wrong = [f"{name} {verdict.text}" for name, verdict in pairs if not verdict.is_same]
        wrong += [] if verdicts else ["no published score was compared"]
        problems += [f"{result.variant.model}: {text}" for text in wrong]
    if not originals:
        problems = ["no original was measured"]
    if problems:
        raise WorkerError(f"--strict: {'; '.join(problems)}. Everything was measured and logged.")


if __name__ == "__main__":
    main()
