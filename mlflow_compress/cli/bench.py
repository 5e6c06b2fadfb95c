"""`compress-bench`: measures models, before and after compression, and writes the results to MLflow."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlflow_compress.cli.exits import Group
from mlflow_compress.errors import CompressError, RecipeError, StoreError, UnsentError, WeightsError, WorkerError

if TYPE_CHECKING:
    from mlflow_compress.planning.order import Queue
    from mlflow_compress.records import Result, Variant
    from mlflow_compress.sweeping.delivery import Delivery
    from mlflow_compress.sweeping.forecast import Forecast
    from mlflow_compress.sweeping.progress import Progress
    from mlflow_compress.tracking.log import Log
    from mlflow_compress.tracking.spool import Spool
    from mlflow_compress.tracking.store import Store

_AUTO, _NOT = "auto", "none"
_EXIT_CODES = {cls.__name__: cls.exit_code for cls in (RecipeError, WeightsError)}

_EPILOG = """\b
Exit codes:
  0  measured, or skipped because the method does not apply
  1  a variant failed
  2  a wrong name or option: nothing was run
  3  the weights can't be had
  4  the tracking server can't be reached: nothing was measured
  5  measured, but the tracking server did not take all of it: `compress-bench sync` sends what is kept
"""


class _Numbers(click.ParamType[tuple[int, ...]]):
    """Whole numbers from 1 with commas between them, or `auto`: none."""

    name = "number,...|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple) or value == _AUTO:
            return value if isinstance(value, tuple) else ()
        each: click.ParamType[Any] = click.IntRange(min=1)
        return tuple(dict.fromkeys(each.convert(part.strip(), param, ctx) for part in str(value).split(",")))


class _Duration(click.ParamType[float | None]):
    """A length of time such as 90s, 30m or 1h30m, in seconds; or `none`."""

    name = "duration|none"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        from mlflow_compress.planning import durations

        if value is None or value == _NOT or isinstance(value, float):
            return value if isinstance(value, float) else None
        try:
            return durations.seconds(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _AutoInt(click.ParamType[int | None]):
    """A whole number from 1, or `auto`."""

    name = "number|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value is None or value == _AUTO:
            return None
        return click.IntRange(min=1).convert(value, param, ctx)


def _settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that `run` and `sweep` share."""
    options = [
        click.option("--family", default=_AUTO, show_default=True,
                     help="Which family serves a MODEL that has no recipe. auto: as its configuration says."),
        click.option("--team", default=_AUTO, help="Whose row it is. [auto: COMPRESS_TEAM, or none]"),
        click.option("--device", type=click.Choice([_AUTO, "cpu", "cuda"]), default=_AUTO, show_default=True,
                     help="Where to measure. auto: on the CPU, and on the GPU where there is one."),
        click.option("--weights", default=_AUTO, show_default=True,
                     help="auto, pretrained, random, or a path. auto takes random ones when the hub is out of reach."),
        click.option("--data", default=_AUTO, show_default=True,
                     help="What quality is scored on. auto: as the recipe says; none: skip quality."),
        click.option("--batch-size", type=_Numbers(), default=_AUTO,
                     help="Samples in one timed call; 1,4,16 measures each."),
        click.option("--threads", type=_Numbers(), default=_AUTO,
                     help="CPU threads; 1,2 measures each. [auto: the physical cores]"),
        click.option("--limit", type=_AutoInt(), default=_AUTO, help="Most samples to score. [auto: all]"),
        click.option("--seed", type=int, default=0, show_default=True, help="Of random weights and inputs."),
        click.option("--iterations", type=click.IntRange(min=1), default=50, show_default=True,
                     help="Timed calls, at least."),
        click.option("--seconds", type=click.FloatRange(min=0), default=3.0, show_default=True,
                     help="Seconds of timed calls, at least."),
        click.option("--max-seconds", type=click.FloatRange(min=0), default=60.0, show_default=True,
                     help="Seconds of timed calls, at most, whatever --iterations says (but 6 calls)."),
        click.option("--energy-seconds", type=click.FloatRange(min=0), default=5.0, show_default=True,
                     help="Seconds of calls whose energy is measured; 0: none."),
        click.option("--score-seconds", type=click.FloatRange(min=0), default=1800.0, show_default=True,
                     help="Seconds of scoring, at most; then the samples so far count."),
        click.option("--timeout", type=click.FloatRange(min=1), default=3600.0, show_default=True,
                     help="Seconds after which a variant is stopped and has failed."),
        click.option("--trust", type=bool, is_flag=False, flag_value=True, default=False, show_default=True,
                     help="Run code that comes with the model: Python files, pickles, metrics of one's own."),
        click.option("--interleave", type=bool, is_flag=False, flag_value=True, default=False, show_default=True,
                     help="Measure the original and the variant in turns: for machines that others use too."),
        click.option("--option", "-O", "options", multiple=True, metavar="KEY=VALUE",
                     help="An option of the model's family; tokens=64,128 measures each; may be given again."),
        click.option("--requires", multiple=True, metavar="KEY=VALUE",
                     help="What the machine must have, or it is skipped: gpu=A100,min_ram_gb=64; may be given again."),
        click.option("--experiment", "-e", help="Experiment to log to. [MLFLOW_EXPERIMENT_NAME, or Default]"),
        click.option("--tracking-uri", metavar="URI", help="Tracking server. [MLFLOW_TRACKING_URI, or mlflow.db here]"),
        click.option("--log-model", type=bool, default=True, show_default=True,
                     help="Whether to log the model itself as an artifact."),
        click.option("--no-log-model", "log_model", flag_value=False, type=bool, help="The same as --log-model false."),
        click.option("--json", "as_json", is_flag=True, help="Print the results as JSON."),
        click.option("--quiet", "-q", is_flag=True, help="No progress on standard error."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


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


@main.command(epilog=_EPILOG)
@click.argument("model")
@click.option("--method", default="original", show_default=True,
              help="A chain of methods: prune_magnitude:amount=0.5+int8_dynamic")  # fmt: skip
@click.option("--all-methods", type=bool, is_flag=False, flag_value=True, default=False, show_default=True,
              help="Measure it under every method there is, each with its defaults.")  # fmt: skip
@click.option("--register", default=_NOT, show_default=True, metavar="NAME",
              help="Register the logged model as a new version of NAME. none: don't.")  # fmt: skip
@_settings
def run(model: str, method: str, all_methods: bool, **given: Any) -> None:
    """Measure MODEL under one method, or under all.

    MODEL is a recipe's name, a recipe.yaml, or a model without a recipe: ORG/NAME on the Hugging Face hub, a local
    folder of transformers, an ultralytics name or .pt file, torchvision:NAME.
    """
    from mlflow_compress import registry
    from mlflow_compress.planning import recipe

    every = sorted(registry.names("methods"), key=lambda name: (name != "original", name)) if all_methods else [method]
    chains = [recipe.parse_chain(each) for each in every]
    found = recipe.read(model, _family(given))
    variants = recipe.plan(found, [(recipe.chain_name(chain), chain) for chain in chains], _read_settings(given))
    results = _measure(variants, [model], {} if all_methods else {"method": method}, given)
    _exit(results, only=not all_methods)


@main.command(epilog=_EPILOG)
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option("--again", type=bool, is_flag=False, flag_value=True, default=False, show_default=True,
              help="Measure what the experiment has already, too.")  # fmt: skip
@click.option("--limit-time", type=_Duration(), default=_NOT, show_default=True,
              help="Time for all: 90s, 30m, 1h30m. The most informative first, none that would not fit.")  # fmt: skip
@click.option("--on", type=click.Choice(["here", "ray"]), default="here", show_default=True,
              help="Where to measure: on this machine, or on all machines of a Ray cluster.")  # fmt: skip
@click.option("--address", default=_AUTO, show_default=True, metavar="HOST:PORT",
              help="Of the Ray cluster; auto: the one that this machine is part of.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Say what would be measured and how long it would take. Nothing is run.")
@_settings
def sweep(models: tuple[str, ...], dry_run: bool, **given: Any) -> None:
    """Measure every variant that the recipes of MODEL... name; of models without a recipe, the original.

    A sweep recipe names many models, times methods, batch sizes and threads. What the experiment has already (the same
    variant with the same settings, measured well on such a machine) is skipped.
    """
    from mlflow_compress.planning import order, sweep_recipe

    variants = sweep_recipe.plan(models, _read_settings(given), _family(given))
    if given["limit_time"] is not None:
        variants = order.most_informative_first(variants)
    if dry_run:
        _foretell(variants, given)
    else:
        _exit(_measure(variants, models, {}, given), only=False)


@main.command(epilog=_EPILOG)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--tracking-uri", metavar="URI",
              help="Another server whose runs to end, or the credentials of one. [MLFLOW_TRACKING_URI]")  # fmt: skip
def sync(dry_run: bool, tracking_uri: str | None) -> None:
    """Send the results that MLflow did not get yet, each exactly once, and end runs whose process died."""
    from mlflow_compress.sweeping.delivery import set_up_client
    from mlflow_compress.tracking.spool import Spool
    from mlflow_compress.tracking.sync import Sync

    set_up_client()
    spool = Spool()
    if (count := Sync(spool, click.echo, dry_run).everything(tracking_uri)) and not dry_run:
        raise UnsentError(f"Not sent: {count}. They are kept in {spool.folder}.")
    if not count:
        click.echo("Nothing waits to be sent.")


@main.command("list")
@click.argument("kind", type=click.Choice(["models", "families", "methods", "metrics", "renderers"]))
@click.option("--json", "form", flag_value="json", help="Print JSON.")
@click.option("--markdown", "form", flag_value="markdown", help="Print a Markdown table (of methods).")
def list_(kind: str, form: str | None) -> None:
    """List what there is of a KIND, with options."""
    from mlflow_compress.planning import catalogue

    if form == "markdown" and kind != "methods":
        raise click.UsageError("--markdown is for methods only.")
    rows = catalogue.rows(kind)
    if form == "json":
        click.echo(json.dumps(rows, indent=1))
    else:
        click.echo("\n".join((catalogue.markdown if form == "markdown" else catalogue.text)(rows)))


@main.command()
@click.argument("run_id", metavar="RUN")
@click.option("--metric", "metrics", multiple=True, metavar="NAME",
              help="A metric, as recipes name them; may be given again. [those of the run]")  # fmt: skip
@click.option("--log", is_flag=True, help="Add the scores to the run.")
@click.option("--tracking-uri", metavar="URI", help="Tracking server. [MLFLOW_TRACKING_URI, or mlflow.db here]")
@click.option("--json", "as_json", is_flag=True, help="Print the scores as JSON.")
def rescore(run_id: str, metrics: tuple[str, ...], log: bool, tracking_uri: str | None, as_json: bool) -> None:
    """Score the predictions that RUN kept (a run's id, or a predictions.json) again, without its model."""
    from mlflow_compress.tracking.rescore import of_file, of_run
    from mlflow_compress.tracking.store import open_store

    path = Path(run_id)
    if path.is_file():
        if log:
            raise click.UsageError("--log adds scores to a run; this is a file.")
        rescored = of_file(path, metrics)
    else:
        rescored = of_run(open_store(tracking_uri, create=False), run_id, metrics, log)
    click.echo(json.dumps(rescored.found.numbers(), indent=1) if as_json else "\n".join(rescored.lines()))


@main.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
def check(models: tuple[str, ...]) -> None:
    """Check recipes, and say what a sweep of them would measure. Nothing is run."""
    from mlflow_compress.planning import recipe, sweep_recipe

    for model in models:
        for variant in sweep_recipe.plan([model], recipe.Settings(trust=True)):
            click.echo(f"{variant.model}, {variant.label}")


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(as_json: bool) -> None:
    """Say what is wrong with this machine for measuring, and what to do about it. Nothing is measured."""
    from mlflow_compress.cli.doctor import examine
    from mlflow_compress.records import to_json

    findings = []
    for finding in examine():
        findings.append(finding)
        if not as_json:
            click.echo(f"{'ok  ' if finding.is_well else 'LOOK'}  {finding.subject}: {finding.message}")
            if finding.advice:
                click.echo(f"      {finding.advice}")
    if as_json:
        click.echo(json.dumps([to_json(finding) for finding in findings], ensure_ascii=False, indent=1))


def _measure(
    variants: Sequence[Variant], models: Sequence[str], asked: Mapping[str, str], given: dict[str, Any]
) -> list[Result]:
    """Connect, and measure one variant after the other; each is logged before the next begins.

    MLflow, whose import takes seconds, is opened while the first worker prepares.
    """
    from mlflow_compress.planning import order, tested_versions
    from mlflow_compress.sweeping.delivery import Delivery
    from mlflow_compress.sweeping.forecast import Forecast
    from mlflow_compress.tracking import store
    from mlflow_compress.tracking.spool import Spool

    store.probe(given["tracking_uri"])
    if others := list(tested_versions.untested(only=tested_versions.DELICATE)):
        click.echo(f"Not tested with {', '.join(map(str, others))}. What was: compress-bench doctor", err=True)
    several = len(variants) > 1 or "method" not in asked
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that workers are stopped too

    connect = _connector(models if several else (), {**_asked(given), **asked}, given)
    spool = Spool()
    delivery = Delivery(spool, connect, lambda text: click.echo(text, err=True))
    limit = given.get("limit_time")
    forecast = Forecast()
    is_measured: Callable[[Variant], bool] = _none
    if limit is not None:
        forecast, is_measured = _known(delivery.log.store, delivery.log.experiment_id, spool, given)
    queue = order.Queue(variants, lambda each: 0.0 if is_measured(each) else forecast.of(each).seconds, limit)
    if given.get("on") == "ray":
        results = _spread(queue, delivery, forecast, given)
    else:
        results = _here(queue, delivery, forecast, given)
    if given["as_json"]:
        click.echo(json.dumps([_brief(result) for result in results], ensure_ascii=False, indent=1))
    if queue.waiting:
        names = "; ".join(f"{variant.model}, {variant.label}" for variant in queue.waiting)
        told = f"Not started, as --limit-time is too short for them ({len(queue.waiting)} of {len(variants)}): {names}."
        click.echo(f"{told} The same command goes on with them.", err=True)
    delivery.close(results)
    return results


def _here(queue: Queue, delivery: Delivery, forecast: Forecast, given: Mapping[str, Any]) -> list[Result]:
    """Measure what waits on this machine."""
    from mlflow_compress.sweeping import resume
    from mlflow_compress.sweeping.progress import Progress

    progress = Progress(sys.stderr, given["quiet"])
    count = len(queue.waiting)
    results: list[Result] = []
    while (variant := queue.take()) is not None:
        position = f"[{len(results) + 1}/{count}] " if count > 1 else ""
        progress.begin(f"{position}{variant.model}, {variant.label}")
        digest = resume.digest(variant)
        result = None if given.get("again", True) else delivery.earlier(digest, progress.end)
        results.append(result or _one(variant, digest, delivery, progress))
        forecast.learn(results[-1])
        if not given["as_json"]:
            from mlflow_compress.tracking import run_summary

            click.echo(run_summary.text(results[-1]))
    return results


def _spread(queue: Queue, delivery: Delivery, forecast: Forecast, given: Mapping[str, Any]) -> list[Result]:
    """Measure what waits on the machines of a Ray cluster."""
    from mlflow_compress.sweeping import ray_sweep
    from mlflow_compress.sweeping.progress import Board
    from mlflow_compress.tracking import run_summary

    def show(result: Result) -> None:
        forecast.learn(result)
        if not given["as_json"]:
            click.echo(run_summary.text(result))

    task = ray_sweep.Task(
        tracking_uri=given["tracking_uri"] or os.environ.get("MLFLOW_TRACKING_URI", ""),
        with_model=given["log_model"],
        again=given["again"],
        auto_device=given["device"] == _AUTO,
    )
    return ray_sweep.sweep(queue, given["address"], task, delivery, Board(sys.stderr, given["quiet"]), show)


def _foretell(variants: Sequence[Variant], given: Mapping[str, Any]) -> None:
    """Tell what a sweep would do. Nothing is made where there is no store."""
    from mlflow_compress.planning import requirements
    from mlflow_compress.sweeping import dry_run
    from mlflow_compress.sweeping.forecast import Forecast
    from mlflow_compress.tracking.log import experiment_asked
    from mlflow_compress.tracking.spool import Spool
    from mlflow_compress.tracking.store import open_store

    forecast = Forecast()
    is_measured: Callable[[Variant], bool] = _none
    try:
        store = open_store(given["tracking_uri"], create=False)
        forecast, is_measured = _known(store, experiment_asked(store, given["experiment"])[0], Spool(), given)
    except StoreError as error:
        click.echo(f"No earlier results are known: {str(error).partition('. ')[0]}.", err=True)
    machine, limit = {} if given["on"] == "ray" else requirements.here(), given["limit_time"]
    planned = dry_run.look(
        variants,
        forecast,
        is_measured=is_measured,
        unmet=lambda variant: requirements.unmet(variant.requires, machine) if machine else "",
        limit=limit,
    )
    if given["as_json"]:
        click.echo(json.dumps(dry_run.data(planned), ensure_ascii=False, indent=1))
    else:
        click.echo("\n".join((*dry_run.text(planned), dry_run.summary(planned, limit))))


def _known(
    store: Store, experiment_id: str, spool: Spool, given: Mapping[str, Any]
) -> tuple[Forecast, Callable[[Variant], bool]]:
    """Give what an experiment knows of how long variants take, and which need not be measured."""
    from mlflow_compress.planning import requirements
    from mlflow_compress.sweeping import resume
    from mlflow_compress.sweeping.forecast import Forecast

    runs = resume.finished(store, experiment_id) if experiment_id else []
    digests = set() if given["again"] or not runs else resume.digests(runs, spool, store.experiment_name(experiment_id))
    # which machines a cluster has is not known yet: those that measured before stand for them
    here = None if given["on"] == "ray" else requirements.here()
    machines = resume.machines(runs) if here is None else [here]
    return Forecast(
        runs, here
    ), lambda variant: bool(digests) and any(resume.digest(variant, machine) in digests for machine in machines)


def _none(_: Variant) -> bool:
    return False


def _connector(models: Sequence[str], asked: Mapping[str, str], given: Mapping[str, Any]) -> Callable[[], Log]:
    """Make what opens the log of this command."""

    def connect() -> Log:
        from mlflow_compress.tracking.log import Log
        from mlflow_compress.tracking.store import open_store

        name = given.get("register", _NOT)
        register = "" if name == _NOT else name
        return Log(open_store(given["tracking_uri"]), asked, given["experiment"], models, given["log_model"], register)

    return connect


def _one(variant: Variant, digest: str, delivery: Delivery, progress: Progress) -> Result:
    """Measure one variant on this machine, and log it."""
    from mlflow_compress.measuring import isolate, machine_lock
    from mlflow_compress.planning import requirements
    from mlflow_compress.tracking import store
    from mlflow_compress.tracking.spool import Shipment

    def listen(event: Mapping[str, Any]) -> None:
        delivery.check()  # a server that refuses is known at once, not after the download of the weights
        progress.event(event)

    with delivery.entry(progress.end) as entry:
        if lack := variant.requires and requirements.unmet(variant.requires, requirements.here()):
            skipped = isolate.skipped(variant, lack)
            return delivery.deliver(Shipment(entry, skipped, delivery.log.address(digest), progress.end))
        if store.names_model(variant.source):
            progress.event({"stage": "fetching"})
            variant = delivery.log.located(variant)
        with machine_lock.alone(progress.end):
            result = isolate.run(variant, entry.folder, listen, lambda: delivery.log)
        progress.event({"stage": "logging"})
        return delivery.deliver(Shipment(entry, result, delivery.log.address(digest), progress.end))


_ASKED = (
    "device",
    "weights",
    "data",
    "limit",
    "seed",
    "iterations",
    "seconds",
    "max_seconds",
    "energy_seconds",
    "score_seconds",
    "interleave",
)


def _asked(given: Mapping[str, Any]) -> dict[str, str]:
    """Give the settings as they were asked for, to be logged as parameters."""
    counts = {key: ",".join(str(each) for each in given[key]) or _AUTO for key in ("batch_size", "threads")}
    asked = {**counts, "option": " ".join(given["options"]), "requires": " ".join(given["requires"])}
    return asked | {key: _AUTO if given[key] is None else str(given[key]) for key in _ASKED}


def _read_settings(given: Mapping[str, Any]) -> Any:
    from mlflow_compress.meters import gpu
    from mlflow_compress.planning import requirements
    from mlflow_compress.planning.recipe import Settings
    from mlflow_compress.records import Budget

    devices = {"cpu": ("cpu",), "cuda": ("cuda",)}.get(given["device"])
    options = {key: value.split(",") for key, value in _pairs("option", given["options"])}
    required = (part for text in given["requires"] for part in text.split(",") if part.strip() != _NOT)
    return Settings(
        team=_team(given["team"]),
        devices=devices or (("cpu", "cuda") if gpu.present() else ("cpu",)),
        weights=given["weights"],
        data=given["data"],
        batch_sizes=given["batch_size"],
        threads=given["threads"],
        seed=given["seed"],
        limit=given["limit"],
        options=options,
        interleave=given["interleave"],
        trust=given["trust"],
        requires=requirements.check(dict(_pairs("requires", required))),
        budget=Budget(
            min_iterations=given["iterations"],
            min_seconds=given["seconds"],
            max_seconds=given["max_seconds"],
            energy_seconds=given["energy_seconds"],
            score_seconds=given["score_seconds"],
            timeout_seconds=given["timeout"],
        ),
    )


def _pairs(option: str, texts: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Read the KEY=VALUE of an option.

    Raises:
        RecipeError: one is none.
    """
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise RecipeError(f"--{option} {text!r} is no KEY=VALUE.")
        yield key.strip(), value


def _family(given: Mapping[str, Any]) -> str:
    return "" if given["family"] == _AUTO else str(given["family"])


def _team(name: str) -> str:
    return (os.environ.get("COMPRESS_TEAM") or "none") if name in ("", _AUTO) else name


def _brief(result: Result) -> dict[str, Any]:
    from mlflow_compress.records import to_json

    data = to_json(result)
    del data["samples"]
    return data


def _exit(results: Sequence[Result], only: bool) -> None:
    """Leave with the exit code that the results deserve.

    Raises:
        WorkerError, WeightsError, RecipeError: something failed.
    """
    failed = [result for result in results if result.status == "failed"]
    if not failed:
        return
    if only:
        code = _EXIT_CODES.get(failed[0].facts.get("error", ""), WorkerError.exit_code)
        error: CompressError = WorkerError(failed[0].reason)
        vars(error)["exit_code"] = code
        raise error
    names = "; ".join(f"{result.variant.model}, {result.variant.label}" for result in failed)
    raise WorkerError(f"{len(failed)} of {len(results)} variants failed: {names}")


if __name__ == "__main__":
    main()
