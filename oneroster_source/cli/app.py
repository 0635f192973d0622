"""The command `oneroster`: joins what the other modules do. Heavy imports wait until needed."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from oneroster_source import log
from oneroster_source.cli import admin
from oneroster_source.cli.common import (
    BUSY,
    FAILED,
    WRONG_USE,
    AsJson,
    Commands,
    Dataset,
    Destination,
    Endpoints,
    Schools,
    needs_extra,
    require_writable,
    screen,
    split_list,
)
from oneroster_source.cli.run import load, load_briefly, preview
from oneroster_source.destination.locks import early
from oneroster_source.errors import (
    ConfigurationError,
    DestinationBusy,
    DestinationError,
    OneRosterError,
    to_json,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oneroster_source.cli.run import Load
    from oneroster_source.simulator import School, Simulator

QUALITY_CODES = {"error": 4, "warning": 3, "info": 0, None: 0}
LOAD, LOOK, REMOVE, TRY = "Load", "Look", "People and schools", "Try it out"

app = typer.Typer(
    cls=Commands,
    help="Load school rosters from OneRoster 1.1 APIs into DuckDB or any dlt destination.",
    no_args_is_help=True,
    add_completion=False,
    # tracebacks with local variables would show secrets and records
    pretty_exceptions_enable=False,
)

Cluster = Annotated[
    str | None,
    typer.Option(help="Load on the workers of a Dask cluster.", metavar="tcp://SCHEDULER:8786"),
]
Shards = Annotated[
    int | None,
    typer.Option(help="With --cluster: the number of parts to divide the schools into.", min=1),
]
LogFormat = Annotated[
    Literal["text", "json"] | None,
    typer.Option(
        help="Log each event to stderr: as a line with its time, or as JSON, which also leaves out"
        " the summary.",
        envvar="ONEROSTER_LOG_FORMAT",
        show_default="text if stderr is not a terminal",
    ),
]


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


@app.command(rich_help_panel=LOAD)
def sync(
    context: typer.Context,
    full: Annotated[bool, typer.Option("--full", help="Read everything again.")] = False,
    allow_deletes: Annotated[
        bool, typer.Option("--allow-deletes", help="Skip the mass-deletion guard.")
    ] = False,
    school: Schools = None,
    endpoint: Endpoints = None,
    destination: Destination = "duckdb",
    dataset: Dataset = "oneroster",
    report: Annotated[
        Path | None, typer.Option(help="Write a report of the run to this file, as JSON.")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show what would be added, changed and deleted; no more."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --dry-run: print JSON.")] = False,
    cluster: Cluster = None,
    shards: Shards = None,
    log_format: LogFormat = None,
) -> None:
    """Load new and changed records; the first run loads everything."""
    options = {"full": full, "allow_deletes": allow_deletes, "only": split_list(school)}
    options["endpoints"] = split_list(endpoint)
    if dry_run:
        if cluster is not None or shards is not None or report is not None:
            raise ConfigurationError(
                "--dry-run cannot be combined with --cluster, --shards or --report",
                todo="leave those out; for a file, redirect what --json prints",
            )
        preview(destination, dataset, as_json=as_json, **options)
        return
    if as_json:
        raise ConfigurationError("--json needs --dry-run", todo="add it, or give --report FILE")
    if log_format is None and not sys.stderr.isatty():
        log_format = "text"
    log.use(log_format or "plain")
    # before the imports, so that a second run need not wait for them to be told to stop
    context.with_resource(early(destination, dataset))
    from oneroster_source.run_report import Report
    from oneroster_source.warehouse import Warehouse

    done, warehouse = Report(), Warehouse(destination, dataset)
    how: Load = warehouse.load
    if report is not None:
        require_writable(report)
    if shards is not None and cluster is None:
        raise ConfigurationError("--shards needs --cluster", todo="add it, or leave out --shards")
    if cluster is not None:
        how = partial(warehouse.load_on, cluster, shards=shards)
    try:
        load(warehouse, done, how, log_format=log_format, **options)
    finally:
        if report is not None:
            report.write_text(to_json(done.as_dict()) + "\n", "utf-8")
    if not done.good:
        raise typer.Exit(FAILED)


@app.command(rich_help_panel=LOAD)
def check_connection(school: Schools = None, endpoint: Endpoints = None) -> None:
    """Test the login and every endpoint of your schools; load nothing."""
    from oneroster_source.cli import render
    from oneroster_source.config.settings import resolve
    from oneroster_source.destination.session import use_defaults
    from oneroster_source.extract.check import check

    use_defaults()
    settings = resolve(endpoints=split_list(endpoint)).only(split_list(school))
    found = list(check(settings))
    screen().print(render.findings(found))
    if not all(finding.good for finding in found):
        raise typer.Exit(FAILED)


@app.command(rich_help_panel=LOOK)
def status(
    destination: Destination = "duckdb",
    dataset: Dataset = "oneroster",
    every: Annotated[bool, typer.Option("--all", help="Show every school.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show row counts and the state of each school; those with problems come first."""
    from oneroster_source.warehouse import Warehouse

    found = Warehouse(destination, dataset).status()
    if as_json:
        typer.echo(to_json(found.as_dict()))
        return
    from oneroster_source.cli import render

    console = screen()
    shown = render.status(
        found, now=datetime.now(UTC), every=every, narrow=console.width < render.WIDE
    )
    console.print(shown)


@app.command(rich_help_panel=LOOK)
def views(
    context: typer.Context, destination: Destination = "duckdb", dataset: Dataset = "oneroster"
) -> None:
    """Create the views again, as each sync does, and list the question that each answers."""
    context.with_resource(early(destination, dataset))
    from oneroster_source.cli import render
    from oneroster_source.warehouse import Warehouse

    screen().print(render.views(Warehouse(destination, dataset).make_views()))


@app.command(rich_help_panel=LOOK)
def quality(
    context: typer.Context, destination: Destination = "duckdb", dataset: Dataset = "oneroster"
) -> None:
    """Run the data-quality checks; the exit code is 4 for errors and 3 for warnings."""
    context.with_resource(early(destination, dataset))
    from oneroster_source.cli import render
    from oneroster_source.reporting.quality import worst
    from oneroster_source.warehouse import Warehouse

    results = Warehouse(destination, dataset).check_quality()
    screen().print(render.quality(results))
    raise typer.Exit(QUALITY_CODES[worst(results)])


@app.command(rich_help_panel=LOOK)
def report(
    destination: Destination = "duckdb",
    dataset: Dataset = "oneroster",
    output: Annotated[Path, typer.Option(help="The file to write.")] = Path("roster.html"),
) -> None:
    """Write an HTML report: schools, class sizes, changes, quality, recent runs."""
    with needs_extra("report"):
        from oneroster_source.reporting import html_report
    from oneroster_source.warehouse import Warehouse

    require_writable(output)
    warehouse = Warehouse(destination, dataset)
    answers = warehouse.query(html_report.QUERIES)
    if not answers["schools"]:
        raise DestinationError(
            f"{warehouse.name} has no view school_summary, which the report needs",
            todo="run `oneroster views`; that view needs all endpoints to be loaded",
        )
    source = f"{warehouse.name}, dataset {warehouse.dataset}"
    text = html_report.page(answers, source=source, now=datetime.now(UTC))
    output.write_text(text, "utf-8")
    typer.echo(f"Wrote {output} ({len(text.encode()) >> 10:,} KB). Open it in any browser.")


@app.command(rich_help_panel=LOOK)
def data_dictionary(as_json: AsJson = False) -> None:
    """List every column: its meaning, whether it is personal, and what `privacy` does to it."""
    from oneroster_source.config.settings import chosen_privacy
    from oneroster_source.reporting.fields import entries

    found = list(entries(chosen_privacy(to_load=False)))
    if as_json:
        from dataclasses import asdict

        typer.echo(to_json([asdict(entry) for entry in found]))
        return
    from oneroster_source.cli import render

    console = screen()
    console.print(render.fields(found, narrow=console.width < render.WIDE))


app.command("remove-school", rich_help_panel=REMOVE)(admin.remove_school)
app.command("purge-deleted", rich_help_panel=REMOVE)(admin.purge_deleted)
app.command("erase-person", rich_help_panel=REMOVE)(admin.erase_person)
app.command("export-person", rich_help_panel=REMOVE)(admin.export_person)


@app.command(rich_help_panel=TRY)
def demo(
    context: typer.Context,
    destination: Destination = "duckdb",
    pupils: Annotated[int, typer.Option(help="Pupils in each of the two schools.", min=1)] = 600,
    weeks: Annotated[
        int,
        typer.Option(help="Weeks of changes to load after the first load.", min=0, max=12),
    ] = 2,
) -> None:
    """Load two made-up schools from a test server on this machine, then weeks of changes."""
    context.with_resource(early(destination, "oneroster"))
    with needs_extra("demo"):
        from oneroster_source.cli.demo import require_no_other_schools, served, what_next
    from oneroster_source.run_report import Report
    from oneroster_source.warehouse import Warehouse

    warehouse = Warehouse(destination, "oneroster")
    require_no_other_schools(warehouse)
    today = datetime.now(UTC).date()
    for week, settings in enumerate(served(pupils, weeks, today=today)):
        done = Report()
        if week == 0:
            # an earlier demo may have left other pupils, who are all missing now
            load(warehouse, done, warehouse.load, full=True, allow_deletes=True, **settings)
        else:
            load_briefly(warehouse, done, after="One week later", **settings)
        if not done.good:
            raise typer.Exit(FAILED)
    typer.echo(what_next(warehouse.name))


@app.command(rich_help_panel=TRY)
def simulate(
    csv: Annotated[
        Path | None, typer.Option(help="Serve this folder of OneRoster CSV files as one school.")
    ] = None,
    port: Annotated[
        int, typer.Option(help="Port on this machine; 0 for any free one.", min=0, max=65535)
    ] = 8087,
    schools: Annotated[int, typer.Option(help="Number of made-up schools.", min=1)] = 1,
    pupils: Annotated[int, typer.Option(help="Pupils in each made-up school.", min=1)] = 900,
    seed: Annotated[int, typer.Option(help="Another seed makes other schools.")] = 1,
) -> None:
    """Start a test server with made-up schools or your own CSV files; Ctrl-C stops it."""
    import threading

    with needs_extra("demo"):
        from oneroster_source.simulator import Simulator, csv_school, secondary_school

    if csv is not None and not any(csv.glob("*.csv")):
        raise ConfigurationError(
            f"there is no folder {csv} with CSV files", todo="give a folder of OneRoster CSV files"
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
            f"port {port} cannot be used on this machine", todo="choose another --port, or 0"
        ) from None
    try:
        typer.echo(f"Serving {len(served)} school(s) until Ctrl-C. To load them:\n")
        for name, value in _reach(server, served).items():
            typer.echo(f"export SOURCES__ONEROSTER__{name}={value}")
        typer.echo("oneroster sync")
        sys.stdout.flush()
        threading.Event().wait()
    except KeyboardInterrupt:
        typer.echo("Stopped.")
    finally:
        server.stop()


def _reach(server: Simulator, schools: Sequence[School]) -> dict[str, str]:
    """The settings that reach the schools of a test server, as a shell takes them."""
    first, *others = schools
    found = {"BASE_URL": server.base_url, "RP": first.rp}
    if not others:
        return {**found, "ESTAB": first.estab, "SHARED_SECRET": first.shared_secret}
    entries = [{"estab": s.estab, "shared_secret": s.shared_secret} for s in schools]
    return {**found, "SCHOOLS": f"'{json.dumps(entries, separators=(',', ':'))}'"}
