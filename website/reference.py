"""`reference`: fills the parts of pages that are generated from the code: `<!-- generated: methods -->`.

The rest of each page in `docs/reference/` is written by hand, so that links to the pages also work without a build.
Facts about the code are written only in the code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from website import command_pages, plugin_pages, run_pages, schema_pages

_PLACE = re.compile(r"^<!-- generated: ([a-z ]+) -->$", re.MULTILINE)
GENERATORS: Mapping[str, Callable[[], str]] = {
    "cautions": run_pages.cautions,
    "commands": command_pages.commands,
    "data keys": plugin_pages.data_keys,
    "exit codes": command_pages.exit_codes,
    "families": plugin_pages.families,
    "matrix": plugin_pages.matrix,
    "methods": plugin_pages.methods,
    "metric names": run_pages.metric_names,
    "options": command_pages.options,
    "quality metrics": plugin_pages.metrics,
    "recipes": plugin_pages.recipes,
    "renderers": plugin_pages.renderers,
    "report keys": schema_pages.report_keys,
    "report schema": schema_pages.report_schema,
    "requirements": plugin_pages.requirements,
    "result schema": schema_pages.result_schema,
    "tags": run_pages.tags,
}


def filled(text: str) -> str:
    """Return a page with its generated parts.

    Raises:
        KeyError: there is no generated part of that name.
    """
    return _PLACE.sub(lambda match: GENERATORS[match[1]](), text)
