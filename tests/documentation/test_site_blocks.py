"""The blocks of pages that are marked as runnable, run as they are written, each page in an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from website import repository, runnable

pytestmark = pytest.mark.full  # of the file: to find the blocks, all pages are parsed

PAGES = [path for path in repository.paths() if runnable.blocks(path)]
LINKED = (
    "MLproject",
    "python_env.yaml",
    "conda.yaml",
    "pyproject.toml",
    "recipes",
    "mlflow_compress",
)  # of the checkout
# Stands before a command in the path: adds the options of a quick measurement that the line does not have.
SHIM = """\
#!{python}
import os, sys
args, quick = sys.argv[1:], {quick}
measures = args[:1] in (["run"], ["sweep"])
if measures and {is_mlflow} and not ("-e" in args and args[args.index("-e") + 1] == "report"):
    given = {{word.partition("=")[0] for word in args}}
    args += [word for name, value in quick.items() if name not in given for word in ("-P", f"{{name}}={{value}}")]
elif measures and not {is_mlflow}:
    flags = {{f"--{{name.replace('_', '-')}}": value for name, value in quick.items()}}
    args += [word for flag, value in flags.items() if flag not in args for word in (flag, value)]
os.execv({real!r}, [{real!r}, *args])
"""


def test_some_pages_have_such_blocks() -> None:
    assert PAGES


@pytest.mark.parametrize("path", PAGES, ids=str)
def test_the_blocks_of_a_page_run(path: Path, tmp_path: Path) -> None:
    work, shims = tmp_path / "work", tmp_path / "shims"
    work.mkdir()
    shims.mkdir()
    for name in LINKED:
        (work / name).symlink_to(repository.ROOT / name)
    programs = Path(sys.executable).parent
    for program in ("compress-bench", "mlflow"):
        shim = shims / program
        real, is_mlflow = str(programs / program), program == "mlflow"
        shim.write_text(SHIM.format(python=sys.executable, quick=runnable.QUICK, is_mlflow=is_mlflow, real=real))
        shim.chmod(0o755)
    environment = {name: text for name, text in os.environ.items() if not name.startswith(("MLFLOW_", "COMPRESS_TEAM"))}
    environment |= {"HF_HUB_OFFLINE": "1", "COMPRESS_SPOOL": str(tmp_path / "spool"), "MPLBACKEND": "Agg"}
    for block in runnable.blocks(path):
        first = [str(shims)] if block.is_quick else []
        environment["PATH"] = os.pathsep.join([*first, str(programs), os.environ["PATH"]])
        command = [sys.executable, "-c"] if block.language == runnable.PYTHON else ["bash", "-euo", "pipefail", "-c"]
        process = subprocess.run(
            [*command, block.code], cwd=work, env=environment, capture_output=True, text=True, timeout=900
        )
        assert process.returncode == 0, f"{path}:{block.line}\n{block.code}\n{process.stdout}\n{process.stderr}"
