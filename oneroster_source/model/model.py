"""The vocabulary in which a version of the standard is declared, and the tables that it implies."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from oneroster_source.model.tables import ESTAB, OWN_TABLES, Column, Holds, Kind, Table


def snake(name: str) -> str:
    """Writes a name in snake case, as dlt does.

    >>> snake("dateLastModified")
    'date_last_modified'
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


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
    """A reference to one object: a column `<name>_sourced_id`, and a child table for all of it."""

    name: str
    target: str
    """The endpoint of the object; empty if it is not loaded."""
    aliases: tuple[str, ...] = ()
    """Other names under which providers send it, in order of preference."""
    about: str = ""
    """What the object is, in words that follow "sourcedId of"."""

    @property
    def names(self) -> tuple[str, ...]:
        """All names under which providers send it, in order of preference."""
        return (self.name, *self.aliases)

    @property
    def column(self) -> Column:
        return Column(
            f"{snake(self.name)}_sourced_id",
            source=f"{self.name}.sourcedId",
            about=f"sourcedId of {self.about}",
        )

    @property
    def columns(self) -> tuple[Column, ...]:
        return _reference(self.about)


def _reference(about: str) -> tuple[Column, ...]:
    return (
        Column("sourced_id", source="sourcedId", about=f"sourcedId of {about}"),
        Column("type", source="type", about="Type of what is referred to, such as org or user"),
        Column("href", source="href", about=f"Address at the provider of {about}"),
    )


@dataclass(frozen=True, slots=True)
class ChildList:
    """A list that becomes a child table: of references, of plain values, or of objects."""

    name: str
    target: str | None = None
    """For references: their endpoint; empty if it is not loaded."""
    fields: tuple[Field, ...] = ()
    """For objects: their attributes. An item that is a plain value becomes the last one."""
    ids: str = ""
    """For references: the name under which providers send a list of ids alone."""
    aliases: tuple[str, ...] = ()
    """Other names under which providers send it, in order of preference."""
    about: str = ""
    """What an item is, in words that follow "sourcedId of" if it is a reference."""

    @property
    def names(self) -> tuple[str, ...]:
        """All names under which providers send it, in order of preference."""
        return (self.name, *filter(None, (self.ids,)), *self.aliases)

    @property
    def plain(self) -> bool:
        """Whether its items are plain values."""
        return self.target is None and not self.fields

    @property
    def columns(self) -> tuple[Column, ...]:
        if self.plain:
            about = self.about[:1].upper() + self.about[1:]
            return (Column("value", source=self.name, about=about),)
        return tuple(field.column for field in self.fields) or _reference(self.about)


Nested = Ref | ChildList


COMMON = (
    ESTAB,
    Column(
        "sourced_id",
        nullable=False,
        source="sourcedId",
        about="The provider's identifier of it, unique in the school",
    ),
    Column("status", source="status", about="active, or tobedeleted once it is deleted"),
    Column(
        "date_last_modified",
        "instant",
        source="dateLastModified",
        about="When the provider last changed it",
    ),
)
TAIL = (
    Column(
        "metadata",
        "json",
        source="metadata",
        about="What the provider adds, in the standard's place for it",
        holds="open",
    ),
    Column(
        "extra",
        "json",
        about="Attributes, and forms of values, that the standard does not know, as they were sent",
        holds="open",
    ),
    Column(
        "_deleted",
        "flag",
        nullable=False,
        about="Whether it is deleted at the source: marked as deleted, or missing from a full read",
    ),
    Column(
        "_deleted_at",
        "instant",
        about="When it was marked as deleted, or found missing; NULL where it is not",
    ),
)
VALIDITY = (
    Column("valid_from", "instant", nullable=False, about="When this version began to hold"),
    Column("valid_to", "instant", about="When it ended; NULL for the version that holds now"),
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One collection of the API, and everything that its objects contain."""

    name: str
    """The name of the resource and table: the standard's plural in snake case."""
    singular: str
    path: str
    fields: tuple[Field, ...]
    refs: tuple[Ref, ...] = ()
    lists: tuple[ChildList, ...] = ()
    personal: bool = False
    """Whether each row is about a person."""
    versioned: bool = False
    """Whether `history` keeps its versions."""
    yearly: bool = False
    """Whether its rows belong to a school year, through academic sessions or classes: in the next
    year, others replace them."""

    @property
    def collection(self) -> str:
        """The key of the response object that holds the rows."""
        return self.path.strip("/")

    @property
    def table(self) -> Table:
        own = tuple(f.column for f in self.fields) + tuple(r.column for r in self.refs)
        return Table(
            self.name,
            COMMON + own + TAIL,
            ("estab", "sourced_id"),
            f"one row per {self.singular.replace('_', ' ')} and school",
            self.collection,
            self.personal,
        )

    @property
    def history(self) -> Table | None:
        """The table of versions (SCD type 2), if the endpoint has one."""
        if not self.versioned:
            return None
        table = self.table
        return Table(
            f"{self.name}_history",
            table.columns + VALIDITY,
            (*table.key, "valid_from"),
            f"one row per {self.singular.replace('_', ' ')} and version",
            table.source,
            table.personal,
        )

    @property
    def nested(self) -> tuple[Nested, ...]:
        """The attributes with child tables: references, then lists."""
        return (*self.refs, *self.lists)

    def child_name(self, attribute: Nested) -> str:
        return f"{self.name}__{snake(attribute.name)}"

    def child_tables(self, *, references: bool = True) -> Iterator[Table]:
        """Gives the child tables; those of single references only if `references`."""
        one = self.singular.replace("_", " ")
        for attribute in self.nested:
            single = isinstance(attribute, Ref)
            if single and not references:
                continue
            parent = f"{self.singular}_sourced_id"
            plain = isinstance(attribute, ChildList) and attribute.plain
            place = "0, since there is one" if single else "Place in the list, from 0"
            yield Table(
                self.child_name(attribute),
                (
                    ESTAB,
                    Column(
                        parent,
                        nullable=False,
                        source="sourcedId",
                        about=f"sourcedId of the {one} that it belongs to",
                    ),
                    Column("position", "integer", nullable=False, about=place),
                    *attribute.columns,
                ),
                ("estab", parent, "position"),
                f"one row per {one} that has it" if single else f"one row per {one} and list item",
                self.collection if plain else f"{self.collection}.{attribute.name}",
                self.personal,
            )

    def tables(self, *, references: bool = True) -> tuple[Table, ...]:
        return (self.table, *self.child_tables(references=references))

    @property
    def attributes(self) -> frozenset[str]:
        """All attribute names that are known for this collection, aliases included."""
        names = {"sourcedId", "status", "dateLastModified", "metadata"}
        names.update(field.name for field in self.fields)
        for attribute in self.nested:
            names.update(attribute.names)
        return frozenset(names)


@dataclass(frozen=True, slots=True)
class Dialect:
    """One version of the standard."""

    version: str
    endpoints: tuple[Endpoint, ...]
    people: str
    """The name of the endpoint whose rows are people."""

    def __post_init__(self) -> None:
        names = [endpoint.name for endpoint in self.endpoints]
        tables = [table.name for table in self.tables]
        for what, values in (("endpoint", names), ("table", tables)):
            if len(set(values)) != len(values):
                raise ValueError(f"dialect {self.version}: a {what} is declared twice")
        for table in self.tables:
            columns = [column.name for column in table.columns]
            if len(set(columns)) != len(columns):
                raise ValueError(f"table {table.name}: a column is declared twice")
        for endpoint in self.endpoints:
            for attribute in endpoint.nested:
                if attribute.target and attribute.target not in names:
                    raise ValueError(f"{endpoint.name}.{attribute.name}: no such target")
        if self.people not in names:
            raise ValueError(f"dialect {self.version}: there is no endpoint {self.people}")

    def __getitem__(self, name: str) -> Endpoint:
        return next(endpoint for endpoint in self.endpoints if endpoint.name == name)

    def refers_to_people(self, endpoint: Endpoint) -> Iterator[tuple[str, Endpoint]]:
        """Gives the columns in which an endpoint's rows refer to people, with their endpoint."""
        for ref in endpoint.refs:
            if ref.target == self.people:
                yield ref.column.name, self[self.people]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(endpoint.name for endpoint in self.endpoints)

    @property
    def tables(self) -> tuple[Table, ...]:
        """All tables that the program can make: those of each endpoint, then its own."""
        found = ((*e.tables(), *filter(None, (e.history,))) for e in self.endpoints)
        return (*chain.from_iterable(found), *OWN_TABLES)
