"""Who left long ago: rows that were deleted at the source, and all that hangs on them.

They are found by subqueries alone, which any database takes, and the same ones count and remove. So
the order matters: whatever hangs on rows goes before they do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from dlt.destinations.job_client_impl import SqlJobClientBase

from oneroster_source.errors import ConfigurationError
from oneroster_source.spec import (
    QUALITY_RESULTS,
    REJECTED_ROWS,
    V1P1,
    ChildList,
    Endpoint,
    Table,
)

_DAYS = {"d": 1, "w": 7, "y": 365}
_ROWS = 10_000


def duration(text: str) -> timedelta:
    """`365d`, `52w` or `2y`, a year having 365 days.

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
    """What is to go, or did.

    Args:
        rows: Rows by table.
        examples: Ids among the examples in `quality_results`.
        undated: Deleted rows of which no time is known: they stay.
    """

    rows: dict[str, int]
    examples: int = 0
    undated: int = 0


@dataclass(frozen=True, slots=True)
class _Part:
    """A piece of SQL, and the values of its marks."""

    sql: str
    values: tuple[Any, ...] = ()


class Retention:
    """Finds, counts and removes what was deleted at the source before an instant.

    Args:
        client: dlt's client of a database.
        before: The instant.
        estabs: Of these schools; None for all.
    """

    def __init__(
        self, client: SqlJobClientBase, before: datetime, estabs: Collection[str] | None = None
    ) -> None:
        self._client = client.sql_client
        self._before = before
        self._estabs = None if estabs is None else sorted(estabs)
        names = {REJECTED_ROWS.name, QUALITY_RESULTS.name}
        for endpoint in V1P1.endpoints:
            names |= {table.name for table in (*endpoint.tables(), *_versions(endpoint))}
        stored = client.get_storage_tables(names)
        self._there = {name: set(columns) for name, columns in stored if columns}

    def count(self) -> Leavers:
        """What would go now, and what stays because nobody knows since when it is deleted."""
        rows: dict[str, int] = {}
        for table, where in self._steps():
            ((found,),) = self._asked(f"SELECT count(*) FROM {self._place(table)} WHERE", where)
            if found:
                rows[table] = rows.get(table, 0) + int(found)
        undated = 0
        for endpoint in self._endpoints():
            of_school = self._of_schools()
            ((found,),) = self._asked(
                f"SELECT count(*) FROM {self._place(endpoint.name)} WHERE {self._c('_deleted')} ="
                f" %s AND {self._ended(endpoint.name)} IS NULL AND",
                _Part(of_school.sql, (True, *of_school.values)),
            )
            undated += int(found)
        return Leavers(rows, sum(gone for gone, _, _ in self._examples()), undated)

    def remove(self) -> Leavers:
        """Removes it, in one transaction."""
        with self._client.begin_transaction():
            found = self.count()
            for _, examples, key in list(self._examples()):
                keys = " AND ".join(f"{self._c(name)} = %s" for name in QUALITY_RESULTS.key)
                self._client.execute_sql(
                    f"UPDATE {self._place(QUALITY_RESULTS.name)} SET {self._c('examples')} = %s"
                    f" WHERE {keys}",
                    *(examples, *key),
                )
            for table, where in self._steps():
                self._asked(f"DELETE FROM {self._place(table)} WHERE", where)
        return found

    def _steps(self) -> Iterator[tuple[str, _Part]]:
        """The tables, with what is to go of each, in the order in which it can go."""
        for endpoint in self._endpoints():
            ids = self._ids(endpoint)
            for attribute, child in _children(endpoint):
                if child.name in self._there:
                    where = self._among(child.parent_key, ids)
                    target = attribute.target if isinstance(attribute, ChildList) else None
                    if target and V1P1[target].personal and target in self._there:
                        where = _either(where, self._among("sourced_id", self._ids(V1P1[target])))
                    yield child.name, where
            for table in _versions(endpoint):
                if table.name in self._there:
                    yield table.name, self._old_versions(endpoint, table)
            if REJECTED_ROWS.name in self._there:
                among = self._among("sourced_id", ids)
                yield (
                    REJECTED_ROWS.name,
                    _Part(
                        f"{self._c('endpoint')} = %s AND {among.sql}",
                        (endpoint.name, *among.values),
                    ),
                )
            yield endpoint.name, self._to_go(endpoint)

    def _endpoints(self) -> Iterator[Endpoint]:
        """Those whose tables are there, what refers to people before the people."""
        found = [endpoint for endpoint in V1P1.endpoints if endpoint.name in self._there]
        yield from sorted(found, key=lambda endpoint: not any(V1P1.refers_to_people(endpoint)))

    def _ids(self, endpoint: Endpoint) -> _Part:
        """The keys of an endpoint's rows that are to go."""
        where = self._to_go(endpoint)
        keys = ", ".join(map(self._c, endpoint.table.key))
        return _Part(
            f"SELECT {keys} FROM {self._place(endpoint.name)} WHERE {where.sql}", where.values
        )

    def _to_go(self, endpoint: Endpoint) -> _Part:
        """An endpoint's rows that are to go: deleted long ago, or of people who are to go."""
        school = self._of_schools()
        own = _Part(
            f"({self._c('_deleted')} = %s AND {self._ended(endpoint.name)} < %s AND {school.sql})",
            (True, self._before, *school.values),
        )
        return _either(own, *self._of_people(endpoint))

    def _of_people(self, endpoint: Endpoint) -> Iterator[_Part]:
        for column, people in V1P1.refers_to_people(endpoint):
            if people.name in self._there:
                yield self._among(column, self._ids(people))

    def _old_versions(self, endpoint: Endpoint, table: Table) -> _Part:
        """The versions of what is to go; and of what has no row any more, if the last one ended
        long ago."""
        names = ("estab", "sourced_id", "valid_from", "valid_to", "_deleted", "_deleted_at")
        estab, own, begun, ended, deleted, at = (self._c(name) for name in names)
        history, rows = self._place(table.name), self._place(endpoint.name)
        gone = f"COALESCE(v.{ended}, CASE WHEN v.{deleted} THEN COALESCE(v.{at}, v.{begun}) END)"
        school = self._of_schools()
        lost = _Part(
            f"({school.sql} AND ({estab}, {own}) NOT IN (SELECT {estab}, {own} FROM {rows})"
            f" AND ({estab}, {own}) NOT IN (SELECT v.{estab}, v.{own} FROM {history} v"
            f" WHERE {gone} IS NULL OR {gone} >= %s))",
            (*school.values, self._before),
        )
        return _either(
            self._among("sourced_id", self._ids(endpoint)), *self._of_people(endpoint), lost
        )

    def _ended(self, table: str) -> str:
        """Since when a deleted row is deleted; NULL where nobody knows."""
        status = f"LOWER({self._c('status')})"
        for sign in " -_":
            # as a load reads it
            status = f"REPLACE({status}, '{sign}', '')"
        marked = (
            f"CASE WHEN {status} IN ('tobedeleted', 'inactive')"
            f" THEN {self._c('date_last_modified')} END"
        )
        # a table that was last loaded by an earlier version has no such column
        if self._column("_deleted_at") not in self._there[table]:
            return marked
        return f"COALESCE({self._c('_deleted_at')}, {marked})"

    def _of_schools(self) -> _Part:
        if self._estabs is None:
            return _Part("1 = 1")
        marks = ", ".join(["%s"] * len(self._estabs)) or "NULL"
        return _Part(f"{self._c('estab')} IN ({marks})", tuple(self._estabs))

    def _among(self, column: str, ids: _Part) -> _Part:
        return _Part(f"({self._c('estab')}, {self._c(column)}) IN ({ids.sql})", ids.values)

    def _examples(self) -> Iterator[tuple[int, str, tuple[Any, ...]]]:
        """The rows of `quality_results` that name ids that are to go: how many, what is left of the
        examples, as JSON, and the row's key."""
        if QUALITY_RESULTS.name not in self._there:
            return
        of_school = self._of_schools()
        keys = ", ".join(self._c(name) for name in (*QUALITY_RESULTS.key, "examples"))
        found = self._asked(
            f"SELECT {keys} FROM {self._place(QUALITY_RESULTS.name)}"
            f" WHERE {self._c('rows_found')} > 0 AND",
            of_school,
        )
        rows = [(tuple(key), _list(examples)) for *key, examples in found]
        named = {(str(key[1]), name) for key, names in rows for name in names}
        going: set[tuple[str, str]] = set()
        for endpoint in self._endpoints() if named else ():
            ids = self._ids(endpoint)
            with self._client.execute_query(ids.sql, *ids.values) as cursor:
                while some := cursor.fetchmany(_ROWS):
                    going |= named.intersection((str(estab), str(name)) for estab, name in some)
        for key, names in rows:
            kept = [name for name in names if (str(key[1]), name) not in going]
            if len(kept) < len(names):
                yield len(names) - len(kept), json.dumps(kept), key

    def _asked(self, query: str, part: _Part) -> Any:
        return self._client.execute_sql(f"{query} {part.sql}", *part.values) or ()

    def _place(self, table: str) -> str:
        return self._client.make_qualified_table_name(table)

    def _c(self, column: str) -> str:
        return self._client.escape_column_name(column)

    def _column(self, name: str) -> str:
        return self._client.capabilities.casefold_identifier(name)


def _children(endpoint: Endpoint) -> Iterator[tuple[Any, Table]]:
    return zip(endpoint.nested, endpoint.child_tables(), strict=True)


def _versions(endpoint: Endpoint) -> tuple[Table, ...]:
    return () if endpoint.history is None else (endpoint.history,)


def _either(*parts: _Part) -> _Part:
    values = tuple(value for part in parts for value in part.values)
    return _Part("(" + " OR ".join(part.sql for part in parts) + ")", values)


def _list(examples: Any) -> list[str]:
    found = json.loads(examples) if isinstance(examples, str) else examples
    return [str(name) for name in found or ()]
