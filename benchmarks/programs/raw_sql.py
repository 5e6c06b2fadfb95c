"""Lower bound for reading one team's runs: `raw_sql.py FILE TEAM`, with only the database driver."""

from __future__ import annotations

import sqlite3
import sys

database = sqlite3.connect(sys.argv[1])
_TEAM = "SELECT run_uuid FROM tags WHERE key = 'team' AND value = ?"
runs = {run_id: ({}, {}) for (run_id,) in database.execute(_TEAM, (sys.argv[2],))}  # type: ignore[var-annotated]
for kind, table in enumerate(("tags", "latest_metrics")):
    statement = f"SELECT run_uuid, key, value FROM {table} WHERE run_uuid IN ({_TEAM})"  # noqa: S608
    for run_id, key, value in database.execute(statement, (sys.argv[2],)):
        runs[run_id][kind][key] = value
assert runs
