"""Removes from rows what is not to be kept, before anything is written, even to a temporary
file.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from oneroster_source.config.privacy import Privacy
from oneroster_source.model import Endpoint
from oneroster_source.transform.json_redaction import members


class Redaction:
    """Removes from wide rows of an endpoint what is not to be kept.

    Args:
        endpoint: The endpoint.
        privacy: The policy.
    """

    def __init__(self, endpoint: Endpoint, privacy: Privacy) -> None:
        self._endpoint = endpoint
        self._left_out = privacy.left_out
        self._pseudonymized = privacy.pseudonymized
        self._key = privacy.key
        self._hidden = privacy.hidden_attributes(endpoint)

    @cached_property
    def _changes(self) -> bool:
        names = [table.name for table in self._endpoint.tables()]
        return any(self._left_out[name] or self._pseudonymized[name] for name in names)

    def touches(self, column: str) -> bool:
        """Whether a column of the endpoint's own table is left out, or holds pseudonyms."""
        name = self._endpoint.name
        return column in self._left_out[name] or column in self._pseudonymized[name]

    def __call__(self, wide: pa.Table) -> pa.Table:
        """Returns the same rows without what is not to be kept."""
        if not self._changes:
            return wide
        name = self._endpoint.name
        if "extra" not in self._left_out[name] and self._hidden:
            wide = replaced(wide, "extra", _without(wide.column("extra"), self._hidden))
        if "sourced_id" in self._pseudonymized[name]:
            # rows without an id keep their keys, which are of no use outside this run
            ids = self._pseudonyms(_array(wide, "sourced_id"))
            keys = pc.if_else(pc.is_valid(ids), ids, _array(wide, "_key"))
            wide = replaced(replaced(wide, "sourced_id", ids), "_key", keys)
        for column in self._left_out[name]:
            wide = replaced(wide, column, pa.nulls(len(wide), wide.field(column).type))
        for column in self._pseudonymized[name] - self._left_out[name] - {"sourced_id"}:
            wide = replaced(wide, column, self._pseudonyms(_array(wide, column)))
        for attribute in self._endpoint.nested:
            wide = self._nested(wide, self._endpoint.child_name(attribute))
        return wide

    def _nested(self, wide: pa.Table, table: str) -> pa.Table:
        nested = _array(wide, table)
        single = pa.types.is_struct(nested.type)
        names = [field.name for field in (nested.type if single else nested.type.value_type)]
        dropped = self._left_out[table].intersection(names)
        hashed = self._pseudonymized[table].intersection(names) - dropped
        if not dropped and not hashed:
            return wide
        if len(dropped) == len(names):
            return replaced(wide, table, pa.nulls(len(wide), nested.type))
        items = nested if single else nested.values
        columns = [
            pa.nulls(len(items), column.type)
            if name in dropped
            else self._pseudonyms(column)
            if name in hashed
            else column
            for name, column in zip(names, items.flatten(), strict=True)
        ]
        mask = items.is_null() if items.null_count else None
        items = pa.StructArray.from_arrays(columns, names, mask=mask)
        if single:
            return replaced(wide, table, items)
        lists = pa.ListArray.from_arrays(nested.offsets, items)
        if nested.null_count:
            lists = pc.if_else(nested.is_valid(), lists, pa.scalar(None, lists.type))
        return replaced(wide, table, lists)

    def _pseudonyms(self, values: pa.Array) -> pa.Array:
        assert self._key is not None
        texts = pc.dictionary_encode(values)
        names = [self._key.digest(value) for value in texts.dictionary.to_pylist()]
        return pa.array(names, pa.string()).take(texts.indices)


def _array(wide: pa.Table, name: str) -> pa.Array:
    return pa.concat_arrays(wide.column(name).chunks or [pa.array([], wide.field(name).type)])


def replaced(wide: pa.Table, name: str, values: Any) -> pa.Table:
    """Returns the table with other values in a column."""
    return wide.set_column(wide.column_names.index(name), name, values)


def _without(extra: pa.ChunkedArray, hidden: Collection[str]) -> pa.Array:
    """Removes members from JSON objects; objects that have no others become null."""
    if extra.null_count == len(extra):
        return extra

    def kept(text: str | None) -> str | None:
        found = list(members(text)) if text else []
        rest = [raw for name, raw in found if name.lower() not in hidden]
        if len(rest) == len(found):
            return text
        return "{" + ",".join(rest) + "}" if rest else None

    return pa.array([kept(text) for text in extra.to_pylist()], pa.string())
