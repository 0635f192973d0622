"""Commands that remove from a dataset for good, or print what it has of one person."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from oneroster_source.cli.common import (
    FAILED,
    Dataset,
    Destination,
    Schools,
    confirm,
    listed,
    require_existing_schools,
    require_writable,
    show_counts,
)
from oneroster_source.destination.locks import early
from oneroster_source.errors import to_json


def forget(
    context: typer.Context,
    school: Annotated[str, typer.Option(help="The schools to remove: estabs, comma between.")],
    destination: Destination = "duckdb",
    dataset: Dataset = "oneroster",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove schools from the destination: rows, child rows, cursors. Shows how many, and asks."""
    estabs = listed(school) or []
    context.with_resource(early(destination, dataset))
    from oneroster_source.warehouse import Warehouse

    warehouse = Warehouse(destination, dataset)
    # what an earlier command could not finish is finished, whichever schools it was about
    if not warehouse.is_unfinished:
        require_existing_schools(warehouse, estabs)
    counts = warehouse.count(estabs)
    show_counts(counts)
    what = f"{sum(counts.values()):,} rows of {len(estabs)} school(s) in {warehouse.name}"
    if not yes:
        confirm(what)
    removed = warehouse.forget(estabs)
    typer.echo(
        f"{sum(removed.rows.values()):,} rows removed. {removed.bytes} A school that is still"
        " configured is loaded whole by the next sync."
    )


def prune(
    context: typer.Context,
    leavers_after: Annotated[
        str,
        typer.Option(help="How long rows stay that were deleted at the source: 365d, 52w or 2y."),
    ],
    schools: Schools = None,
    destination: Destination = "duckdb",
    dataset: Dataset = "oneroster",
    yes: Annotated[bool, typer.Option("--yes", help="Remove them, for good.")] = False,
) -> None:
    """Remove for good what was deleted at the source long ago. Without --yes, only shows it."""
    from oneroster_source.admin.prune import duration

    before, estabs = datetime.now(UTC) - duration(leavers_after), listed(schools)
    context.with_resource(early(destination, dataset))
    from oneroster_source.warehouse import Warehouse

    warehouse = Warehouse(destination, dataset)
    if estabs is not None:
        require_existing_schools(warehouse, estabs)
    found = warehouse.leavers(before, estabs)
    for table, rows in found.rows.items():
        typer.echo(f"{rows:>12,}  {table}")
    if found.examples:
        typer.echo(f"{found.examples:>12,}  ids among the examples in quality_results")
    if found.undated:
        typer.echo(
            f"{found.undated:,} deleted rows stay: nothing tells when they were deleted, as they"
            " were loaded by an earlier version or came without a time that can be true."
        )
    when = f"deleted at the source before {before:%Y-%m-%d %H:%M} UTC"
    if not yes:
        total = sum(found.rows.values())
        typer.echo(f"{total:,} rows would go, of what was {when}. Nothing was removed: add --yes.")
        return
    removed = warehouse.prune(before, estabs)
    left = warehouse.leavers(before, estabs)
    typer.echo(f"{sum(removed.rows.values()):,} rows removed. {removed.bytes}")
    typer.echo(f"Counted again: {sum(left.rows.values()):,} rows are left of what was {when}.")
    if left.rows or left.examples:
        raise typer.Exit(FAILED)


def erase(
    context: typer.Context,
    estab: Annotated[str, typer.Option(help="The person's school.")],
    user: Annotated[str, typer.Option(help="The person's sourcedId.")],
    destination: Destination = "duckdb",
    dataset: Dataset = "oneroster",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove a person from the dataset for good, rows and bytes. No sync brings them back there."""
    context.with_resource(early(destination, dataset))
    from oneroster_source.warehouse import Warehouse

    warehouse = Warehouse(destination, dataset)
    counts = warehouse.trace(estab, user, to_erase=True)
    show_counts(counts)
    where = f"{warehouse.name}, dataset {dataset}"
    what = f"{sum(counts.values()):,} rows and values of one person in {where}"
    if not counts:
        what = f"again what may be left of a person who was erased from {where}"
    if not yes:
        confirm(what)
    erased = warehouse.erase(estab, user)
    typer.echo("Removed:" if erased.rows else "There was nothing left of this person.")
    show_counts(erased.rows)
    left = warehouse.trace(estab, user)
    typer.echo(f"Counted again: {sum(left.values()):,} rows and values. {erased.bytes}")
    typer.echo(
        "No sync brings this person back into this dataset, as long as 'privacy_key' is kept. Not"
        " reached from here: other datasets, in the same database too; backups; files that people"
        " have made (exports, pages, reports); what other programs have copied; the provider."
    )
    if left:
        raise typer.Exit(FAILED)


def export(
    estab: Annotated[str, typer.Option(help="The person's school.")],
    user: Annotated[str, typer.Option(help="The person's sourcedId.")],
    output: Annotated[
        Path | None, typer.Option(help="The file to write.", show_default="the screen")
    ] = None,
    destination: Destination = "duckdb",
    dataset: Dataset = "oneroster",
) -> None:
    """Print all that the dataset holds on one person, as JSON."""
    from oneroster_source.warehouse import Warehouse

    found = Warehouse(destination, dataset).export(estab, user)
    text = to_json(found)
    if output is None:
        typer.echo(text)
        return
    require_writable(output)
    if output.is_file():
        # one that was there may have been for everybody
        output.chmod(0o600)
    output.write_text(text + "\n", "utf-8")
    rows = sum(map(len, found["tables"].values()))
    typer.echo(f"{output} holds {rows:,} rows of {len(found['tables'])} tables.")
