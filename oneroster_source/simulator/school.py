"""One establishment: its credentials, its data and how its provider behaves."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from oneroster_source.simulator.attributes import COLLECTIONS, Row
from oneroster_source.simulator.faults import Fault
from oneroster_source.simulator.options import Options
from oneroster_source.simulator.pages import Page, build_page
from oneroster_source.simulator.quirks import Quirks
from oneroster_source.simulator.table import Table
from oneroster_source.simulator.tokens import Tokens, same


class School:
    """One establishment. Its data may be read and changed from any thread while it is served.

    Args:
        estab: the establishment identifier; the relying party's is `rp`.
        shared_secret: the secret of this relying party for this school.
        collections: rows by collection, as the API writes them, references as
            {"sourcedId", "type"}, missing values absent.
        quirks: how the provider departs from the vendor's text; may be set at any time.
        faults: what goes wrong, and when; used up as it happens, may be added to at any time.
    """

    def __init__(
        self,
        estab: str,
        *,
        rp: str = "partner-rp",
        shared_secret: str = "super-secret",
        collections: Mapping[str, Iterable[Row]] | None = None,
        quirks: Quirks = Quirks(),  # noqa: B008 - frozen
        faults: Sequence[Fault] = (),
    ) -> None:
        rows = collections or {}
        if unknown := set(rows) - set(COLLECTIONS):
            raise ValueError(f"no collections: {sorted(unknown)}; they are {COLLECTIONS}")
        self.estab = estab
        self.rp = rp
        self.shared_secret = shared_secret
        self.faults = list(faults)
        self.forbidden: set[str] = set()
        """Collections that this caller is not authorised to read: 403."""
        self.token_life: float = 3600
        """Seconds that tokens live, from when they are issued."""
        self.token_uses: float = math.inf
        """Requests that each token is good for."""
        self.token_answer: dict[str, Any] = {}
        """What token answers say otherwise, such as {"expires_in": None}."""
        self.skew = timedelta()
        """How far the provider's clock is ahead."""
        self.on_page: Callable[[str, int, int], None] | None = None
        """Called with collection, offset and limit after a page was built, before it is sent.

        The limit is the number of rows in the page where none was asked for.
        """
        self.tokens = Tokens()
        self._lock = threading.RLock()
        self._quirks = quirks
        self._stale: dict[str, Page] = {}
        self._tables = {name: Table(name, rows.get(name, ())) for name in COLLECTIONS}

    @property
    def quirks(self) -> Quirks:
        return self._quirks

    @quirks.setter
    def quirks(self, quirks: Quirks) -> None:
        with self._lock:
            self._quirks = quirks
            self._stale.clear()

    @property
    def version(self) -> int:
        """Goes up with every change of the data."""
        with self._lock:
            return sum(table.version for table in self._tables.values())

    def now(self) -> datetime:
        """The provider's idea of now."""
        return datetime.now(UTC) + self.skew

    def rows(self, collection: str) -> list[Row]:
        """The rows as they are now, in the order of their sourcedIds; yours to keep."""
        with self._lock:
            return self._tables[collection].rows()

    def get(self, collection: str, sourced_id: str) -> Row:
        """One row as it is now; yours to keep.

        Raises:
            KeyError: there is no such row.
        """
        with self._lock:
            return self._tables[collection].get(sourced_id)

    def add(self, collection: str, row: Row) -> None:
        """Add a row: active, and modified now, unless it says otherwise. None means absent."""
        with self._lock:
            whole = {"status": "active", "dateLastModified": self._stamp()} | row
            self._tables[collection].add(_without_none(whole))

    def change(self, collection: str, sourced_id: str, /, **attributes: Any) -> None:
        """Set attributes of a row, modified now unless given. None takes an attribute away."""
        with self._lock:
            table = self._tables[collection]
            if attributes.get("sourcedId", sourced_id) != sourced_id:
                raise ValueError("a sourcedId never changes: purge the row and add another")
            whole = table.get(sourced_id) | {"dateLastModified": self._stamp()} | attributes
            table.replace(_without_none(whole))

    def delete(self, collection: str, sourced_id: str) -> None:
        """Mark a row as to be deleted, the way the API tells of deletions."""
        self.change(collection, sourced_id, status="tobedeleted")

    def purge(self, collection: str, sourced_id: str) -> None:
        """Take a row away without a trace."""
        with self._lock:
            self._tables[collection].purge(sourced_id)

    def revoke_tokens(self) -> None:
        """End all tokens issued so far."""
        self.tokens.revoke()

    def knows(self, credentials: str) -> bool:
        """Whether `user:password` names this school, be the password right or wrong."""
        return credentials.startswith(f"{self.rp}|{self.estab}:")

    def admits(self, credentials: str) -> bool:
        """Whether `user:password` is right. Secrets may hold any character, : and | too."""
        return same(credentials, f"{self.rp}|{self.estab}:{self.shared_secret}")

    def next_fault(self, path: str) -> Fault | None:
        """What is to go wrong with this request to `path`, which counts for all faults there."""
        due: Fault | None = None
        with self._lock:
            for index, fault in reversed(list(enumerate(self.faults))):
                if fault.path not in ("*", path):
                    continue
                if fault.at > 1:
                    self.faults[index] = replace(fault, at=fault.at - 1)
                else:
                    due, due_index = fault, index
            if due is not None:
                self.faults[due_index : due_index + 1] = (
                    [replace(due, times=due.times - 1)] if due.times > 1 else []
                )
        return due

    def page(self, collection: str, options: Options, base_url: str) -> Page:
        """Answer a request for rows; then `on_page` has its turn."""
        with self._lock:
            page = self._stale.pop(collection, None) if self._quirks.repeat_page else None
            if page is None:
                page = build_page(self._tables[collection], options, self._quirks, base_url)
                if self._quirks.repeat_page:
                    self._stale[collection] = page
        if self.on_page is not None:
            self.on_page(collection, options.offset, options.limit or page.rows)
        return page

    def _stamp(self) -> str:
        return self.now().isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _without_none(row: Row) -> Row:
    return {name: value for name, value in row.items() if value is not None}
