"""`schema_pages`: the JSON that the commands write, as JSON Schema."""

from __future__ import annotations

import inspect
import json
from typing import Any

from mlflow_compress.records import Comparison, Result
from mlflow_compress.renderers.json import SCHEMA, Json


def report_keys() -> str:
    """Return the JSON renderer's description of its keys."""
    return inspect.getdoc(Json) or ""


def report_schema() -> str:
    """Return the JSON Schema of what `compress-report --json` prints."""
    schema = _schema(Comparison)
    schema["properties"] = {"schema": {"const": SCHEMA}, **schema["properties"]}
    return _fenced(schema)


def result_schema() -> str:
    """Return the JSON Schema of a run's `result.json`."""
    return _fenced(_schema(Result))


def _schema(record: type) -> dict[str, Any]:
    import pydantic

    return pydantic.TypeAdapter(record).json_schema()


def _fenced(schema: dict[str, Any]) -> str:
    return f"```json\n{json.dumps(_without_descriptions(schema), indent=2, ensure_ascii=False)}\n```"


def _without_descriptions(value: Any) -> Any:
    """Remove docstrings of classes: the page itself explains the keys."""
    if isinstance(value, dict):
        return {
            key: _without_descriptions(item)
            for key, item in value.items()
            if not (key == "description" and isinstance(item, str))
        }
    return [_without_descriptions(item) for item in value] if isinstance(value, list) else value
