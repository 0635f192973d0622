"""The ways to keep versions that are compared: from rows in memory, each in a process of its own.

`python versions.py NAME SOURCE DESTINATION` loads the enrollments of the DuckDB file SOURCE, then
a hundredth of them with another end, and prints one line of JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import dlt
import duckdb
import pyarrow as pa

from oneroster_source.destination.hints import hints, row_merge
from oneroster_source.destination.history import STAMPS, keep
from oneroster_source.model import HISTORY_KEPT, SYNC_RUN_DETAILS, V1P1
from oneroster_source.model.type_map import arrow_schema

ENDPOINT = V1P1["enrollments"]
COMPARED = ", ".join(f'"{c.name}"' for c in ENDPOINT.table.columns if c.name not in STAMPS)


def ours(pipeline: dlt.Pipeline, rows: pa.Table, *, first: bool) -> None:
    """The exact table by a merge, and versions of what has changed."""
    assert ENDPOINT.history
    own = dlt.resource([rows], name=ENDPOINT.name)
    # an empty table is filled without a merge, as the source does it
    merge: Any = "append" if first else row_merge(keep_deleted=True)
    resources = [own.apply_hints(**hints(ENDPOINT.table), write_disposition=merge)]
    for table in (ENDPOINT.history, HISTORY_KEPT, SYNC_RUN_DETAILS) if first else ():
        empty = dlt.resource([arrow_schema(table).empty_table()], name=table.name)
        resources.append(empty.apply_hints(**hints(table), write_disposition="append"))
    pipeline.run(resources)
    ids = None if first else rows.column("sourced_id").to_pylist()
    with pipeline.destination_client() as client:
        keep(client, at=datetime.now(UTC), loaded={ENDPOINT.name: ids})  # type: ignore[arg-type]


def scd2(pipeline: dlt.Pipeline, rows: pa.Table, *, first: bool) -> None:
    """dlt's own, with the version of each row as a column, and the versions alone."""
    own = dlt.resource([rows], name=ENDPOINT.name)
    version: Any = {**hints(ENDPOINT.table)["columns"], "version": {"x-row-version": True}}
    own.apply_hints(
        columns=version,
        # merge_key would compare the two keys as one text
        write_disposition={
            "disposition": "merge",
            "strategy": "scd2",
            "row_version_column_name": "version",
            "destination_scope": "EXISTS (SELECT 1 FROM (SELECT estab AS e, sourced_id AS i FROM"
            " {staging_table}) s WHERE s.e = estab AND s.i = sourced_id)",
        },
    )
    pipeline.run(own)


def both(pipeline: dlt.Pipeline, rows: pa.Table, *, first: bool) -> None:
    """The same, and the exact table by a merge, which all views read."""
    own = dlt.resource([rows.drop_columns("version")], name="exact")
    merge: Any = "append" if first else row_merge(keep_deleted=True)
    pipeline.run(
        own.apply_hints(**{**hints(ENDPOINT.table), "table_name": "exact"}, write_disposition=merge)
    )
    scd2(pipeline, rows, first=first)


WAYS: dict[str, Callable[..., None]] = {f.__name__: f for f in (ours, scd2, both)}


if __name__ == "__main__":
    way, source, destination = sys.argv[1:]
    with duckdb.connect(source, read_only=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        version = "" if way == "ours" else f", md5(({COMPARED})::text)"
        query = f"SELECT *{version and version + ' AS version'} FROM ({{}})"
        table = f"SELECT * FROM oneroster.{ENDPOINT.name}"
        later = f"SELECT * REPLACE (end_date + 1 AS end_date) FROM ({table})"
        later += " WHERE hash(sourced_id) % 100 = 7"
        loads = [connection.execute(query.format(t)).to_arrow_table() for t in (table, later)]
    pipeline = dlt.pipeline(
        "benchmark",
        destination=dlt.destinations.duckdb(destination),
        dataset_name="oneroster",
        pipelines_dir=tempfile.mkdtemp(),
    )
    seconds = []
    for rows in loads:
        begun = time.perf_counter()
        WAYS[way](pipeline, rows, first=rows is loads[0])
        seconds.append(time.perf_counter() - begun)
    versions = f"{ENDPOINT.name}{'_history' if way == 'ours' else ''}"
    with pipeline.sql_client() as client:
        ended = "valid_to" if way == "ours" else "_dlt_valid_to"
        (counts,) = client.execute_sql(f"SELECT count(*), count({ended}) FROM {versions}") or ()
    print(json.dumps({"seconds": seconds, "rows": [len(r) for r in loads], "versions": counts}))  # noqa: T201
