"""The ways to load that are compared: each runs in a process of its own, and says what it cost.

`python contender.py NAME ADDRESS DESTINATION [OPTIONS AS JSON]` prints one line of JSON.
"""

from __future__ import annotations

import json
import os
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

ESTAB = "3281110"
PAGE = 5000
STEPS: dict[str, float] = {}


def ours(address: str, destination: str, **options: Any) -> Callable[[], object]:
    from oneroster_source import Report, Warehouse

    _time_dlt()
    report = Report()
    options = {"page_size": PAGE, **options}
    number = options.pop("schools", 1)
    schools = [{"estab": str(int(ESTAB) + i), "shared_secret": "s"} for i in range(number)]

    def run() -> dict[str, Any]:
        warehouse = Warehouse(destination)
        warehouse.load(report, full=options.pop("full",False), base_url=address, rp="rp", schools=schools, **options)
        report.raise_for_failures()
        return {
            "rows": sum(o.rows for o in report.outcomes),
            "run_requests": sum(o.requests for o in report.outcomes),
        }

    return run


def by_hand(address: str, destination: str, **options: Any) -> Callable[[], object]:
    """What somebody who knows the data by heart would write: no state, no merge, nothing checked.

    Of the ways that were tried this is the fastest: two threads that parse in DuckDB, objects split
    first, and each collection whole in memory before it is inserted (bounded batches: 20% slower).
    """
    import duckdb
    import pyarrow as pa
    import requests

    def run() -> None:
        session, memory = requests.Session(), duckdb.connect(config={"threads": 1})
        memory.execute("SET TimeZone = 'UTC'")
        with duckdb.connect(destination) as connection, ThreadPoolExecutor(4) as pool:
            connection.execute("CREATE SCHEMA oneroster")
            for name, (structure, tables) in by_heart.COLLECTIONS.items():
                rows = f'from_json($body, \'{{"{name}": ["JSON"]}}\').{name}'
                parse = f"SELECT unnest(from_json(r, '{structure}')) FROM (SELECT unnest({rows}) r)"

                def parsed(offset: int, name: str = name, parse: str = parse) -> pa.Table:
                    body = _got(session, address, name, offset).decode()
                    return memory.cursor().execute(parse, {"body": body}).to_arrow_table()

                page = pa.concat_tables(pool.map(parsed, _offsets(session, address, name)))
                connection.register("page", page)
                for table, select in tables.items():
                    connection.execute(f"CREATE TABLE oneroster.{table} AS {select}")

    return run


def fetch_only(address: str, destination: str, **options: Any) -> Callable[[], object]:
    import requests

    def run() -> None:
        session = requests.Session()
        with ThreadPoolExecutor(4) as pool:
            for name in by_heart.COLLECTIONS:
                for body in pool.map(
                    lambda o: _got(session, address, name, o), _offsets(session, address, name)
                ):
                    assert body

    return run


def _got(session: Any, address: str, name: str, offset: int) -> bytes:
    answer = session.get(f"{address}/{name}", params={"limit": PAGE, "offset": offset})
    answer.raise_for_status()
    return answer.content


def _offsets(session: Any, address: str, name: str) -> range:
    total = session.get(f"{address}/{name}", params={"limit": 1}).headers["X-Total-Count"]
    return range(0, int(total), PAGE)


def rest_api(address: str, destination: str, **options: Any) -> Callable[[], object]:
    """dlt's own source, as its documentation shows it."""
    return _rest_api(address, destination, {})


def rest_api_tuned(address: str, destination: str, **options: Any) -> Callable[[], object]:
    """The same as fast as it gets: parquet, both cores, no type to guess."""
    os.environ["NORMALIZE__WORKERS"] = "2"
    os.environ["DATA_WRITER__BUFFER_MAX_ITEMS"] = "50000"
    os.environ["DATA_WRITER__FILE_MAX_ITEMS"] = "100000"
    return _rest_api(address, destination, {"loader_file_format": "parquet"})


def _rest_api(address: str, destination: str, run_options: dict[str, Any]) -> Callable[[], object]:
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


CONTENDERS = {f.__name__: f for f in (ours, by_hand, fetch_only, rest_api, rest_api_tuned)}


def _cpu() -> float:
    used = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def _peak() -> float:
    """The most memory that was in use at once, in MB; of the largest process, where there are more."""
    own, others = (
        resource.getrusage(w).ru_maxrss for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return max(own, others) / 1000


if __name__ == "__main__":
    name, address, destination, *rest = sys.argv[1:]
    run = CONTENDERS[name](address, destination, **json.loads(rest[0] if rest else "{}"))
    cpu, begun = _cpu(), time.perf_counter()
    found = run()
    seconds = time.perf_counter() - begun
    told = {"seconds": seconds, "cpu": _cpu() - cpu, "memory": _peak(), **STEPS, **(found or {})}
    print(json.dumps(told))  # noqa: T201
