"""What must hold in the destination after every load, whoever else writes there.

Keys are unique and not null, no child row is without its parent, and no school has fewer rows than
were read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from dlt.destinations.sql_client import SqlClientBase

from oneroster_source.held import worded
from oneroster_source.report import Report
from oneroster_source.spec import Endpoint, Table

HEAL = "run `oneroster sync --full`; if that does not help, drop the table and run it again"


def problems(
    client: SqlClientBase[Any],
    endpoints: Collection[Endpoint],
    changed: Collection[str],
    report: Report,
) -> Iterator[str]:
    """What does not hold, in words; a query or two for each table.

    Args:
        client: dlt's client of the destination.
        endpoints: What was loaded.
        changed: The tables into which something was loaded: the others are as they were.
        report: What the reader verified.
    """
    for endpoint in endpoints:
        if endpoint.name in changed:
            yield from _keys(client, endpoint.table)
            yield from _rows(client, endpoint, report)
        for child in endpoint.child_tables():
            if child.name in changed:
                yield from _keys(client, child)
                yield from _orphans(client, child, endpoint.table)


def _keys(client: SqlClientBase[Any], table: Table) -> Iterator[str]:
    keys = ", ".join(f"{{{name}}}" for name in table.key)
    nulls = " OR ".join(f"{{{name}}} IS NULL" for name in table.key)
    twice = f"SELECT {keys} FROM {{table}} GROUP BY {keys} HAVING count(*) > 1"
    found = _count(client, f"SELECT count(*) FROM ({twice}) repeated", table=table)
    if found:
        yield f"{table.name}: {found:,} keys are there more than once: {HEAL}"
    found = _count(client, f"SELECT count(*) FROM {{table}} WHERE {nulls}", table=table)
    if found:
        yield f"{table.name}: {found:,} rows have no key: {HEAL}"


def _orphans(client: SqlClientBase[Any], child: Table, table: Table) -> Iterator[str]:
    query = (
        "SELECT count(*) FROM {child} c WHERE NOT EXISTS (SELECT 1 FROM {table} p"
        f" WHERE p.{{estab}} = c.{{estab}} AND p.{{sourced_id}} = c.{{{child.parent_key}}})"
    )
    found = _count(client, query, table=table, child=child)
    if found:
        yield f"{child.name}: {found:,} rows have no row in {table.name}: {HEAL}"


def _rows(client: SqlClientBase[Any], endpoint: Endpoint, report: Report) -> Iterator[str]:
    query = "SELECT {estab}, count(*) FROM {table} WHERE {_deleted} = %s GROUP BY {estab}"
    found = client.execute_sql(worded(client, query, table=endpoint.table), False)
    held = {str(estab): int(count) for estab, count in found or ()}
    for outcome in report.outcomes:
        if outcome.endpoint != endpoint.name or outcome.state != "read":
            continue
        count = held.get(outcome.estab, 0)
        most = outcome.live + outcome.kept
        if count < outcome.live or (outcome.mode == "full" and count > most):
            yield (
                f"{endpoint.name}: school {outcome.estab} has {count:,} rows, and"
                f" {outcome.live:,} were read: {HEAL}"
            )


def _count(client: SqlClientBase[Any], query: str, **tables: Table) -> int:
    found = client.execute_sql(worded(client, query, **tables))
    return int(found[0][0]) if found else 0
