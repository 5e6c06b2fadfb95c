"""`python -m benchmarks`: run benchmarks, print their tables, and store the results."""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path

import click

from benchmarks.finding import as_json, fill_readme, stamped, text, write

_DEFAULT = ("startup", "fidelity_size", "fidelity_memory", "fidelity_latency", "overhead")
_ALL = (
    *_DEFAULT,
    "peer",
    "methods",
    "language_models",
    "llama_cpp",
    "language_quality",
    "weight_only_quality",
    "large_model",
    "zoo",
    "architectures",
    "false_alarms",
    "bulk",
    "report_scale",
    "server_pages",
    "load",
    "sweep_scale",
)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1, type=click.Choice(_ALL))
@click.option(
    "--quick", is_flag=True, help="Run a short trial to check that everything works. Its numbers are not stored."
)
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Also write all results to FILE.")
@click.option("--peer-venv", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="A virtual environment with the other tool: optimum-benchmark for `peer`, which this option adds to "
              "the default benchmarks; llm-compressor for `weight_only_quality`.")  # fmt: skip
@click.option(
    "--only",
    default="",
    metavar="NAME",
    help="Run a part: a family of `architectures`, a method of `zoo` or `large_model`, a MODEL or MODEL/METHOD of "
    "`language_models`, METHOD/BITS or METHOD/BITS/TOOL of `weight_only_quality`.",
)
@click.option(
    "--only-type",
    default="",
    metavar="NAME",
    help="Run a part, even if it has results: some `architectures` (gpt2,llama), one module of `zoo`.",
)
@click.option("--experiment", default="", metavar="NAME",
              help="Use the scores of this experiment of MLFLOW_TRACKING_URI, in `language_quality`.")  # fmt: skip
@click.option("--readme", is_flag=True, help="Write the stored results into benchmarks/README.md; run nothing.")
def main(
    names: tuple[str, ...],
    quick: bool,
    file: Path | None,
    peer_venv: Path | None,
    only: str,
    only_type: str,
    experiment: str,
    readme: bool,
) -> None:
    """Run the benchmarks NAMES; by default those that take a few minutes each: startup, fidelity_*, overhead."""
    if readme:
        click.echo(f"{fill_readme()} results in the README")
        return
    benchmark_names = names or (*_DEFAULT, *(["peer"] if peer_venv else []))
    findings = []
    for name in benchmark_names:
        click.echo(f"{name} ...", err=True)
        started = time.time()
        module = importlib.import_module(f"benchmarks.{name}")
        arguments: dict[str, tuple[object, ...]] = {
            "peer": (peer_venv,),
            "weight_only_quality": (peer_venv, only),
            "language_models": (only,),
            "large_model": (only,),
            "language_quality": (experiment,),
            "architectures": (only, only_type),
            "zoo": (only, only_type),
        }
        finding = module.find(quick, *arguments.get(name, ()))
        findings.append(stamped(finding, started, quick))
        click.echo(text(findings[-1]))
        if not quick:
            write(findings[-1])
    if file:
        file.write_text(as_json(findings) + "\n", encoding="utf-8")
    sys.exit(not quick and any(finding.met is False for finding in findings))


if __name__ == "__main__":
    main()
