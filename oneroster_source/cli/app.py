"""The command `oneroster`: joins what the other modules do. Heavy imports wait until needed."""

from __future__ import annotations

import logging
import os
import signal
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from oneroster_source import log
from oneroster_source.destination.locks import early
from oneroster_source.errors import (
    ConfigurationError,
    DestinationBusy,
    DestinationError,
    OneRosterError,
    to_json,
    told,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from rich.console import Console

    from oneroster_source.run_report import Report
    from oneroster_source.warehouse import Warehouse

    Load = Callable[..., None]

FAILED, WRONG_USE, BUSY, STOPPED = 1, 2, os.EX_TEMPFAIL, 130
BAD_QUALITY = {"error": 4, "warning": 3, "info": 0, None: 0}
SECONDS = 60.0
"""Between two lines of progress, where nobody looks."""

app = typer.Typer(
    help="School rosters from OneRoster 1.1 APIs into DuckDB, or any dlt destination.",
    no_args_is_help=True,
    add_completion=False,
    # tracebacks with local variables would show secrets and records
    pretty_exceptions_enable=False,
)

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


def main() -> None:
    """Runs the command line."""
    # files made here hold children's records, and are for their owner alone
    os.umask(0o077)
    # schedulers, and terminals that are closed, end a run so; like Ctrl-C, it must leave nothing
    # behind
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        # nohup, and a shell for what runs in the background, have a signal ignored on purpose
        if number == signal.SIGTERM or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    # dlt reads this one as it is imported
    os.environ.setdefault("RUNTIME__DLTHUB_TELEMETRY", "false")
    log.use("plain")
    try:
        app(standalone_mode=True)
    except OneRosterError as error:
        code = BUSY if isinstance(error, DestinationBusy) else FAILED
        if isinstance(error, ConfigurationError):
            code = WRONG_USE
        kind = type(error).__name__
        log.event("run_failed", str(error), level=logging.ERROR, error=kind, exit_code=code)
        sys.exit(code)


@app.command()
def sync(
    context: typer.Context,
    full: Annotated[bool, typer.Option("--full", help="Read everything again.")] = False,
    allow_deletes: Annotated[
        bool,
        typer.Option("--allow-deletes", help="Believe the server however many rows are gone."),
    ] = False,
    schools: Schools = None,
    endpoints: Endpoints = None,
    destination: Destination = "duckdb",
    dataset: Dataset = "oneroster",
    report: Annotated[Path | None, typer.Option(help="Write the report here, as JSON.")] = None,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Only show what would be added, changed, deleted, and held."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --plan: print JSON.")] = False,
    cluster: Annotated[
        str | None,
        typer.Option(help="Load on the workers of a Dask cluster.", metavar="tcp://SCHEDULER:8786"),
    ] = None,
    shards: Annotated[
        int | None, typer.Option(help="Parts to divide the schools into, for --cluster.", min=1)
    ] = None,
    log_format: Annotated[
        Literal["text", "json"] | None,
        typer.Option(
            help="Write a line with its time to stderr for all that happens; with json, an object,"
            " and no table at the end.",
            envvar="ONEROSTER_LOG_FORMAT",
            show_default="text where stderr is no terminal",
        ),
    ] = None,
) -> None:
    """Load what changed since the last time; everything at first."""
    if plan:
        if cluster is not None or shards is not None or report is not None:
            raise ConfigurationError(
                "--plan loads nothing, and goes with none of --cluster, --shards and --report",
                todo="leave those out; for a file, redirect what --json prints",
            )
        _plan(
            destination,
            dataset,
            as_json=as_json,
            full=full,
            allow_deletes=allow_deletes,
            only=_listed(schools),
            endpoints=_listed(endpoints),
        )
        return
    if as_json:
        raise ConfigurationError("--json is for --plan", todo="add --plan, or give --report FILE")
    if log_format is None and not sys.stderr.isatty():
        log_format = "text"
    log.use(log_format or "plain")
    # before the imports, so that a second run need not wait for them to be told to stop
    context.with_resource(early(destination, dataset))
    from oneroster_source.run_report import Report
    from oneroster_source.warehouse import Warehouse

    done = Report()
    warehouse = Warehouse(destination, dataset)
    load: Load = warehouse.load
    if report is not None:
        _refuse_unwritable(report)
    if shards is not None and cluster is None:
        raise ConfigurationError("--shards is for a cluster", todo="add --cluster, or leave it out")
    if cluster is not None:
        from oneroster_source.sync.dask_cluster import load as load_on

        load = partial(load_on, warehouse, address=cluster, shards=shards)
    try:
        _load(
            warehouse,
            done,
            load,
            log_format=log_format,
            full=full,
            allow_deletes=allow_deletes,
            only=_listed(schools),
            endpoints=_listed(endpoints),
        )
    finally:
        if report is not None:
            _write(report, done)
    if not done.good:
        raise typer.Exit(FAILED)


@app.command()
def demo(
    context: typer.Context,
    destination: Destination = "duckdb",
    pupils: Annotated[int, typer.Option(help="Pupils in each of the two schools.", min=1)] = 600,
    weeks: Annotated[
        int,
        typer.Option(
            help="Weeks to let pass after the first load, with a sync after each.", min=0, max=12
        ),
    ] = 2,
) -> None:
    """Load two made-up schools from a server on this machine, then what the weeks change."""
    context.with_resource(early(destination, "oneroster"))
    with _extra("demo"):
        from oneroster_source.cli.demo import served, what_next
    from oneroster_source.run_report import Report
    from oneroster_source.warehouse import Warehouse

    warehouse = Warehouse(destination, "oneroster")
    _refuse_real_schools(warehouse)
    today = datetime.now(UTC).date()
    for week, settings in enumerate(served(pupils, weeks, today=today)):
        done = Report()
        if week == 0:
            # what an earlier demo left may have other pupils: all of them are gone
            _load(warehouse, done, warehouse.load, full=True, allow_deletes=True, **settings)
        else:
            _load_briefly(warehouse, done, after="One week later", **settings)
        if not done.good:
            raise typer.Exit(FAILED)
    typer.echo(what_next(warehouse.name))


@app.command()
def check(schools: Schools = None, endpoints: Endpoints = None) -> None:
    """Log in to each school and ask what its server allows. Loads nothing."""
    from oneroster_source.cli import render
    from oneroster_source.config.settings import resolve
    from oneroster_source.extract.check import check as checked
    from oneroster_source.warehouse import use_defaults

    use_defaults()
    settings = resolve(endpoints=_listed(endpoints)).only(_listed(schools))
    found = list(checked(settings))
    _console().print(render.findings(found))
    if not all(finding.good for finding in found):
        raise typer.Exit(FAILED)


@app.command()
def status(
    destination: Destination = "duckdb",
    dataset: Dataset = "oneroster",
    every: Annotated[bool, typer.Option("--all", help="Show every school.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> None:
    """Show what the destination holds, and which schools need a person: those come first."""
    from oneroster_source.warehouse import Warehouse

    found = Warehouse(destination, dataset).holdings()
    if as_json:
        typer.echo(to_json(found.as_dict()))
        return
    from oneroster_source.cli import render

    console = _console()
    shown = render.holdings(
        found, now=datetime.now(UTC), every=every, narrow=console.width < render.WIDE
    )
    console.print(shown)


@app.command()
def forget(
    context: typer.Context,
    school: Annotated[str, typer.Option(help="The schools to remove: estabs, comma between.")],
    destination: Destination = "duckdb",
    dataset: Dataset = "oneroster",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove schools from the destination: rows, child rows, cursors. Shows how many, and asks."""
    estabs = _listed(school) or []
    context.with_resource(early(destination, dataset))
    from oneroster_source.warehouse import Warehouse

    warehouse = Warehouse(destination, dataset)
    # what an earlier command could not finish is finished, whichever schools it was about
    if not warehouse.is_unfinished:
        _refuse_strangers(warehouse, estabs)
    counts = warehouse.count(estabs)
    _show(counts)
    what = f"{sum(counts.values()):,} rows of {len(estabs)} school(s) in {warehouse.name}"
    if not yes:
        _confirm(what)
    removed = warehouse.forget(estabs)
    typer.echo(
        f"{sum(removed.rows.values()):,} rows removed. {removed.bytes} A school that is still"
        " configured is loaded whole by the next sync."
    )


@app.command()
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

    before, estabs = datetime.now(UTC) - duration(leavers_after), _listed(schools)
    context.with_resource(early(destination, dataset))
    from oneroster_source.warehouse import Warehouse

    warehouse = Warehouse(destination, dataset)
    if estabs is not None:
        _refuse_strangers(warehouse, estabs)
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


@app.command()
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
    _show(counts)
    where = f"{warehouse.name}, dataset {dataset}"
    what = f"{sum(counts.values()):,} rows and values of one person in {where}"
    if not counts:
        what = f"again what may be left of a person who was erased from {where}"
    if not yes:
        _confirm(what)
    erased = warehouse.erase(estab, user)
    typer.echo("Removed:" if erased.rows else "There was nothing left of this person.")
    _show(erased.rows)
    left = warehouse.trace(estab, user)
    typer.echo(f"Counted again: {sum(left.values()):,} rows and values. {erased.bytes}")
    typer.echo(
        "No sync brings this person back into this dataset, as long as 'privacy_key' is kept. Not"
        " reached from here: other datasets, in the same database too; backups; files that people"
        " have made (exports, pages, reports); what other programs have copied; the provider."
    )
    if left:
        raise typer.Exit(FAILED)


@app.command()
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
    _refuse_unwritable(output)
    if output.is_file():
        # one that was there may have been for everybody
        output.chmod(0o600)
    output.write_text(text + "\n", "utf-8")
    rows = sum(map(len, found["tables"].values()))
    typer.echo(f"{output} holds {rows:,} rows of {len(found['tables'])} tables.")


@app.command()
def views(
    context: typer.Context, destination: Destination = "duckdb", dataset: Dataset = "oneroster"
) -> None:
    """Make the views, as each sync does, and say what they answer."""
    context.with_resource(early(destination, dataset))
    from oneroster_source.cli import render
    from oneroster_source.warehouse import Warehouse

    _console().print(render.guide(Warehouse(destination, dataset).make_views()))


@app.command()
def quality(
    context: typer.Context, destination: Destination = "duckdb", dataset: Dataset = "oneroster"
) -> None:
    """Look for what is wrong with the rosters; ends with 4 for errors, 3 for warnings."""
    context.with_resource(early(destination, dataset))
    from oneroster_source.cli import render
    from oneroster_source.reporting.quality import worst
    from oneroster_source.warehouse import Warehouse

    results = Warehouse(destination, dataset).examine()
    _console().print(render.quality(results))
    raise typer.Exit(BAD_QUALITY[worst(results)])


@app.command()
def report(
    destination: Destination = "duckdb",
    dataset: Dataset = "oneroster",
    output: Annotated[Path, typer.Option(help="The file to write.")] = Path("roster.html"),
) -> None:
    """Write a page to look at: schools, sizes, changes, quality, the last runs."""
    with _extra("report"):
        from oneroster_source.reporting import html_report
    from oneroster_source.warehouse import Warehouse

    _refuse_unwritable(output)
    warehouse = Warehouse(destination, dataset)
    answers = warehouse.ask(html_report.QUERIES)
    if not answers["schools"]:
        raise DestinationError(
            f"{warehouse.name} has no view school_summary, of which the page is made",
            todo="run `oneroster views`; the view needs all endpoints to have been loaded",
        )
    source = f"{warehouse.name}, dataset {warehouse.dataset}"
    text = html_report.page(answers, source=source, now=datetime.now(UTC))
    output.write_text(text, "utf-8")
    typer.echo(f"{output} ({len(text.encode()) >> 10:,} KB) is a page for any browser.")


@app.command()
def fields(
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> None:
    """Show what every column means, which are personal, and what `privacy` keeps of them."""
    from oneroster_source.config.settings import chosen_privacy
    from oneroster_source.reporting.fields import entries

    found = list(entries(chosen_privacy(to_load=False)))
    if as_json:
        from dataclasses import asdict

        typer.echo(to_json([asdict(entry) for entry in found]))
        return
    from oneroster_source.cli import render

    console = _console()
    console.print(render.fields(found, narrow=console.width < render.WIDE))


@app.command()
def simulate(
    csv: Annotated[
        Path | None, typer.Option(help="Serve this folder of OneRoster CSV files as one school.")
    ] = None,
    port: Annotated[
        int, typer.Option(help="Port on this machine; 0 takes a free one.", min=0, max=65535)
    ] = 8087,
    schools: Annotated[int, typer.Option(help="How many made-up schools to serve.", min=1)] = 1,
    pupils: Annotated[int, typer.Option(help="Pupils in each made-up school.", min=1)] = 900,
    seed: Annotated[int, typer.Option(help="Another seed makes other schools.")] = 1,
) -> None:
    """Serve made-up schools, or CSV files, as Xporter would, until stopped with Ctrl-C."""
    import threading

    with _extra("demo"):
        from oneroster_source.simulator import Simulator, csv_school, secondary_school

    if csv is not None and not any(csv.glob("*.csv")):
        raise ConfigurationError(
            f"there is no folder {csv} with CSV files", todo="name a folder of OneRoster CSV files"
        )
    served = (
        [csv_school(csv, "3281110")]
        if csv is not None
        else [secondary_school(seed + i, str(3281110 + i), pupils=pupils) for i in range(schools)]
    )
    server = Simulator(served, port=port)
    try:
        server.start()
    except OSError:
        server.stop()
        raise ConfigurationError(
            f"port {port} cannot be used on this machine", todo="name another --port, or 0"
        ) from None
    try:
        typer.echo(f"Serving {len(served)} school(s) until Ctrl-C. To load them:\n")
        typer.echo(f"export SOURCES__ONEROSTER__BASE_URL={server.base_url}")
        typer.echo(f"export SOURCES__ONEROSTER__RP={served[0].rp}")
        if len(served) == 1:
            typer.echo(f"export SOURCES__ONEROSTER__ESTAB={served[0].estab}")
            typer.echo(f"export SOURCES__ONEROSTER__SHARED_SECRET={served[0].shared_secret}")
        else:
            listed = ",".join(
                f'{{"estab":"{s.estab}","shared_secret":"{s.shared_secret}"}}' for s in served
            )
            typer.echo(f"export SOURCES__ONEROSTER__SCHOOLS='[{listed}]'")
        typer.echo("oneroster sync")
        sys.stdout.flush()
        threading.Event().wait()
    except KeyboardInterrupt:
        typer.echo("Stopped.")
    finally:
        server.stop()


@contextmanager
def _extra(name: str) -> Iterator[None]:
    """Says what to install where a command needs more than every installation has."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"this command needs {error.name}, which is not installed",
            todo=f"install the extra: pip install 'oneroster-source[{name}]'",
        ) from None


def _console() -> Console:
    from oneroster_source.cli.render import Screen

    # where nobody looks, lines are not cut to the width of a screen that is not there
    return Screen(None if sys.stdout.isatty() else 160)


def _listed(text: str | None) -> list[str] | None:
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise ConfigurationError(
            "an option names nothing", todo="name what you want, or leave it out"
        )
    return parts


def _plan(destination: str, dataset: str, *, as_json: bool, **options: Any) -> None:
    """Shows what a load would do; ends as it would end."""
    log.use("plain")
    from oneroster_source.cli import render
    from oneroster_source.run_report import Report
    from oneroster_source.warehouse import Warehouse

    done, console = Report(), _console()
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


def _load(
    warehouse: Warehouse,
    report: Report,
    load: Load,
    *,
    log_format: str | None = None,
    **options: Any,
) -> None:
    """Loads, and shows the summary also of a run that failed."""
    from oneroster_source.cli import render
    from oneroster_source.config.settings import chosen_privacy

    console = _console()
    show = _progress(console, report) if log_format is None else _logged(warehouse, report)
    if log_format == "json":
        _run(load, report, show, **options)
        return
    try:
        _run(load, report, show, **options)
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
    typer.echo(f"With {chosen_privacy(**options)}.")


def _load_briefly(warehouse: Warehouse, report: Report, *, after: str, **options: Any) -> None:
    """Loads, and says in a line what came."""
    from oneroster_source.cli import render

    try:
        _run(warehouse.load, report, _progress(_console(), report), **options)
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
    """Loads, showing progress; the report knows how it ended, however it did."""
    begun = monotonic()
    try:
        with progress:
            load(report, **options)
    except OneRosterError as error:
        report.error = str(error)
        raise
    except KeyboardInterrupt:
        report.error = "stopped"
        said = "Stopped. Nothing was lost: run the command again."
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
    """Tells the log how a run begins, goes on, and ends."""
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
        log.event("destination_not_sound", problem, level=logging.ERROR, **run)
    totals, seconds = report.totals(), round(monotonic() - begun, 3)
    log.event(
        "run_ended",
        f"{totals['schools'] - totals['schools_failed']:,} of {totals['schools']:,} schools without"
        f" a failure, {totals['rows']:,} rows read, {totals['changed']:,} changed, in"
        f" {seconds:.1f} s",
        level=logging.INFO if report.good else logging.ERROR,
        **{**run, "good": report.good, **totals, "seconds": seconds},
    )


def _refuse_strangers(warehouse: Warehouse, estabs: list[str]) -> None:
    known = warehouse.holdings().estabs
    strangers = [estab for estab in estabs if estab not in known]
    if strangers:
        raise ConfigurationError(
            f"{warehouse.name} holds no school {strangers[0]!r}",
            todo=f"name some of the {len(known)} that it holds: {', '.join(known[:20])}",
        )


def _confirm(what: str) -> None:
    if not sys.stdin.isatty():
        raise ConfigurationError(
            f"{what} would be removed, and nobody is there to be asked", todo="add --yes"
        )
    typer.confirm(f"Remove {what}, for good?", abort=True)


def _show(counts: dict[str, int]) -> None:
    for name, count in counts.items():
        typer.echo(f"{count:>12,}  {name}")


def _refuse_unwritable(path: Path) -> None:
    try:
        path.open("a").close()
    except OSError as error:
        raise ConfigurationError(
            f"the file {path} cannot be written: {error.strerror}", todo="name another file"
        ) from None


def _write(path: Path, report: Report) -> None:
    path.write_text(to_json(report.as_dict()) + "\n", "utf-8")


def _refuse_real_schools(warehouse: Warehouse) -> None:
    from oneroster_source.cli.demo import ESTABS

    try:
        found = warehouse.holdings().estabs
    except DestinationError:
        return
    others = [estab for estab in found if estab not in ESTABS]
    if others:
        raise ConfigurationError(
            f"{warehouse.name} holds other schools than the demo's ({', '.join(others[:3])})",
            todo="name another file: oneroster demo --destination demo.duckdb",
        )
