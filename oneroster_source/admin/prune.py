"""Prunes leavers: rows that were deleted at the source long ago, and all that refers to them.

Their keys are collected first, in temporary tables; the same joins with these count and remove.
Each join stands alone, or with others under AND: beside OR, and with NOT IN, Postgres compares each
row with every key as soon as the keys outgrow its `work_mem`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from oneroster_source.destination import staging
from oneroster_source.destination.backends import backend_of
from oneroster_source.destination.queries import (
    DatabaseClient,
    Removed,
    Rows,
    count_rows,
    existing_tables,
    id_in,
    render_query,
)
from oneroster_source.destination.session import Target, require_database
from oneroster_source.destination.state import changed, cursors, prunes, source_of
from oneroster_source.errors import ConfigurationError
from oneroster_source.extract.deletions import credible
from oneroster_source.model import QUALITY_RESULTS, REJECTED_ROWS, V1P1, Dialect, Endpoint, Table
from oneroster_source.model.deleted_status import is_deleted_sql
from oneroster_source.reporting.quality import ids_shown

_DAYS = {"d": 1, "w": 7, "y": 365}
_ROWS = 10_000


def duration(text: str) -> timedelta:
    """Parses `365d`, `52w` or `2y`; a year has 365 days.

    Raises:
        ConfigurationError: It is none of these, or longer than there are years.
    """
    found = re.fullmatch(r"(\d{1,9})\s*([dwy])", text.strip().lower(), re.ASCII)
    days = int(found[1]) * _DAYS[found[2]] if found else -1
    if 0 <= days <= 365_000:
        return timedelta(days=days)
    raise ConfigurationError(
        f"{text!r} is no time span", todo="write 365d, 52w or 2y: days, weeks, or years of 365 days"
    )


@dataclass(frozen=True, slots=True)
class Leavers:
    """What is to be pruned, or was.

    Args:
        rows: Rows by table.
        examples: Ids among the examples in `quality_results`.
        undated: Deleted rows without a credible time of deletion: they stay.
    """

    rows: dict[str, int]
    examples: int = 0
    undated: int = 0


@dataclass(frozen=True, slots=True)
class _Shorter:
    """A row of `quality_results` from whose examples some are removed.

    Args:
        key: The row's key.
        kept: The examples that stay.
        removed: How many do not.
    """

    key: tuple[Any, ...]
    kept: list[str]
    removed: int


def leavers(target: Target, before: datetime, estabs: Collection[str] | None = None) -> Leavers:
    """Counts what `prune` would remove: see `Warehouse.leavers`."""
    with target.loaded(own=True) as (_, opened_client):
        client = require_database(opened_client, target.name)
        with Retention(client, V1P1, before, estabs).found() as found:
            return found


def prune(target: Target, before: datetime, estabs: Collection[str] | None = None) -> Removed:
    """Removes what was deleted at the source before an instant: see `Warehouse.prune`."""
    removed = Removed()
    with target.loaded(to_write=True, removed=removed) as (pipeline, opened_client):
        client = require_database(opened_client, target.name)
        # first: a load could bring back what is removed before this is known
        with changed(pipeline) as state:
            known = {estab for schools in cursors(state).values() for estab in schools}
            kept, instant = prunes(source_of(state)), before.astimezone(UTC).isoformat()
            source_of(state)["prunes"] = kept | {
                estab: {
                    "before": max(kept.get(estab, {}).get("before", ""), instant),
                    "at": datetime.now(UTC).isoformat(),
                }
                for estab in (known if estabs is None else estabs)
            }
        # of runs that were killed
        staging.drop(client)
        retention = Retention(client, V1P1, before, estabs)
        with retention.found() as found:
            if found.rows or found.examples:
                backend_of(client).mark_compaction_due()
                retention.remove()
        removed.rows = found.rows
    return removed


class Retention:
    """Finds, counts and removes what was deleted at the source before an instant.

    Args:
        client: dlt's client of a database.
        dialect: What the tables hold.
        before: The instant.
        estabs: Of these schools; None for all.
    """

    def __init__(
        self,
        client: DatabaseClient,
        dialect: Dialect,
        before: datetime,
        estabs: Collection[str] | None = None,
    ) -> None:
        self._client = client.sql_client
        self._dialect = dialect
        self._before = before
        self._estabs = tuple(sorted(estabs or ()))
        marks = ", ".join(["%s"] * len(self._estabs)) or "NULL"
        self._of_schools = "1 = 1" if estabs is None else f"{{estab}} IN ({marks})"
        self._span = credible(datetime.now(UTC))
        stored = existing_tables(client, {table.name for table in dialect.tables})
        self._there = {n: {str(c).lower() for c in columns} for n, columns in stored.items()}
        found = [endpoint for endpoint in dialect.endpoints if endpoint.name in self._there]
        # it is known who is to go, before what refers to them is looked for
        self._endpoints = sorted(found, key=lambda e: any(dialect.refers_to_people(e)))
        self._shorter: list[_Shorter] = []

    @contextmanager
    def found(self) -> Iterator[Leavers]:
        """Finds what to remove; `remove`, called within, removes it in the same transaction."""
        with self._client.begin_transaction():
            made = [name for endpoint in self._endpoints for name in self._collected(endpoint)]
            self._shorter = list(self._examples())
            rows = count_rows(self._client, self._steps())
            yield Leavers(rows, sum(row.removed for row in self._shorter), self._undated())
            for name in made:
                self._asked(f"DROP TABLE {name}")

    def remove(self) -> None:
        """Removes what was found."""
        keys = " AND ".join(f"{{{name}}} = %s" for name in QUALITY_RESULTS.key)
        for row in self._shorter:
            query = f"UPDATE {{table}} SET {{examples}} = %s WHERE {keys}"
            self._asked(query, json.dumps(row.kept), *row.key, table=QUALITY_RESULTS)
        for step in self._steps():
            step.delete(self._client)

    def _collected(self, endpoint: Endpoint) -> Iterator[str]:
        """Creates tables of the keys of rows that are removed, and of keys without a row whose
        versions are removed; yields the names of these tables.
        """
        keys = "SELECT {estab} AS going_estab, {sourced_id} AS going_id FROM"
        wheres = [
            f"{{_deleted}} = %s AND {self._ended(endpoint)} < %s AND {self._of_schools}",
            *self._of_people(endpoint),
        ]
        self._asked(
            f"CREATE TEMPORARY TABLE {_going(endpoint)} AS "
            + " UNION ".join(f"{keys} {{table}} WHERE {where}" for where in wheres),
            *(True, *self._span, self._before, *self._estabs),
            table=endpoint.table,
        )
        yield _going(endpoint)
        if endpoint.history is None or endpoint.history.name not in self._there:
            return
        ended = (
            "COALESCE({valid_to}, CASE WHEN {_deleted} = %s"
            f" THEN COALESCE({_credibly('{_deleted_at}')}, {{valid_from}}) END)"
        )
        self._asked(
            f"CREATE TEMPORARY TABLE {_lost(endpoint)} AS {keys} {{versions}} v"
            f" WHERE {self._of_schools} AND NOT EXISTS (SELECT 1 FROM {{table}} t"
            " WHERE t.{estab} = v.{estab} AND t.{sourced_id} = v.{sourced_id})"
            " GROUP BY {estab}, {sourced_id}"
            f" HAVING count(*) = count(CASE WHEN {ended} < %s THEN 1 END)",
            *(*self._estabs, True, *self._span, self._before),
            table=endpoint.table,
            versions=endpoint.history,
        )
        yield _lost(endpoint)

    def _undated(self) -> int:
        undated = 0
        for endpoint in self._endpoints:
            query = (
                "SELECT count(*) FROM {table} WHERE {_deleted} = %s"
                f" AND {self._ended(endpoint)} IS NULL AND {self._of_schools}"
                f" AND NOT {_among(_going(endpoint))}"
            )
            values = (True, *self._span, *self._estabs)
            ((found,),) = self._asked(query, *values, table=endpoint.table)
            undated += int(found)
        return undated

    def _steps(self) -> Iterator[Rows]:
        """Yields the rows to remove; those of one table do not overlap."""
        for endpoint in self._endpoints:
            for table, wheres in self._hanging_on(endpoint):
                if table.name in self._there:
                    for i, where in enumerate(wheres):
                        yield Rows(table, " AND NOT ".join((where, *wheres[:i])))
            going = _among(_going(endpoint))
            if REJECTED_ROWS.name in self._there:
                yield Rows(REJECTED_ROWS, f"{{endpoint}} = %s AND {going}", (endpoint.name,))
            yield Rows(endpoint.table, going)

    def _hanging_on(self, endpoint: Endpoint) -> Iterator[tuple[Table, list[str]]]:
        """Yields the tables of child rows and versions, and the conditions of rows to remove."""
        for attribute, child in zip(endpoint.nested, endpoint.child_tables(), strict=True):
            wheres = [_among(_going(endpoint), child.parent_key)]
            target = attribute.target
            if target and target in self._there and self._dialect[target].personal:
                wheres.append(_among(_going(self._dialect[target])))
            yield child, wheres
        if endpoint.history is not None:
            own = (_among(_going(endpoint)), _among(_lost(endpoint)))
            yield endpoint.history, [*own, *self._of_people(endpoint)]

    def _of_people(self, endpoint: Endpoint) -> Iterator[str]:
        """Yields the conditions that rows or versions refer to people who are removed."""
        for column, people in self._dialect.refers_to_people(endpoint):
            if people.name in self._there:
                yield _among(_going(people), column)

    def _ended(self, endpoint: Endpoint) -> str:
        """The SQL for when a row was deleted; NULL where that is unknown."""
        ended = f"CASE WHEN {is_deleted_sql('{status}')} THEN {{date_last_modified}} END"
        # a table that was last loaded by an earlier version has no such column
        if "_deleted_at" in self._there[endpoint.name]:
            ended = f"COALESCE({{_deleted_at}}, {ended})"
        return _credibly(ended)

    def _examples(self) -> Iterator[_Shorter]:
        """Yields the rows of `quality_results` that name ids that are removed, or that are as old
        and name ids that no row has any more.
        """
        if QUALITY_RESULTS.name not in self._there:
            return
        columns = ", ".join(f"{{{name}}}" for name in QUALITY_RESULTS.key)
        found = self._asked(
            "SELECT {check_id}, {examples}, {estab},"
            f" CASE WHEN {{checked_at}} < %s THEN 1 ELSE 0 END, {columns} FROM {{table}}"
            f" WHERE {{rows_found}} > 0 AND {self._of_schools}",
            *(self._before, *self._estabs),
            table=QUALITY_RESULTS,
        )
        rows = []
        for check_id, examples, *rest in found:
            of = [name for name in ids_shown(check_id) if name in self._there]
            if of:
                rows.append((of, _list(examples), *rest))
        names = {name for _, examples, *_ in rows for name in examples}
        going, held = {}, {}
        for endpoint in self._endpoints if names else ():
            going[endpoint.name] = self._keys("going_estab", "going_id", _going(endpoint), names)
            held[endpoint.name] = self._keys(
                "{estab}", "{sourced_id}", "{table}", names, table=endpoint.table
            )
        for of, examples, estab, is_old, *key in rows:
            kept = [
                name
                for name in examples
                if not any((str(estab), name) in going[endpoint] for endpoint in of)
                and (not is_old or any((str(estab), name) in held[endpoint] for endpoint in of))
            ]
            if len(kept) < len(examples):
                yield _Shorter(tuple(key), kept, len(examples) - len(kept))

    def _keys(
        self, estab: str, sourced_id: str, place: str, names: Collection[str], **tables: Table
    ) -> set[tuple[str, str]]:
        """The keys in a table, estab and sourcedId, whose sourcedId is one of the names."""
        few, values = id_in(self._client, names) or ("{} IS NOT NULL", ())
        query = f"SELECT {estab}, {sourced_id} FROM {place} WHERE {few.format(sourced_id)}"
        found: set[tuple[str, str]] = set()
        query = render_query(self._client, query, **tables)
        with self._client.execute_query(query, *values) as cursor:
            while some := cursor.fetchmany(_ROWS):
                found |= {(str(of), str(name)) for of, name in some if name in names}
        return found

    def _asked(self, query: str, *values: Any, **tables: Table) -> Any:
        return self._client.execute_sql(render_query(self._client, query, **tables), *values) or ()


def _going(endpoint: Endpoint) -> str:
    """The table of the keys of an endpoint's rows that are removed."""
    return f"oneroster_going_{endpoint.name}"


def _lost(endpoint: Endpoint) -> str:
    """The table of the keys without a row whose versions are removed."""
    return f"oneroster_lost_{endpoint.name}"


def _among(keys: str, column: str = "sourced_id") -> str:
    """The condition that a row's estab and another column are in a table of keys."""
    # its columns have names of their own, so that those of the row need no table before them
    return (
        f"EXISTS (SELECT 1 FROM {keys} WHERE going_estab = {{estab}} AND going_id = {{{column}}})"
    )


def _credibly(instant: str) -> str:
    """The SQL for an instant, or NULL if not credible; takes the two parameters of `credible`."""
    return f"CASE WHEN {instant} BETWEEN %s AND %s THEN {instant} END"


def _list(examples: Any) -> list[str]:
    found = json.loads(examples) if isinstance(examples, str) else examples
    return [str(name) for name in found or ()]
