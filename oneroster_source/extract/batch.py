"""Rows on their way to dlt: those of many collections, given out table by table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import dlt
import pyarrow as pa

from oneroster_source.config.settings import Settings
from oneroster_source.destination.hints import no_rejected
from oneroster_source.destination.integrity import Written
from oneroster_source.extract.buffer import FEW_ROWS
from oneroster_source.extract.decision import Tables
from oneroster_source.extract.deletions import alive
from oneroster_source.model import REJECTED_ROWS, SYNC_RUN_DETAILS, Endpoint
from oneroster_source.run_report import Outcome, Report
from oneroster_source.transform.flatten import flatten

FEW_KEYS = 15_000
"""Most rows of an endpoint that are checked by their keys after a load: for more, whole tables are
checked."""


@dataclass(frozen=True, slots=True)
class Part:
    """How rows are to be turned into tables."""

    tombstones: bool
    """Whether a row without child rows needs a tombstone that removes earlier ones."""
    partial: bool
    """Whether these are not all rows of their school."""


class Batch:
    """Rows of many collections of one endpoint, turned into tables together: dlt takes some
    milliseconds for each table that it is given, however small.

    Args:
        endpoint: Their endpoint.
        report: Turns outcomes into rows of `sync_run_details`.
        written: Notes which rows were given out.
        settings: The run's.
        direct: Whether the endpoint's tables are empty, and are filled without a merge.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        report: Report,
        written: Written,
        settings: Settings,
        *,
        direct: bool,
    ) -> None:
        self.endpoint = endpoint
        self.direct = direct
        self.rows = 0
        self._report = report
        self._written = written
        self._keep = settings.deleted == "keep"
        self._references = settings.reference_tables
        self._direct = {table.name for table in self.endpoint.tables()} if direct else set()
        self._tables: dict[str, list[pa.Table]] = {}
        self._wide: dict[Part, list[tuple[str, pa.Table]]] = {}
        self._outcomes: list[Outcome] = []
        self._keys: set[tuple[str, str]] | None = set()
        """Of the rows that were given out, as long as they are few."""

    def add(self, tables: Tables) -> None:
        """Adds tables as they are to be loaded."""
        for name, rows in tables.items():
            self._tables.setdefault(name, []).append(rows)
            self.rows += len(rows)

    def add_rows(self, wide: pa.Table, estab: str, part: Part) -> None:
        """Adds wide rows of a school."""
        if len(wide) >= FEW_ROWS:
            self._split(part, [(estab, wide)])
        else:
            self._wide.setdefault(part, []).append((estab, wide))
            self.rows += len(wide)

    def note(self, outcome: Outcome) -> None:
        """Adds the outcome of a collection."""
        self._outcomes.append(outcome)

    def given_out(self) -> Iterator[Any]:
        """Yields each table once, with its name for dlt; then the batch is empty."""
        for part, found in self._wide.items():
            self._split(part, found)
        if self._outcomes:
            self.add({SYNC_RUN_DETAILS.name: self._report.details(self._outcomes)})
        tables, self._tables, self._wide, self._outcomes, self.rows = self._tables, {}, {}, [], 0
        for name, parts in tables.items():
            rows = pa.concat_tables(parts)
            if name in self._direct:
                filled = self._written.filled
                filled[name] = filled.get(name, 0) + len(rows)
                hints = dlt.mark.make_hints(table_name=name, write_disposition="append")
                own = name == self.endpoint.name
                yield dlt.mark.with_hints(rows, hints, create_table_variant=not own)
            else:
                yield dlt.mark.with_table_name(rows, name)

    def _split(self, part: Part, found: list[tuple[str, pa.Table]]) -> None:
        """Turns wide rows into the endpoint's own table and its child tables."""
        estabs = pa.chunked_array(
            [pa.repeat(estab, len(wide)) for estab, wide in found], pa.string()
        )
        wide = pa.concat_tables([wide for _, wide in found])
        tables = flatten(
            wide,
            self.endpoint,
            estabs,
            references=self._references,
            tombstones=part.tombstones,
            keep_deleted=self._keep,
        )
        own = self.endpoint.name
        self.remember(tables[own] if part.partial else None)
        if part.partial:
            keys = (tables[own].column(name) for name in ("estab", "sourced_id"))
            self.add({REJECTED_ROWS.name: no_rejected(self.endpoint, *keys)})
        if self.direct and not self._keep:
            tables[own] = alive(tables[own])
        self.add({name: rows for name, rows in tables.items() if len(rows)})

    def remember(self, rows: pa.Table | None) -> None:
        """Notes the keys of rows that are loaded; None for more rows than are worth noting."""
        if self._keys is None or rows is None or len(self._keys) + len(rows) > FEW_KEYS:
            self._keys = None
            self._written.keys.pop(self.endpoint.name, None)
        else:
            ids = rows.column("sourced_id").to_pylist()
            self._keys.update(zip(rows.column("estab").to_pylist(), ids, strict=True))
            self._written.keys[self.endpoint.name] = self._keys
