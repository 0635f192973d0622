"""What every made-up row has: an id of its own, a time it was modified, values at random."""

from __future__ import annotations

import random
import string
import unicodedata
from abc import ABC, abstractmethod
from datetime import datetime
from typing import Any

from oneroster_source.simulator.attributes import COLLECTIONS, Row
from oneroster_source.simulator.names import FAMILY, GIVEN

BASE36 = string.digits + string.ascii_uppercase


class RowMaker(ABC):
    """Adds rows to collections; all that is random in them comes from `rng`."""

    def __init__(self, rng: random.Random) -> None:
        self.rows: dict[str, list[Row]] = {name: [] for name in COLLECTIONS}
        self.rng = rng
        self.taken: set[str] = set()
        """Ids and usernames that somebody has."""
        self.people = 0
        """The highest number that an identifier of somebody has."""
        self.org = ""
        """The id of the school, for its people."""
        self.domain = ""
        """Where the school's e-mail goes."""

    @abstractmethod
    def stamp(self) -> str:
        """When a new row was modified."""

    def add(self, collection: str, **attributes: Any) -> Row:
        stamp = self.stamp()
        row = {"sourcedId": self._id(), "status": "active", "dateLastModified": stamp}
        row |= attributes
        self.rows[collection].append(row)
        return row

    def person(self, role: str, *, prefix: str = "") -> Row:
        """Somebody at the school, whose username begins with the prefix."""
        given, family = self.rng.choice(GIVEN), self.rng.choice(FAMILY)
        username = self.unique(f"{prefix}{plain(family)}{plain(given)[:1]}")
        self.people += 1
        person = self.add(
            "users",
            username=username,
            givenName=given,
            familyName=family,
            identifier=f"{self.people:06}",
            role=role,
            enabledUser=True,
            orgSourcedIds=[self.org],
        )
        self.sometimes(person, 0.92, email=lambda: f"{username}@{self.domain}")
        self.sometimes(person, 0.4, middleName=lambda: self.rng.choice(GIVEN))
        self.sometimes(person, 0.1, sms=self.phone)
        return person

    def pupil(self, grades: list[str], *, prefix: str) -> Row:
        pupil = self.person("student", prefix=prefix)
        pupil["grades"] = grades
        pupil["userIds"] = [{"type": "mis", "identifier": str(len(self.taken))}]
        self.sometimes(pupil, 0.08, phone=self.phone)
        return pupil

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


def written(moment: datetime) -> str:
    """A moment in UTC as the API writes it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def reference(row: Row, kind: str) -> Row:
    return {"sourcedId": row["sourcedId"], "type": kind}


def plain(text: str) -> str:
    """The letters of a name that a username can have."""
    letters = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return "".join(letter for letter in letters.lower() if letter.isalnum())
