#!/usr/bin/env python3
"""Runs pip-audit on the packages installed for this Python, and reports known vulnerabilities.

    python .ci/audit.py [PIP-AUDIT-OPTION...]

It fails on a known vulnerability that `.ci/accepted_vulnerabilities` does not name, and on every error except network
errors: if the service can't be reached, or is a mirror that knows no package, it prints that and passes. pip-audit runs
in a separate environment, so that it changes nothing in this one.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

ACCEPTED = Path(__file__).with_name("accepted_vulnerabilities")
OWN = "mlflow-compress"
_UNREACHABLE = re.compile(
    r"ConnectionError|ConnectTimeout|ReadTimeout|NameResolutionError|ProxyError|ServiceUnavailable"
)


def pins() -> list[str]:
    """Return the installed packages except this one, without the local part of versions (2.14.1+cu130)."""
    versions = {
        distribution.metadata["Name"].lower(): distribution.version.partition("+")[0]
        for distribution in metadata.distributions()
    }
    return [f"{name}=={version}" for name, version in sorted(versions.items()) if name != OWN]


def accepted(text: str) -> list[str]:
    """Return the first word, an id, of each line that is not a comment.

    Raises:
        ValueError: a line gives no reason.
    """
    ids = []
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            name, _, reason = line.partition(" ")
            if not reason.strip():
                raise ValueError(f"{name} is accepted without a reason")
            ids.append(name)
    return ids


def judge(output: str, errors: str) -> tuple[int, list[str]]:
    """Return the exit code and the lines to print for what pip-audit wrote to standard output and standard error."""
    try:
        dependencies: list[dict[str, Any]] = json.loads(output)["dependencies"]
    except (ValueError, KeyError, TypeError):
        if _UNREACHABLE.search(errors):
            return 0, ["vulnerabilities: the service is not reachable: skipped"]
        return 1, ["vulnerabilities: pip-audit ended without an answer:", errors.strip()]
    skipped = [package for package in dependencies if "skip_reason" in package]
    if len(skipped) == len(dependencies):
        return 0, ["vulnerabilities: the service is not reachable (a mirror that knows no package answers): skipped"]
    lines = [f"vulnerabilities: not audited: {package['name']}: {package['skip_reason']}" for package in skipped]
    vulnerable = [(package, vulnerability) for package in dependencies for vulnerability in package.get("vulns", ())]
    for package, vulnerability in vulnerable:
        fixed = ", ".join(vulnerability.get("fix_versions") or ["no version yet"])
        lines.append(
            f"vulnerabilities: {package['name']} {package['version']}: {vulnerability['id']}, fixed in {fixed}"
        )
    lines.append(f"vulnerabilities: {len(vulnerable)} in {len(dependencies) - len(skipped)} packages")
    return int(bool(vulnerable)), lines


def main(options: Sequence[str]) -> int:
    """Run pip-audit, and print what it found."""
    ignored = [part for name in accepted(ACCEPTED.read_text(encoding="utf-8")) for part in ("--ignore-vuln", name)]
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder, "requirements.txt")
        requirements.write_text("\n".join(pins()), encoding="utf-8")
        venv.create(Path(folder, "venv"), with_pip=True)
        python = Path(folder, "venv", "bin", "python")
        subprocess.run([python, "-m", "pip", "install", "--quiet", "pip-audit"], check=True)
        audit: list[str | Path] = [
            python,
            "-m",
            "pip_audit",
            "--requirement",
            requirements,
            "--no-deps",
            "--disable-pip",
            "--format",
            "json",
        ]
        process = subprocess.run(
            [*audit, "--progress-spinner", "off", *ignored, *options], capture_output=True, text=True
        )
    code, lines = judge(process.stdout, process.stderr)
    print("\n".join(lines))  # noqa: T201
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
