"""Incremental cursors: one for each school and endpoint, in dlt's state.

dlt keeps the state of a resource in the destination, in the same load as its rows, so that the two
cannot disagree.
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
from oneroster_source.extract.collection import Collection
from oneroster_source.extract.deletions import SKEW
from oneroster_source.extract.page_requests import ReadRequest
from oneroster_source.model import Dialect, Endpoint

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

State = MutableMapping[str, Any]


def next_cursor(
    known: datetime | None, newest: datetime | None, clock: datetime
) -> datetime | None:
    """Returns up to where a school's changes are known: never in the future, which would hide some.

    Args:
        known: The previous cursor.
        newest: The newest change that was read.
        clock: The server's time when the reading began.
    """
    found = [instant for instant in (known, newest) if instant is not None]
    return min(max(found), clock) if found else None


def require_same_pseudonyms(
    kept: Mapping[str, Mapping[str, Any]], privacy: Privacy, dialect: Dialect
) -> None:
    """Requires that all existing rows have the pseudonyms that the settings make.

    Args:
        kept: The entries of all cursors, by endpoint and estab.
        privacy: The run's policy.
        dialect: What the schools send.

    Raises:
        ConfigurationError: Some were loaded with others, or with none, and would not join.
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
            (instants in ISO 8601, UTC), `read_as` (what decides which rows are loaded: settings,
            and which client of which provider reads the school), `recent`, `page` and `answer`
            (see `ReadRequest`), `held` (where deletions wait for a decision: the live rows that
            there were then), `rollover` (see `came`).
        endpoint: The endpoint.
        settings: The run's settings.
    """

    def __init__(self, state: State, endpoint: Endpoint, settings: Settings) -> None:
        self._schools: dict[str, dict[str, Any]] = state.setdefault("schools", {})
        self._settings = settings
        # rows that other settings left out are older than the cursor: a change means a full pass
        self._how = {
            # as a digest, since it may name somebody
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
        """Whether no collection of any school was ever loaded."""
        return not self._schools

    def knows(self, estab: str) -> bool:
        """Whether the collection of a school was ever loaded."""
        return estab in self._schools

    def next_request(self, estab: str, *, full: bool, now: datetime) -> ReadRequest:
        """Returns what to read next of a school: from the cursor, or everything if that is due.

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
            # some providers stamp all rows with year 1, from which no span can be subtracted
            or not _EPOCH + self.span <= cursor <= now + SKEW
            # only a full pass finds the deletions that wait for a decision
            or entry.get("held")
            or entry.get("read_as") != self._read_as(estab)
            or self._is_due(_instant(entry.get("full")), now)
        ):
            return ReadRequest("full", known=cursor)
        return ReadRequest(
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
        # a second more: the filter excludes the instant itself, which is wanted
        return (cursor - self.span + timedelta(seconds=1)).replace(microsecond=0)

    def stay(self, estab: str, collection: Collection) -> str:
        """Notes that a delta contained nothing new; returns the cursor, which stays."""
        entry = self._schools[estab]
        if collection.answer and collection.answer != entry.get("answer"):
            self._schools[estab] = {**entry, "answer": collection.answer}
        return self.cursor(estab)

    def waiting(self, estab: str) -> int:
        """Returns how many live rows there were when deletions began to wait; 0 if none wait."""
        return int(self._schools.get(estab, {}).get("held", 0))

    def hold(self, estab: str, *, of: int) -> str:
        """Notes that deletions wait for a decision: until then, or until the rows come back, each
        run reads everything. Returns the cursor, which stays.
        """
        entry = self._schools.get(estab, {})
        self._schools[estab] = {**entry, "read_as": self._read_as(estab), "held": of}
        return self.cursor(estab)

    def came(self, estab: str, since: date | None) -> int:
        """Returns how many new rows earlier runs brought that have not yet replaced any, in the
        change of year that began on a day.
        """
        kept = self._schools.get(estab, {}).get("rollover", {})
        return int(kept["came"]) if since and kept.get("since") == since.isoformat() else 0

    def note_came(self, estab: str, since: date | None, rows: int) -> None:
        """Notes what `came` returns in the next run."""
        entry = self._schools.get(estab)
        if entry is None:
            return
        rest = {name: value for name, value in entry.items() if name != "rollover"}
        kept = {"rollover": {"since": since.isoformat(), "came": rows}} if since else {}
        self._schools[estab] = rest | kept

    def cursor(self, estab: str) -> str:
        """Returns the cursor of a school in ISO 8601; empty if there is none."""
        return self._schools.get(estab, {}).get("cursor") or ""

    def _is_due(self, last: datetime | None, now: datetime) -> bool:
        days = timedelta(days=self._settings.full_refresh_days)
        return last is None or not -min(SKEW, days) <= now - last < days

    def advance(self, estab: str, collection: Collection, *, now: datetime) -> str:
        """Notes that a complete collection was handed to dlt; returns the new cursor."""
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
    """Identifies provider and client: others give other rows, and have another clock."""
    return _digest(f"{school.base_url}\n{school.rp}\n{school.client_id}")


def _digest(text: str) -> str:
    return text and sha256(text.encode()).hexdigest()[:16]


def _instant(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
