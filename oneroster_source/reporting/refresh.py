"""What reports need in a dataset: views, indexes and statistics, and results of the checks."""

from __future__ import annotations

from collections.abc import Collection

import dlt

from oneroster_source.destination.backends import backend_of
from oneroster_source.destination.hints import hints
from oneroster_source.destination.queries import (
    DatabaseClient,
    DatabaseException,
    DestinationClient,
)
from oneroster_source.destination.session import Target, require_database
from oneroster_source.destination.state import left_out
from oneroster_source.errors import DestinationError, clean
from oneroster_source.model import QUALITY_RESULTS
from oneroster_source.reporting import quality, views
from oneroster_source.reporting.sql_files import Statement


def create_views(client: DestinationClient, changed: Collection[str] = ()) -> list[Statement]:
    """Makes the views, and what keeps them fast, if the destination is a database.

    Args:
        client: dlt's client of the destination, open.
        changed: Tables into which something was loaded.

    Returns:
        The views that exist now.

    Raises:
        DestinationError: It refuses one.
    """
    if not isinstance(client, DatabaseClient):
        return []
    try:
        read = {t for query in (*views.VIEWS, *quality.CHECKS) for t in query.tables}
        backend_of(client).tune(read, changed)
        return views.make(client)
    except DatabaseException as error:
        # to define a view touches no row, so that the database's message holds none
        raise DestinationError(
            f"the views could not be made: {clean(error)}",
            todo="all rows are loaded; see that this user may make views, and that none of your own"
            " hang on them, then run `oneroster views`",
        ) from None


def refresh_views(target: Target) -> list[Statement]:
    """Makes the views of a dataset that was loaded: see `Warehouse.make_views`."""
    with target.loaded(to_write=True) as (_, client):
        return create_views(client)


def check_quality(target: Target) -> list[quality.Result]:
    """Runs the checks and adds their results to the dataset: see `Warehouse.check_quality`."""
    with target.loaded(to_write=True) as (pipeline, client):
        create_views(client)
        excluded = left_out(pipeline.state) or ()
        results = list(quality.run_checks(require_database(client, target.name), excluded))
        rows = dlt.resource(
            [quality.table(results)], name=QUALITY_RESULTS.name, write_disposition="append"
        )
        pipeline.run(rows.apply_hints(**hints(QUALITY_RESULTS)))
    return results
