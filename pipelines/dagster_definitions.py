"""Dagster: an asset for each table, all loaded by one run every night.

    dagster dev -f pipelines/dagster_definitions.py

Settings and secrets are environment variables (SOURCES__ONEROSTER__…, DESTINATION__…).
"""

import os
from collections.abc import Iterator

import dagster as dg

from oneroster_source import OneRosterError, Warehouse
from oneroster_source.model import REJECTED_ROWS, V1P1

DESTINATION = os.environ.get("ONEROSTER_DESTINATION", "roster.duckdb")
DATASET = "oneroster"
TABLES = [t for endpoint in V1P1.endpoints for t in endpoint.tables()] + [REJECTED_ROWS]
RETRIES = dg.RetryPolicy(max_retries=3, delay=300, backoff=dg.Backoff.EXPONENTIAL)


@dg.multi_asset(
    specs=[
        dg.AssetSpec(dg.AssetKey([DATASET, t.name]), description=t.grain, group_name=DATASET)
        for t in TABLES
    ],
    retry_policy=RETRIES,
)
def rosters(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
    warehouse = Warehouse(DESTINATION, DATASET)
    report = warehouse.load()
    rows = warehouse.status().rows
    for table in TABLES:
        endpoint = table.name.partition("__")[0]
        read = [outcome for outcome in report.outcomes if outcome.endpoint == endpoint]
        yield dg.MaterializeResult(
            asset_key=[DATASET, table.name],
            metadata={
                "dagster/row_count": sum(rows.get(table.name, {}).values()),
                "schools": len(rows.get(table.name, {})),
                "changed": sum(outcome.changed for outcome in read),
                "schools_failed": sum(outcome.state == "failed" for outcome in read),
                "run_id": report.run_id,
            },
        )
    # after the load, so that what could be read is there; a retry would not help
    try:
        report.raise_for_failures()
    except OneRosterError as error:
        raise dg.Failure(str(error), allow_retries=False) from None


nightly = dg.define_asset_job("oneroster_nightly", selection=dg.AssetSelection.groups(DATASET))
defs = dg.Definitions(
    assets=[rosters],
    jobs=[nightly],
    schedules=[dg.ScheduleDefinition(job=nightly, cron_schedule="30 4 * * *")],
)
