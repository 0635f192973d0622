"""Tables in the warehouse: how they are described, and the program's own ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["text", "flag", "date", "instant", "json", "integer", "number"]
"""The kind of a value; `type_map` has its SQL, its Arrow type and its dlt type."""


Holds = Literal[
    "", "name", "contact", "identifier", "secret", "open", "words", "sourced_id", "digest"
]
"""What a value can reveal about a person by itself: a name; a way to contact them; an identifier
that others know; a secret; anything, where the provider may send what it likes (`open`); a name in
words about something else; the sourcedId of a row of any endpoint; or a keyed digest of an id. The
profiles of `privacy` and the register of fields are made from it."""

SENSITIVE: frozenset[Holds] = frozenset({"contact", "identifier", "secret"})
"""What harms a person if it leaks; in a row about a person, `open` may too."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table in the warehouse."""

    name: str
    kind: Kind = "text"
    nullable: bool = True
    source: str = ""
    """The OneRoster attribute it comes from, as the standard spells it."""
    about: str = ""
    """What it means, as a phrase."""
    holds: Holds = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table in the warehouse; `key` names the columns that identify a row."""

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    grain: str
    source: str = ""
    """The collection, or the attribute of one, that its rows come from; empty for the program's
    own."""
    personal: bool = False
    """Whether each row is about a person."""

    @property
    def parent_key(self) -> str:
        """For a child table: the column with the sourcedId of the parent row."""
        return self.key[1]

    def is_personal(self, column: Column) -> bool:
        """Whether a column identifies a person, or says something about one."""
        whose = self.personal and column.name not in ("estab", "position")
        return whose or column.holds != ""

    def is_sensitive(self, column: Column) -> bool:
        """Whether a column does harm if it leaks; it may hold special category data."""
        return column.holds in SENSITIVE or (self.personal and column.holds == "open")

    def source_of(self, column: Column) -> str:
        """Returns the attribute that a column comes from, such as `users.orgs.sourcedId`."""
        # the key of a child row comes from the collection, not from the attribute
        whose = self.source.partition(".")[0] if column.name in self.key else self.source
        return ".".join(filter(None, (whose, column.source))) if column.source else ""


ESTAB = Column("estab", nullable=False, about="Establishment identifier of the school")

REJECTED_ROWS = Table(
    "rejected_rows",
    (
        ESTAB,
        Column("endpoint", nullable=False, about="Endpoint in which it was found"),
        Column(
            "sourced_id",
            source="sourcedId",
            about="sourcedId of the row; NULL where it has none",
            holds="sourced_id",
        ),
        Column("position", "integer", nullable=False, about="Counts what is wrong, from 0"),
        Column("reason", nullable=False, about="Which attribute, and why; quotes no value"),
    ),
    (),
    "one row per value, or row, that could not be read as the standard describes it",
)

SYNC_RUN_DETAILS = Table(
    "sync_run_details",
    (
        Column("run_id", nullable=False, about="Name of the run, which sorts by time"),
        ESTAB,
        Column("endpoint", nullable=False, about="Endpoint that was read"),
        Column("started", "instant", about="When reading began"),
        Column("ended", "instant", about="When reading ended"),
        Column("seconds", "number", about="How long it took"),
        Column("mode", about="What was asked for: full, delta or window"),
        Column("outcome", about="How it ended: read, held (loaded, but deletions wait) or failed"),
        Column("requests", "integer", about="Requests that were sent"),
        Column("rows_read", "integer", about="Rows that were read"),
        Column("changed", "integer", about="Of these, rows that changed since the last good run"),
        Column("deleted", "integer", about="Of the changed, rows that are marked as deleted"),
        Column("gone", "integer", about="Rows that were missing from a full read"),
        Column("rejected", "integer", about="Values and rows that could not be read"),
        Column("reason", about="Why it failed, or why deletions wait; holds no personal data"),
    ),
    ("run_id", "estab", "endpoint"),
    "one row per run, school and endpoint: what was read, and why it failed if it did",
)

QUALITY_RESULTS = Table(
    "quality_results",
    (
        Column("run_id", nullable=False, about="Name of the quality run, which sorts by time"),
        Column("checked_at", "instant", nullable=False, about="When it was checked"),
        ESTAB,
        Column("check_id", nullable=False, about="Name of the check"),
        Column("severity", nullable=False, about="How grave it is: error, warning or info"),
        Column("question", nullable=False, about="The question that the check asks"),
        Column("relation", nullable=False, about="Tables and views whose rows are checked"),
        Column("rows_checked", "integer", nullable=False, about="Rows that were looked at"),
        Column("rows_found", "integer", nullable=False, about="Of these, rows at fault"),
        Column(
            "examples",
            "json",
            nullable=False,
            source="sourcedId",
            about="sourcedIds of up to five rows at fault",
            holds="sourced_id",
        ),
    ),
    ("run_id", "estab", "check_id"),
    "one row per quality run, school and check: rows looked at, rows at fault, up to five of their"
    " ids",
)

SUPPRESSED_USERS = Table(
    "suppressed_users",
    (
        ESTAB,
        Column(
            "user_digest",
            nullable=False,
            source="users.sourcedId",
            about="Keyed digest of the sourcedId of a user who was erased",
            holds="digest",
        ),
        Column("key_name", nullable=False, about="Tells under which key the digest was made"),
        Column("erased_at", "instant", nullable=False, about="When the person was erased"),
    ),
    ("estab", "user_digest"),
    "one row per erased person, who is kept out of later loads",
    personal=True,
)

HISTORY_KEPT = Table(
    "history_kept",
    (
        Column("started", "instant", nullable=False, about="When the last run with a load began"),
        Column("runs", nullable=False, about="The runs that the versions cover"),
    ),
    (),
    "one row, once versions are kept: when the last run with a load began, and which runs the"
    " versions cover; no runs during a load",
)

OWN_TABLES = (REJECTED_ROWS, SYNC_RUN_DETAILS, QUALITY_RESULTS, HISTORY_KEPT, SUPPRESSED_USERS)
"""The tables of no endpoint: the program records there what it did."""
