"""Which values of `status` mark a row as deleted, as data and as SQL."""

from __future__ import annotations

from oneroster_source.model.quoting import literal

ACTIVE = "active"
TO_BE_DELETED = "tobedeleted"
DELETED = (TO_BE_DELETED, "inactive")
"""As OneRoster 1.1 and 1.0 have it; in small letters and without the characters of `IGNORED`."""
IGNORED = "-_ \t\n\f\r"
"""Characters that make no difference, nor does case: providers write `to be deleted` too."""


def is_deleted_sql(status: str) -> str:
    """Returns an SQL condition that any database understands; NULL where `status` is NULL.

    >>> is_deleted_sql("s").endswith("IN ('tobedeleted', 'inactive')")
    True
    """
    for character in IGNORED:
        # not every database takes control characters in a literal
        sent = literal(character) if character.isprintable() else f"CHR({ord(character)})"
        status = f"REPLACE({status}, {sent}, '')"
    return f"LOWER({status}) IN ({', '.join(map(literal, DELETED))})"
