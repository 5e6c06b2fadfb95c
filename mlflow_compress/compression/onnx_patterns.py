"""Finds nodes of an ONNX file by patterns: names of nodes, types of operators, and names of torch modules."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from mlflow_compress.errors import Unsupported

_SCOPES = "pkg.torch.onnx.name_scopes"  # where torch's exporter keeps the module of a node
_MOST_NAMES = 12  # in a message


class NodePatterns:
    """Patterns of nodes, separated by `;`, with `*` and `?`: `Softmax;model.head*`.

    A pattern matches a node by its name, by the type of its operator, or by the name of a module that it is part of.

    Args:
        text: Patterns; empty: none.
    """

    def __init__(self, text: str) -> None:
        self._patterns = [pattern.strip() for pattern in text.split(";") if pattern.strip()]
        self._unused = set(self._patterns)
        self._types: set[str] = set()

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self._patterns)

    def matches(self, model: Any, exported: Any) -> list[str]:
        """Return the names of the matching nodes.

        Args:
            model: ONNX model whose nodes are searched.
            exported: The same model as torch exported it: optimization drops the names of modules.
        """
        if not self._patterns:
            return []
        modules = {name: set(_modules(node)) for node in exported.graph.node for name in node.output}
        names = []
        for node in model.graph.node:
            self._types.add(node.op_type)
            of_modules = (modules.get(output, set()) for output in node.output)
            candidates = {node.name, node.op_type}.union(*of_modules) - {""}
            hits = {pattern for pattern in self._patterns if _matches(pattern, candidates)}
            self._unused -= hits
            if hits:
                names.append(node.name)
        return names

    def require_used(self) -> None:
        """Check that each pattern matched a node of some file.

        Raises:
            Unsupported: One matched none.
        """
        if self._unused:
            types = sorted(self._types)
            shown = ", ".join(types[:_MOST_NAMES]) + (" ..." if len(types) > _MOST_NAMES else "")
            raise Unsupported(
                f"exclude: no node, operator type or module matches {sorted(self._unused)[0]!r}. The types are "
                f"{shown}; modules have their names in torch, such as model.layers.0.fc"
            )


def _matches(pattern: str, names: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for name in names)


def _modules(node: Any) -> Iterator[str]:
    """Yield the names of the modules that a node is part of, without the names of the exported graph's own parts."""
    metadata: Mapping[str, str] = {entry.key: entry.value for entry in node.metadata_props}
    try:
        scopes = ast.literal_eval(metadata.get(_SCOPES, "[]"))
    except (SyntaxError, ValueError):
        return
    for scope in scopes[:-1]:  # the last one is the node itself
        parts = str(scope).split(".")
        yield from (".".join(parts[start:]) for start in range(len(parts)))
