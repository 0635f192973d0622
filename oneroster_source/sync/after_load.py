"""What follows a load: checks, versions, views; in pipelines of one's own, too."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from contextlib import nullcontext
from typing import Any

import dlt

from oneroster_source.destination import history
from oneroster_source.destination.integrity import Written, problems, same_schools
from oneroster_source.destination.queries import DatabaseClient, DestinationClient, existing_tables
from oneroster_source.destination.session import require_database
from oneroster_source.errors import DestinationError
from oneroster_source.model import V1P1
from oneroster_source.reporting.refresh import create_views
from oneroster_source.run_report import Report


def make_views(pipeline: dlt.Pipeline) -> list[str]:
    """Makes the views in the dataset of a pipeline of your own, after it has run.

    `Warehouse.load` does this itself.

    Args:
        pipeline: A pipeline that has loaded `oneroster`.

    Returns:
        The names of the views that exist now; none in a destination that is no database.

    Raises:
        DestinationError: The destination refuses a view.

    Examples:
        >>> import dlt
        >>> from oneroster_source import make_views, oneroster
        >>> pipeline = dlt.pipeline("rosters", destination="duckdb", dataset_name="oneroster")
        >>> info = pipeline.run(oneroster(endpoints=["users", "enrollments"]))
        >>> "enrollment_states" in make_views(pipeline)
        True
    """
    with pipeline.destination_client() as client:
        return [view.name for view in create_views(client)]


def keep_history(pipeline: dlt.Pipeline) -> dict[str, int]:
    """Keeps versions of all rows that a pipeline of your own has loaded, after each of its runs.

    Versions have `valid_from` and `valid_to` (SCD type 2). `Warehouse.load` does this itself.

    Args:
        pipeline: A pipeline that has loaded `oneroster` with `history=True`.

    Returns:
        How many rows have changed, by the table of their versions; of tables with any.

    Raises:
        DestinationError: There are no tables of versions, or the destination is no database.

    Examples:
        >>> import dlt
        >>> from oneroster_source import keep_history, oneroster
        >>> pipeline = dlt.pipeline("rosters", destination="duckdb", dataset_name="oneroster")
        >>> info = pipeline.run(oneroster(endpoints=["users"], history=True))
        >>> list(keep_history(pipeline))
        ['users_history']
    """
    with pipeline.destination_client() as client:
        return history.keep(require_database(client, pipeline.destination.destination_name))


def check_integrity(
    pipeline: dlt.Pipeline,
    client: DestinationClient,
    report: Report,
    changed: AbstractSet[str],
    written: Written | None = None,
) -> None:
    """Adds to the report what does not hold in the destination.

    Args:
        pipeline: A pipeline of the dataset.
        client: dlt's client of the destination, open.
        report: The run's.
        changed: The tables into which something was loaded.
        written: Which rows these were, if that is known.
    """
    # files are queried through a client of their own
    with (
        nullcontext(client.sql_client)
        if isinstance(client, DatabaseClient)
        else pipeline.sql_client()
    ) as sql:
        found = problems(sql, V1P1.endpoints, changed, report, written or Written())
        report.problems += found


def warn_of_same_schools(
    client: DestinationClient,
    report: Report,
    cursors: Mapping[str, Mapping[str, Any]],
    configured: Collection[str],
) -> None:
    """Warns of a new school whose rows are those of another one that is no longer configured: the
    school has got another estab, and its people are there twice.

    Args:
        client: dlt's client of the destination, open.
        report: The run's.
        cursors: The entries of all cursors, by endpoint and estab.
        configured: The estabs of the configuration.
    """
    new = {o.estab for o in report.outcomes if o.first and o.loaded and o.live}
    others = {estab for schools in cursors.values() for estab in schools}
    others -= {outcome.estab for outcome in report.outcomes} | set(configured)
    if not new or not others or not isinstance(client, DatabaseClient):
        return
    endpoints = [V1P1[name] for name in cursors if name in V1P1.names]
    tables = existing_tables(client, [endpoint.name for endpoint in endpoints])
    endpoints = [endpoint for endpoint in endpoints if endpoint.name in tables]
    found = same_schools(client.sql_client, endpoints, sorted(new), sorted(others))
    for estab, by_endpoint in found.items():
        olds = sorted(set().union(*by_endpoint.values()))
        outcome = next(o for o in report.outcomes if o.estab == estab and o.endpoint in by_endpoint)
        outcome.warn(
            f"its rows are largely those of school {', '.join(olds)}, which is not configured: if"
            " the school has got another estab, its people are there twice until you run"
            f" `oneroster remove-school --school {','.join(olds)}`"
        )


def keep_versions(
    client: DestinationClient,
    report: Report,
    loaded: Collection[str] | None = None,
    written: Written | None = None,
) -> set[str]:
    """Keeps versions of what has changed.

    Args:
        client: dlt's client of a database, open.
        report: The run's.
        loaded: The tables into which something was loaded; None to compare all tables.
        written: Which rows these were.

    Returns:
        The tables of versions that have changed.
    """
    # the source has refused other destinations
    assert isinstance(client, DatabaseClient)
    if not history.is_kept(client):
        # no versioned table is loaded
        return set()
    where: dict[str, Collection[str] | None] | None = None
    if loaded is not None:
        # rows that a full pass found missing are not among the keys
        complete = {o.endpoint for o in report.outcomes if o.mode == "full" and o.loaded}
        keys = {} if written is None else written.keys
        where = {
            name: {key for _, key in keys[name]} if name in keys and name not in complete else None
            for name in loaded
        }
    return set(history.keep(client, at=report.started, loaded=where))


def try_views(client: DestinationClient, changed: Collection[str], report: Report) -> None:
    """Makes the views; a view that cannot be made is a problem in the report."""
    try:
        create_views(client, changed)
    except DestinationError as error:
        report.problems.append(str(error))
