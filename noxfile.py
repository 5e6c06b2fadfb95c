"""One command for each thing to check: `nox -s lint`, `quick`, `tests`, `all`, `phones`, `docs` and `wheel`.

They run in the environment that nox is in, so install it first (CONTRIBUTING.md). What follows `--` goes to the tool.
"""

from __future__ import annotations

import sys

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "quick"]
PHONE_WORDS = "phones or litert or executorch or coreml or tflite"  # in the names of their tests


def python(session: nox.Session, *words: str) -> None:
    """Run a module in the Python that runs nox."""
    session.run(sys.executable, "-m", *words)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and types."""
    python(session, "ruff", "check", ".")
    python(session, "ruff", "format", "--check", ".")
    python(session, "mypy", *session.posargs)


@nox.session
def quick(session: nox.Session) -> None:
    """Run the tests that import no torch and start no process."""
    python(session, "pytest", "-m", "quick", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests for each change, in up to four processes."""
    python(session, "pytest", "-n", "auto", *session.posargs)


@nox.session(name="all")
def all_tests(session: nox.Session) -> None:
    """Run all tests, also those marked extra."""
    python(session, "pytest", "-n", "auto", "--extra", *session.posargs)


@nox.session
def phones(session: nox.Session) -> None:
    """Install LiteRT, ExecuTorch and Core ML as their messages say, and run their tests."""
    from mlflow_compress.compression.litert_files import INSTALL

    for command in (INSTALL, 'pip install "mlflow-compress[executorch,coreml]"'):
        session.run("bash", "-c", command.replace('"mlflow-compress[', '".['), external=True)
    spread = ("-n", "auto", "--dist", "worksteal")  # a few of them take minutes
    python(session, "pytest", *spread, "tests/methods", "tests/families", "-k", PHONE_WORDS, *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation site."""
    python(session, "mkdocs", "build", "--strict", *session.posargs)


@nox.session
def wheel(session: nox.Session) -> None:
    """Build sdist and wheel, and run what the wheel installs, away from this folder."""
    session.run(sys.executable, ".ci/wheel.py", *session.posargs)
