#!/usr/bin/env python3
"""Checks a bill of materials, and adds this package's version, which pyproject.toml leaves to the build.

    python .ci/sbom.py SBOM.json pyproject.toml VERSION

Run it with the Python of the environment that the bill describes. The bill must contain every runtime requirement, in a
version that the requirement allows.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def missing(bill: Mapping[str, Any], requirements: Iterable[str]) -> list[str]:
    """Return what is wrong with each requirement that the bill does not meet."""
    versions = {
        canonicalize_name(component["name"]): component.get("version", "") for component in bill.get("components", ())
    }
    problems = []
    for requirement in map(Requirement, requirements):
        version = versions.get(canonicalize_name(requirement.name))
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        if version is None:
            problems.append(f"{requirement.name} is not in it")
        elif not version or not requirement.specifier.contains(version, prereleases=True):
            problems.append(f"{requirement.name} is in it as {version or 'no version'}, not as {requirement.specifier}")
    return problems


def named(bill: Mapping[str, Any], name: str, version: str) -> dict[str, Any]:
    """Return the bill with the version of the package that it describes.

    Raises:
        ValueError: it is not a CycloneDX bill, or is the bill of another package.
    """
    component = bill.get("metadata", {}).get("component", {})
    if bill.get("bomFormat") != "CycloneDX" or component.get("name") != name:
        raise ValueError(f"this is not a bill of materials of {name}")
    return {**bill, "metadata": {**bill["metadata"], "component": {**component, "version": version}}}


def _requirements(project: Path) -> tuple[str, list[str]]:
    import tomllib

    described = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
    return str(described["name"]), list(described["dependencies"])


def main(path: Path, project: Path, version: str) -> int:
    """Check the bill and write it back."""
    name, requirements = _requirements(project)
    bill = named(json.loads(path.read_text(encoding="utf-8")), name, version)
    if problems := missing(bill, requirements):
        print("\n".join(f"{path}: {problem}" for problem in problems), file=sys.stderr)  # noqa: T201
        return 1
    path.write_text(json.dumps(bill, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{path}: {len(bill['components'])} components, all {len(requirements)} requirements among them")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
