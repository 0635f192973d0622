"""The dlt source: one resource for each endpoint, for all schools of the run together."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import dlt
from dlt.common.configuration.specs import BaseConfiguration
from dlt.extract import DltResource, DltSource

from oneroster_source.config.options import Deleted
from oneroster_source.config.privacy import Profile
from oneroster_source.config.settings import resolve
from oneroster_source.destination.hints import (
    REJECTED_MERGE,
    RUN_MERGE,
    child_merge,
    hints,
    row_merge,
)
from oneroster_source.extract.run import Run, RunOptions
from oneroster_source.model import REJECTED_ROWS, SYNC_RUN_DETAILS, Endpoint
from oneroster_source.run_report import Report

_log = logging.getLogger("dlt")
# dlt warns of every table in which a declared type is closer than Arrow's: JSON in a text column
_log.addFilter(lambda record: "when merging arrow schema with dlt schema" not in str(record.msg))

# Flat tables need no root key, and dlt would change its schema from run to run to add it. Without
# the spec, dlt would look for each argument in the environment, down to a bare SINCE or FULL.
_declared = partial(
    dlt.source, name="oneroster", section="oneroster", root_key=False, spec=BaseConfiguration
)


@_declared()
def oneroster(
    *,
    base_url: str | None = None,
    rp: str | None = None,
    estab: str | None = None,
    shared_secret: str | None = None,
    schools: Sequence[Mapping[str, Any]] | None = None,
    endpoints: Sequence[str] | None = None,
    page_size: int | None = None,
    privacy: Profile | None = None,
    history: bool | None = None,
    deleted: Deleted | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    full: bool = False,
    allow_deletes: bool = False,
    only: Sequence[str] | None = None,
    report: Report | None = None,
    dry_run: bool = False,
    **settings: Any,
) -> list[DltResource]:
    """Reads school rosters from OneRoster 1.1 APIs: a dlt source with a resource per endpoint.

    A setting that is not given comes from dlt's configuration, section `sources.oneroster`.

    Args:
        base_url: Address of the API, up to the collections.
        rp: Relying party identifier.
        estab: Establishment identifier of the school.
        shared_secret: The school's shared secret.
        schools: Several schools: mappings with `estab`, `shared_secret`, and whatever else differs
            between them.
        endpoints: Names from `ENDPOINTS`; all of them if not given.
        page_size: Rows to request in one page.
        privacy: Which columns are kept: `full`, `no-contact` or `pseudonymous`.
        history: Whether to keep every version of a row, for which `keep_history` must be called
            after each run. `Warehouse.load` calls it itself.
        deleted: Whether rows that are deleted at the source are marked (`keep`) or dropped
            (`remove`).
        since: With or without `until`: read rows changed after this instant, a bounded window, and
            leave the cursors where they are. With a time zone.
        until: Read rows changed before this instant. With a time zone.
        full: Read everything again, whatever the cursors say.
        allow_deletes: Skip the mass-deletion guard.
        only: The estabs to read, of the schools that are configured.
        report: Filled with what was read. With a report, a collection that fails is noted there and
            the others go on: call `report.raise_for_failures()`. Without one, a failure raises.
        dry_run: Read and compare, and load nothing: see `Outcome.plan` in the report.
        **settings: Any other setting, as the reference of settings lists them.

    Returns:
        A `DltSource` whose resources load with any dlt pipeline into any destination that can
        merge. Its resources have the names in `ENDPOINTS`; every row carries `estab`.

    Raises:
        ConfigurationError: A setting is missing or wrong.
        OneRosterError: While the pipeline runs, and wrapped in dlt's own exception: something
            cannot be read, or the destination cannot be used.

    Examples:
        >>> import dlt
        >>> from oneroster_source import oneroster
        >>> pipeline = dlt.pipeline("rosters", destination="duckdb", dataset_name="oneroster")
        >>> info = pipeline.run(oneroster(endpoints=["orgs", "users"]))
        >>> users = pipeline.dataset().users.select("estab", "sourced_id").fetchall()
        >>> {estab for estab, _ in users}
        {'3281110'}
    """
    given = {
        "base_url": base_url,
        "rp": rp,
        "estab": estab,
        "shared_secret": shared_secret,
        "schools": schools,
        "endpoints": endpoints,
        "page_size": page_size,
        "privacy": privacy,
        "history": history,
        "deleted": deleted,
    }
    options = RunOptions(
        since=since, until=until, full=full, allow_deletes=allow_deletes, only=only, dry_run=dry_run
    )
    return _resources(Run(resolve(**given, **settings), options, report))


def source_for(run: Run) -> DltSource:
    """The same source, of a run whose settings are resolved."""
    source: DltSource = _declared(lambda: _resources(run))()
    return source


def _resources(run: Run) -> list[DltResource]:
    return [_resource(run, run.settings.dialect[name]) for name in run.settings.endpoints]


def _resource(run: Run, endpoint: Endpoint) -> DltResource:
    """The resource of an endpoint, with all its tables declared."""
    resource = dlt.resource(lambda: run.rows(endpoint), name=endpoint.name, max_table_nesting=0)
    # the variants first: dlt makes them from the hints that the resource has at that moment
    variants: dict[Any, Any] = {table: child_merge(table) for table in endpoint.child_tables()}
    variants |= {REJECTED_ROWS: REJECTED_MERGE, SYNC_RUN_DETAILS: RUN_MERGE}
    variants |= dict.fromkeys(run.version_tables(endpoint), "append")
    for table, how in variants.items():
        resource.apply_hints(**hints(table), write_disposition=how, create_table_variant=True)
    merge = row_merge(keep_deleted=run.settings.deleted == "keep")
    resource.apply_hints(**hints(endpoint.table), write_disposition=merge)
    return resource
