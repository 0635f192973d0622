"""One run in shards: the schools are divided, loaded side by side, and put together again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import dlt

from oneroster_source.config.settings import Settings
from oneroster_source.destination import staging
from oneroster_source.destination.backends import backend_of
from oneroster_source.destination.hints import RUN_MERGE, hints
from oneroster_source.destination.queries import existing_tables
from oneroster_source.destination.session import Target, require_database
from oneroster_source.destination.shards import Shard, balance
from oneroster_source.destination.state import (
    changed,
    cursors,
    divide_by,
    entries_of,
    require_current,
    resources,
)
from oneroster_source.errors import ConfigurationError
from oneroster_source.extract.run import RunOptions
from oneroster_source.model import SYNC_RUN_DETAILS, V1P1
from oneroster_source.reporting.status import SCHOOL_LOADS
from oneroster_source.run_report import Outcome, Report
from oneroster_source.sync.after_load import (
    check_integrity,
    keep_versions,
    try_views,
    warn_of_same_schools,
)
from oneroster_source.sync.load import load


def divide(target: Target, settings: Settings, options: RunOptions, count: int) -> list[Shard]:
    """Makes the tables, and divides the schools into shards: see `Warehouse.divide`."""
    schools = settings.only(options.only).schools
    # the tables that the shards need: no two of them may make one at the same time
    report = load(target, settings, replace(options, only=()), Report())
    known: dict[str, int] = {}
    with target.loaded(to_write=True, patience=settings.lock_timeout) as (pipeline, client):
        with changed(pipeline) as state:
            divide_by(state, report.run_id)
        if SCHOOL_LOADS.tables.issubset(existing_tables(client, SCHOOL_LOADS.tables)):
            sql = require_database(client, target.name).sql_client
            known = {row["estab"]: row["rows_at_last_full"] for row in SCHOOL_LOADS.rows(sql)}
    rows = {school.estab: int(known.get(school.estab) or 0) for school in schools}
    parts = balance(rows, count)
    return [Shard(report.run_id, i, tuple(estabs)) for i, estabs in enumerate(parts)]


@contextmanager
def divided(target: Target) -> Iterator[None]:
    """Keeps other runs from dividing the schools: see `Warehouse.divided`."""
    with target.pipeline() as pipeline:
        backend = backend_of(pipeline.destination_client())
        if not backend.many_writers:
            raise ConfigurationError(
                f"{target.name} takes one writer at a time, or is not known to keep several"
                " apart, so that no shards can be loaded into it side by side",
                todo="load into Postgres: --destination postgres",
            )
        with backend.dividing(target.name):
            yield


def finish(
    target: Target,
    shards: Sequence[Shard],
    report: Report,
    lost: Sequence[Outcome] = (),
    *,
    history: bool,
    patience: float,
) -> Report:
    """Puts the shards together: see `Warehouse.finish`."""
    with target.loaded(to_write=True, patience=patience) as (pipeline, client):
        report.run_id = shards[0].run_id if shards else report.run_id
        if lost:
            details = dlt.resource([report.details(lost)], name=SYNC_RUN_DETAILS.name)
            details.apply_hints(**hints(SYNC_RUN_DETAILS), write_disposition=RUN_MERGE)
            pipeline.extract(details, schema=pipeline.default_schema)
        with changed(pipeline) as state:
            for shard in shards:
                require_current(state, shard)
                for name, schools in entries_of(pipeline, shard).items():
                    entries = resources(state).setdefault(name, {})
                    entries.setdefault("schools", {}).update(schools)
        staging.drop(client)
        read = {outcome.endpoint for outcome in report.outcomes if outcome.rows}
        tables = {
            table.name
            for endpoint in V1P1.endpoints
            if endpoint.name in read or not report.outcomes
            for table in endpoint.tables()
        } & set(pipeline.default_schema.data_table_names(seen_data_only=True))
        check_integrity(pipeline, client, report, tables)
        estabs = {estab for shard in shards for estab in shard.estabs}
        warn_of_same_schools(client, report, cursors(pipeline.state), estabs)
        if history:
            tables |= keep_versions(client, report)
        try_views(client, tables, report)
    return report
