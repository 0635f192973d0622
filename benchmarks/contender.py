"""The ways to load that are compared: each runs in a process of its own, and says what it cost.

`python contender.py NAME ADDRESS DESTINATION [OPTIONS AS JSON]` prints one line of JSON.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from pathlib import Path
from typing import Any

import by_heart

ESTAB = 3281110
PAGE = 5000
STEPS: dict[str, float] = {}
Run = Callable[[], dict[str, Any] | None]


def ours(address: str, destination: str, **options: Any) -> Run:
    from oneroster_source import Warehouse

    _time_dlt()
    options = {"page_size": PAGE, "privacy": "full", **options}
    number = options.pop("schools", 1)
    schools = [{"estab": str(ESTAB + i), "shared_secret": "s"} for i in range(number)]

    def run() -> dict[str, Any]:
        warehouse = Warehouse(destination)
        report = warehouse.load(base_url=address, rp="rp", schools=schools, **options)
        report.raise_for_failures()
        return {
            "rows": sum(o.rows for o in report.outcomes),
            "requests": sum(o.requests for o in report.outcomes),
        }

    return run


def by_hand(address: str, destination: str, **options: Any) -> Run:
    """What somebody who knows the data by heart would write: no state, no merge, nothing checked.

    Of the ways that were tried this is the fastest: Arrow parses, whole collections are inserted.
    """
    import pyarrow as pa
    import pyarrow.json as pj

    def parsed(name: str, body: bytes) -> pa.Table:
        options = pj.ParseOptions(
            explicit_schema=pa.schema([(name, pa.list_(by_heart.ROWS[name]))]),
            newlines_in_values=True,
        )
        whole = pj.ReadOptions(use_threads=False, block_size=len(body) + 1)
        lists = pj.read_json(pa.BufferReader(body), whole, options).column(0).chunk(0)
        return pa.Table.from_struct_array(lists.flatten())

    return _by_hand(address, destination, parsed)


def by_hand_duckdb(address: str, destination: str, **options: Any) -> Run:
    """The same, but DuckDB parses."""
    import duckdb

    memory = duckdb.connect(config={"threads": 1})
    memory.execute("SET TimeZone = 'UTC'")

    def parsed(name: str, body: bytes) -> Any:
        rows = f'from_json($body, \'{{"{name}": ["JSON"]}}\').{name}'
        row = f"from_json(r, '{by_heart.structure_of(name)}')"
        query = f"SELECT unnest({row}) FROM (SELECT unnest({rows}) r)"
        return memory.cursor().execute(query, {"body": body.decode()}).to_arrow_table()

    return _by_hand(address, destination, parsed)


def _by_hand(address: str, destination: str, parsed: Callable[[str, bytes], Any]) -> Run:
    import duckdb
    import pyarrow as pa
    import requests

    def run() -> None:
        session = requests.Session()
        with duckdb.connect(destination) as connection, ThreadPoolExecutor(4) as pool:
            connection.execute("SET TimeZone = 'UTC'; CREATE SCHEMA oneroster")
            for name, tables in by_heart.TABLES.items():

                def page(offset: int, name: str = name) -> Any:
                    return parsed(name, _got(session, address, name, offset))

                pages = pa.concat_tables(pool.map(page, _offsets(session, address, name)))
                connection.register("page", pages)
                for table, select in tables.items():
                    connection.execute(f"CREATE TABLE oneroster.{table} AS {select}")

    return run


def fetch_only(address: str, destination: str, **options: Any) -> Run:
    import requests

    def run() -> None:
        session = requests.Session()
        with ThreadPoolExecutor(4) as pool:
            for name in by_heart.TABLES:

                def page(offset: int, name: str = name) -> bytes:
                    return _got(session, address, name, offset)

                assert all(pool.map(page, _offsets(session, address, name)))

    return run


def _got(session: Any, address: str, name: str, offset: int) -> bytes:
    answer = session.get(f"{address}/{name}", params={"limit": PAGE, "offset": offset})
    answer.raise_for_status()
    body: bytes = answer.content
    return body


def _offsets(session: Any, address: str, name: str) -> range:
    total = session.get(f"{address}/{name}", params={"limit": 1}).headers["X-Total-Count"]
    return range(0, int(total), PAGE)


def rest_api(address: str, destination: str, **options: Any) -> Run:
    """dlt's own source, as its documentation shows it."""
    return _rest_api(address, destination, {})


def rest_api_tuned(address: str, destination: str, **options: Any) -> Run:
    """The same as fast as it gets: parquet, both cores, no type to guess."""
    os.environ["NORMALIZE__WORKERS"] = "2"
    os.environ["DATA_WRITER__BUFFER_MAX_ITEMS"] = "50000"
    os.environ["DATA_WRITER__FILE_MAX_ITEMS"] = "100000"
    return _rest_api(address, destination, {"loader_file_format": "parquet"})


def _rest_api(address: str, destination: str, run_options: dict[str, Any]) -> Run:
    os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
    import dlt
    from dlt.sources.helpers.rest_client.paginators import OffsetPaginator
    from dlt.sources.rest_api import rest_api_source

    _time_dlt()

    def run() -> None:
        def resource(name: str, **columns: str) -> dict[str, Any]:
            return {
                "name": name,
                "endpoint": {"path": name, "data_selector": name},
                "columns": {c: {"data_type": kind} for c, kind in columns.items()},
            }

        source = rest_api_source(
            {
                "client": {
                    "base_url": address,
                    "paginator": OffsetPaginator(limit=PAGE, total_path=None),
                },
                "resource_defaults": {
                    "primary_key": "sourcedId",
                    "write_disposition": "merge",
                },
                "resources": [
                    resource("users"),
                    resource("enrollments", beginDate="date", endDate="date"),
                ],
            },
            name="oneroster",
        )
        pipeline = dlt.pipeline(
            "benchmark",
            destination=dlt.destinations.duckdb(destination),
            dataset_name="oneroster",
            pipelines_dir=tempfile.mkdtemp(dir=Path(destination).parent),
        )
        pipeline.run(source, **run_options)

    return run


def _time_dlt() -> None:
    import dlt

    for step in ("extract", "normalize", "load"):
        setattr(dlt.Pipeline, step, _timed(step, getattr(dlt.Pipeline, step)))


def _timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def timed(*args: Any, **kwargs: Any) -> Any:
        begun = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            STEPS[name] = STEPS.get(name, 0.0) + time.perf_counter() - begun

    return timed


CONTENDERS: dict[str, Callable[..., Run]] = {
    f.__name__: f for f in (ours, by_hand, by_hand_duckdb, fetch_only, rest_api, rest_api_tuned)
}


def _cpu() -> float:
    used = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def _peak() -> float:
    """The most memory that was in use at once, in MB; of the largest process, if there are more."""
    # what getrusage says of this process begins with what the one had that started it
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text("ascii"))
    assert found
    return max(int(found[1]), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1000


if __name__ == "__main__":
    name, address, destination, *rest = sys.argv[1:]
    run = CONTENDERS[name](address, destination, **json.loads(rest[0] if rest else "{}"))
    cpu, begun = _cpu(), time.perf_counter()
    found = run()
    seconds = time.perf_counter() - begun
    told = {"seconds": seconds, "cpu": _cpu() - cpu, "memory": _peak(), **STEPS, **(found or {})}
    print(json.dumps(told))  # noqa: T201
