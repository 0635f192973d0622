"""The privacy policy: which columns are left out, and which are stored as pseudonyms.

A column that is left out stays in its table and is NULL. A pseudonym is the hexadecimal
HMAC-SHA-256 of a value under the user's key. A value has the same pseudonym everywhere, so that
joins work.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from oneroster_source.config.options import Options, missing, wrong
from oneroster_source.model import Column, Dialect, Endpoint, Holds, Ref, Table

SETTINGS = ("privacy", "columns", "pseudonymize", "privacy_key")
Profile = Literal["full", "no-contact", "pseudonymous"]
SHORTEST_KEY = 32
"""In characters: a shorter key could be guessed."""
_FEWEST = 8
"""Different characters that a random key has at least."""
NEEDED = frozenset({"estab", "sourced_id", "status", "date_last_modified", "position"})
"""Columns that are always kept, as are those that begin with an underscore: they identify rows and
changes."""


@dataclass(frozen=True, slots=True)
class Key:
    """The key of pseudonyms, which is neither shown nor stored."""

    _secret: bytes = field(repr=False)

    def digest(self, *texts: str) -> str:
        """Returns the hexadecimal HMAC-SHA-256 of texts, in this order."""
        return hmac.digest(self._secret, "\n".join(texts).encode(), "sha256").hex()

    @property
    def name(self) -> str:
        """Identifies the key without revealing it."""
        return self.digest("oneroster", "name of the key")[:16]


@dataclass(frozen=True)
class Privacy:
    """What is kept of each table.

    Args:
        profile: The profile.
        left_out: The columns that are left out, by table.
        pseudonymized: The columns that are pseudonyms, by table, with those that refer to rows
            whose ids are pseudonyms.
        key: The key of pseudonyms, if there is one.
    """

    profile: Profile
    left_out: Mapping[str, frozenset[str]]
    pseudonymized: Mapping[str, frozenset[str]]
    key: Key | None = None

    def pseudonym(self, table: str, column: str, value: str) -> str:
        """Returns a value as a column of the destination stores it."""
        if self.key is None or column not in self.pseudonymized.get(table, ()):
            return value
        return self.key.digest(value)

    def pseudonyms(self, endpoint: Endpoint) -> dict[str, Any]:
        """Returns what an endpoint's pseudonyms depend on: rows with others would not join."""
        names = {t.name: sorted(self.pseudonymized.get(t.name, ())) for t in endpoint.tables()}
        found = {name: columns for name, columns in names.items() if columns}
        return {**found, "key": self.key.name} if found and self.key else {}

    def hidden_attributes(self, endpoint: Endpoint) -> frozenset[str]:
        """Returns the attributes that `extra` must not contain, in lower case."""
        own = self.left_out[endpoint.name] | self.pseudonymized[endpoint.name]
        found = [c.source for c in endpoint.table.columns if c.name in own]
        found = [source for source in found if source and "." not in source]
        for attribute in endpoint.nested:
            child = endpoint.child_name(attribute)
            if self.left_out[child] or self.pseudonymized[child] - {
                f"{endpoint.singular}_sourced_id"
            }:
                found += attribute.names
            if isinstance(attribute, Ref) and attribute.column.name in own:
                found += attribute.names
        return frozenset(source.lower() for source in found)

    @property
    def columns_left_out(self) -> frozenset[str]:
        """The columns that are left out, as `table.column`."""
        return frozenset(f"{name}.{c}" for name, columns in self.left_out.items() for c in columns)

    def __str__(self) -> str:
        hashed = sum(map(len, self.pseudonymized.values()))
        return (
            f"Privacy profile {self.profile}: {len(self.columns_left_out)} columns are left out,"
            f" {hashed} hold pseudonyms; `oneroster data-dictionary` lists them"
        )


def of_endpoint(name: str, columns: Collection[str]) -> list[str]:
    """Returns the columns, as `table.column`, that are in an endpoint's tables."""
    return [column for column in columns if column.startswith((f"{name}.", f"{name}__"))]


def privacy(options: Options, dialect: Dialect, *, to_load: bool = True) -> Privacy:
    """Returns the privacy policy that the settings choose.

    Args:
        options: The settings.
        dialect: What the schools send.
        to_load: Whether pseudonyms will be made, which needs a key.

    Raises:
        ConfigurationError: A setting is invalid, or a key is needed and missing.
    """
    if not isinstance(options.privacy, str) or options.privacy not in _LEFT_OUT:
        raise wrong("privacy", f"is {options.privacy!r}")
    left_out = {
        table.name: frozenset(_left_out(options.privacy, endpoint, table))
        for endpoint, table in _tables(dialect)
    }
    left_out |= _chosen(options.columns, left_out, dialect)
    pseudonymized = _pseudonymized(options, dialect)
    for _, table in _tables(dialect):
        if "sourced_id" in pseudonymized[table.name] | left_out[table.name]:
            # it ends with the id
            left_out[table.name] |= {c.name for c in table.columns if c.name == "href"}
    key = _key(options.privacy_key)
    if to_load and key is None and any(pseudonymized.values()):
        raise missing("privacy_key", ", which pseudonyms need")
    return Privacy(options.privacy, left_out, pseudonymized, key)  # type: ignore[arg-type]


_LEFT_OUT: Mapping[str, Collection[Holds]] = {
    "full": (),
    "no-contact": ("contact", "secret", "open"),
    "pseudonymous": ("name", "contact", "secret", "open"),
}
"""What each profile leaves out. `open` columns may contain names: `no-contact` leaves them out of
rows about people, `pseudonymous` out of all rows."""


def _left_out(profile: str, endpoint: Endpoint, table: Table) -> Iterator[str]:
    for column in table.columns:
        if column.holds in _LEFT_OUT[profile] and (
            endpoint.personal or profile == "pseudonymous" or column.holds != "open"
        ):
            yield column.name


def _tables(dialect: Dialect) -> Iterator[tuple[Endpoint, Table]]:
    for endpoint in dialect.endpoints:
        for table in endpoint.tables():
            yield endpoint, table


def own_columns(table: Table) -> list[Column]:
    """Returns the columns that may be left out."""
    return [
        column
        for column in table.columns
        if column.name not in {*table.key, "status", "date_last_modified"}
        and not column.name.startswith("_")
    ]


def _chosen(
    columns: object, left_out: Mapping[str, frozenset[str]], dialect: Dialect
) -> dict[str, frozenset[str]]:
    tables = {table.name: table for _, table in _tables(dialect)}
    chosen = {} if columns is None else columns
    if not isinstance(chosen, Mapping):
        raise wrong("columns", f"is {columns!r}")
    found = {}
    for name, choice in chosen.items():
        if name not in tables:
            raise wrong("columns", f"names {name!r}, which is not a table")
        found[name] = _chosen_of(tables[name], choice, left_out[name])
    for endpoint in dialect.endpoints:
        for ref in endpoint.refs:
            # the child table of a reference repeats its id
            if ref.column.name in found.get(endpoint.name, ()):
                child = endpoint.child_name(ref)
                found[child] = frozenset(column.name for column in own_columns(tables[child]))
    return found


def _chosen_of(table: Table, choice: object, left_out: frozenset[str]) -> frozenset[str]:
    """The columns of one table that are left out, by its entry in the setting `columns`."""
    ways = [*choice] if isinstance(choice, Mapping) else []
    if not isinstance(choice, Mapping) or ways not in (["include"], ["exclude"]):
        raise wrong("columns", f"needs either include or exclude for {table.name}")
    (way,), (named,) = ways, choice.values()
    if not isinstance(named, list | tuple) or not all(isinstance(c, str) for c in named):
        raise wrong("columns", f"needs a list of columns for {table.name}")
    may = {column.name for column in own_columns(table)}
    known = {column.name for column in table.columns}
    for column in named:
        if column not in known:
            raise wrong("columns", f"names {table.name}.{column}, which is not a column")
        if way == "exclude" and column not in may:
            raise wrong("columns", f"leaves out {table.name}.{column}, which identifies rows")
    return frozenset(may.difference(named)) if way == "include" else left_out.union(named)


def _pseudonymized(options: Options, dialect: Dialect) -> dict[str, frozenset[str]]:
    named = [] if options.pseudonymize is None else options.pseudonymize
    if not isinstance(named, list | tuple):
        raise wrong("pseudonymize", f"is {named!r}")
    tables = {table.name: (endpoint, table) for endpoint, table in _tables(dialect)}
    found: dict[str, set[str]] = {name: set() for name in tables}
    whose: set[str] = set()
    """Endpoints whose ids are pseudonyms."""
    if options.privacy == "pseudonymous":
        whose = {endpoint.name for endpoint in dialect.endpoints if endpoint.personal}
        for name, (_, table) in tables.items():
            found[name] = {c.name for c in table.columns if c.holds == "identifier"}
    for text in named:
        name, _, column = str(text).partition(".")
        declared = tables[name][1].columns if name in tables else ()
        kind = next((c.kind for c in declared if c.name == column), None)
        if kind is None:
            raise wrong("pseudonymize", f"names {text!r}, which is not a table.column")
        endpoint = tables[name][0]
        if name == endpoint.name and column == "sourced_id":
            whose.add(name)
            continue
        refers = _refers(endpoint, name, column)
        if refers is not None:
            raise wrong("pseudonymize", f"names {text!r}, which follows {refers}.sourced_id")
        if kind != "text" or column in NEEDED:
            raise wrong("pseudonymize", f"names {text!r}, which cannot be a pseudonym")
        found[name].add(column)
    for name, column in _ids(dialect, whose):
        found[name].add(column)
    return {name: frozenset(columns) for name, columns in found.items()}


def _refers(endpoint: Endpoint, table: str, column: str) -> str | None:
    """Returns the endpoint that a column refers to, if any."""
    for ref in endpoint.refs:
        if table == endpoint.name and column == ref.column.name:
            return ref.target
    for attribute in endpoint.nested:
        if table == endpoint.child_name(attribute):
            if column == "sourced_id" and attribute.target:
                return attribute.target
            if column == f"{endpoint.singular}_sourced_id":
                return endpoint.name
    return None


def _ids(dialect: Dialect, whose: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yields every column that contains ids of these endpoints."""
    for endpoint, table in _tables(dialect):
        for column in table.columns:
            own = table.name == endpoint.name and column.name == "sourced_id"
            target = endpoint.name if own else _refers(endpoint, table.name, column.name)
            if target in whose:
                yield table.name, column.name


def _key(secret: object) -> Key | None:
    if secret is None:
        return None
    if not isinstance(secret, str):
        raise wrong("privacy_key", "is not text")
    if len(secret.strip()) < SHORTEST_KEY:
        raise wrong("privacy_key", f"is shorter than {SHORTEST_KEY} characters")
    if len(set(secret)) < _FEWEST:
        raise wrong("privacy_key", f"has fewer than {_FEWEST} different characters")
    return Key(secret.encode())
