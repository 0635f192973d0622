"""What every made-up row has: an id of its own, a time it was modified, values at random."""

from __future__ import annotations

import random
import string
import unicodedata
from datetime import UTC, datetime, timedelta
from typing import Any

from oneroster_source.simulator.attributes import COLLECTIONS, Row

BASE36 = string.digits + string.ascii_uppercase
AS_OF = datetime(2026, 9, 1, tzinfo=UTC)
"""Rows were modified in the year before this."""


class RowMaker:
    """Adds rows to collections; all that is random in them comes from `rng`."""

    def __init__(self, rng: random.Random) -> None:
        self.rows: dict[str, list[Row]] = {name: [] for name in COLLECTIONS}
        self.rng = rng
        self.taken: set[str] = set()

    def add(self, collection: str, **attributes: Any) -> Row:
        age = timedelta(milliseconds=self.rng.randrange(1, 365 * 24 * 3600 * 1000))
        stamp = (AS_OF - age).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
        row = {"sourcedId": self._id(), "status": "active", "dateLastModified": stamp}
        row |= attributes
        self.rows[collection].append(row)
        return row

    def sometimes(self, row: Row, share: float, **made: Any) -> None:
        """Give a share of rows an optional attribute, made by a function."""
        for name, make in made.items():
            if self.rng.random() < share:
                row[name] = make()

    def unique(self, text: str) -> str:
        """The text, or the text with a number where somebody has it already."""
        unique, number = text, 1
        while unique in self.taken:
            number += 1
            unique = f"{text}{number}"
        self.taken.add(unique)
        return unique

    def phone(self) -> str:
        # numbers that Ofcom keeps for use in drama
        return f"07700 900{self.rng.randrange(1000):03}"

    def _id(self) -> str:
        while True:
            sourced_id = "x" + "".join(self.rng.choices(BASE36, k=8))
            if sourced_id not in self.taken:
                self.taken.add(sourced_id)
                return sourced_id


def reference(row: Row, kind: str) -> Row:
    return {"sourcedId": row["sourcedId"], "type": kind}


def plain(text: str) -> str:
    """The letters of a name that a username can have."""
    letters = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return "".join(letter for letter in letters.lower() if letter.isalnum())
