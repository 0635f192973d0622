"""Parses page bodies: one response body becomes one wide Arrow table, a row per object, its
references and lists still nested.

The paginator then decides which rows of a page are new, and `flatten` takes wide tables apart.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from typing import TypeAlias

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from oneroster_source.errors import BadResponse
from oneroster_source.model import Endpoint
from oneroster_source.model.quoting import literal
from oneroster_source.transform.duckdb_engine import BodyCursor, Engine
from oneroster_source.transform.spelling import Spelling
from oneroster_source.transform.strict import ODDITIES, StrictReader
from oneroster_source.transform.tolerant import queries

_CHECK = "check base_url, or ask the provider"
_ESCAPED = re.compile(
    # valid escapes come first, and are skipped: of a backslash, and complete surrogate pairs
    r"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|(\\u0000|\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)
_NO_NUMBER = re.compile(r"(?:nan|inf(?:inity)?)\s*[,\]}]")
# a text, which is skipped, to its end or to that of the body
_TEXT_OR_NO_NUMBER = re.compile(
    r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|(-?\b(?:nan|inf(?:inity)?)\b)', re.IGNORECASE | re.DOTALL
)
FEW = 50
"""Rows that are read together in the tolerant way if one of them is odd."""
_BARE_LIST = re.compile(r"\s*\[")
_SPACE = " \t\r\n\ufeff"
_NUL = rb"\u0000"
"""Databases refuse it, and Arrow does not."""
_ENVELOPE = re.compile(rb'(?:\xef\xbb\xbf)?\s*(?:\{\s*"([A-Za-z]*)"\s*:\s*)?(?=\[)')

_PAGE = """WITH page AS (SELECT unnest(from_json({rows}, '["JSON"]')) AS raw FROM answer)"""
_BARE_PAGE = _PAGE.format(rows="body")
_NO_PAGE = _PAGE.format(rows="'[]'")
# how the standard says that a request failed, under the names that servers use for it
_FAILED = re.compile(r'codemajor"\s*:\s*"(?!success)', re.IGNORECASE)
Body: TypeAlias = bytes | bytearray


def _fixed_texts(text: str) -> str:
    """Replaces NUL and half surrogates, which databases cannot hold, by U+FFFD."""
    if "\\" in text and ("\\u0000" in text or "\\ud" in text or "\\uD" in text):
        return _ESCAPED.sub(lambda m: r"\ufffd" if m[1] else m[0], text)
    return text


def _fixed_numbers(text: str) -> str:
    """Makes texts of NaN and Infinity, which JSON does not have and some servers write."""
    lower = text.lower()
    if ("nan" in lower or "inf" in lower) and _NO_NUMBER.search(lower):
        return _TEXT_OR_NO_NUMBER.sub(lambda m: f'"{m[1]}"' if m[1] else m[0], text)
    return text


class PageParser:
    """Parses the pages of one endpoint.

    Args:
        endpoint: The endpoint.
        engine: The DuckDB to parse in.
        time_zone: Where the schools are: a date that is sent as an instant is the day that begins
            there at that time.

    >>> from oneroster_source.model import V1P1
    >>> from oneroster_source.transform.duckdb_engine import engine
    >>> page = PageParser(V1P1["orgs"], engine()).parse(b'{"orgs": [{"sourcedId": "o1"}]}')
    >>> page.column("sourced_id").to_pylist()
    ['o1']
    """

    def __init__(
        self,
        endpoint: Endpoint,
        engine: Engine,
        *,
        time_zone: str = "UTC",
    ) -> None:
        self.endpoint = endpoint
        self._engine = engine
        self._queries = queries(endpoint, time_zone)
        self._strict = StrictReader(endpoint)
        self._spelling = Spelling(endpoint)

    def column_of(self, attribute: str) -> str | None:
        """Returns the column of an attribute, or of a path such as `user.sourcedId`."""
        columns = self.endpoint.table.columns
        return next((c.name for c in columns if c.source == attribute and c.source), None)

    def parse(self, body: Body) -> pa.Table:
        """Parses one response body into one wide table, a row per object, in the server's order.

        Columns: those of the endpoint's table without `estab`; one struct (a reference) or list of
        structs for each child table, under the table's name; `_key`, which identifies a row even
        without a sourcedId; `_problems`, the reasons why something could not be read; `_leftovers`,
        the names of the attributes in `extra`.

        Raises:
            BadResponse: The body is not JSON, or does not contain this collection.
        """
        return self._engine.threads.submit(self._parse, body).result()

    def _parse(self, body: Body) -> pa.Table:
        # some servers send nothing where there are no rows
        wide = self._strictly(body if body.removeprefix(BOM_UTF8).strip() else b"[]")
        if wide is not None:
            return wide
        try:
            sent = _fixed_numbers(_fixed_texts(body.decode("utf-8-sig")))
            text = self._spelling.corrected(sent)
            # the spelling of names may be all that is odd
            wide = None if text is sent else self._strictly(text.encode())
            return self._tolerantly(text) if wide is None else wide
        except UnicodeDecodeError:
            problem = "the answer is not UTF-8 text"
        except duckdb.Error:
            # DuckDB's own message quotes the body, and thus a child's record
            problem = "the answer is not valid JSON"
        raise BadResponse(problem, todo=_CHECK)

    def _strictly(self, body: Body) -> pa.Table | None:
        """Parses a body with nothing odd in it; returns None for any other."""
        envelope = _ENVELOPE.match(body)
        if envelope is None or _NUL in body:
            return None
        if envelope[1] is None:
            body, name = b'{"rows":' + body.removeprefix(BOM_UTF8) + b"}", "rows"
        else:
            name = envelope[1].decode()
            if name.lower() != self.endpoint.collection.lower():
                return None
        return self._strict.read(body, name)

    def _tolerantly(self, text: str) -> pa.Table:
        """Parses any body, and takes the long way only around odd objects."""
        with self._engine.on(text) as cursor:
            page = self._page(cursor, text)
            raws = cursor.query(f"{page} SELECT raw FROM page").column("raw").to_pylist()
            if len(raws) <= FEW:
                return self._long_way(cursor, page)
        parts = [_listed(raws[begin : begin + FEW]) for begin in range(0, len(raws), FEW)]
        found = [self._strictly(part.encode()) for part in parts]
        odd = [part[1:-1] for part, wide in zip(parts, found, strict=True) if wide is None]
        with self._engine.on(f"[{','.join(odd)}]") as cursor:
            rest = self._long_way(cursor, _BARE_PAGE)
        begin = 0
        for i, wide in enumerate(found):
            if wide is None:
                found[i] = rest.slice(begin, FEW)
                begin += FEW
        return pa.concat_tables(found)

    def _long_way(self, cursor: BodyCursor, page: str) -> pa.Table:
        """Parses all objects of a page, and lists what is odd about them."""
        wide = cursor.query(page + self._queries.rows)
        odd = None
        if pc.any(wide.column("_odd")).as_py():
            odd = cursor.query(page + self._queries.oddities)
        return _with_oddities(wide.drop_columns("_odd"), odd)

    def _page(self, cursor: BodyCursor, text: str) -> str:
        """Returns SQL for the relation `page`, whatever the case of the envelope's key."""
        if _BARE_LIST.match(text):
            return _BARE_PAGE
        wanted = self.endpoint.collection
        members = cursor.query(
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
        # another list beside it may be the collection, under another name
        nothing = found and found[0]["value"] in ("null", "{}", '""')
        nothing = nothing and all(member["kind"] != "ARRAY" for member in members)
        if nothing or (not members and text.strip(_SPACE)[:1] in ("{", "n")):
            return _NO_PAGE
        if not found:
            raise BadResponse(f"the answer holds no {wanted!r}", todo=_CHECK)
        if found[0]["kind"] != "ARRAY":
            raise BadResponse(f"{wanted!r} in the answer is not a list", todo=_CHECK)
        return _PAGE.format(rows=f"member(body::JSON, {literal(found[0]['k'])})")


def _with_oddities(wide: pa.Table, odd: pa.Table | None = None) -> pa.Table:
    for name, kind in ODDITIES.items():
        column = pa.nulls(len(wide), kind) if odd is None else odd.column(name)
        wide = wide.append_column(pa.field(name, kind), column)
    return wide


def _listed(raws: list[str | None]) -> str:
    return f"[{','.join('null' if raw is None else raw for raw in raws)}]"
