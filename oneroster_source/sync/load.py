"""One run: reads the schools and loads them, or only shows what a load would do."""

from __future__ import annotations

import logging
from collections.abc import Collection
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import dlt

from oneroster_source.admin.columns import clear, filled
from oneroster_source.config.privacy import Privacy
from oneroster_source.config.settings import Settings
from oneroster_source.destination import dlt_columns, history, staging
from oneroster_source.destination.backends import Backend, backend_of
from oneroster_source.destination.memory import give_back
from oneroster_source.destination.queries import DatabaseClient, DestinationClient, existing_tables
from oneroster_source.destination.session import Target
from oneroster_source.destination.shards import Shard
from oneroster_source.destination.state import (
    changed,
    cursors,
    divide_by,
    forget_left_out,
    keep_as,
    leave_out,
    left_out,
    resources,
    take_up,
)
from oneroster_source.errors import DestinationError
from oneroster_source.extract.cursors import require_same_pseudonyms
from oneroster_source.extract.run import Run, RunOptions
from oneroster_source.model import REJECTED_ROWS, SUPPRESSED_USERS, V1P1
from oneroster_source.run_report import Report
from oneroster_source.source import source_for
from oneroster_source.sync.after_load import (
    check_integrity,
    keep_versions,
    try_views,
    warn_of_same_schools,
)

_log = logging.getLogger("oneroster_source")


def load(
    target: Target,
    settings: Settings,
    options: RunOptions,
    report: Report,
    shard: Shard | None = None,
) -> Report:
    """Reads and loads: see `Warehouse.load`.

    Args:
        target: The dataset to load into.
        settings: The settings, with all schools that are configured.
        options: What this run is to do.
        report: Filled with what was done, also when the run fails.
        shard: Load only this one of the shards that `sharding.divide` has made, perhaps beside
            others. What needs the complete dataset is then left to `sharding.finish`.

    Returns:
        The report.
    """
    report.privacy = str(settings.privacy)
    if shard is not None:
        report.run_id = shard.run_id
        options = replace(options, only=shard.estabs)
    # a school that is not configured is refused before anything is opened
    settings.only(options.only)
    patience, alone = settings.lock_timeout, shard is None
    with (
        target.pipeline(shard) as pipeline,
        backend_of(pipeline.destination_client()).exclusive(
            target.name, patience, shard.name if shard else ""
        ) as confirm,
    ):
        client = pipeline.destination_client()
        backend = backend_of(client)
        with backend.opened(patience):
            before = _prepare(pipeline, client, settings.privacy, shard)
        if before.unfinished and alone:
            _finish_removal(backend, target.name, patience, report)
        # reading may take an hour, in which others may use the file
        nobody = before.nobody_erased
        run = Run(settings, options, report, exclusive=alone, nobody_erased=nobody)
        pipeline.extract(source_for(run))
        packed = pipeline.normalize()
        give_back()
        counts = {} if packed is None else packed.row_counts
        loaded = {table for table, rows in counts.items() if rows}
        confirm()
        with backend.opened(patience):
            catch_up = settings.history and alone
            are_current = _begin_versions(client, report, before.made, settings, catch_up=catch_up)
            with backend.bounded_memory() if before.is_new else nullcontext():
                pipeline.load(workers=backend.load_workers)
                if loaded and alone:
                    check_integrity(pipeline, client, report, loaded, run.written)
            if alone:
                estabs = {school.estab for school in settings.schools}
                warn_of_same_schools(client, report, cursors(pipeline.state), estabs)
                if settings.history:
                    known = loaded if are_current else None
                    loaded |= keep_versions(client, report, known, run.written)
                try_views(client, loaded, report)
    return report


def preview(target: Target, settings: Settings, options: RunOptions, report: Report) -> Report:
    """Reads and decides as `load` does, and writes nothing: see `Warehouse.preview`."""
    run = Run(settings, replace(options, dry_run=True), report)
    with target.pipeline(may_make_file=False) as pipeline:
        client = pipeline.destination_client()
        with backend_of(client).opened(settings.lock_timeout):
            pipeline.sync_destination()
            expected = _expected_tables(pipeline)
            missing = expected.difference(existing_tables(client, expected))
        with pipeline.managed_state() as state:
            _read_completely(state, missing)
        # only into the working folder, and nothing but where it stands
        pipeline.extract(source_for(run))
    return report


@dataclass(frozen=True, slots=True)
class _Before:
    """What a load finds in the destination.

    Args:
        is_new: Whether there is no dataset yet.
        made: Tables that somebody had dropped, made again.
        nobody_erased: Whether there is no list of erased people.
        unfinished: Whether rows were removed whose bytes are still there.
    """

    is_new: bool
    made: Collection[str]
    nobody_erased: bool
    unfinished: bool


def _prepare(
    pipeline: dlt.Pipeline, client: DestinationClient, privacy: Privacy, shard: Shard | None
) -> _Before:
    """Takes the state from the destination, and makes its tables fit this load."""
    pipeline.sync_destination()
    expected, made = _expected_tables(pipeline), set[str]()
    erased = {SUPPRESSED_USERS.name}
    existing = set(existing_tables(client, expected | erased)) if expected else set()
    if shard is None:
        require_same_pseudonyms(cursors(pipeline.state), privacy, V1P1)
        made = expected - existing
        _make_dropped_tables(pipeline, made)
        _apply_left_out(pipeline, client, privacy)
        with pipeline.managed_state() as state:
            divide_by(state, "")
            keep_as(state, privacy)
    else:
        take_up(pipeline, shard, privacy)
    staging.prepare(client)
    if shard is None and dlt_columns.fit(pipeline, client):
        # its tables are to be made as those are now
        staging.drop(client)
    is_new = not client.is_storage_initialized()
    if not (expected or is_new):
        existing = set(existing_tables(client, erased))
    return _Before(
        is_new,
        made,
        # with this client it takes no connection of its own
        nobody_erased=erased.isdisjoint(existing),
        unfinished=not is_new and backend_of(client).compaction_is_due(),
    )


def _finish_removal(backend: Backend, name: str, patience: float, report: Report) -> None:
    """Compacts the database after a removal that was cut short."""
    try:
        _log.warning("%s", backend.compact(name, patience))
    except DestinationError as error:
        # no reason to load nothing; the next run tries again
        report.problems.append(str(error))


def _begin_versions(
    client: DestinationClient,
    report: Report,
    made: Collection[str],
    settings: Settings,
    *,
    catch_up: bool,
) -> bool:
    """Before a load: catches up with versions, or warns that none are kept any more.

    Returns:
        Whether there are versions of everything that was loaded before. Tables that were just made
        again, and are empty, do not count.
    """
    if not isinstance(client, DatabaseClient):
        return False
    last = None if settings.history else history.newest(client)
    if last is not None:
        _log.warning(
            "history is false: of this load no versions are kept; those that there are stand still,"
            " the newest being of %s",
            f"{last:%Y-%m-%d %H:%M:%S} UTC",
        )
    return history.begin(client, report.started, catch_up=catch_up, without=made)


def _apply_left_out(pipeline: dlt.Pipeline, client: DestinationClient, privacy: Privacy) -> None:
    """Clears what earlier loads have brought of columns that are left out from now on."""
    known, wanted = left_out(pipeline.state), privacy.columns_left_out
    new = wanted - (known or frozenset())
    if known is not None and known != wanted:
        # in a load of its own: what this run brings may have to go again, if it dies, and what is
        # taken away now comes back by a full read alone, of whichever school and whenever
        with changed(pipeline) as state:
            leave_out(state, known & wanted)
            forget_left_out(state, new)
    if not new or not pipeline.default_schema_name:
        return
    if not isinstance(client, DatabaseClient):
        _log.warning(
            "columns are left out from now on: rows of earlier loads keep them until they are read"
            " again, and deleted ones keep them"
        )
        return
    found = filled(client, privacy, new)
    if found or staging.existing(client):
        backend_of(client).mark_compaction_due()
        staging.drop(client)
        clear(client, found)
    if found:
        names = ", ".join(f"{table}.{column}" for table, some in found.items() for column in some)
        _log.warning("left out from now on, and taken away: %s", names)


def _expected_tables(pipeline: dlt.Pipeline) -> set[str]:
    """The tables that dlt believes to exist."""
    if not pipeline.default_schema_name:
        return set()
    return set(pipeline.default_schema.data_table_names(seen_data_only=True))


def _make_dropped_tables(pipeline: dlt.Pipeline, missing: Collection[str]) -> None:
    """Makes tables that somebody dropped, and has them filled by a full read."""
    if not missing:
        return
    _log.warning("dropped since the last load, and made again: %s", ", ".join(sorted(missing)))
    # first, and in a load of its own: a run that is killed in between leaves nothing that looks
    # as if it had been loaded
    with changed(pipeline) as state:
        _read_completely(state, missing)
    # one that knows the schema which was found there
    with pipeline.destination_client() as knowing:
        knowing.update_stored_schema(only_tables=missing, force=True)


def _read_completely(state: Any, tables: Collection[str]) -> None:
    """Removes the cursors of the endpoints that fill some tables."""
    kept = resources(state)
    for endpoint in V1P1.endpoints:
        names = {table.name for table in (*endpoint.tables(), REJECTED_ROWS)}
        if names.intersection(tables):
            kept.pop(endpoint.name, None)
