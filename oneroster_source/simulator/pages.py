"""The answer to a request for rows: a slice of a collection in its envelope."""

from __future__ import annotations

from dataclasses import dataclass

from oneroster_source.simulator.options import Options
from oneroster_source.simulator.quirks import TOTALS, Quirks
from oneroster_source.simulator.table import Table


@dataclass(frozen=True, slots=True)
class Page:
    """A page as it is sent."""

    body: bytes
    rows: int
    total: str | None
    """What X-Total-Count says; None where it is not sent."""


def build_page(table: Table, options: Options, quirks: Quirks, base_url: str) -> Page:
    """The rows that `options` ask for, as a provider with `quirks` gives them."""
    found = table.found(options, quirks.order)
    limits = [limit for limit in (options.limit, quirks.cap) if limit is not None]
    end = options.offset + min(limits) if limits else None
    ids = found[options.offset : end]
    items = table.page(ids, quirks, base_url)
    total = TOTALS[quirks.total](len(found), len(ids), len(table))
    return Page(_enveloped(table.name, items, quirks), len(ids), total)


def _enveloped(name: str, items: bytes, quirks: Quirks) -> bytes:
    if quirks.envelope == "bare":
        return b"[" + items + b"]"
    key = name.lower() if quirks.envelope == "lower" else name
    return b"".join((b'{"', key.encode(), b'":[', items, b"]}"))
