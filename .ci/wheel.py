#!/usr/bin/env python3
"""Builds sdist and wheel, installs the wheel alone, and runs its commands in an empty folder.

    python .ci/wheel.py [FOLDER]

Run it with a Python that has `build` and the packages that this project needs: the wheel is installed without them into
a new environment, which also uses the packages of this one. If FOLDER is given, the files stay there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMMANDS = (
    ("compress-bench", "--help"),
    ("compress-report", "--help"),
    ("compress-bench", "list", "methods"),
    ("compress-bench", "check", "distilbert"),  # a recipe in the wheel
)


def build(folder: Path) -> Path:
    """Build the sdist, and the wheel from it; return the wheel."""
    command = [sys.executable, "-m", "build", "--outdir", folder, ROOT]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    print(f"built {sdist.name} and {wheel.name}")  # noqa: T201
    return wheel


def install(wheel: Path, folder: Path) -> Path:
    """Create an environment with the wheel and the packages of this one; return its folder of programs."""
    venv.create(folder, with_pip=True)
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    subprocess.run([scripts / "python", "-m", "pip", "install", "--quiet", "--no-deps", wheel], check=True)
    scheme = "nt" if os.name == "nt" else "posix_prefix"
    packages = Path(sysconfig.get_path("purelib", scheme, {"base": str(folder)}))
    site_packages = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (packages / "packages.pth").write_text("\n".join(site_packages) + "\n", encoding="utf-8")  # after the wheel's own
    return scripts


def main(folder: Path) -> None:
    """Build, install, and run.

    Raises:
        SystemExit: the package that was imported is not the wheel's.
    """
    wheel = build(folder)
    with tempfile.TemporaryDirectory() as work:
        scripts = install(wheel, Path(work, "venv"))
        empty = Path(work, "empty")
        empty.mkdir()
        command = [scripts / "python", "-c", "import mlflow_compress; print(mlflow_compress.__file__)"]
        imported = subprocess.run(command, cwd=empty, check=True, capture_output=True, text=True).stdout.strip()
        if not Path(imported).resolve().is_relative_to(Path(work, "venv").resolve()):
            sys.exit(f"{imported} was imported, not the wheel's package")
        for name, *words in COMMANDS:
            subprocess.run([scripts / name, *words], cwd=empty, check=True, stdout=subprocess.DEVNULL)
            print(f"ran {name} {' '.join(words)}")  # noqa: T201
        if left := list(empty.iterdir()):
            sys.exit(f"the commands left {left}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]).resolve())
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(folder))
