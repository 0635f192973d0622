"""What a dataset holds on one person: found, counted, exported and removed by the same code.

What belongs to a person follows from the model: the row of the endpoint of people; rows that refer
to it; their child rows, versions and rejected values; items of others' lists that refer to it. From
what is left, values that name the person are redacted: see `transform.json_redaction`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from typing import Any, cast

from oneroster_source.config.options import places
from oneroster_source.config.privacy import Key
from oneroster_source.destination.hints import hints
from oneroster_source.destination.queries import (
    DatabaseClient,
    Rows,
    as_utc,
    count_rows,
    existing_tables,
    render_query,
)
from oneroster_source.errors import ConfigurationError
from oneroster_source.model import (
    QUALITY_RESULTS,
    REJECTED_ROWS,
    SUPPRESSED_USERS,
    Column,
    Dialect,
    Endpoint,
    Table,
)
from oneroster_source.transform.json_redaction import divided, readable
from oneroster_source.transform.suppression import (
    MAKE_A_KEY,
    Suppression,
    digest,
    keyless,
)

_PSEUDONYM = re.compile("[0-9a-f]{64}")
"""What `Key.digest` makes."""


@dataclass(frozen=True, slots=True)
class Mention:
    """A value that names the person, in somebody else's row.

    Args:
        table: The table.
        column: The column, which holds JSON.
        row: Other columns of the row, to recognize it by.
        text: The value.
        rest: The value without the person.
        about: The part of it that is about the person.
    """

    table: Table
    column: str
    row: dict[str, Any]
    text: str
    rest: str | None
    about: Any


class Person:
    """A person of a school, in one dataset.

    Args:
        client: dlt's client of the destination.
        dialect: What the tables hold.
        estab: The school.
        user: The person's id, as the provider gives it or as the dataset holds it.
        key: The key of pseudonyms and of the list of erased people, if there is one.
    """

    def __init__(
        self, client: DatabaseClient, dialect: Dialect, estab: str, user: str, key: Key | None
    ) -> None:
        self._client = client
        self._dialect = dialect
        self._estab = estab
        self._user = user
        self._key = key
        names = {table.name for table in dialect.tables}
        self._stored = {n: list(c) for n, c in existing_tables(client, names).items()}
        self._erased = self._listed()
        self._owned: dict[str, tuple[str, ...]] = {}
        """Ids by endpoint, which stay known when the rows are removed."""

    def require_key(self) -> None:
        """Checks that the key is the one that the list of erased people was made with.

        Raises:
            ConfigurationError: There is none, or the list was made under another one.
        """
        if self._key is None:
            raise ConfigurationError(
                "the setting 'privacy_key' is missing, without which no list of erased people can"
                " be kept, and the next load would bring them back",
                todo=f"let it be what this prints, and keep it: {MAKE_A_KEY}. Every later load"
                f" needs it. Looked for in {places('privacy_key')}",
            )
        if SUPPRESSED_USERS.name in self._stored:
            names = self._asked("SELECT DISTINCT {key_name} FROM {table}", SUPPRESSED_USERS)
            if any(name != self._key.name for (name,) in names):
                raise keyless(
                    "people were erased under another key than that of the setting 'privacy_key'"
                )

    @property
    def is_known(self) -> bool:
        """Whether any row belongs to the person, or they were erased.

        That others' rows name the id is not enough: a mistyped one may mean something else there.
        """
        sql = self._client.sql_client
        return self.was_erased or any(trace.count(sql) for trace in self._traces())

    @property
    def was_erased(self) -> bool:
        """Whether the list of erased people contains them."""
        return bool(self._erased)

    def counts(self) -> dict[str, int]:
        """Counts the rows that belong to the person, by table, and the values in others' rows that
        name them, by table and column; what there is none of is left out.
        """
        return self._counted(self._mentions())

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """The same rows as JSON types, by table; of others' rows only what names the person.

        The entry in the list of erased people belongs to it.
        """
        found: dict[str, list[dict[str, Any]]] = {}
        for trace in self._traces():
            rows = self._rows(trace.table, trace.where, *trace.values)
            found.setdefault(trace.table.name, []).extend(rows)
        for mention in self._mentions():
            row = {**mention.row, mention.column: mention.about}
            found.setdefault(mention.table.name, []).append(row)
        found[SUPPRESSED_USERS.name] = self._erased
        return {name: rows for name, rows in found.items() if rows}

    def suppress(self) -> None:
        """Adds the person to the list of erased people, and creates the list if there is none."""
        assert self._key is not None
        if self.was_erased:
            return
        table, sql = SUPPRESSED_USERS, self._client.sql_client
        if table.name not in self._stored:
            types = self._client.capabilities.get_type_mapper()
            whole = cast(Any, {"name": table.name})
            columns = ", ".join(
                f"{sql.escape_column_name(name)} {types.to_destination_type(kind, whole)} NOT NULL"
                for name, kind in hints(table)["columns"].items()
            )
            place = sql.make_qualified_table_name(table.name)
            sql.execute_sql(f"CREATE TABLE {place} ({columns})")
        names = ", ".join(f"{{{column.name}}}" for column in table.columns)
        row = (
            self._estab,
            digest(self._key, self._estab, self._user),
            self._key.name,
            datetime.now(UTC),
        )
        self._done(f"INSERT INTO {{table}} ({names}) VALUES (%s, %s, %s, %s)", table, *row)

    def remove(self) -> dict[str, int]:
        """Removes all rows of the person, and all that names them; returns the counts of both."""
        mentions = list(self._mentions())
        counts = self._counted(mentions)
        for trace in list(self._traces()):
            trace.delete(self._client.sql_client)
        shorter = {(m.table, m.column, m.text): m.rest for m in mentions}
        for (table, column, text), rest in shorter.items():
            query = (
                f"UPDATE {{table}} SET {{{column}}} = %s WHERE {{estab}} = %s"
                f" AND CAST({{{column}}} AS VARCHAR) = %s"
            )
            self._done(query, table, rest, self._estab, text)
        return counts

    @cached_property
    def _ids(self) -> tuple[str, ...]:
        """The person's id in each form that the dataset may hold: it may be a pseudonym in rows
        that were loaded with other settings.
        """
        if self._key is None:
            return (self._user,)
        found = {self._user, self._key.digest(self._user)}
        # of another id no digest can be the person's
        for table, column in self._places() if _PSEUDONYM.fullmatch(self._user) else ():
            if column in self._stored.get(table.name, ()):
                query = f"SELECT DISTINCT {{{column}}} FROM {{table}} WHERE {{estab}} = %s"
                held = (str(value) for (value,) in self._asked(query, table, self._estab))
                found |= {text for text in held if self._key.digest(text) == self._user}
        return tuple(sorted(found))

    def _places(self) -> Iterator[tuple[Table, str]]:
        """Yields the columns that hold ids of people."""
        for endpoint in self._dialect.endpoints:
            whose = ["sourced_id"] if endpoint.name == self._dialect.people else []
            for table in filter(None, (endpoint.table, endpoint.history)):
                yield from ((table, name) for name in (*whose, *self._refs(endpoint)))
            for attribute, child in zip(endpoint.nested, endpoint.child_tables(), strict=True):
                if whose:
                    yield child, child.parent_key
                if attribute.target == self._dialect.people:
                    yield child, "sourced_id"
        yield REJECTED_ROWS, "sourced_id"

    def _are_theirs(self, text: str) -> bool:
        return text in self._ids or (self._key is not None and self._key.digest(text) in self._ids)

    def _own(self, endpoint: Endpoint) -> tuple[str, ...]:
        """The ids of an endpoint's rows that belong to the person, removed ones included."""
        if endpoint.name == self._dialect.people:
            return self._ids
        if endpoint.name not in self._owned:
            self._owned[endpoint.name] = tuple(sorted(self._referring(endpoint)))
        return self._owned[endpoint.name]

    def _refs(self, endpoint: Endpoint) -> list[str]:
        """The columns of an endpoint that refer to a person."""
        return [name for name, _ in self._dialect.refers_to_people(endpoint)]

    def _referring(self, endpoint: Endpoint) -> set[str]:
        columns = self._refs(endpoint)
        if not columns:
            return set()
        places = [(t, "sourced_id", columns) for t in (endpoint.table, endpoint.history) if t]
        places += [
            (child, child.parent_key, ["sourced_id"])
            for attribute, child in zip(endpoint.nested, endpoint.child_tables(), strict=True)
            if attribute in endpoint.refs and attribute.target == self._dialect.people
        ]
        found: set[str] = set()
        for table, column, holds in places:
            if table.name in self._stored:
                where, values = _any((name, self._ids) for name in holds)
                query = (
                    f"SELECT DISTINCT {{{column}}} FROM {{table}} WHERE {{estab}} = %s AND {where}"
                )
                asked = self._asked(query, table, self._estab, *values)
                found |= {str(sourced_id) for (sourced_id,) in asked}
        if found and endpoint.name in self._stored:
            # they were the person's, and are somebody else's now
            among, ids = _any([("sourced_id", tuple(sorted(found)))])
            whose, values = _any((name, self._ids) for name in columns)
            query = (
                f"SELECT {{sourced_id}} FROM {{table}} WHERE {{estab}} = %s AND {among}"
                f" AND NOT {whose}"
            )
            asked = self._asked(query, endpoint.table, self._estab, *ids, *values)
            found -= {str(sourced_id) for (sourced_id,) in asked}
        return found

    def _traces(self) -> Iterator[Rows]:
        for endpoint in self._dialect.endpoints:
            for trace in self._of_endpoint(endpoint):
                if trace.table.name in self._stored:
                    yield trace

    def _of_endpoint(self, endpoint: Endpoint) -> Iterator[Rows]:
        own, school = self._own(endpoint), (self._estab,)
        if own:
            where, values = _any([("sourced_id", own)])
            yield Rows(endpoint.table, f"{{estab}} = %s AND {where}", school + values)
            named = f"{{estab}} = %s AND {{endpoint}} = %s AND {where}"
            yield Rows(REJECTED_ROWS, named, (*school, endpoint.name, *values))
        for attribute, child in zip(endpoint.nested, endpoint.child_tables(), strict=True):
            refers = attribute.target == self._dialect.people
            wanted = [(child.parent_key, own), ("sourced_id", self._ids if refers else ())]
            if own or refers:
                where, values = _any(wanted)
                yield Rows(child, f"{{estab}} = %s AND {where}", school + values)
        if endpoint.history is not None and (own or self._refs(endpoint)):
            where, values = self._versions(endpoint, own)
            yield Rows(endpoint.history, f"{{estab}} = %s AND {where}", school + values)

    def _versions(self, endpoint: Endpoint, own: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
        """The condition of versions that belong to the person: a row may have been somebody else's
        before, or since.
        """
        if endpoint.name == self._dialect.people:
            return _any([("sourced_id", own)])
        refs = self._refs(endpoint)
        whose, values = _any([(name, self._ids) for name in refs])
        nobodys = " AND ".join(f"{{{name}}} IS NULL" for name in refs)
        if not own:
            return whose, values
        where, ids = _any([("sourced_id", own)])
        return f"({whose} OR ({where} AND {nobodys}))", values + ids

    def _mentions(self) -> Iterator[Mention]:
        traces: dict[str, list[Rows]] = {}
        for trace in self._traces():
            traces.setdefault(trace.table.name, []).append(trace)
        for endpoint in self._dialect.endpoints:
            for table in filter(None, (endpoint.table, endpoint.history)):
                for column in table.columns:
                    if column.kind == "json":
                        found = self._naming(table, column, table.key, traces.get(table.name, ()))
                        yield from found
        ids = {i for endpoint in self._dialect.endpoints for i in self._own(endpoint)}
        rest = [c.name for c in QUALITY_RESULTS.columns if c.kind != "json"]
        for column in QUALITY_RESULTS.columns:
            if column.kind == "json":
                yield from self._naming(QUALITY_RESULTS, column, rest, (), ids)

    def _naming(
        self,
        table: Table,
        column: Column,
        told: Collection[str],
        own: Collection[Rows],
        ids: Container[str] = (),
    ) -> Iterator[Mention]:
        """Yields the values of a column that name the person, or one of the `ids`."""
        if column.name not in self._stored.get(table.name, ()):
            return
        names = ", ".join(f"{{{name}}}" for name in told)
        others = "".join(f" AND ({trace.where}) IS NOT TRUE" for trace in own)
        query = (
            f"SELECT CAST({{{column.name}}} AS VARCHAR), {names} FROM {{table}}"
            f" WHERE {{estab}} = %s AND {{{column.name}}} IS NOT NULL{others}"
        )
        values = (value for trace in own for value in trace.values)

        def theirs(text: str) -> bool:
            return text in ids or self._are_theirs(text)

        for text, *cells in self._asked(query, table, self._estab, *values):
            rest, about = divided(text, theirs, ids=table is QUALITY_RESULTS)
            if about is not None:
                row = dict(zip(told, map(_plain, cells), strict=True))
                if rest is None and not column.nullable:
                    rest = "[]"
                yield Mention(table, column.name, row, text, rest, readable(about))

    def _counted(self, mentions: Iterable[Mention]) -> dict[str, int]:
        found = count_rows(self._client.sql_client, self._traces())
        for mention in mentions:
            name = f"{mention.table.name}.{mention.column}"
            found[name] = found.get(name, 0) + 1
        return found

    def _listed(self) -> list[dict[str, Any]]:
        if self._key is None or SUPPRESSED_USERS.name not in self._stored:
            return []
        return [
            row
            for row in self._rows(SUPPRESSED_USERS, "{estab} = %s", self._estab)
            if self._user
            in Suppression(self._key, self._estab, [row["user_digest"]], self._dialect)
        ]

    def _rows(self, table: Table, where: str, *values: str) -> list[dict[str, Any]]:
        """Selects rows, with all columns of the table."""
        names, sql = self._stored[table.name], self._client.sql_client
        as_json = {column.name for column in table.columns if column.kind == "json"}
        columns = ", ".join(
            f"CAST({name} AS VARCHAR)" if plain in as_json else name
            for plain, name in ((name, sql.escape_column_name(name)) for name in names)
        )
        return [
            {
                name: readable(cell) if name in as_json and cell else _plain(cell)
                for name, cell in zip(names, row, strict=True)
            }
            for row in self._asked(f"SELECT {columns} FROM {{table}} WHERE {where}", table, *values)
        ]

    def _asked(self, query: str, table: Table, *values: Any) -> Sequence[Any]:
        sql = self._client.sql_client
        return sql.execute_sql(render_query(sql, query, table=table), *values) or ()

    def _done(self, query: str, table: Table, *values: Any) -> None:
        sql = self._client.sql_client
        sql.execute_sql(render_query(sql, query, table=table), *values)


def _any(columns: Iterable[tuple[str, tuple[str, ...]]]) -> tuple[str, tuple[str, ...]]:
    """The SQL condition that one of the columns has one of its values, and these values."""
    given = [(name, values) for name, values in columns if values]
    where = " OR ".join(f"{{{n}}} IN ({', '.join(['%s'] * len(v))})" for n, v in given)
    return f"({where})", tuple(value for _, values in given for value in values)


def _plain(value: Any) -> Any:
    """A value as a JSON type."""
    if isinstance(value, datetime):
        moment = as_utc(value)
        return moment and moment.isoformat()
    return value.isoformat() if isinstance(value, date) else value
