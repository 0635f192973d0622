"""What commands share: exit codes, options, and what they say to people."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from oneroster_source.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rich.console import Console

    from oneroster_source.warehouse import Warehouse

FAILED, WRONG_USE, BUSY, STOPPED = 1, 2, os.EX_TEMPFAIL, 130

Destination = Annotated[
    str,
    typer.Option(
        help="A DuckDB file, a Postgres URL, or the name of a configured dlt destination.",
        show_default="roster.duckdb",
    ),
]
Dataset = Annotated[str, typer.Option(help="The schema that holds the tables.")]
Schools = Annotated[
    str | None, typer.Option(help="Only these of the configured schools: estabs, comma between.")
]
Endpoints = Annotated[str | None, typer.Option(help="Only these endpoints, comma between.")]


@contextmanager
def needs_extra(name: str) -> Iterator[None]:
    """Says what to install where a command needs more than every installation has."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"this command needs {error.name}, which is not installed",
            todo=f"install the extra: pip install 'oneroster-source[{name}]'",
        ) from None


def screen() -> Console:
    from oneroster_source.cli.render import Screen

    # where nobody looks, lines are not cut to the width of a screen that is not there
    return Screen(None if sys.stdout.isatty() else 160)


def listed(text: str | None) -> list[str] | None:
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise ConfigurationError(
            "an option names nothing", todo="name what you want, or leave it out"
        )
    return parts


def require_existing_schools(warehouse: Warehouse, estabs: list[str]) -> None:
    known = warehouse.holdings().estabs
    strangers = [estab for estab in estabs if estab not in known]
    if strangers:
        raise ConfigurationError(
            f"{warehouse.name} holds no school {strangers[0]!r}",
            todo=f"name some of the {len(known)} that it holds: {', '.join(known[:20])}",
        )


def confirm(what: str) -> None:
    if not sys.stdin.isatty():
        raise ConfigurationError(
            f"{what} would be removed, and nobody is there to be asked", todo="add --yes"
        )
    typer.confirm(f"Remove {what}, for good?", abort=True)


def show_counts(counts: dict[str, int]) -> None:
    for name, count in counts.items():
        typer.echo(f"{count:>12,}  {name}")


def require_writable(path: Path) -> None:
    try:
        path.open("a").close()
    except OSError as error:
        raise ConfigurationError(
            f"the file {path} cannot be written: {error.strerror}", todo="name another file"
        ) from None
