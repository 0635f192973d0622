"""Parses pages that are written as the standard and Xporter write them, nearly all, with Arrow.

Arrow is given the schema of a row, and refuses whatever differs: a name that is not declared or
comes twice, a value of another type, a text where a timestamp should be. Pages that it refuses, or
that are odd otherwise, are parsed by DuckDB, four to ten times slower: see `tolerant`. Both give
the same tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from oneroster_source.model import ChildList, Endpoint, Field
from oneroster_source.model.deleted_status import ACTIVE, TO_BE_DELETED
from oneroster_source.model.type_map import KINDS, LONGEST_ID

_REF = {"sourcedId": "sourced_id", "type": "type", "href": "href"}
_REF_TYPE = pa.struct([(name, pa.string()) for name in _REF])
_TYPES = {"flag": pa.bool_(), "instant": KINDS["instant"].arrow}
"""Kinds that Arrow parses in the standard's form; all others are read as text."""
_YEARS = {
    "date": (date.min, date.max),
    "instant": (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)),
}
"""Arrow has more years than Python and Postgres."""
_FLAGS = {"true", "false", None}
# pages with any other status are read the tolerant way, which knows all that mean deleted
_STATUSES = {ACTIVE, TO_BE_DELETED, None}
ODDITIES = {
    "extra": pa.string(),
    "_problems": pa.list_(pa.string()),
    "_leftovers": pa.list_(pa.string()),
}


class _Odd(Exception):
    """A page holds something that only the tolerant reader can judge."""


class StrictReader:
    """Parses pages of one endpoint that hold nothing but what is declared."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._fields = (Field("status"), Field("dateLastModified", "instant"), *endpoint.fields)
        self._refs = tuple((ref, endpoint.child_name(ref)) for ref in endpoint.refs)
        self._lists = tuple((child, endpoint.child_name(child)) for child in endpoint.lists)
        # the second is for providers that write flags as texts, or instants as .NET does
        self._schemas = [self._form(types) for types in (_TYPES, {})]

    def _form(self, types: Mapping[str, pa.DataType]) -> pa.DataType:
        """Returns the schema of a row, with these types for kinds."""
        members: dict[str, pa.DataType] = {"sourcedId": pa.string()}
        members |= {f.name: types.get(f.kind, pa.string()) for f in self._fields}
        members |= {ref.name: _REF_TYPE for ref, _ in self._refs}
        for child, _ in self._lists:
            members[child.name] = pa.list_(_item_type(child))
            if child.ids:
                members[child.ids] = pa.list_(pa.string())
        # nothing but null: the tolerant reader keeps metadata as it was sent
        members["metadata"] = pa.null()
        return pa.struct(list(members.items()))

    def read(self, body: bytes | bytearray, envelope: str) -> pa.Table | None:
        """Parses a body, an object with this one member; returns None if anything is odd."""
        forms = self._schemas
        for form in forms:
            wide = self._read(body, envelope, form)
            if wide is not None:
                if form is not forms[0]:
                    # a provider writes all pages alike
                    self._schemas = forms[::-1]
                return wide
        return None

    def _read(self, body: bytes | bytearray, envelope: str, form: pa.DataType) -> pa.Table | None:
        options = pa.json.ParseOptions(
            explicit_schema=pa.schema([(envelope, pa.list_(form))]),
            newlines_in_values=True,
            unexpected_field_behavior="error",
        )
        # one block, since a body is one value
        one_block = pa.json.ReadOptions(use_threads=False, block_size=len(body) + 1)
        try:
            found = pa.json.read_json(pa.BufferReader(pa.py_buffer(body)), one_block, options)
            if not body.isascii():
                # Arrow takes any bytes as text
                found.validate(full=True)
            # one value, and nothing after it
            if len(found) != 1:
                return None
            (lists,) = found.column(0).chunks
            if lists.null_count:
                return None
            return pa.table(dict(self._columns(lists.flatten())))
        except (pa.ArrowInvalid, _Odd):
            # Arrow's message may quote a child's record
            return None

    def _columns(self, rows: pa.StructArray) -> Iterator[tuple[str, pa.Array]]:
        _require(not rows.null_count)
        ids = rows.field("sourcedId")
        _require(_is_named(ids))
        yield "sourced_id", ids
        for field in self._fields:
            yield field.column.name, _read(rows.field(field.name), field)
        for ref, _ in self._refs:
            yield ref.column.name, rows.field(ref.name).flatten()[0]
        yield "metadata", pa.nulls(len(rows), pa.string())
        status = rows.field("status")
        _require(_STATUSES.issuperset(pc.unique(status).to_pylist()))
        yield "_deleted", pc.fill_null(pc.equal(status, TO_BE_DELETED), False)
        for ref, table in self._refs:
            yield table, _reference(rows.field(ref.name))
        for child, table in self._lists:
            yield table, _listed(child, rows)
        yield "_key", ids
        yield from ((name, pa.nulls(len(rows), kind)) for name, kind in ODDITIES.items())


def _item_type(child: ChildList) -> pa.DataType:
    if child.target is not None:
        return _REF_TYPE
    if child.fields:
        return pa.struct([(field.name, pa.string()) for field in child.fields])
    return pa.string()


def _require(fine: bool) -> None:
    if not fine:
        raise _Odd


def _is_named(ids: pa.StringArray) -> bool:
    """Whether no id is missing, empty or too long."""
    return not ids.null_count and _fit(ids)


def _fit(ids: pa.StringArray) -> bool:
    """Whether no id is empty or too long."""
    ends = pc.min_max(pc.binary_length(ids)).as_py()
    return ends["min"] is None or (ends["min"] > 0 and ends["max"] <= LONGEST_ID)


def _has_empty(texts: pa.StringArray) -> bool:
    return bool(pc.min(pc.binary_length(texts)).as_py() == 0)


def _text(texts: pa.StringArray) -> pa.StringArray:
    """Replaces empty texts by null."""
    return pc.if_else(pc.equal(texts, ""), None, texts) if _has_empty(texts) else texts


def _read(values: pa.Array, field: Field) -> pa.Array:
    if pa.types.is_string(values.type):
        values = _text(values)
        if field.kind == "flag":
            return _flag(values)
        if field.kind == "instant":
            # cut to the microseconds that are kept
            values = pc.replace_substring_regex(values, r"(\.\d{6})\d+", r"\1")
        if field.kind != "text":
            # raises where a text has another form
            values = values.cast(KINDS[field.kind].arrow)
    if field.kind in _YEARS:
        first, last = (pa.scalar(end, values.type) for end in _YEARS[field.kind])
        known = pc.and_(pc.greater_equal(values, first), pc.less_equal(values, last))
        _require(pc.all(known).as_py() is not False)
    return values


def _flag(texts: pa.StringArray) -> pa.BooleanArray:
    _require(_FLAGS.issuperset(pc.unique(texts).to_pylist()))
    return pc.equal(texts, "true")


def _reference(refs: pa.StructArray) -> pa.StructArray:
    ids, *rest = refs.flatten()
    _require(ids.null_count == refs.null_count and _fit(ids))
    mask = refs.is_null() if refs.null_count else None
    return pa.StructArray.from_arrays([ids, *map(_text, rest)], list(_REF.values()), mask=mask)


def _listed(child: ChildList, rows: pa.StructArray) -> pa.ListArray:
    lists = rows.field(child.name)
    shaped: Callable[[Any], pa.StructArray]
    if child.target is not None:
        shaped = _reference
    elif child.fields:
        names = [field.column.name for field in child.fields]
        shaped = partial(_objects, names)
    else:
        shaped = _values
    if child.ids:
        ids = rows.field(child.ids)
        if lists.null_count == len(lists):
            lists, shaped = ids, _ids_alone
        else:
            _require(ids.null_count == len(ids))
    _require(not lists.values.null_count)
    # a list that is null has no items, so that it becomes an empty one
    return pa.ListArray.from_arrays(lists.offsets, shaped(lists.values))


def _objects(names: list[str], items: pa.StructArray) -> pa.StructArray:
    texts = [_text(items.field(i)) for i in range(len(names))]
    return pa.StructArray.from_arrays(texts, names)


def _values(texts: pa.StringArray) -> pa.StructArray:
    _require(not _has_empty(texts))
    return pa.StructArray.from_arrays([texts], ["value"])


def _ids_alone(ids: pa.StringArray) -> pa.StructArray:
    _require(_fit(ids))
    none = pa.nulls(len(ids), pa.string())
    return pa.StructArray.from_arrays([ids, none, none], list(_REF.values()))
