"""The commands that remove data for good, and the one that exports a person's."""

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
    Yes,
    confirm,
    require_existing_schools,
    require_writable,
    show_counts,
    split_list,
)
from oneroster_source.destination.locks import early
from oneroster_source.errors import to_json

School = Annotated[
    str, typer.Option("--school", metavar="ESTAB", help="The estab of the person's school.")
]
User = Annotated[
    str, typer.Option(metavar="ID", help="The person's sourcedId, or the pseudonym of it.")
]


def remove_school(
    context: typer.Context,
    school: Annotated[
        list[str],
        typer.Option(
            metavar="ESTAB",
            help="The schools to remove. Repeat the option, or separate estabs with commas.",
        ),
    ],
    destination: Destination = "duckdb",
    dataset: Dataset = "oneroster",
    yes: Yes = False,
) -> None:
    """Remove schools and all their rows from the dataset; asks first."""
    estabs = split_list(school) or []
    context.with_resource(early(destination, dataset))
    from oneroster_source.warehouse import Warehouse

    warehouse = Warehouse(destination, dataset)
    # what an earlier command could not finish is finished, whichever schools it was about
    if not warehouse.is_unfinished:
        require_existing_schools(warehouse, estabs)
    counts = warehouse.count(estabs)
    show_counts(counts)
    if not yes:
        confirm(f"{sum(counts.values()):,} rows of {len(estabs)} school(s) from {warehouse.name}")
    removed = warehouse.forget(estabs)
    typer.echo(
        f"{sum(removed.rows.values()):,} rows removed. {removed.bytes} The next sync loads a school"
        " that is still configured again, from the beginning."
    )


def purge_deleted(
    context: typer.Context,
    older_than: Annotated[
        str,
        typer.Option(
            metavar="AGE", help="Purge what was deleted at the source longer ago: 365d, 52w or 2y."
        ),
    ],
    school: Schools = None,
    destination: Destination = "duckdb",
    dataset: Dataset = "oneroster",
    yes: Annotated[bool, typer.Option("--yes", help="Remove the rows permanently.")] = False,
) -> None:
    """Purge rows that were deleted at the source long ago; without --yes, only count them."""
    from oneroster_source.admin.prune import duration

    before, estabs = datetime.now(UTC) - duration(older_than), split_list(school)
    context.with_resource(early(destination, dataset))
    from oneroster_source.warehouse import Warehouse

    warehouse = Warehouse(destination, dataset)
    if estabs is not None:
        require_existing_schools(warehouse, estabs)
    found = warehouse.leavers(before, estabs)
    show_counts(found.rows)
    if found.examples:
        typer.echo(f"{found.examples:>12,}  ids among the examples in quality_results")
    if found.undated:
        typer.echo(
            f"{found.undated:,} deleted rows stay, because it is not known when they were deleted:"
            " they were loaded by an earlier version, or their time cannot be right."
        )
    when = f"deleted at the source before {before:%Y-%m-%d %H:%M} UTC"
    if not yes:
        total = sum(found.rows.values())
        typer.echo(f"{total:,} rows would be removed, which were {when}.")
        typer.echo("Nothing was removed: add --yes.")
        return
    removed = warehouse.prune(before, estabs)
    left = warehouse.leavers(before, estabs)
    typer.echo(f"{sum(removed.rows.values()):,} rows removed. {removed.bytes}")
    typer.echo(f"Counted again: {sum(left.rows.values()):,} rows are left that were {when}.")
    if left.rows or left.examples:
        raise typer.Exit(FAILED)


def erase_person(
    context: typer.Context,
    school: School,
    user: User,
    destination: Destination = "duckdb",
    dataset: Dataset = "oneroster",
    yes: Yes = False,
) -> None:
    """Erase a person from the dataset and keep them out of later loads; asks first."""
    context.with_resource(early(destination, dataset))
    from oneroster_source.warehouse import Warehouse

    warehouse = Warehouse(destination, dataset)
    counts = warehouse.trace(school, user, to_erase=True)
    show_counts(counts)
    where = f"{warehouse.name}, dataset {dataset}"
    what = f"{sum(counts.values()):,} rows and values of one person from {where}"
    if not counts:
        what = f"whatever may be left of a person who was erased before from {where}"
    if not yes:
        confirm(what)
    erased = warehouse.erase(school, user)
    typer.echo("Removed:" if erased.rows else "Nothing was left of this person.")
    show_counts(erased.rows)
    left = warehouse.trace(school, user)
    typer.echo(f"Counted again: {sum(left.values()):,} rows and values. {erased.bytes}")
    typer.echo(
        "No sync will load this person into this dataset again, as long as you keep 'privacy_key'."
        " Still to do elsewhere: other datasets, even in the same database; backups; files that"
        " people have made (exports, reports); copies in other programs; the provider."
    )
    if left:
        raise typer.Exit(FAILED)


def export_person(
    school: School,
    user: User,
    output: Annotated[
        Path | None, typer.Option(help="The file to write.", show_default="the screen")
    ] = None,
    destination: Destination = "duckdb",
    dataset: Dataset = "oneroster",
) -> None:
    """Export everything that the dataset holds about a person, as JSON."""
    from oneroster_source.warehouse import Warehouse

    found = Warehouse(destination, dataset).export(school, user)
    text = to_json(found)
    if output is None:
        typer.echo(text)
        return
    require_writable(output)
    if output.is_file():
        # a file that exists may be readable for everybody
        output.chmod(0o600)
    output.write_text(text + "\n", "utf-8")
    rows = sum(map(len, found["tables"].values()))
    typer.echo(f"Wrote {rows:,} rows from {len(found['tables'])} tables to {output}.")
