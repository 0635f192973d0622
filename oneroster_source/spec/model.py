"""The vocabulary in which a version of the standard is written down, and the tables it implies."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["text", "flag", "date", "instant", "json", "integer", "number"]
"""How a value is read: what SQL reads it and which Arrow and dlt types it gets, `shape` says."""


Holds = Literal["", "name", "contact", "identifier", "secret", "open"]
"""What of a person a value can tell by itself: a name; a way to reach them; an id by which others
know them; a secret of theirs; or, where the provider may send what it likes, anything. Profiles of
`privacy` and the register of fields go by it."""


def snake(name: str) -> str:
    """`dateLastModified` -> `date_last_modified`, as dlt would write it."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table in the warehouse."""

    name: str
    kind: Kind = "text"
    nullable: bool = True
    source: str = ""
    """The OneRoster attribute it comes from, as the standard spells it."""
    about: str = ""
    """What it means, in a sentence."""
    holds: Holds = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table in the warehouse; `key` names the columns that identify a row."""

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    grain: str

    @property
    def parent_key(self) -> str:
        """For a child table: the column that holds the sourcedId of the row it hangs on."""
        return self.key[1]


@dataclass(frozen=True, slots=True)
class Field:
    """One attribute that becomes one column."""

    name: str
    kind: Kind = "text"
    about: str = ""
    holds: Holds = ""

    @property
    def column(self) -> Column:
        return Column(
            snake(self.name), self.kind, source=self.name, about=self.about, holds=self.holds
        )


@dataclass(frozen=True, slots=True)
class Ref:
    """A reference to one object: a column `<name>_sourced_id` and a child table of it whole."""

    name: str
    target: str
    """The endpoint in which the object is found; empty for collections that are not loaded."""
    aliases: tuple[str, ...] = ()
    """Other names under which providers send it, in order of preference."""

    @property
    def names(self) -> tuple[str, ...]:
        """All names under which it is sent, in order of preference."""
        return (self.name, *self.aliases)

    @property
    def column(self) -> Column:
        return Column(f"{snake(self.name)}_sourced_id", source=f"{self.name}.sourcedId")


REF_COLUMNS = (
    Column("sourced_id", source="sourcedId"),
    Column("type", source="type"),
    Column("href", source="href"),
)


@dataclass(frozen=True, slots=True)
class ChildList:
    """A list that becomes a child table: of references, of plain values, or of objects."""

    name: str
    target: str | None = None
    """For references: the endpoint they point into, empty if that is not loaded."""
    fields: tuple[Field, ...] = ()
    """For objects: their attributes. The last one takes an element that is a plain value."""
    ids: str = ""
    """For references: the name under which providers send the ids alone, as a list of texts."""
    aliases: tuple[str, ...] = ()
    """Other names under which providers send it, in order of preference."""

    @property
    def names(self) -> tuple[str, ...]:
        """All names under which it is sent, in order of preference."""
        return (self.name, *filter(None, (self.ids,)), *self.aliases)

    @property
    def columns(self) -> tuple[Column, ...]:
        if self.target is not None:
            return REF_COLUMNS
        return tuple(field.column for field in self.fields) or (Column("value"),)


Nested = Ref | ChildList


COMMON = (
    Column("estab", nullable=False),
    Column("sourced_id", nullable=False, source="sourcedId"),
    Column("status", source="status"),
    Column("date_last_modified", "instant", source="dateLastModified"),
)
TAIL = (
    Column("metadata", "json", source="metadata", holds="open"),
    Column("extra", "json", holds="open"),
    Column("_deleted", "flag", nullable=False),
    Column("_deleted_at", "instant"),
)
VALIDITY = (Column("valid_from", "instant", nullable=False), Column("valid_to", "instant"))


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One collection of the API and everything that its objects hold."""

    name: str
    """The resource and table: the standard's plural in snake case."""
    singular: str
    path: str
    fields: tuple[Field, ...]
    refs: tuple[Ref, ...] = ()
    lists: tuple[ChildList, ...] = ()
    personal: bool = False
    """Whether each row is about a person."""
    versioned: bool = False
    """Whether `history` keeps its versions."""

    @property
    def collection(self) -> str:
        """The key of the envelope that holds the rows."""
        return self.path.strip("/")

    @property
    def table(self) -> Table:
        own = tuple(f.column for f in self.fields) + tuple(r.column for r in self.refs)
        return Table(
            self.name,
            COMMON + own + TAIL,
            ("estab", "sourced_id"),
            f"one row per {self.singular.replace('_', ' ')} and school",
        )

    @property
    def history(self) -> Table | None:
        """The table of versions, if the endpoint has one."""
        if not self.versioned:
            return None
        table = self.table
        return Table(
            f"{self.name}_history",
            table.columns + VALIDITY,
            (*table.key, "valid_from"),
            f"one row per version of a {self.singular.replace('_', ' ')}",
        )

    @property
    def nested(self) -> tuple[Nested, ...]:
        """What has child tables: references, then lists."""
        return (*self.refs, *self.lists)

    def child_name(self, attribute: Nested) -> str:
        return f"{self.name}__{snake(attribute.name)}"

    def child_tables(self, *, references: bool = True) -> Iterator[Table]:
        """The child tables; those of single references only if `references`."""
        one = self.singular.replace("_", " ")
        for attribute in self.nested:
            single = isinstance(attribute, Ref)
            if single and not references:
                continue
            parent = f"{self.singular}_sourced_id"
            yield Table(
                self.child_name(attribute),
                (
                    Column("estab", nullable=False),
                    Column(parent, nullable=False, source="sourcedId"),
                    Column("position", "integer", nullable=False),
                    *(REF_COLUMNS if isinstance(attribute, Ref) else attribute.columns),
                ),
                ("estab", parent, "position"),
                f"one row per {one} that has it" if single else f"one row per {one} and list item",
            )

    def tables(self, *, references: bool = True) -> tuple[Table, ...]:
        return (self.table, *self.child_tables(references=references))

    @property
    def attributes(self) -> frozenset[str]:
        """Every attribute name that is known for this collection, aliases included."""
        names = {"sourcedId", "status", "dateLastModified", "metadata"}
        names.update(field.name for field in self.fields)
        for attribute in self.nested:
            names.update(attribute.names)
        return frozenset(names)


REJECTED_ROWS = Table(
    "rejected_rows",
    (
        Column("estab", nullable=False),
        Column("endpoint", nullable=False),
        Column("sourced_id"),
        Column("position", "integer", nullable=False),
        Column("reason", nullable=False),
    ),
    (),
    "one row per value, or row, that could not be read as the standard describes it",
)

SYNC_RUN_DETAILS = Table(
    "sync_run_details",
    (
        Column("run_id", nullable=False),
        Column("estab", nullable=False),
        Column("endpoint", nullable=False),
        Column("started", "instant"),
        Column("ended", "instant"),
        Column("seconds", "number"),
        Column("mode"),
        Column("outcome"),
        Column("requests", "integer"),
        Column("rows_read", "integer"),
        Column("changed", "integer"),
        Column("deleted", "integer"),
        Column("gone", "integer"),
        Column("rejected", "integer"),
        Column("reason"),
    ),
    ("run_id", "estab", "endpoint"),
    "one row per run, school and endpoint: what was read, and why it failed if it did",
)

QUALITY_RESULTS = Table(
    "quality_results",
    (
        Column("run_id", nullable=False),
        Column("checked_at", "instant", nullable=False),
        Column("estab", nullable=False),
        Column("check_id", nullable=False),
        Column("severity", nullable=False),
        Column("question", nullable=False),
        Column("relation", nullable=False),
        Column("rows_checked", "integer", nullable=False),
        Column("rows_found", "integer", nullable=False),
        Column("examples", "json", nullable=False),
    ),
    ("run_id", "estab", "check_id"),
    "one row per quality run, school and check: rows looked at, rows at fault, up to five of their"
    " ids",
)

SUPPRESSED_USERS = Table(
    "suppressed_users",
    (
        Column("estab", nullable=False),
        Column("user_digest", nullable=False),
        Column("key_name", nullable=False),
        Column("erased_at", "instant", nullable=False),
    ),
    ("estab", "user_digest"),
    "one row per person who was erased, and whom no load brings back",
)


@dataclass(frozen=True, slots=True)
class Dialect:
    """One version of the standard."""

    version: str
    endpoints: tuple[Endpoint, ...]
    people: str
    """The endpoint of which each row is a person."""

    def __post_init__(self) -> None:
        names = [endpoint.name for endpoint in self.endpoints]
        tables = [table.name for e in self.endpoints for table in e.tables()]
        for what, values in (("endpoint", names), ("table", tables)):
            if len(set(values)) != len(values):
                raise ValueError(f"dialect {self.version}: a {what} is declared twice")
        for endpoint in self.endpoints:
            for table in endpoint.tables():
                columns = [column.name for column in table.columns]
                if len(set(columns)) != len(columns):
                    raise ValueError(f"table {table.name}: a column is declared twice")
            for attribute in endpoint.nested:
                if attribute.target and attribute.target not in names:
                    raise ValueError(f"{endpoint.name}.{attribute.name}: no such target")
        if self.people not in names:
            raise ValueError(f"dialect {self.version}: there is no endpoint {self.people}")

    def __getitem__(self, name: str) -> Endpoint:
        return next(endpoint for endpoint in self.endpoints if endpoint.name == name)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(endpoint.name for endpoint in self.endpoints)
