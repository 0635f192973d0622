"""One run of a load, with its progress, its log and its summary."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any

import typer

from oneroster_source import log
from oneroster_source.cli.common import FAILED, STOPPED, screen
from oneroster_source.errors import OneRosterError, to_json, told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from rich.console import Console

    from oneroster_source.run_report import Report
    from oneroster_source.warehouse import Warehouse

    Load = Callable[..., Report]

SECONDS = 60.0
"""Between two lines of progress in a log."""


def preview(destination: str, dataset: str, *, as_json: bool, **options: Any) -> None:
    """Shows what a load would do, and ends with the exit code that it would have."""
    log.use("plain")
    from oneroster_source.cli import render
    from oneroster_source.run_report import Report
    from oneroster_source.warehouse import Warehouse

    done, console = Report(), screen()
    warehouse = Warehouse(destination, dataset)
    try:
        _run(warehouse.preview, done, _progress(console, done), **options)
    finally:
        if as_json:
            typer.echo(to_json(done.plan_as_dict()))
        elif done.outcomes:
            console.print(render.plan(done))
            for line in render.lines(done):
                typer.echo(told(line))
    if not as_json:
        typer.echo(f"Nothing was loaded into {warehouse.name}, dataset {dataset}.")
    if not done.good:
        raise typer.Exit(FAILED)


def load(
    warehouse: Warehouse,
    report: Report,
    how: Load,
    *,
    log_format: str | None = None,
    **options: Any,
) -> None:
    """Loads, and shows the summary, of a run that failed too."""
    from oneroster_source.cli import render

    console = screen()
    show = _progress(console, report) if log_format is None else _logged(warehouse, report)
    if log_format == "json":
        _run(how, report, show, **options)
        return
    try:
        _run(how, report, show, **options)
    finally:
        if report.outcomes:
            console.print(render.summary(report, narrow=console.width < render.WIDE))
            for line in render.lines(report):
                typer.echo(told(line))
    read = [outcome for outcome in report.outcomes if outcome.loaded]
    typer.echo(
        f"{sum(outcome.rows for outcome in read):,} rows of {len(read)} of"
        f" {len(report.outcomes)} collections loaded into {warehouse.name},"
        f" dataset {warehouse.dataset}, in {report.seconds:.1f} s."
    )
    typer.echo(f"{report.privacy}.")


def load_briefly(warehouse: Warehouse, report: Report, *, after: str, **options: Any) -> None:
    """Loads, and prints a line of totals."""
    from oneroster_source.cli import render

    try:
        _run(warehouse.load, report, _progress(screen(), report), **options)
    finally:
        for line in render.lines(report):
            typer.echo(told(line))
    typer.echo(
        f"{after}: {sum(outcome.rows for outcome in report.outcomes):,} rows read,"
        f" {sum(outcome.changed for outcome in report.outcomes):,} changed,"
        f" {sum(outcome.deleted for outcome in report.outcomes):,} deleted,"
        f" in {report.seconds:.1f} s."
    )


def _run(
    load: Load, report: Report, progress: AbstractContextManager[None], **options: Any
) -> None:
    """Loads with progress; however it ends, the report says how."""
    begun = monotonic()
    try:
        with progress:
            load(report, **options)
    except OneRosterError as error:
        report.error = str(error)
        raise
    except KeyboardInterrupt:
        report.error = "stopped"
        said = "Stopped. Nothing was lost; run the command again."
        log.event("run_stopped", said, level=logging.WARNING, exit_code=STOPPED)
        raise typer.Exit(STOPPED) from None
    except BaseException as error:
        report.error = type(error).__name__
        raise
    finally:
        report.seconds = monotonic() - begun


@contextmanager
def _progress(console: Console, report: Report) -> Iterator[None]:
    if not console.is_terminal:
        yield
        return
    from rich.live import Live

    from oneroster_source.cli import render

    with Live(
        get_renderable=lambda: render.progress(report, lines=console.height - 4),
        console=console,
        refresh_per_second=8,
        transient=True,
    ):
        yield


@contextmanager
def _logged(warehouse: Warehouse, report: Report) -> Iterator[None]:
    """Logs the start, the progress and the end of a run."""
    from oneroster_source.cli import render

    run: dict[str, Any] = {"run_id": report.run_id}

    def tell() -> None:
        log.event("progress", render.doing(report), **run, **report.totals())

    where = {"destination": warehouse.name, "dataset": warehouse.dataset}
    log.event(
        "run_started",
        f"run {report.run_id} loads into {warehouse.name}, dataset {warehouse.dataset}",
        **{**run, **where},
    )
    begun = monotonic()
    with log.every(SECONDS, tell):
        yield
    for message, endpoint, estabs in render.warnings(report):
        fields = {**run, "endpoint": endpoint, "estabs": estabs}
        log.event("warning", message, level=logging.WARNING, **fields)
    for problem in report.problems:
        log.event("integrity_check_failed", problem, level=logging.ERROR, **run)
    totals, seconds = report.totals(), round(monotonic() - begun, 3)
    log.event(
        "run_ended",
        f"{totals['schools'] - totals['schools_failed']:,} of {totals['schools']:,} schools"
        f" succeeded: {totals['rows']:,} rows read, {totals['changed']:,} changed, in"
        f" {seconds:.1f} s",
        level=logging.INFO if report.good else logging.ERROR,
        **{**run, "good": report.good, **totals, "seconds": seconds},
    )
