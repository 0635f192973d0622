"""The columns of all tables: what each holds, and what the privacy settings keep of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from oneroster_source.config.privacy import Privacy
from oneroster_source.model import V1P1, Column, Holds
from oneroster_source.model.type_map import KINDS

Kept = Literal["kept", "left out", "pseudonym"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A column of a table.

    Args:
        table: The table.
        column: The column.
        type: dlt's name of its type.
        source: The attribute that it comes from, with its collection, as the standard spells them:
            `users.familyName`, `users.orgs.sourcedId`. `sourcedId` alone is that of a row of any
            collection. Empty for columns that this package adds.
        meaning: What it means.
        personal: Whether it identifies a person, or says something about one.
        sensitive: Whether a leak does harm, or it may hold data of a special category.
        key: Whether it is one of the columns that identify a row.
        kept: What the privacy settings do with what the provider sends.
    """

    table: str
    column: str
    type: str
    source: str
    meaning: str
    personal: bool
    sensitive: bool
    key: bool
    kept: Kept


def entries(privacy: Privacy) -> Iterator[Entry]:
    """Yields every column of every table, in order.

    Args:
        privacy: What is kept.
    """
    versions = {table.name: e.name for e in V1P1.endpoints if (table := e.history)}
    for table in V1P1.tables:
        for column in table.columns:
            yield Entry(
                table.name,
                column.name,
                KINDS[column.kind].dlt,
                table.source_of(column),
                column.about,
                table.is_personal(column),
                table.is_sensitive(column),
                column.name in table.key,
                # versions are of rows of which all this has been decided
                _kept(privacy, versions.get(table.name, table.name), column),
            )


def _kept(privacy: Privacy, table: str, column: Column) -> Kept:
    if column.name in privacy.left_out.get(table, ()):
        return "left out"
    pseudonyms: dict[Holds, bool] = {
        "digest": True,
        # ids of everything, of which only people's need be pseudonyms
        "sourced_id": all(
            "sourced_id" in privacy.pseudonymized[e.name] for e in V1P1.endpoints if e.personal
        ),
    }
    is_one = pseudonyms.get(column.holds, column.name in privacy.pseudonymized.get(table, ()))
    return "pseudonym" if is_one else "kept"
