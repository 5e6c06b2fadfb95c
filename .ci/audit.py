#!/usr/bin/env python3
"""Asks pip-audit whether a known vulnerability is in what is installed beside the Python that runs this.

    python .ci/audit.py [PIP-AUDIT-OPTION...]

It fails on a known vulnerability that `.ci/accepted_vulnerabilities` does not name, and on whatever goes wrong but the
network: where the service can't be reached, or is a mirror that knows no package, it says so, and passes. pip-audit
runs in an environment of its own, so that it changes nothing in this one.
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
    """Return what is installed, less this package, and without the local part of versions (2.14.1+cu130)."""
    found = {each.metadata["Name"].lower(): each.version.partition("+")[0] for each in metadata.distributions()}
    return [f"{name}=={version}" for name, version in sorted(found.items()) if name != OWN]


def accepted(text: str) -> list[str]:
    """Return the ids that stand first in each line that is no comment.

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
    """Return the exit code, and what to say, of what pip-audit wrote to standard output and to standard error."""
    try:
        dependencies: list[dict[str, Any]] = json.loads(output)["dependencies"]
    except (ValueError, KeyError, TypeError):
        if _UNREACHABLE.search(errors):
            return 0, ["vulnerabilities: the service is not reachable: skipped"]
        return 1, ["vulnerabilities: pip-audit ended without an answer:", errors.strip()]
    skipped = [each for each in dependencies if "skip_reason" in each]
    if len(skipped) == len(dependencies):
        return 0, ["vulnerabilities: the service is not reachable (a mirror that knows no package answers): skipped"]
    lines = [f"vulnerabilities: not audited: {each['name']}: {each['skip_reason']}" for each in skipped]
    bad = [(each, found) for each in dependencies for found in each.get("vulns", ())]
    for each, found in bad:
        fixed = ", ".join(found.get("fix_versions") or ["no version yet"])
        lines.append(f"vulnerabilities: {each['name']} {each['version']}: {found['id']}, fixed in {fixed}")
    lines.append(f"vulnerabilities: {len(bad)} in {len(dependencies) - len(skipped)} packages")
    return int(bool(bad)), lines


def main(options: Sequence[str]) -> int:
    """Run pip-audit, and say what it found."""
    ignored = [part for name in accepted(ACCEPTED.read_text(encoding="utf-8")) for part in ("--ignore-vuln", name)]
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder, "requirements.txt")
        wanted.write_text("\n".join(pins()), encoding="utf-8")
        venv.create(Path(folder, "venv"), with_pip=True)
        python = Path(folder, "venv", "bin", "python")
        subprocess.run([python, "-m", "pip", "install", "--quiet", "pip-audit"], check=True)
        audit: list[str | Path] = [
            python,
            "-m",
            "pip_audit",
            "--requirement",
            wanted,
            "--no-deps",
            "--disable-pip",
            "--format",
            "json",
        ]
        done = subprocess.run([*audit, "--progress-spinner", "off", *ignored, *options], capture_output=True, text=True)
    code, lines = judge(done.stdout, done.stderr)
    print("\n".join(lines))  # noqa: T201
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
