"""Makes the pictures of the documentation from the runs of a real store, with Chromium.

    python -m benchmarks.pictures --store sqlite:///mlflow.db --experiment lm

Without `--store` it measures `digits_cnn` first, in a folder of its own.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchmarks.servers import TrackingServer, environment

if TYPE_CHECKING:
    from playwright.sync_api import Page

_DOCS = Path(__file__).parents[1] / "docs"
_MODEL = "digits_cnn"
_WIDE = (1280, 1500)  # pixels: the comparison page
_UI = (1115, 890)  # pixels: a page of MLflow's own UI
_CLOSE_ASSISTANT = "[data-component-id='mlflow.assistant.chat_panel.close']"  # a panel of MLflow's UI
_REDRAW_MS = 1000
_SETTLE_MS = 8000  # MLflow's UI asks the server again and again, so its network is never idle


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--store", default="", metavar="URI", help="The backend store of the runs, such as sqlite:///mlflow.db.")
@click.option("--experiment", default="pictures", show_default=True, help="The experiment that the pictures show.")
@click.option("--method", default="int8_dynamic", show_default=True, help="The method whose run is shown.")
@click.option("--chromium", default="chromium", show_default=True, help="The browser's program.")
@click.option("--to", "folder", default=_DOCS, type=click.Path(file_okay=False, path_type=Path),
              help="The folder for the pictures. Default: docs/.")  # fmt: skip
def main(store: str, experiment: str, method: str, chromium: str, folder: Path) -> None:
    """Write comparison.png, narrow.png, runs.png, run.png, metric_groups.png and tradeoff.png."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        database = _absolute(store) if store else f"sqlite:///{work}/mlflow.db"
        server = TrackingServer(work, database, options=("--app-name", "compress"))
        server.start()
        try:
            commands = environment(work, MLFLOW_TRACKING_URI=server.uri)
            if not store:
                _run(commands, "bench", "sweep", _MODEL, "-e", experiment)
            _run(commands, "report", "-e", experiment, "-o", str(folder / "tradeoff.png"))
            _photograph(server.uri, experiment, method, chromium, folder)
        finally:
            server.kill()


def _absolute(store: str) -> str:
    """Return the URI of a store that does not depend on the current folder."""
    scheme, separator, path = store.partition(":///")
    return f"{scheme}{separator}{Path(path).resolve()}" if scheme == "sqlite" else store


def _run(variables: dict[str, str], program: str, *words: str) -> None:
    """Run one of the two commands."""
    command = [sys.executable, "-m", f"mlflow_compress.cli.{program}", *words]
    subprocess.run(command, env=variables, check=True, stdout=subprocess.DEVNULL)


def _photograph(uri: str, experiment: str, method: str, chromium: str, folder: Path) -> None:
    """Take a screenshot of each page."""
    import mlflow
    from playwright.sync_api import sync_playwright

    client = mlflow.MlflowClient(uri)
    logged_experiment = client.get_experiment_by_name(experiment)
    if logged_experiment is None:
        raise click.ClickException(f"the store has no experiment {experiment!r}")
    number = logged_experiment.experiment_id
    runs = client.search_runs([number], f"tags.method = '{method}'", max_results=1)
    if not runs:
        raise click.ClickException(f"experiment {experiment!r} has no run with the method {method!r}")
    run = f"{uri}/#/experiments/{number}/runs/{runs[0].info.run_id}"
    comparison = f"{uri}/compress?experiment={experiment}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_program(chromium), args=["--no-sandbox"])
        page = browser.new_page()
        _shoot(page, comparison, _WIDE, folder / "comparison.png")
        _shoot(page, comparison, (390, 844), folder / "narrow.png")
        _shoot(page, f"{uri}/#/experiments/{number}/runs", _UI, folder / "runs.png")
        _shoot(page, run, _UI, folder / "run.png")
        _shoot(page, f"{run}/model-metrics", _UI, folder / "metric_groups.png")
        browser.close()


def _program(name: str) -> str:
    """Return the path of a program."""
    path = shutil.which(name)
    if path is None:
        raise click.ClickException(f"no program {name!r}: install a Chromium, or name it with --chromium")
    return path


def _shoot(page: Page, address: str, size: tuple[int, int], file: Path) -> None:
    """Open a page in a window of some size, and save what it shows."""
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.goto("about:blank")  # the UI's own routes do not load a page again
    page.goto(address)
    page.wait_for_timeout(_SETTLE_MS)
    if (assistant := page.locator(_CLOSE_ASSISTANT)).is_visible():  # opens by itself in a new browser
        assistant.click()
        page.wait_for_timeout(_REDRAW_MS)
    page.screenshot(path=file)


if __name__ == "__main__":
    main()
