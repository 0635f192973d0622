"""What must not grow: requests, statements, rows written again, bytes held."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from dlt.destinations.impl.duckdb.sql_client import DuckDbSqlClient
from dlt.destinations.job_client_impl import SqlJobClientBase
from support.settings import settings
from support.truth import Truth, differences

from oneroster_source import Report, oneroster
from oneroster_source.config import settings as config
from oneroster_source.config.settings import resolve
from oneroster_source.extract import buffer as spools
from oneroster_source.extract.buffer import Buffer
from oneroster_source.extract.run import Run, RunOptions
from oneroster_source.model import V1P1
from oneroster_source.simulator import School, secondary_school
from oneroster_source.source import source_for
from oneroster_source.transform.duckdb_engine import Engine
from oneroster_source.transform.parser import PageParser

ENDPOINTS = len(V1P1.endpoints)


def some_schools(number: int, pupils: int = 12) -> list[School]:
    return [secondary_school(n, str(9000 + n), pupils=pupils) for n in range(number)]


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What dlt and we ask DuckDB for."""
    asked: list[str] = []
    execute = DuckDbSqlClient.execute_query

    def counted(self: DuckDbSqlClient, query: str, *args: object, **kwargs: object) -> object:
        asked.append(query)
        return execute(self, query, *args, **kwargs)

    monkeypatch.setattr(DuckDbSqlClient, "execute_query", counted)
    return asked


def test_an_unchanged_school_costs_one_request_for_each_endpoint_and_a_login(
    serve, sync, warehouse
) -> None:
    schools = some_schools(3)
    server = serve(*schools)
    first = sync(server, *schools)
    assert {outcome.requests for outcome in first.outcomes} == {2}
    for _ in range(2):
        before = len(server.requests)
        again = sync(server, *schools)
        assert [outcome.requests for outcome in again.outcomes] == [1] * 3 * ENDPOINTS
        assert len(server.requests) - before == 3 * (ENDPOINTS + 1)
        assert sum(outcome.changed for outcome in again.outcomes) == 0
    assert differences(warehouse.name, Truth(server.base_url, schools)) == {}


@pytest.mark.slow
def test_a_run_with_nothing_new_asks_the_destination_no_more_for_many_schools(
    serve, sync, statements
) -> None:
    schools = some_schools(4)
    server = serve(*schools)
    numbers = []
    for some in (schools[:1], schools):
        sync(server, *some)
        sync(server, *some)
        statements.clear()
        sync(server, *some)
        # dlt writes its schema anew where another endpoint was the first to write to a table of all
        numbers.append(len([s for s in statements if not re.search("_dlt_version|COLUMNS", s)]))
    assert numbers[0] == numbers[1] < 60


@pytest.mark.slow
def test_a_run_with_nothing_new_writes_its_own_record_and_nothing_else(
    serve, sync, school, statements
) -> None:
    server = serve(school)
    sync(server, school)
    sync(server, school)
    statements.clear()
    sync(server, school)
    written = [s for s in statements if s.lstrip().upper().startswith(("INSERT", "DELETE"))]
    tables = {table.name for endpoint in V1P1.endpoints for table in endpoint.tables()}
    assert not [s for s in written if any(f'"{table}"' in s for table in tables)]
    assert any("sync_run_details" in s for s in written)


def test_a_delta_writes_the_rows_that_it_read_and_no_others(serve, school, pipeline) -> None:
    server = serve(school)
    options = {**settings(server, school), "endpoints": ["users"], "lag": 0}
    pipeline.run(oneroster(**options))
    key = school.rows("users")[0]["sourcedId"]
    school.change("users", key, givenName="Another")
    report = Report()
    source = oneroster(**options, report=report)
    written: Counter[str] = Counter()

    def count(rows: Any) -> Any:
        if isinstance(rows, pa.Table) and "username" in rows.column_names:
            written.update(rows.column("sourced_id").to_pylist())
        return rows

    source.resources["users"].add_map(count)
    pipeline.run(source)
    assert written[key] == 1
    # with it come the rows of the very last moment before, which may have been changed in it again
    newest = max(row["dateLastModified"] for row in school.rows("users") if row["sourcedId"] != key)
    last = {row["sourcedId"] for row in school.rows("users") if row["dateLastModified"] == newest}
    assert set(written) <= {key} | last
    assert sum(written.values()) == report.outcomes[0].rows < len(school.rows("users")) / 5


def test_a_first_load_needs_no_merge(serve, sync, school, warehouse, statements) -> None:
    server = serve(school)
    sync(server, school)
    filled = [s for s in statements if "read_parquet" in s]
    tables = [table.name for endpoint in V1P1.endpoints for table in endpoint.tables()]
    assert not [s for s in filled if any(f'_staging"."{table}"' in s for table in tables)]
    assert any('"oneroster"."users"' in s for s in filled)
    assert differences(warehouse.name, Truth(server.base_url, [school])) == {}


@pytest.mark.slow
def test_a_collection_that_waits_holds_no_more_memory_however_many_rows_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spools, "IN_MEMORY", 1 << 20)
    parser = PageParser(V1P1["users"], Engine())
    rows, peaks = 200, []
    for pages in (20, 200):
        buffer = Buffer(span=timedelta(days=1))
        empty = pa.total_allocated_bytes()
        for page in range(pages):
            buffer.add(parser.parse(users(page * rows, rows)), 0)
        peaks.append(pa.total_allocated_bytes() - empty)
        # what is remembered of each row, to see which are gone: its id, and nothing of its page
        ids = buffer.ids()
        assert len(ids) == pages * rows
        assert pa.total_allocated_bytes() - empty - peaks[-1] < 40 * len(ids)
        buffer.close()
    few, many = peaks
    assert many < few + (1 << 20)


def users(first: int, number: int) -> bytes:
    found = (
        f'{{"sourcedId":"u{i:08}","status":"active","dateLastModified":"2026-01-01T00:00:00.000Z",'
        f'"username":"{"name " * 40}{i}","role":"student"}}'
        for i in range(first, first + number)
    )
    return f'{{"users":[{",".join(found)}]}}'.encode()


@pytest.mark.slow
def test_the_limit_for_a_server_holds_for_any_number_of_schools(serve, sync) -> None:
    schools = some_schools(6)
    server = serve(*schools, latency=0.005)
    sync(server, *schools, concurrency=3, page_size=10)
    assert server.most_at_once == 3
    assert len(server.requests) > 3 * len(schools) * ENDPOINTS


@pytest.mark.parametrize(("most", "noted"), [(15_000, True), (5, False)])
def test_of_a_large_load_no_keys_are_noted(
    serve, school, pipeline, monkeypatch, most: int, noted: bool
) -> None:
    monkeypatch.setattr("oneroster_source.extract.batch.FEW_KEYS", most)
    chosen = resolve(**settings(serve(school), school), endpoints=["users"])
    run = Run(chosen, RunOptions(since=datetime(2000, 1, 1, tzinfo=UTC)))
    pipeline.run(source_for(run))
    keys = {(school.estab, user["sourcedId"]) for user in school.rows("users")}
    assert run.written.keys == ({"users": keys} if noted else {})


def test_a_load_in_which_nothing_changed_asks_for_little(serve, school, sync, monkeypatch) -> None:
    """Settings are resolved once; what dlt opens by itself is 6 of the connections."""
    server, counts = serve(school), Counter[str]()

    def counting(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def counted(*args: Any, **options: Any) -> Any:
            counts[name] += 1
            return original(*args, **options)

        monkeypatch.setattr(owner, name, counted)

    for _ in range(2):
        sync(server, school)
    counting(config, "look_up")
    counting(DuckDbSqlClient, "open_connection")
    counting(SqlJobClientBase, "get_storage_tables")
    assert sync(server, school).good
    assert counts["look_up"] == 1
    assert counts["open_connection"] <= 8
    assert counts["get_storage_tables"] <= 8
