"""The command `oneroster`: joins what the other modules do. Heavy imports wait until needed."""

from __future__ import annotations

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
    Dataset,
    Destination,
    Endpoints,
    Schools,
    listed,
    needs_extra,
    require_writable,
    screen,
)
from oneroster_source.cli.run import dry_run, load, load_briefly
from oneroster_source.destination.locks import early
from oneroster_source.errors import (
    ConfigurationError,
    DestinationBusy,
    DestinationError,
    OneRosterError,
    to_json,
)

if TYPE_CHECKING:
    from oneroster_source.cli.run import Load
    from oneroster_source.run_report import Report
    from oneroster_source.warehouse import Warehouse

BAD_QUALITY = {"error": 4, "warning": 3, "info": 0, None: 0}

app = typer.Typer(
    help="School rosters from OneRoster 1.1 APIs into DuckDB, or any dlt destination.",
    no_args_is_help=True,
    add_completion=False,
    # tracebacks with local variables would show secrets and records
    pretty_exceptions_enable=False,
)


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
        dry_run(
            destination,
            dataset,
            as_json=as_json,
            full=full,
            allow_deletes=allow_deletes,
            only=listed(schools),
            endpoints=listed(endpoints),
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
    how: Load = warehouse.load
    if report is not None:
        require_writable(report)
    if shards is not None and cluster is None:
        raise ConfigurationError("--shards is for a cluster", todo="add --cluster, or leave it out")
    if cluster is not None:
        from oneroster_source.sync.dask_cluster import load as load_on

        how = partial(load_on, warehouse, address=cluster, shards=shards)
    try:
        load(
            warehouse,
            done,
            how,
            log_format=log_format,
            full=full,
            allow_deletes=allow_deletes,
            only=listed(schools),
            endpoints=listed(endpoints),
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
    with needs_extra("simulator"):
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
            load(warehouse, done, warehouse.load, full=True, allow_deletes=True, **settings)
        else:
            load_briefly(warehouse, done, after="One week later", **settings)
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
    settings = resolve(endpoints=listed(endpoints)).only(listed(schools))
    found = list(checked(settings))
    screen().print(render.findings(found))
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

    console = screen()
    shown = render.holdings(
        found, now=datetime.now(UTC), every=every, narrow=console.width < render.WIDE
    )
    console.print(shown)


@app.command()
def views(
    context: typer.Context, destination: Destination = "duckdb", dataset: Dataset = "oneroster"
) -> None:
    """Make the views, as each sync does, and say what they answer."""
    context.with_resource(early(destination, dataset))
    from oneroster_source.cli import render
    from oneroster_source.warehouse import Warehouse

    screen().print(render.guide(Warehouse(destination, dataset).make_views()))


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
    screen().print(render.quality(results))
    raise typer.Exit(BAD_QUALITY[worst(results)])


@app.command()
def report(
    destination: Destination = "duckdb",
    dataset: Dataset = "oneroster",
    output: Annotated[Path, typer.Option(help="The file to write.")] = Path("roster.html"),
) -> None:
    """Write a page to look at: schools, sizes, changes, quality, the last runs."""
    with needs_extra("report"):
        from oneroster_source.reporting import html_report
    from oneroster_source.warehouse import Warehouse

    require_writable(output)
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

    console = screen()
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

    with needs_extra("simulator"):
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


for command in (admin.forget, admin.prune, admin.erase, admin.export):
    app.command()(command)
