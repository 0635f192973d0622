"""SQL in files: one SELECT each, and what it is about.

A file begins with comments: `-- key: value` lines, then, if need be, sentences. The SQL is plain
enough for DuckDB and Postgres and names tables without their dataset; sqlglot writes it for any
destination, with the names as dlt writes them there.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import Any

import sqlglot
from sqlglot import exp

from oneroster_source.destination.queries import SqlClient

_ABOUT = re.compile(r"-- ([a-z]+): (.+)")


@dataclass(frozen=True)
class Statement:
    """A SELECT.

    Args:
        name: That of its file.
        about: The `-- key: value` lines at its head.
        sql: The file's text.
    """

    name: str
    about: Mapping[str, str]
    sql: str

    @cached_property
    def _tree(self) -> Any:
        return sqlglot.parse_one(self.sql, read="duckdb")

    @cached_property
    def tables(self) -> frozenset[str]:
        """The tables and views that it reads."""
        own = {cte.alias for cte in self._tree.find_all(exp.CTE)}
        return frozenset(table.name for table in self._tree.find_all(exp.Table)) - own

    @cached_property
    def columns(self) -> frozenset[str]:
        """The names of the columns that it reads, of whichever table."""
        return frozenset(column.name for column in self._tree.find_all(exp.Column))

    @cached_property
    def _texts(self) -> dict[Hashable, str]:
        """Cached by destination: each takes 5 ms to write, and a process may make many runs."""
        return {}

    def rows(self, client: SqlClient) -> list[dict[str, Any]]:
        """Runs the statement; returns its rows by the names of their columns.

        Raises:
            DatabaseException: dlt's, if the destination refuses it.
        """
        with client.execute_query(self.written(client)) as cursor:
            names = [column[0].lower() for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def written(self, client: SqlClient) -> str:
        """The statement in the SQL dialect of a destination."""
        place = client.make_qualified_table_name_path(self.name, quote=False)
        destination = (client.capabilities.sqlglot_dialect, *place)
        if destination not in self._texts:
            self._texts[destination] = self._written(client)
        return self._texts[destination]

    def _written(self, client: SqlClient) -> str:
        tree, capabilities = self._tree.copy(), client.capabilities
        for name in tree.find_all(exp.Identifier):
            name.set("this", capabilities.casefold_identifier(name.this))
            name.set("quoted", True)
        for table in list(tree.find_all(exp.Table)):
            if table.name in map(capabilities.casefold_identifier, self.tables):
                *outer, own = client.make_qualified_table_name_path(table.name, quote=False)
                path = [exp.to_identifier(part, quoted=True) for part in (*outer, own)]
                table.set("this", path[-1])
                table.set("db", path[-2] if len(path) > 1 else None)
                table.set("catalog", path[-3] if len(path) > 2 else None)
        text: str = tree.sql(dialect=capabilities.sqlglot_dialect, comments=False)
        return text


def statements(package: str) -> Iterator[Statement]:
    """The statements in a package's files, by name."""
    found = (file for file in files(package).iterdir() if file.name.endswith(".sql"))
    for file in sorted(found, key=lambda file: file.name):
        sql = file.read_text("utf-8")
        about: dict[str, str] = {}
        for line in sql.splitlines():
            told = _ABOUT.fullmatch(line)
            if told is None:
                break
            about[told[1]] = told[2]
        yield Statement(file.name.removesuffix(".sql"), about, sql)


def in_order(found: Iterable[Statement], there: Iterable[str]) -> Iterator[Statement]:
    """Yields the statements that can be run, each after those that it reads.

    Args:
        found: Statements, which may read from each other by name.
        there: The tables that exist.
    """
    known, waiting = set(there), list(found)
    while ready := [statement for statement in waiting if statement.tables <= known]:
        yield from ready
        known.update(statement.name for statement in ready)
        waiting = [statement for statement in waiting if statement not in ready]
