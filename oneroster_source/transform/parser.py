"""Page bodies to Arrow tables, by SQL that is generated from the `spec` and run in DuckDB.

Two steps, both pure. `Shaper.parse` turns one response body into one wide table: a row per object,
its references and lists still nested. `Shaper.tables` takes wide tables apart into the tables of
the warehouse. In between, the reader decides which rows of a page are new.
"""

from __future__ import annotations

import os
import re
import threading
import warnings
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, cached_property
from importlib.resources import files
from typing import TypeAlias, TypeVar

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from oneroster_source.errors import BadResponse, label
from oneroster_source.model import REJECTED_ROWS, Endpoint, Table
from oneroster_source.model.quoting import literal
from oneroster_source.model.type_map import KINDS
from oneroster_source.transform.charset import is_utf8
from oneroster_source.transform.spelling import Spelling
from oneroster_source.transform.strict import ODDITIES, StrictReader
from oneroster_source.transform.tolerant import queries

# duckdb 2.0 recommends sql(), with which 1.5 takes three times as long over a page
warnings.filterwarnings("ignore", "Arrow output on a DB-API result", UserWarning)

T = TypeVar("T")
R = TypeVar("R")
_CHECK = "check base_url, or ask the provider"
_ESCAPED = re.compile(
    # what is right comes first and is passed over: a backslash, which what follows does not
    # escape, and whole surrogate pairs
    r"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|(\\u0000|\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)
_NO_NUMBER = re.compile(r"(?:nan|inf(?:inity)?)\s*[,\]}]")
# a text, which is passed over, to its end or to that of the body
_TEXT_OR_NO_NUMBER = re.compile(
    r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|(-?\b(?:nan|inf(?:inity)?)\b)', re.IGNORECASE | re.DOTALL
)
FEW = 50
"""Rows among which one that is odd lets all be read in the long way."""
_BARE_LIST = re.compile(r"\s*\[")
_SPACE = " \t\r\n\ufeff"
_NUL = rb"\u0000"
"""No database holds it, and Arrow takes it."""
_ENVELOPE = re.compile(rb'(?:\xef\xbb\xbf)?\s*(?:\{\s*"([A-Za-z]*)"\s*:\s*)?(?=\[)')

_PAGE = """WITH page AS (SELECT unnest(from_json({rows}, '["JSON"]')) AS raw FROM answer)"""
_BARE_PAGE = _PAGE.format(rows="body")
_NO_PAGE = _PAGE.format(rows="'[]'")
# as the standard words what became of a request, under the names that servers give to it
_FAILED = re.compile(r'codemajor"\s*:\s*"(?!success)', re.IGNORECASE)
Body: TypeAlias = bytes | bytearray
Whose: TypeAlias = pa.Array | pa.ChunkedArray
Estab: TypeAlias = str | Whose
"""An establishment, or one for each row."""


class Engine:
    """DuckDB as a JSON parser: in memory, with a thread and a desk for each core.

    A query runs on one core: pages are shaped side by side, not each on all cores. It does so in a
    thread of the engine's own, since DuckDB keeps memory for each thread that it was asked in.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="oneroster-page")
        self._own = threading.local()

    @cached_property
    def _database(self) -> duckdb.DuckDBPyConnection:
        # many a run reads nothing that needs it
        database = duckdb.connect(
            ":memory:",
            config={
                "threads": 1,
                "enable_external_access": False,
                # what a page has left is given back, rather than kept for a larger one
                "allocator_flush_threshold": "1MB",
                "allocator_bulk_deallocation_flush_threshold": "1MB",
            },
        )
        database.execute(
            files("oneroster_source.transform").joinpath("macros.sql").read_text("utf-8")
        )
        return database

    def run(self, function: Callable[[T], R], value: T) -> R:
        """Calls a function in a thread of the engine."""
        return self._threads.submit(function, value).result()

    @contextmanager
    def holding(self, body: str) -> Iterator[Desk]:
        """The desk of this thread, with `body` on it."""
        desk: Desk | None = getattr(self._own, "desk", None)
        if desk is None:
            desk = self._own.desk = Desk(self._database.cursor())
        with desk.holding(body):
            yield desk


@cache
def engine() -> Engine:
    """The engine of this process: a run after another finds its queries planned."""
    return Engine()


class _Answer:
    """A table of one body, which DuckDB comes for with each query anew."""

    def __init__(self) -> None:
        self.body = ""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        table = pa.table({"body": pa.array([self.body], pa.string())})
        return table.__arrow_c_stream__(requested_schema)


class Desk:
    """Where a body is laid to ask about it.

    The queries are prepared once: to plan one takes ten times as long as to run it on a small page,
    which is why the body is looked up in a relation, `answer`, and does not come as a parameter. To
    insert it into a table of DuckDB's would take a sixth of the time of all the rest.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._prepared: dict[str, str] = {}
        self._answer = _Answer()
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("answer", self._answer)

    @contextmanager
    def holding(self, body: str) -> Iterator[None]:
        """Lays a body on the desk, and takes it away."""
        self._answer.body = body
        try:
            yield
        finally:
            self._answer.body = ""

    def ask(self, sql: str) -> pa.Table:
        """Runs a query over `answer`."""
        name = self._prepared.get(sql)
        if name is None:
            name = self._prepared[sql] = f"query_{len(self._prepared)}"
            self._connection.execute(f"PREPARE {name} AS {sql}")
        return self._connection.execute(f"EXECUTE {name}").to_arrow_table()


def _mended_texts(text: str) -> str:
    """JSON text that every database can hold, with U+FFFD for NUL and for half surrogates."""
    if "\\" in text and ("\\u0000" in text or "\\ud" in text or "\\uD" in text):
        return _ESCAPED.sub(lambda m: r"\ufffd" if m[1] else m[0], text)
    return text


def _mended_numbers(text: str) -> str:
    """NaN and Infinity, which JSON does not have and some servers write, become texts."""
    lower = text.lower()
    if ("nan" in lower or "inf" in lower) and _NO_NUMBER.search(lower):
        return _TEXT_OR_NO_NUMBER.sub(lambda m: f'"{m[1]}"' if m[1] else m[0], text)
    return text


def arrow_schema(table: Table) -> pa.Schema:
    """The Arrow schema of a table in the warehouse."""
    return pa.schema(
        [pa.field(c.name, KINDS[c.kind].arrow, nullable=c.nullable) for c in table.columns]
    )


class Shaper:
    """Shapes the pages of one endpoint.

    Args:
        endpoint: The endpoint, as the spec declares it.
        engine: The DuckDB to parse in.
        references: Whether single references get child tables of their own.
        time_zone: Where the schools are: a date that comes as an instant is the day that begins
            then there.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        engine: Engine,
        *,
        references: bool = True,
        time_zone: str = "UTC",
    ) -> None:
        self.endpoint = endpoint
        self._engine = engine
        self._children = tuple(endpoint.child_tables(references=references))
        self._queries = queries(endpoint, time_zone)
        self._strict = StrictReader(endpoint)
        self._spelling = Spelling(endpoint)

    def column_of(self, attribute: str) -> str | None:
        """The column that holds an attribute, or a path such as `user.sourcedId`, if one does."""
        columns = self.endpoint.table.columns
        return next((c.name for c in columns if c.source == attribute and c.source), None)

    def parse(self, body: Body) -> pa.Table:
        """One response body as one wide table, a row per object, in the server's order.

        Columns: those of the endpoint's table without `estab`; one struct (a reference) or list of
        structs for each child table, under the table's name; `_key`, which names the row even
        where it has no sourcedId; `_problems`, the reasons why something could not be read;
        `_leftovers`, the names of the attributes that `extra` holds.

        Raises:
            BadResponse: The body is not JSON, or does not hold this collection.
        """
        return self._engine.run(self._parse, body)

    def _parse(self, body: Body) -> pa.Table:
        # some servers say so that there are no rows
        wide = self._strictly(body if body.removeprefix(BOM_UTF8).strip() else b"[]")
        if wide is not None:
            return wide
        try:
            sent = _mended_numbers(_mended_texts(body.decode("utf-8-sig")))
            text = self._spelling.corrected(sent)
            # of a provider that spells all names so, nothing else may be odd
            wide = None if text is sent else self._strictly(text.encode())
            return self._tolerantly(text) if wide is None else wide
        except UnicodeDecodeError:
            problem = "the answer is not UTF-8 text"
        except duckdb.Error:
            # DuckDB's own message quotes the body, and so a child's record
            problem = "the answer is not valid JSON"
        raise BadResponse(problem, todo=_CHECK)

    def _strictly(self, body: Body) -> pa.Table | None:
        """The rows of a body with nothing odd in it; None for any other."""
        envelope = _ENVELOPE.match(body)
        if envelope is None or _NUL in body or not is_utf8(body):
            return None
        if envelope[1] is None:
            body, name = b'{"rows":' + body.removeprefix(BOM_UTF8) + b"}", "rows"
        else:
            name = envelope[1].decode()
            if name.lower() != self.endpoint.collection.lower():
                return None
        return self._strict.read(body, name)

    def _tolerantly(self, text: str) -> pa.Table:
        """The objects of any body: the few odd ones of a page in the long way."""
        with self._engine.holding(text) as desk:
            page = self._page(desk, text)
            raws = desk.ask(f"{page} SELECT raw FROM page").column("raw").to_pylist()
            if len(raws) <= FEW:
                return self._long_way(desk, page)
        parts = [_listed(raws[begin : begin + FEW]) for begin in range(0, len(raws), FEW)]
        found = [self._strictly(part.encode()) for part in parts]
        odd = [part[1:-1] for part, wide in zip(parts, found, strict=True) if wide is None]
        with self._engine.holding(f"[{','.join(odd)}]") as desk:
            rest = self._long_way(desk, _BARE_PAGE)
        begin = 0
        for i, wide in enumerate(found):
            if wide is None:
                found[i] = rest.slice(begin, FEW)
                begin += FEW
        return pa.concat_tables(found)

    def _long_way(self, desk: Desk, page: str) -> pa.Table:
        """All objects of a page, and whatever is odd about them."""
        wide = desk.ask(page + self._queries.rows)
        odd = None
        if pc.any(wide.column("_odd")).as_py():
            odd = desk.ask(page + self._queries.oddities)
        return _with_oddities(wide.drop_columns("_odd"), odd)

    def _page(self, desk: Desk, text: str) -> str:
        """SQL for the relation `page`, under whichever spelling of the envelope's key."""
        if _BARE_LIST.match(text):
            return _BARE_PAGE
        wanted = self.endpoint.collection
        members = desk.ask(
            "SELECT k, json_type(body, pointer(k)) AS kind, lower(k) LIKE '%codemajor' OR"
            " lower(k) LIKE '%statusinfo%' AS tells, CASE WHEN tells OR kind <> 'ARRAY'"
            " THEN member(body::JSON, k)::VARCHAR END AS value"
            " FROM (SELECT body, unnest(json_keys(body)) AS k FROM answer)"
        ).to_pylist()
        if any(m["tells"] and _FAILED.search(f'"{m["k"]}":{m["value"]}') for m in members):
            raise BadResponse("the answer says that the request failed", todo=_CHECK)
        found = [member for member in members if member["k"].lower() == wanted.lower()]
        if len(found) > 1:
            raise BadResponse(f"the answer holds {wanted!r} more than once", todo=_CHECK)
        # a list beside it may be what was asked for, under another name
        nothing = found and found[0]["value"] in ("null", "{}", '""')
        nothing = nothing and all(member["kind"] != "ARRAY" for member in members)
        if nothing or (not members and text.strip(_SPACE)[:1] in ("{", "n")):
            return _NO_PAGE
        if not found:
            raise BadResponse(f"the answer holds no {wanted!r}", todo=_CHECK)
        if found[0]["kind"] != "ARRAY":
            raise BadResponse(f"{wanted!r} in the answer is not a list", todo=_CHECK)
        return _PAGE.format(rows=f"member(body::JSON, {literal(found[0]['k'])})")

    def tables(
        self, wide: pa.Table, estab: Estab, *, tombstones: bool = False, keep_deleted: bool = True
    ) -> dict[str, pa.Table]:
        """Takes a wide table apart into tables of the warehouse, by name.

        A row without sourcedId is found in `rejected_rows` alone; every other one is in the
        endpoint's table, and whatever could not be read of it in `rejected_rows` too.

        Args:
            wide: Rows as `parse` gives them.
            estab: The establishment that they were read for; or one for each row.
            tombstones: Add a child row with the position -1 for each row that has no child rows:
                the merge then removes those that it had before.
            keep_deleted: Whether rows that are marked as deleted keep their child rows.
        """
        whose, ids = _for_each(estab, len(wide)), wide.column("sourced_id")
        named = pc.is_valid(ids) if ids.null_count else None
        known = wide if named is None else wide.filter(named)
        own = whose if named is None else whose.filter(named)
        result = {self.endpoint.name: _stamped(known, self.endpoint.table, own)}
        ids, deleted = known.column("sourced_id"), _one_chunk(known.column("_deleted"))
        for table in self._children:
            nested = _one_chunk(known.column(table.name))
            has = _has_items(nested)
            if not keep_deleted:
                has = pc.and_not(has, deleted)
            result[table.name] = _exploded(own, ids, nested, has, table)
            if tombstones and has.false_count:
                none = pc.invert(has)
                empty = tombstones_of(table, own.filter(none), ids.filter(none))
                result[table.name] = pa.concat_tables([result[table.name], empty])
        result[REJECTED_ROWS.name] = self._rejected(wide, whose)
        return result

    def _rejected(self, wide: pa.Table, whose: Whose) -> pa.Table:
        if wide.column("_problems").null_count == len(wide):
            return arrow_schema(REJECTED_ROWS).empty_table()
        problems = _one_chunk(wide.column("_problems"))
        parents = pc.list_parent_indices(problems)
        return pa.table(
            [
                whose.take(parents),
                pa.repeat(self.endpoint.name, len(parents)),
                wide.column("sourced_id").take(parents),
                _positions(problems, parents),
                _reasons(problems.flatten()),
            ],
            schema=arrow_schema(REJECTED_ROWS),
        )


def _reasons(problems: pa.Array) -> pa.Array:
    """Why something could not be read, without a name of an attribute that may be a value."""
    encoded = problems.dictionary_encode()
    parts = [reason.rpartition(": ") for reason in encoded.dictionary.to_pylist()]
    reasons = [(label(name) + mark if mark else "") + reason for name, mark, reason in parts]
    return pa.array(reasons, problems.type).take(encoded.indices)


def _with_oddities(wide: pa.Table, odd: pa.Table | None = None) -> pa.Table:
    for name, kind in ODDITIES.items():
        column = pa.nulls(len(wide), kind) if odd is None else odd.column(name)
        wide = wide.append_column(pa.field(name, kind), column)
    return wide


def _listed(raws: list[str | None]) -> str:
    return f"[{','.join('null' if raw is None else raw for raw in raws)}]"


def tombstones_of(table: Table, estab: Estab, parents: Whose) -> pa.Table:
    """Rows of a child table that stand for "this parent has none", with the position -1."""
    rest = [pa.nulls(len(parents), KINDS[column.kind].arrow) for column in table.columns[3:]]
    none = pa.repeat(pa.scalar(-1, pa.int64()), len(parents))
    return pa.table(
        [_for_each(estab, len(parents)), parents, none, *rest], schema=arrow_schema(table)
    )


def _for_each(estab: Estab, rows: int) -> Whose:
    return pa.repeat(estab, rows) if isinstance(estab, str) else estab


def _has_items(nested: pa.Array) -> pa.Array:
    if pa.types.is_struct(nested.type):
        return pc.is_valid(nested)
    return pc.greater(pc.fill_null(pc.list_value_length(nested), 0), 0)


def _stamped(rows: pa.Table, table: Table, whose: Whose) -> pa.Table:
    # of a row that is marked as deleted, the last change was that
    when = pc.if_else(rows.column("_deleted"), rows.column("date_last_modified"), None)
    rows = rows.append_column("_deleted_at", when)
    columns = [rows.column(column.name) for column in table.columns[1:]]
    return pa.table([whose, *columns], schema=arrow_schema(table))


def _exploded(
    whose: Whose, ids: pa.ChunkedArray, nested: pa.Array, has: pa.BooleanArray, table: Table
) -> pa.Table:
    """The child rows that are `nested` in the rows with these ids, of those that have some."""
    if has.false_count:
        whose, ids, nested = whose.filter(has), ids.filter(has), nested.filter(has)
    if pa.types.is_struct(nested.type):
        items, positions = nested, pa.repeat(pa.scalar(0, pa.int64()), len(nested))
    else:
        parents = pc.list_parent_indices(nested)
        whose, ids, items = whose.take(parents), ids.take(parents), nested.flatten()
        positions = _positions(nested, parents)
    members = dict(zip(items.type.names, items.flatten(), strict=True))
    return pa.table(
        [whose, ids, positions, *(members[column.name] for column in table.columns[3:])],
        schema=arrow_schema(table),
    )


def _positions(lists: pa.Array, parents: pa.Array) -> pa.Array:
    """The index of every item in its own list, from 0."""
    starts = pc.subtract(lists.offsets.slice(0, len(lists)), lists.offsets[0])
    return pc.subtract(_count_up(len(parents)), starts.cast(pa.int64()).take(parents))


def _count_up(number: int) -> pa.Array:
    """The integers from 0."""
    ones = pa.repeat(pa.scalar(1, pa.int64()), number)
    return pc.subtract(pc.cumulative_sum(ones), 1)


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    chunks = column.combine_chunks()
    return chunks.chunk(0) if isinstance(chunks, pa.ChunkedArray) else chunks
