"""How each kind of value is read in SQL, and its types in Arrow and dlt."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from oneroster_source.model import Kind, Table


@dataclass(frozen=True, slots=True)
class KindRow:
    """One kind: `sql` reads the JSON member `{raw}`, with days in the time zone `{zone}`; `label`
    completes "not …" in a message.
    """

    sql: str
    arrow: pa.DataType
    dlt: str
    label: str


KINDS: dict[Kind, KindRow] = {
    "text": KindRow("nullif({raw}, '')", pa.string(), "text", "text"),
    "flag": KindRow("as_flag({raw})", pa.bool_(), "bool", "a boolean"),
    "date": KindRow("as_date({raw}, {zone})", pa.date32(), "date", "a date"),
    "instant": KindRow("as_instant({raw})", pa.timestamp("us", "UTC"), "timestamp", "a timestamp"),
    "json": KindRow("nullif({raw}, 'null')", pa.string(), "json", "JSON"),
    "integer": KindRow("{raw}", pa.int64(), "bigint", "an integer"),
    "number": KindRow("{raw}", pa.float64(), "double", "a number"),
}
LONGEST_ID = 1000
"""Bytes of the longest id: a key in Postgres has at most 2,704, with all that is in it."""


def arrow_schema(table: Table) -> pa.Schema:
    """Returns the Arrow schema of a table in the warehouse."""
    return pa.schema(
        [pa.field(c.name, KINDS[c.kind].arrow, nullable=c.nullable) for c in table.columns]
    )
