"""What the commands share: options, old spellings, exit codes, and what they say to people."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

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
    list[str] | None,
    typer.Option(
        "--school",
        metavar="ESTAB",
        help="Only these schools. Repeat the option, or separate estabs with commas.",
    ),
]
Endpoints = Annotated[
    list[str] | None,
    typer.Option(
        "--endpoint",
        metavar="NAME",
        help="Only these endpoints. Repeat the option, or separate names with commas.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]

OLD_COMMANDS = {
    "check": "check-connection",
    "erase": "erase-person",
    "export": "export-person",
    "fields": "data-dictionary",
    "forget": "remove-school",
    "prune": "purge-deleted",
}
OLD_OPTIONS = {
    "--endpoints": "--endpoint",
    "--estab": "--school",
    "--leavers-after": "--older-than",
    "--plan": "--dry-run",
    "--schools": "--school",
}


class Commands(TyperGroup):
    """Commands that are also found by their old spellings, and so are their options."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
        first, *rest = args
        name, command, rest = super().resolve_command(ctx, [OLD_COMMANDS.get(first, first), *rest])
        known = {option for param in command.params for option in param.opts} if command else set()
        return name, command, [_respelled(word, known) for word in rest]


def _respelled(word: str, known: set[str]) -> str:
    option, equals, value = word.partition("=")
    new = OLD_OPTIONS.get(option)
    return word if option in known or new not in known else f"{new}{equals}{value}"


def split_list(values: list[str] | None) -> list[str] | None:
    """Returns the parts of an option that may be repeated and takes lists; None if not given."""
    if not values:
        return None
    parts = [part.strip() for value in values for part in value.split(",") if part.strip()]
    if not parts:
        raise ConfigurationError(
            "an option has an empty value", todo="give it a value, or leave it out"
        )
    return parts


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
    """Makes a console on stdout."""
    from oneroster_source.cli.render import Screen

    # a file or a pipe has no width: lines are not cut to that of a terminal
    return Screen(None if sys.stdout.isatty() else 160)


def confirm(what: str) -> None:
    """Asks before something is removed; ends the command if the answer is no."""
    if not sys.stdin.isatty():
        raise ConfigurationError(
            f"this would remove {what}, and there is no terminal on which to confirm it",
            todo="add --yes",
        )
    typer.confirm(f"Permanently remove {what}?", abort=True)


def show_counts(counts: dict[str, int]) -> None:
    """Prints numbers of rows by table."""
    for name, count in counts.items():
        typer.echo(f"{count:>12,}  {name}")


def require_existing_schools(warehouse: Warehouse, estabs: list[str]) -> None:
    """Refuses estabs that the dataset holds nothing of."""
    known = warehouse.status().estabs
    unknown = [estab for estab in estabs if estab not in known]
    if unknown:
        raise ConfigurationError(
            f"{warehouse.name} holds no school {unknown[0]!r}",
            todo=f"use one of the {len(known)} that it holds: {', '.join(known[:20])}",
        )


def require_writable(path: Path) -> None:
    """Refuses a file that cannot be written, before any work is done for it."""
    try:
        path.open("a").close()
    except OSError as error:
        raise ConfigurationError(
            f"the file {path} cannot be written: {error.strerror}", todo="choose another file"
        ) from None
