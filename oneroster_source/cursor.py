"""Where each school's reading stands: a cursor for each school and endpoint, in dlt's state.

dlt keeps the state of a resource in the destination, in the same load as its rows, so that the two
cannot come apart.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from datetime import UTC, datetime, timedelta
from typing import Any

from oneroster_source.collection import Ask, Collection
from oneroster_source.config import Settings
from oneroster_source.spec import Endpoint

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

State = MutableMapping[str, Any]


class Cursors:
    """The cursors of one endpoint.

    Args:
        state: The resource's state in dlt. Layout: `schools` -> estab -> `cursor` and `full`
            (instants in ISO 8601, UTC) and `read_as` (the settings that decide which rows are
            loaded).
        endpoint: The endpoint.
        settings: The run's settings.
    """

    def __init__(self, state: State, endpoint: Endpoint, settings: Settings) -> None:
        self._schools: dict[str, dict[str, Any]] = state.setdefault("schools", {})
        self._settings = settings
        # rows that other settings kept out are older than the cursor: a change means a full pass
        self._read_as = {
            "filter": str(settings.filters.get(endpoint.name, "")),
            "deleted": settings.deleted,
            "reference_tables": settings.reference_tables,
            "dialect": settings.dialect.version,
        }

    def known(self, estab: str) -> bool:
        """Whether a run has ever read this school's collection whole."""
        return estab in self._schools

    def ask(self, estab: str, *, full: bool) -> Ask:
        """What to read next: from the cursor, or everything."""
        entry = self._schools.get(estab, {})
        cursor = datetime.fromisoformat(entry["cursor"]) if entry.get("cursor") else None
        lag = timedelta(seconds=self._settings.lag + 1)
        # some providers stamp all rows with a year 1, from which nothing can be taken away
        if full or cursor is None or cursor < _EPOCH + lag or entry.get("read_as") != self._read_as:
            return Ask("full", known=cursor)
        # a second more: the filter asks for later than this, and the very instant is wanted too
        return Ask("delta", since=(cursor - lag).replace(microsecond=0), known=cursor)

    def advance(self, estab: str, ask: Ask, collection: Collection) -> str:
        """Notes that a collection was read whole and handed to dlt; returns the new cursor."""
        entry = dict(self._schools.get(estab, {}))
        cursor = max((c for c in (ask.known, collection.cursor) if c is not None), default=None)
        if ask.mode == "full":
            entry["full"] = datetime.now(UTC).isoformat()
        entry |= {
            "cursor": cursor.astimezone(UTC).isoformat() if cursor else None,
            "read_as": self._read_as,
        }
        self._schools[estab] = entry
        return entry["cursor"] or ""
