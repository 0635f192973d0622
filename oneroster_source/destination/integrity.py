"""What must hold in the destination after every load, whoever else writes there.

Keys are unique and not null, no child row is without its parent, and no school has fewer rows than
were read: in the whole table where a school was read whole, else in the rows that were loaded. A
table that was empty has just the rows that were loaded, of which that holds as they are made.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Set
from dataclasses import dataclass, field
from typing import Any

from dlt.destinations.sql_client import SqlClientBase

from oneroster_source.destination.existing_rows import among, worded
from oneroster_source.model import Endpoint, Table
from oneroster_source.run_report import Report

HEAL = "run `oneroster sync --full`; if that does not help, drop the table and run it again"


@dataclass(slots=True)
class Written:
    """Which rows a run has handed over to be loaded, as far as that makes it cheaper to check them.

    Args:
        keys: The estab and sourcedId of these rows by endpoint, where they are few and no school
            was read completely: ids of children, which are never shown or passed on.
        filled: How many rows there are for each table that was empty.
    """

    keys: dict[str, set[tuple[str, str]]] = field(default_factory=dict, repr=False)
    filled: dict[str, int] = field(default_factory=dict)


def problems(
    client: SqlClientBase[Any],
    endpoints: Collection[Endpoint],
    changed: Set[str],
    report: Report,
    written: Written,
) -> Iterator[str]:
    """What does not hold, in words; a query or two for each table.

    Args:
        client: dlt's client of the destination.
        endpoints: What was loaded.
        changed: The tables into which something was loaded: the others are as they were.
        report: What the reader verified.
        written: Which rows were loaded.
    """
    for endpoint in endpoints:
        if changed.isdisjoint(table.name for table in endpoint.tables()):
            continue
        rows = _Rows(client, endpoint.table, written.keys.get(endpoint.name))
        if endpoint.name in written.filled:
            yield from _filled(rows, endpoint, written)
            yield from _counts(rows, endpoint, report)
            continue
        if endpoint.name in changed:
            yield from _keys(rows, endpoint.table)
            yield from _counts(rows, endpoint, report)
        for child in endpoint.child_tables():
            if child.name in changed:
                yield from _keys(rows, child)
                if not rows.all_there:
                    yield from _orphans(rows, child, endpoint.table)


LARGE = 500_000
"""Rows of a table that is looked at in part."""


class _Rows:
    """The rows to look at: those that hang on some ids, where a load brought few into a large
    table; else all.

    What else is in it was looked at when it was loaded, and is again when it is read whole: to go
    through five million rows for five thousand would take longer than to load them.
    """

    def __init__(
        self,
        client: SqlClientBase[Any],
        table: Table,
        keys: Collection[tuple[str, str]] | None,
    ) -> None:
        self._client = client
        self._few: tuple[str, tuple[str, str]] | None = None
        self._keys = len(keys or ())
        self.all_there = False
        """Whether every row to look at is known to be in the table."""
        few = among(client, {key for _, key in keys or ()})
        if few is not None:
            ((found,),) = self.asked("SELECT count(*) FROM {table}", table=table)
            self._few = few if found > LARGE else None

    def count_live(self, table: Table) -> dict[str, int]:
        """The rows of the endpoint's own table that are not deleted, by school."""
        ids = "0" if self._few is None else "count(DISTINCT {sourced_id})"
        query = (
            f"SELECT {{estab}}, sum(CASE WHEN {{_deleted}} = %s THEN 1 ELSE 0 END), {ids}"
            " FROM {table} WHERE {few} GROUP BY {estab}"
        )
        found = self.asked(query, "{sourced_id}", values=(False,), table=table)
        self.all_there = self._few is not None and self._keys == sum(n for *_, n in found)
        return {str(estab): int(live) for estab, live, _ in found}

    def asked(
        self, query: str, *columns: str, values: tuple[Any, ...] = (), **tables: Table
    ) -> Any:
        """The answer to a query. It may have `{few}`, after all its values: the condition on the
        rows, each time by the next of the `columns` that hold their ids."""
        for column in columns:
            few, more = self._few or ("TRUE", ())
            values = (*values, *more)
            query = query.replace("{few}", few.format(column), 1)
        return self._client.execute_sql(worded(self._client, query, **tables), *values) or ()


def _filled(rows: _Rows, endpoint: Endpoint, written: Written) -> Iterator[str]:
    for table in endpoint.tables():
        if table.name in written.filled:
            ((found,),) = rows.asked("SELECT count(*) FROM {table}", table=table)
            loaded = written.filled[table.name]
            if found != loaded:
                yield f"{table.name}: has {found:,} rows, and {loaded:,} were loaded: {HEAL}"


def _keys(rows: _Rows, table: Table) -> Iterator[str]:
    keys = ", ".join(f"{{{name}}}" for name in table.key)
    nulls = " OR ".join(f"{{{name}}} IS NULL" for name in table.key)
    query = (
        "SELECT sum(CASE WHEN n > 1 THEN 1 ELSE 0 END), sum(CASE WHEN nameless THEN n ELSE 0 END)"
        f" FROM (SELECT count(*) AS n, ({nulls}) AS nameless FROM {{table}} WHERE {{few}}"
        f" GROUP BY {keys}) by_key"
    )
    ((twice, nameless),) = rows.asked(query, f"{{{table.parent_key}}}", table=table)
    if twice:
        yield f"{table.name}: {int(twice):,} keys are there more than once: {HEAL}"
    if nameless:
        yield f"{table.name}: {int(nameless):,} rows have no key: {HEAL}"


def _orphans(rows: _Rows, child: Table, table: Table) -> Iterator[str]:
    column = f"c.{{{child.parent_key}}}"
    query = (
        "SELECT count(*) FROM {child} c WHERE {few} AND NOT EXISTS (SELECT 1 FROM {table} p"
        f" WHERE p.{{estab}} = c.{{estab}} AND p.{{sourced_id}} = {column} AND {{few}})"
    )
    ((found,),) = rows.asked(query, column, "p.{sourced_id}", table=table, child=child)
    if found:
        yield f"{child.name}: {found:,} rows have no row in {table.name}: {HEAL}"


def _counts(rows: _Rows, endpoint: Endpoint, report: Report) -> Iterator[str]:
    held = rows.count_live(endpoint.table)
    for outcome in report.outcomes:
        if outcome.endpoint != endpoint.name or not outcome.loaded:
            continue
        count = held.get(outcome.estab, 0)
        most = outcome.live + outcome.kept + outcome.held
        if count < outcome.live or (outcome.mode == "full" and count > most):
            yield (
                f"{endpoint.name}: school {outcome.estab} has {count:,} rows, and"
                f" {outcome.live:,} were read: {HEAL}"
            )


SAME = 0.5
"""Of a school's rows, those that another school has too, at least, if both are the same school. A
sixth form or a few teachers that two schools share are fewer."""


def same_schools(
    client: SqlClientBase[Any],
    endpoints: Collection[Endpoint],
    new: Collection[str],
    others: Collection[str],
) -> dict[str, dict[str, set[str]]]:
    """Which new schools have largely the rows of another one; two queries for each endpoint that
    tells it.

    Ids alone tell nothing, as many providers number the rows of each school from 1: the same row
    has the same id, and of people the same name, or else the same references.

    Args:
        client: dlt's client of the destination.
        endpoints: Where to look, of those that are loaded.
        new: The new schools.
        others: Those that they may be.

    Returns:
        For each new school the others, by endpoint.
    """
    found: dict[str, dict[str, set[str]]] = {}
    for endpoint in endpoints:
        table = endpoint.table
        told_by = [c.name for c in table.columns if c.holds == "name"]
        told_by = told_by or [ref.column.name for ref in endpoint.refs]
        if not (endpoint.personal and told_by):
            continue
        same = " AND ".join(f"COALESCE(n.{{{c}}}, '') = COALESCE(o.{{{c}}}, '')" for c in told_by)
        some = " OR ".join(f"n.{{{c}}} IS NOT NULL" for c in told_by)
        whose, which = (", ".join(["%s"] * len(estabs)) for estabs in (new, others))
        query = (
            "SELECT n.{estab}, o.{estab}, count(*) FROM {table} n JOIN {table} o"
            f" ON n.{{sourced_id}} = o.{{sourced_id}} AND {same} WHERE ({some})"
            f" AND n.{{_deleted}} = %s AND n.{{estab}} IN ({whose}) AND o.{{estab}} IN ({which})"
            " GROUP BY n.{estab}, o.{estab}"
        )
        shared = client.execute_sql(worded(client, query, table=table), False, *new, *others)
        if not shared:
            continue
        query = (
            "SELECT {estab}, count(*) FROM {table}"
            f" WHERE {{_deleted}} = %s AND {{estab}} IN ({whose}) GROUP BY {{estab}}"
        )
        counted = client.execute_sql(worded(client, query, table=table), False, *new) or ()
        rows = {str(estab): int(count) for estab, count in counted}
        for estab, other, count in shared:
            if count >= SAME * rows[str(estab)]:
                by_endpoint = found.setdefault(str(estab), {})
                by_endpoint.setdefault(endpoint.name, set()).add(str(other))
    return found
