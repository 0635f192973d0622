"""The destination: opened by dlt, loaded, and asked what it holds.

Each run works in a directory of its own, which is removed afterwards: the destination is the only
memory, so a run that was killed, or a database restored from a backup, leaves nothing behind that
could mislead the next one.
"""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import dlt
import duckdb
from dlt.common.configuration.container import Container
from dlt.common.configuration.exceptions import ConfigurationException
from dlt.common.configuration.providers.doc import CustomLoaderDocProvider
from dlt.common.configuration.specs import PluggableRunContext
from dlt.common.destination import Destination
from dlt.common.destination.exceptions import UnknownDestinationModule
from dlt.common.exceptions import DltException, MissingDependencyException
from dlt.destinations.exceptions import DatabaseException, DatabaseUndefinedRelation
from dlt.destinations.job_client_impl import SqlJobClientBase
from dlt.pipeline.exceptions import PipelineStepFailed

from oneroster_source import private, quality, views
from oneroster_source.access import opened, sole
from oneroster_source.config import lock_timeout
from oneroster_source.delta import Delta
from oneroster_source.errors import (
    ConfigurationError,
    DestinationError,
    OneRosterError,
    chain,
    clean,
)
from oneroster_source.lock import DATABASE, duckdb_file, working_folder
from oneroster_source.memory import give_back, thrift, use_thrifty_arrow
from oneroster_source.merge import hints
from oneroster_source.postgres import tune
from oneroster_source.report import Report
from oneroster_source.source import oneroster
from oneroster_source.spec import QUALITY_RESULTS, REJECTED_ROWS, V1P1
from oneroster_source.statement import Statement
from oneroster_source.verify import problems

PIPELINE = "oneroster"
_log = logging.getLogger("oneroster_source")
_FULL = re.compile("No space left on device|Disk quota exceeded|File too large")

# nothing of a load stays outside the destination's own tables
_DEFAULTS = {"load": {"delete_completed_jobs": True, "truncate_staging_dataset": True}}
_DEFAULT_JOBS = 20
_JOBS = {"duckdb": 2}
"""Tables to load at once, where that is not dlt's default: each holds rows in memory, and DuckDB
uses all cores for one."""


def use_defaults() -> None:
    """Sets dlt's options as this project wants them; what the user configured comes first."""
    providers = Container()[PluggableRunContext].providers
    if "oneroster defaults" not in providers:
        dlt.config.register_provider(
            CustomLoaderDocProvider("oneroster defaults", lambda: _DEFAULTS, False, locations=[])
        )
        use_thrifty_arrow()
        # dlt logs what a destination refuses, and so children's records
        logging.getLogger("dlt").addFilter(lambda record: False)


@dataclass(slots=True)
class Holdings:
    """What a dataset holds."""

    rows: dict[str, dict[str, int]] = field(default_factory=dict)
    """Rows by table and estab."""
    cursors: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    """Entries of the state by endpoint and estab, as `cursor.Cursors` keeps them."""
    last_load: datetime | None = None

    @property
    def estabs(self) -> list[str]:
        found = {estab for counts in self.rows.values() for estab in counts}
        return sorted(found | {estab for schools in self.cursors.values() for estab in schools})


class Warehouse:
    """A dataset in a destination.

    Args:
        destination: A path or URL of a DuckDB file, a Postgres URL, or the name of any dlt
            destination that is configured in dlt's way. One of files gets Delta tables.
        dataset: The dataset, or schema, that holds the tables.
    """

    def __init__(self, destination: str = "duckdb", dataset: str = "oneroster") -> None:
        use_defaults()
        for what, text in (("destination", destination), ("dataset", dataset)):
            if not text.strip():
                raise ConfigurationError(f"the {what} is empty", todo=f"name a {what}")
        self.dataset = dataset
        self._destination, self.name = _destination(destination, dataset)

    @contextmanager
    def _pipeline(self) -> Iterator[dlt.Pipeline]:
        """A pipeline that knows only what the destination tells it."""
        problem: OneRosterError
        try:
            with private.umask(), working_folder() as folder:
                yield dlt.pipeline(
                    PIPELINE,
                    destination=_as_delta(self._destination),
                    dataset_name=self.dataset,
                    pipelines_dir=str(folder),
                )
            return
        except OneRosterError as error:
            problem = error
        except (DltException, ConfigurationException, duckdb.Error, OSError) as error:
            if any(isinstance(cause, KeyboardInterrupt) for cause in chain(error)):
                raise KeyboardInterrupt from None
            problem = _named(error, self.name)
        raise problem

    @contextmanager
    def _loaded(self, *, to_write: bool = False) -> Iterator[dlt.Pipeline]:
        """A pipeline of a dataset that was loaded before, and stays open meanwhile."""
        nothing = DestinationError(
            f"{self.name} holds no dataset {self.dataset!r} that was loaded from OneRoster",
            todo="run `oneroster sync` first, or name another --destination or --dataset",
        )
        # to look is not to make
        file = duckdb_file(self.name)
        if file is not None and not Path(file).exists():
            raise nothing
        patience = lock_timeout()
        with ExitStack() as stack:
            pipeline = stack.enter_context(self._pipeline())
            if to_write:
                stack.enter_context(sole(pipeline, self.name, patience))
            stack.enter_context(opened(pipeline, patience))
            pipeline.sync_destination()
            if pipeline.first_run or not pipeline.default_schema_name:
                raise nothing
            yield pipeline

    def load(self, report: Report, **options: Any) -> None:
        """Reads and loads, as `oneroster` takes its options; what was done is in the report.

        Files that the process makes meanwhile, in any thread, are for their owner only.

        Raises:
            DestinationBusy: Another run is loading into this destination.
            OneRosterError: Nothing could be read, or the destination failed.
        """
        source = oneroster(report=report, alone=True, **options)
        patience = lock_timeout(options.get("lock_timeout"))
        with self._pipeline() as pipeline, sole(pipeline, self.name, patience) as confirm:
            with opened(pipeline, patience):
                pipeline.sync_destination()
                _make_anew(pipeline)
                with pipeline.destination_client() as client:
                    new = not client.is_storage_initialized()
            # reading may take an hour, in which others may use the file
            pipeline.extract(source)
            packed = pipeline.normalize()
            give_back()
            counts = {} if packed is None else packed.row_counts
            changed = {table for table, rows in counts.items() if rows}
            confirm()
            with opened(pipeline, patience):
                kind = pipeline.destination_client().config.destination_type
                with thrift(pipeline) if new else nullcontext():
                    pipeline.load(workers=_JOBS.get(kind, _DEFAULT_JOBS))
                    if changed:
                        with pipeline.sql_client() as client:
                            report.problems += problems(client, V1P1.endpoints, changed, report)
                try:
                    _make_views(pipeline, changed)
                except DestinationError as error:
                    report.problems.append(str(error))

    def make_views(self) -> list[Statement]:
        """Makes the views, as each load does; returns those that are there.

        Raises:
            DestinationBusy: Another run is loading into this destination.
            DestinationError: It cannot be opened, or was never loaded, or refuses a view.
        """
        with self._loaded(to_write=True) as pipeline:
            return _make_views(pipeline)

    def examine(self) -> list[quality.Result]:
        """Looks for what is wrong with the rosters, and adds what it finds to `quality_results`.

        Raises:
            DestinationBusy: Another run is loading into this destination.
            DestinationError: It cannot be opened, was never loaded, or takes no SQL.
        """
        with self._loaded(to_write=True) as pipeline:
            _make_views(pipeline)
            with _database(pipeline, self.name) as client:
                results = list(quality.examine(client))
            found = quality.table(results)
            resource = dlt.resource([found], name=QUALITY_RESULTS.name, write_disposition="append")
            pipeline.run(resource.apply_hints(**hints(QUALITY_RESULTS)))
        return results

    def ask(self, queries: Iterable[Statement]) -> dict[str, list[dict[str, Any]]]:
        """The rows that queries find, by their names; none where their tables are not there.

        Raises:
            DestinationError: It cannot be opened, was never loaded, or takes no SQL.
        """
        wanted = tuple(queries)
        with self._loaded() as pipeline, _database(pipeline, self.name) as client:
            tables = {table for query in wanted for table in query.tables}
            there = {name for name, columns in client.get_storage_tables(tables) if columns}
            found: dict[str, list[dict[str, Any]]] = {query.name: [] for query in wanted}
            for query in wanted:
                if query.tables <= there:
                    with client.sql_client.execute_query(query.written(client.sql_client)) as rows:
                        names = [column[0].lower() for column in rows.description]
                        found[query.name] = [
                            dict(zip(names, row, strict=True)) for row in rows.fetchall()
                        ]
        return found

    def holdings(self) -> Holdings:
        """What the dataset holds now.

        Raises:
            DestinationError: It cannot be opened, or has never been loaded.
        """
        found = Holdings()
        with self._loaded() as pipeline:
            sources = pipeline.state.get("sources", {}).get("oneroster", {}).get("resources", {})
            for name, state in sources.items():
                found.cursors[name] = state.get("schools", {})
            there = set(pipeline.default_schema.data_table_names(seen_data_only=True))
            tables = [t for e in V1P1.endpoints for t in e.tables()] + [REJECTED_ROWS]
            with pipeline.sql_client() as client:
                for table in tables:
                    if table.name in there:
                        name = client.make_qualified_table_name(table.name)
                        counts = client.execute_sql(
                            f"SELECT estab, count(*) FROM {name} GROUP BY estab"
                        )
                        found.rows[table.name] = {str(e): int(n) for e, n in counts or ()}
                loads = client.make_qualified_table_name("_dlt_loads")
                last = client.execute_sql(f"SELECT max(inserted_at) FROM {loads} WHERE status = 0")
                found.last_load = last[0][0] if last else None
        return found


@contextmanager
def _database(pipeline: dlt.Pipeline, name: str) -> Iterator[SqlJobClientBase]:
    """dlt's client of a destination that is a database."""
    with pipeline.destination_client() as client:
        if not isinstance(client, SqlJobClientBase):
            raise DestinationError(
                f"{name} is no database, and answers no questions",
                todo="load into one, such as a DuckDB file",
            )
        yield client


def _make_views(pipeline: dlt.Pipeline, changed: Collection[str] = ()) -> list[Statement]:
    """Makes the views, and what lets them answer soon, where the destination is a database.

    Args:
        pipeline: That of the dataset.
        changed: Tables into which something was loaded.

    Returns:
        The views that are there.

    Raises:
        DestinationError: It refuses one.
    """
    with pipeline.destination_client() as client:
        if not isinstance(client, SqlJobClientBase):
            return []
        try:
            if client.config.destination_type == "postgres":
                asked = {t for query in (*views.VIEWS, *quality.CHECKS) for t in query.tables}
                tune(client.sql_client, asked, changed)
            return views.make(client)
        except DatabaseException as error:
            # to define a view touches no row, so that the database's words speak of none
            raise DestinationError(
                f"the views could not be made: {clean(error)}",
                todo="all rows are loaded; see that this user may make views, and that none of your"
                " own hang on them, then run `oneroster views`",
            ) from None


def _make_anew(pipeline: dlt.Pipeline) -> None:
    """Makes tables that somebody dropped, which dlt takes for there, and has them read whole."""
    if not pipeline.default_schema_name:
        return
    expected = pipeline.default_schema.data_table_names(seen_data_only=True)
    with pipeline.destination_client() as client:
        found = client.get_storage_tables(expected)
        missing = {name for name, columns in found if not columns}
    if not missing:
        return
    _log.warning("dropped since the last load, and read again: %s", ", ".join(sorted(missing)))
    # first, and in a load of its own: a run that is killed in between leaves nothing that looks
    # as if it had been loaded
    with pipeline.managed_state(extract_state=True) as state:
        resources = state.get("sources", {}).get("oneroster", {}).get("resources", {})
        for endpoint in V1P1.endpoints:
            tables = {table.name for table in (*endpoint.tables(), REJECTED_ROWS)}
            if missing & tables and endpoint.name in resources:
                del resources[endpoint.name]
    pipeline.normalize()
    pipeline.load()
    with pipeline.destination_client() as client:
        client.update_stored_schema(only_tables=missing, force=True)


def _destination(text: str, dataset: str) -> tuple[Any, str]:
    """The dlt destination, and a name for people in which there is no password."""
    file = duckdb_file(text)
    if text == "duckdb" and not _duckdb_is_configured():
        file = DATABASE
    if file is not None:
        if Path(file).stem == dataset:
            raise ConfigurationError(
                f"the DuckDB file {file} and the dataset {dataset!r} have the same name, which"
                " DuckDB cannot tell apart",
                todo="name the file or the dataset differently",
            )
        return dlt.destinations.duckdb(file), file
    if text.startswith(("postgres://", "postgresql://")):
        return dlt.destinations.postgres(text), "the Postgres database"
    return text, text


def _as_delta(destination: Any) -> Any:
    """The destination, which keeps Delta tables where it is of files: plain ones it only adds."""
    found = Destination.from_reference(destination)
    if isinstance(found, dlt.destinations.filesystem) and not found.is_hf:
        return Delta(destination_name=found.destination_name)
    return found


def _duckdb_is_configured() -> bool:
    keys = ("destination.duckdb.credentials", "destination.duckdb.credentials.database")
    return any(place.get(key) is not None for place in (dlt.secrets, dlt.config) for key in keys)


def _named(error: BaseException, name: str) -> OneRosterError:
    """Our error for one of dlt's, whose text may hold whole pages of records."""
    causes = list(chain(error))
    for cause in causes:
        if isinstance(cause, OneRosterError):
            return cause
    if any(isinstance(e, (ConfigurationException, UnknownDestinationModule)) for e in causes):
        wrong = next(e for e in reversed(causes) if isinstance(e, DltException))
        return ConfigurationError(
            f"the destination {name!r} cannot be used: {clean(wrong, limit=700)}",
            todo="name a DuckDB file, a postgresql:// URL, or a destination that is configured",
        )
    full = next((found[0] for e in causes if (found := _FULL.search(str(e)))), "")
    if full:
        # Python itself writes nothing but what waits to be loaded
        ours = any(isinstance(e, OSError) for e in causes)
        place = f"the folder for temporary files, {tempfile.gettempdir()}" if ours else name
        return DestinationError(
            f"there is no room in {place}: {full}",
            todo="nothing was lost: make room and run this again"
            + (", or let the variable TMPDIR name another folder" if ours else ""),
        )
    if any(isinstance(e, DatabaseUndefinedRelation) for e in causes):
        return DestinationError(
            f"{name}: a table in which dlt keeps its own records was dropped",
            todo="nothing was lost: drop all tables of the dataset whose names begin with _dlt_,"
            " then run `oneroster sync --full`",
        )
    step = next((e.step for e in causes if isinstance(e, PipelineStepFailed)), "")
    root = causes[-1]
    # only these are known to speak of files, servers and packages, never of rows
    known = (duckdb.IOException, duckdb.ConnectionException, OSError, MissingDependencyException)
    safe = next((e for e in causes if isinstance(e, known)), None)
    said = clean(safe, limit=500) if safe is not None else type(root).__name__
    if type(root).__module__.startswith("psycopg2") and type(root).__name__ == "OperationalError":
        said = clean(root)
    return DestinationError(
        f"{name} could not be used" + (f" (step {step})" if step else "") + f": {said}",
        todo="nothing was lost: mend this and run again",
    )
