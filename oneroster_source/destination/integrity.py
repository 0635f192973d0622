"""Post-load integrity checks, which must hold whoever else writes to the destination.

Keys are unique and not null, no child row lacks its parent, and no school has fewer rows than were
read. In a large table into which few rows were loaded, only these are checked. A table that was
empty must have exactly the rows that were loaded, which are correct as they are made.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from oneroster_source.destination.queries import SqlClient, id_in, run_query
from oneroster_source.model import Endpoint, Table
from oneroster_source.run_report import Report

REPAIR = "run `oneroster sync --full`; if that does not help, drop the table and run it again"


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
    client: SqlClient,
    endpoints: Collection[Endpoint],
    changed: AbstractSet[str],
    report: Report,
    written: Written,
) -> Iterator[str]:
    """Checks the tables, with a query or two for each; describes what is wrong.

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
"""Rows of a table, beyond which only some are checked."""


class _Rows:
    """The rows to check: those of some ids, where few were loaded into a large table, else all.

    The others were checked when they were loaded, and are again in a full pass: checking five
    million rows for the sake of five thousand would take longer than loading these.
    """

    def __init__(
        self,
        client: SqlClient,
        table: Table,
        keys: Collection[tuple[str, str]] | None,
    ) -> None:
        self._client = client
        self._few: tuple[str, tuple[str, str]] | None = None
        self._keys = len(keys or ())
        self.all_there = False
        """Whether every row to check is known to be in the table."""
        few = id_in(client, {key for _, key in keys or ()})
        if few is not None:
            ((found,),) = self.fetch("SELECT count(*) FROM {table}", table=table)
            self._few = few if found > LARGE else None

    def count_live(self, table: Table) -> dict[str, int]:
        """Counts the rows of the endpoint's own table that are not deleted, by school."""
        ids = "0" if self._few is None else "count(DISTINCT {sourced_id})"
        query = (
            f"SELECT {{estab}}, sum(CASE WHEN {{_deleted}} = %s THEN 1 ELSE 0 END), {ids}"
            " FROM {table} WHERE {few} GROUP BY {estab}"
        )
        found = self.fetch(query, "{sourced_id}", values=(False,), table=table)
        self.all_there = self._few is not None and self._keys == sum(n for *_, n in found)
        return {str(estab): int(live) for estab, live, _ in found}

    def fetch(
        self, query: str, *columns: str, values: tuple[Any, ...] = (), **tables: Table
    ) -> Any:
        """Runs a query, in which `{few}` stands for the condition on the rows to check.

        Args:
            query: The query; its own parameters come before the first `{few}`.
            *columns: The columns that hold the ids, one for each `{few}`.
            values: Its own parameters.
            **tables: Its tables, as `run_query` takes them.
        """
        for column in columns:
            few, more = self._few or ("TRUE", ())
            values = (*values, *more)
            query = query.replace("{few}", few.format(column), 1)
        return run_query(self._client, query, *values, **tables)


def _filled(rows: _Rows, endpoint: Endpoint, written: Written) -> Iterator[str]:
    for table in endpoint.tables():
        if table.name in written.filled:
            ((found,),) = rows.fetch("SELECT count(*) FROM {table}", table=table)
            loaded = written.filled[table.name]
            if found != loaded:
                yield f"{table.name}: has {found:,} rows, and {loaded:,} were loaded: {REPAIR}"


def _keys(rows: _Rows, table: Table) -> Iterator[str]:
    keys = ", ".join(f"{{{name}}}" for name in table.key)
    nulls = " OR ".join(f"{{{name}}} IS NULL" for name in table.key)
    query = (
        "SELECT sum(CASE WHEN n > 1 THEN 1 ELSE 0 END), sum(CASE WHEN nameless THEN n ELSE 0 END)"
        f" FROM (SELECT count(*) AS n, ({nulls}) AS nameless FROM {{table}} WHERE {{few}}"
        f" GROUP BY {keys}) by_key"
    )
    ((twice, nameless),) = rows.fetch(query, f"{{{table.parent_key}}}", table=table)
    if twice:
        yield f"{table.name}: {int(twice):,} duplicate keys: {REPAIR}"
    if nameless:
        yield f"{table.name}: {int(nameless):,} rows have no key: {REPAIR}"


def _orphans(rows: _Rows, child: Table, table: Table) -> Iterator[str]:
    column = f"c.{{{child.parent_key}}}"
    query = (
        "SELECT count(*) FROM {child} c WHERE {few} AND NOT EXISTS (SELECT 1 FROM {table} p"
        f" WHERE p.{{estab}} = c.{{estab}} AND p.{{sourced_id}} = {column} AND {{few}})"
    )
    ((found,),) = rows.fetch(query, column, "p.{sourced_id}", table=table, child=child)
    if found:
        yield f"{child.name}: {found:,} orphaned rows (no parent in {table.name}): {REPAIR}"


def _counts(rows: _Rows, endpoint: Endpoint, report: Report) -> Iterator[str]:
    live = rows.count_live(endpoint.table)
    for outcome in report.outcomes:
        if outcome.endpoint != endpoint.name or not outcome.loaded:
            continue
        count = live.get(outcome.estab, 0)
        most = outcome.live + outcome.kept + outcome.held
        if count < outcome.live or (outcome.mode == "full" and count > most):
            yield (
                f"{endpoint.name}: school {outcome.estab} has {count:,} rows, and"
                f" {outcome.live:,} were read: {REPAIR}"
            )


SAME = 0.5
"""The share of a school's rows that another school must have too for both to be the same school. A
sixth form or a few teachers that two schools share are fewer."""


def same_schools(
    client: SqlClient,
    endpoints: Collection[Endpoint],
    new: Collection[str],
    others: Collection[str],
) -> dict[str, dict[str, set[str]]]:
    """Finds new schools that largely have the rows of another one, with two queries per endpoint.

    Ids alone prove nothing, since many providers number the rows of each school from 1: the same
    row has the same id, and the same name if it is a person, or else the same references.

    Args:
        client: dlt's client of the destination, open.
        endpoints: The endpoints to compare, whose tables exist.
        new: The new schools.
        others: The schools that they may be.

    Returns:
        The other schools by endpoint, for each new school.
    """
    found: dict[str, dict[str, set[str]]] = {}
    for endpoint in endpoints:
        table = endpoint.table
        same_in = [c.name for c in table.columns if c.holds == "name"]
        same_in = same_in or [ref.column.name for ref in endpoint.refs]
        if not (endpoint.personal and same_in):
            continue
        same = " AND ".join(f"COALESCE(n.{{{c}}}, '') = COALESCE(o.{{{c}}}, '')" for c in same_in)
        some = " OR ".join(f"n.{{{c}}} IS NOT NULL" for c in same_in)
        whose, which = (", ".join(["%s"] * len(estabs)) for estabs in (new, others))
        query = (
            "SELECT n.{estab}, o.{estab}, count(*) FROM {table} n JOIN {table} o"
            f" ON n.{{sourced_id}} = o.{{sourced_id}} AND {same} WHERE ({some})"
            f" AND n.{{_deleted}} = %s AND n.{{estab}} IN ({whose}) AND o.{{estab}} IN ({which})"
            " GROUP BY n.{estab}, o.{estab}"
        )
        shared = run_query(client, query, False, *new, *others, table=table)
        if not shared:
            continue
        query = (
            "SELECT {estab}, count(*) FROM {table}"
            f" WHERE {{_deleted}} = %s AND {{estab}} IN ({whose}) GROUP BY {{estab}}"
        )
        counts = run_query(client, query, False, *new, table=table)
        rows = {str(estab): int(count) for estab, count in counts}
        for estab, other, count in shared:
            if count >= SAME * rows[str(estab)]:
                by_endpoint = found.setdefault(str(estab), {})
                by_endpoint.setdefault(endpoint.name, set()).add(str(other))
    return found
