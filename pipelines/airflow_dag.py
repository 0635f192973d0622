"""Airflow 3: loads many schools in parallel shards, then checks the complete dataset.

Settings and secrets are environment variables of the workers (SOURCES__ONEROSTER__…,
DESTINATION__POSTGRES__…); tasks pass only estabs to each other. For a DuckDB file, set LANES to 1.
"""

import os
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

from airflow.sdk import dag, task
from airflow.sdk.exceptions import AirflowFailException

from oneroster_source import Shard, Warehouse

DESTINATION = os.environ.get("ONEROSTER_DESTINATION", "postgres")
SHARDS = int(os.environ.get("ONEROSTER_SHARDS", "16"))
LANES = 4
# per lane: a server gets LANES requests at once
CONCURRENCY = 1
RETRIES = {
    **{"retries": 3, "retry_delay": timedelta(minutes=5), "max_retry_delay": timedelta(hours=1)},
    "retry_exponential_backoff": True,
}
START = {"start_date": datetime(2026, 1, 1, tzinfo=UTC), "catchup": False}


@dag(schedule="30 4 * * *", **START, max_active_runs=1, default_args=RETRIES)
def oneroster() -> None:
    @task
    def divide() -> list[dict]:
        return [asdict(shard) for shard in Warehouse(DESTINATION).divide(SHARDS)]

    @task(max_active_tis_per_dagrun=LANES)
    def load(shard: dict) -> None:
        warehouse = Warehouse(DESTINATION)
        report = warehouse.load(shard=Shard(**shard), concurrency=CONCURRENCY)
        # a retry would not help: the other schools are loaded, and deletions wait for a person
        if bad := [*report.failed, *report.held]:
            raise AirflowFailException("; ".join(o.error for o in bad[:3]))

    # also if some schools failed, since the others are loaded
    @task(trigger_rule="all_done_min_one_success")
    def finish(shards: list[dict]) -> None:
        report = Warehouse(DESTINATION).finish([Shard(**shard) for shard in shards])
        report.raise_for_failures()

    # Airflow takes the state of a run from its last tasks
    @task(trigger_rule="one_failed", retries=0)
    def tell() -> None:
        raise RuntimeError("schools failed: the logs of the tasks `load` name them")

    shards = divide()
    load.expand(shard=shards) >> [finish(shards), tell()]


nightly = oneroster()
