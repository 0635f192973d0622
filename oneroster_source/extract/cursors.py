"""Where each school's reading stands: a cursor for each school and endpoint, in dlt's state.

dlt keeps the state of a resource in the destination, in the same load as its rows, so that the two
cannot come apart.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from typing import Any

from oneroster_source.config.privacy import Privacy, of_endpoint
from oneroster_source.config.schools import School
from oneroster_source.config.settings import Settings
from oneroster_source.errors import ConfigurationError
from oneroster_source.extract.collection import Ask, Collection
from oneroster_source.extract.deletions import SKEW
from oneroster_source.model import Dialect, Endpoint

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

State = MutableMapping[str, Any]


def next_cursor(
    known: datetime | None, newest: datetime | None, clock: datetime
) -> datetime | None:
    """Up to where a school's changes are known: never in the future, where it would hide changes.

    Args:
        known: The cursor before.
        newest: The newest change that was read.
        clock: The server's time when the reading began.
    """
    found = [instant for instant in (known, newest) if instant is not None]
    return min(max(found), clock) if found else None


def refuse_other_pseudonyms(
    kept: Mapping[str, Mapping[str, Any]], privacy: Privacy, dialect: Dialect
) -> None:
    """Looks whether all rows that are there have the pseudonyms that the settings make.

    Args:
        kept: The entries of all cursors, by endpoint and estab.
        privacy: What is kept of people.
        dialect: What the schools send.

    Raises:
        ConfigurationError: Some have others, or none: ids would name other rows.
    """
    for endpoint in dialect.endpoints:
        made = privacy.pseudonyms(endpoint)
        others = [
            estab
            for estab, entry in kept.get(endpoint.name, {}).items()
            if entry.get("read_as", {}).get("pseudonyms", {}) != made
        ]
        if others:
            raise ConfigurationError(
                f"school {others[0]}, {endpoint.name}: was loaded with other pseudonyms than those"
                " of the settings privacy, pseudonymize and privacy_key, and rows of both do not"
                " join",
                todo="set these as they were; or remove what is there with `oneroster remove-school"
                f" --school {','.join(others[:20])}`, or load into another --dataset",
            )


class Cursors:
    """The cursors of one endpoint.

    Args:
        state: The resource's state in dlt. Layout: `schools` -> estab -> `cursor` and `full`
            (instants in ISO 8601, UTC), `read_as` (what decides which rows are loaded:
            settings, and who the school is to which provider), `recent` (the fingerprint of the
            rows that the next delta will bring again), `page` and `answer` (see `Ask`), `held`
            (where deletions wait for a decision: the live rows that there were then), `rollover`
            (see `came`).
        endpoint: The endpoint.
        settings: The run's settings.
    """

    def __init__(self, state: State, endpoint: Endpoint, settings: Settings) -> None:
        self._schools: dict[str, dict[str, Any]] = state.setdefault("schools", {})
        self._settings = settings
        # rows that other settings kept out are older than the cursor: a change means a full pass
        self._how = {
            # which may name somebody
            "filter": _digest(str(settings.filters.get(endpoint.name, ""))),
            "deleted": settings.deleted,
            "reference_tables": settings.reference_tables,
            "left_out": sorted(of_endpoint(endpoint.name, settings.privacy.columns_left_out)),
            "pseudonyms": settings.privacy.pseudonyms(endpoint),
            "dialect": settings.dialect.version,
        }
        if any(field.kind == "date" for field in endpoint.fields):
            self._how["time_zone"] = settings.time_zone
        self._from = {school.estab: _identity(school) for school in settings.schools}

    def _read_as(self, estab: str) -> dict[str, Any]:
        return {**self._how, "from": self._from.get(estab, "")}

    @property
    def is_new(self) -> bool:
        """Whether nothing was ever read whole, of any school."""
        return not self._schools

    def knows(self, estab: str) -> bool:
        """Whether anything of a school was ever read whole."""
        return estab in self._schools

    def ask(self, estab: str, *, full: bool, now: datetime) -> Ask:
        """What to read next: from the cursor, or everything if that is due.

        Args:
            estab: The school.
            full: Whether to read everything anyway.
            now: The time, by this machine's clock.
        """
        entry = self._schools.get(estab, {})
        cursor = _instant(entry.get("cursor"))
        if (
            full
            or cursor is None
            # some providers stamp all rows with a year 1, from which nothing can be taken away
            or not _EPOCH + self.span <= cursor <= now + SKEW
            # what waits for a decision is found by a full pass alone
            or entry.get("held")
            or entry.get("read_as") != self._read_as(estab)
            or self._is_due(_instant(entry.get("full")), now)
        ):
            return Ask("full", known=cursor)
        return Ask(
            "delta",
            since=self._since(cursor),
            known=cursor,
            recent=entry.get("recent", ""),
            page=entry.get("page", 0),
            answer=entry.get("answer", ""),
        )

    @property
    def span(self) -> timedelta:
        """How far a delta reaches back before the cursor, at most."""
        return timedelta(seconds=self._settings.lag + 2)

    def _since(self, cursor: datetime) -> datetime:
        # a second more: the filter asks for later than this, and the very instant is wanted too
        return (cursor - self.span + timedelta(seconds=1)).replace(microsecond=0)

    def stay(self, estab: str, collection: Collection) -> str:
        """Notes that a delta brought nothing new; returns the cursor, which stays."""
        entry = self._schools[estab]
        if collection.answer and collection.answer != entry.get("answer"):
            self._schools[estab] = {**entry, "answer": collection.answer}
        return self.cursor(estab)

    def waiting(self, estab: str) -> int:
        """Where deletions wait for a decision: the live rows that there were when this began."""
        return int(self._schools.get(estab, {}).get("held", 0))

    def hold(self, estab: str, *, of: int) -> str:
        """Notes that deletions wait for a decision: until one is made, or the rows come back,
        everything is read. Returns the cursor, which stays."""
        entry = self._schools.get(estab, {})
        self._schools[estab] = {**entry, "read_as": self._read_as(estab), "held": of}
        return self.cursor(estab)

    def came(self, estab: str, since: date | None) -> int:
        """In the change of year that began on a day: the new rows of earlier runs that have not
        yet replaced any."""
        kept = self._schools.get(estab, {}).get("rollover", {})
        return int(kept["came"]) if since and kept.get("since") == since.isoformat() else 0

    def note_came(self, estab: str, since: date | None, rows: int) -> None:
        """Notes what `came` tells the next run."""
        entry = self._schools.get(estab)
        if entry is None:
            return
        rest = {name: value for name, value in entry.items() if name != "rollover"}
        kept = {"rollover": {"since": since.isoformat(), "came": rows}} if since else {}
        self._schools[estab] = rest | kept

    def cursor(self, estab: str) -> str:
        """Where the last good run got, in ISO 8601; empty if there was none."""
        return self._schools.get(estab, {}).get("cursor") or ""

    def _is_due(self, last: datetime | None, now: datetime) -> bool:
        days = timedelta(days=self._settings.full_refresh_days)
        return last is None or not -min(SKEW, days) <= now - last < days

    def advance(self, estab: str, collection: Collection, *, now: datetime) -> str:
        """Notes that a collection was read whole and handed to dlt; returns the new cursor."""
        entry = dict(self._schools.get(estab, {}))
        entry.pop("held", None)
        cursor = next_cursor(_instant(entry.get("cursor")), collection.newest, collection.clock)
        if collection.mode == "full":
            entry |= {"full": now.isoformat(), "page": collection.page}
        recent = cursor is not None and cursor >= _EPOCH + self.span
        entry |= {
            "cursor": cursor.isoformat() if cursor else None,
            "read_as": self._read_as(estab),
            "recent": collection.fingerprint(self._since(cursor)) if cursor and recent else "",
            "answer": collection.answer,
        }
        self._schools[estab] = entry
        return self.cursor(estab)


def _identity(school: School) -> str:
    """Another provider, or another client of it, has other rows, and another clock."""
    return _digest("\n".join((school.base_url, school.rp, school.client_id)))


def _digest(text: str) -> str:
    return text and sha256(text.encode()).hexdigest()[:16]


def _instant(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
