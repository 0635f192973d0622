"""The destination: opened by dlt, loaded, and asked what it holds.

Each run works in a directory of its own, which is removed afterwards: the destination is the only
memory, so a run that was killed, or a database restored from a backup, leaves nothing behind that
could mislead the next one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dlt
import duckdb
from dlt.common.configuration.container import Container
from dlt.common.configuration.exceptions import ConfigurationException
from dlt.common.configuration.providers.doc import CustomLoaderDocProvider
from dlt.common.configuration.specs import PluggableRunContext
from dlt.common.destination.client import JobClientBase
from dlt.common.exceptions import DltException
from dlt.destinations.exceptions import DatabaseException
from dlt.destinations.job_client_impl import SqlJobClientBase
from dlt.destinations.sql_client import SqlClientBase

from oneroster_source.admin.columns import clear, filled
from oneroster_source.admin.erase import Person, refuse_what_is_no_id
from oneroster_source.admin.prune import Leavers, Retention
from oneroster_source.config.options import sections_only
from oneroster_source.config.privacy import Key, Privacy
from oneroster_source.config.settings import chosen_privacy, keeps_history, lock_timeout, resolve
from oneroster_source.destination import dlt_columns, history, staging, workdir
from oneroster_source.destination.backends.postgres import tune
from oneroster_source.destination.compact import Removed, announce, due, rewrite
from oneroster_source.destination.connection import head, opened, sole
from oneroster_source.destination.existing_rows import Rows, counted, utc
from oneroster_source.destination.hints import RUN_MERGE, hints
from oneroster_source.destination.integrity import problems, same_schools
from oneroster_source.destination.locks import duckdb_file, working_folder
from oneroster_source.destination.memory import give_back, thrift, use_thrifty_arrow
from oneroster_source.destination.resolve import (
    chosen,
    fitted,
    named,
)
from oneroster_source.destination.shards import Shard, divide
from oneroster_source.destination.state import (
    PIPELINE,
    changed,
    cursors,
    divide_by,
    entries_of,
    forget_left_out,
    keep_as,
    leave_out,
    left_out,
    pipeline_name,
    prunes,
    refuse_outdated,
    resources,
    source_of,
    take_up,
)
from oneroster_source.destination.stop import stoppable
from oneroster_source.errors import (
    ConfigurationError,
    DestinationError,
    OneRosterError,
    chain,
    clean,
)
from oneroster_source.extract.cursors import refuse_other_pseudonyms
from oneroster_source.model import (
    HISTORY_KEPT,
    QUALITY_RESULTS,
    REJECTED_ROWS,
    SUPPRESSED_USERS,
    SYNC_RUN_DETAILS,
    V1P1,
)
from oneroster_source.reporting import quality, views
from oneroster_source.reporting.sql_files import Statement
from oneroster_source.reporting.status import Holdings
from oneroster_source.run_report import Outcome, Report
from oneroster_source.source import oneroster

_log = logging.getLogger("oneroster_source")
_LOADS = next(view for view in views.VIEWS if view.name == "school_loads")

_DEFAULTS = {
    # nothing of a load stays outside the destination's own tables
    "load": {"delete_completed_jobs": True, "truncate_staging_dataset": True},
    # nobody sees it, and it takes a tenth of a run in which nothing changed
    PIPELINE: {"enable_runtime_trace": False},
}
_DEFAULT_JOBS = 20
_MANY_WRITERS = ("postgres",)
"""Where locks of the database keep shards, and what is left of those that died, apart."""
_JOBS = {"duckdb": 2}
"""Tables to load at once, where that is not dlt's default: each holds rows in memory, and DuckDB
uses all cores for one."""


def use_defaults() -> None:
    """Sets dlt's options as this project wants them; what the user configured comes first."""
    providers = Container()[PluggableRunContext].providers
    if "oneroster defaults" not in providers:
        # dlt looks at each value of a place without secrets whether it is one
        dlt.config.register_provider(
            CustomLoaderDocProvider("oneroster defaults", lambda: _DEFAULTS, True, locations=[])
        )
        use_thrifty_arrow()
        # dlt logs what a destination refuses, and so children's records
        logging.getLogger("dlt").addFilter(lambda record: False)


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
        self.place, self.dataset = destination, dataset
        _, self.name = chosen(destination, dataset)

    @contextmanager
    def _pipeline(
        self, shard: Shard | None = None, *, instead: bool = False
    ) -> Iterator[dlt.Pipeline]:
        """A pipeline that knows only what the destination tells it; or one of a new DuckDB file in
        its working folder, `instead` of one that does not exist and is not to be made."""
        problem: OneRosterError
        try:
            destination, _ = chosen(self.place, self.dataset)
            with workdir.umask(), sections_only(), stoppable(), working_folder() as folder:
                if instead:
                    destination = dlt.destinations.duckdb(str(folder / "no_file_yet.duckdb"))
                yield dlt.pipeline(
                    pipeline_name(shard),
                    destination=fitted(destination, shard),
                    dataset_name=self.dataset,
                    pipelines_dir=str(folder),
                )
            return
        except OneRosterError as error:
            problem = error
        except (DltException, ConfigurationException, duckdb.Error, OSError) as error:
            if any(isinstance(cause, KeyboardInterrupt) for cause in chain(error)):
                raise KeyboardInterrupt from None
            problem = named(error, self.name)
        raise problem

    @contextmanager
    def _loaded(
        self,
        *,
        to_write: bool = False,
        own: bool | None = None,
        removed: Removed | None = None,
    ) -> Iterator[tuple[dlt.Pipeline, JobClientBase]]:
        """A pipeline of a dataset that was loaded before, and dlt's client of it, open.

        It must be `sync`'s `own`, not what a pipeline of another name has loaded, if it is written
        to and nothing else is said. With `removed`, in which the rows are noted that are removed
        meanwhile, what these have left behind is removed at the end too, before another run may
        load. Call `announce` before they are removed.
        """
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
            client = pipeline.destination_client()
            with opened(client, patience):
                pipeline.sync_destination()
                if pipeline.first_run or not pipeline.default_schema_name:
                    if not _stored(client, [SYNC_RUN_DETAILS.name]):
                        raise nothing
                    if to_write if own is None else own:
                        raise DestinationError(
                            f"the dataset {self.dataset!r} of {self.name} was loaded by another"
                            " pipeline than that of `oneroster sync`, which would not know of this",
                            todo="load it with `oneroster sync`",
                        )
                yield pipeline, client
            if removed is not None:
                removed.bytes = rewrite(pipeline, self.name, patience)

    def load(self, report: Report, *, shard: Shard | None = None, **options: Any) -> None:
        """Reads and loads, as `oneroster` takes its options; what was done is in the report.

        Files that the process makes meanwhile, in any thread, are for their owner only.

        Args:
            report: Filled with what was done.
            shard: Load only this one of the shards that `plan` has made, perhaps beside others.
                What asks the whole dataset, and the views, is then left to `finish`.
            **options: Those of `oneroster`.

        Raises:
            DestinationBusy: Another run is loading into this destination.
            OneRosterError: Nothing could be read, or the destination failed.
        """
        part = shard.name if shard else ""
        if shard is not None:
            report.run_id = shard.run_id
            options["only"] = shard.estabs
        source = oneroster(report=report, alone=shard is None, **options)
        patience = lock_timeout(options.get("lock_timeout"))
        privacy, kept = chosen_privacy(**options), keeps_history(options.get("history"))
        with (
            self._pipeline(shard) as pipeline,
            sole(pipeline, self.name, patience, part=part) as confirm,
        ):
            made: set[str] = set()
            client = pipeline.destination_client()
            with opened(client, patience):
                pipeline.sync_destination()
                if shard is None:
                    refuse_other_pseudonyms(cursors(pipeline.state), privacy, V1P1)
                    made = _make_anew(pipeline, client)
                    _leave_out(pipeline, client, privacy)
                    with pipeline.managed_state() as state:
                        divide_by(state, "")
                        keep_as(state, privacy)
                else:
                    take_up(pipeline, shard, privacy)
                staging.prepare(client)
                if shard is None and dlt_columns.fit(pipeline, client):
                    # its tables are to be made as those are now
                    staging.drop(client)
                new = not client.is_storage_initialized()
                # here it takes no connection of its own
                report.nobody_erased = new or not _stored(client, [SUPPRESSED_USERS.name])
                unfinished = isinstance(client, SqlJobClientBase) and not new and due(client)
            if unfinished and shard is None:
                try:
                    _log.warning("%s", rewrite(pipeline, self.name, patience))
                except DestinationError as error:
                    # no reason to load nothing; the next run tries again
                    report.problems.append(str(error))
            # reading may take an hour, in which others may use the file
            pipeline.extract(source)
            packed = pipeline.normalize()
            give_back()
            counts = {} if packed is None else packed.row_counts
            loaded = {table for table, rows in counts.items() if rows}
            confirm()
            with opened(client, patience):
                current = _begin_versions(client, report, made, kept=kept, alone=shard is None)
                with thrift(client) if new else nullcontext():
                    pipeline.load(workers=_JOBS.get(client.config.destination_type, _DEFAULT_JOBS))
                    if loaded and shard is None:
                        report.problems += _problems(pipeline, loaded, report)
                if shard is None:
                    settings = {k: v for k, v in options.items() if k not in _OF_A_RUN}
                    _notice_same(
                        client,
                        report,
                        cursors(pipeline.state),
                        lambda: {school.estab for school in resolve(**settings).schools},
                    )
                    if kept:
                        loaded |= _keep_versions(client, report, loaded if current else None)
                    _try_views(client, loaded, report)

    def preview(self, report: Report, **options: Any) -> None:
        """Reads as `load` does, and decides, and ends there: nothing is written, neither rows nor
        tables nor cursors. What would be done is in the report's outcomes.

        Another run may load meanwhile; then the numbers are of before it, or of after.

        Args:
            report: Filled with what would be done.
            **options: Those of `oneroster`.

        Raises:
            OneRosterError: Nothing could be read, or the destination cannot be asked.
        """
        source = oneroster(report=report, plan=True, **options)
        patience = lock_timeout(options.get("lock_timeout"))
        file = duckdb_file(self.name)
        with self._pipeline(instead=file is not None and not Path(file).exists()) as pipeline:
            client = pipeline.destination_client()
            with opened(client, patience):
                pipeline.sync_destination()
                missing = _dropped(pipeline, client)
            with pipeline.managed_state() as state:
                _read_whole(state, missing)
            # only into the working folder, and nothing but where it stands
            pipeline.extract(source)

    def plan(self, count: int, **options: Any) -> list[Shard]:
        """Makes the tables, and divides the schools into shards, by the rows that they had when
        they were last read whole.

        Args:
            count: How many shards, at most.
            **options: Those of `oneroster`.

        Raises:
            DestinationBusy: Another run is loading into this destination.
            OneRosterError: As `load` does.
        """
        report = Report()
        # what the shards find there, none of them makes at the same time as another
        self.load(report, **{**options, "only": []})
        settings = {k: v for k, v in options.items() if k not in _OF_A_RUN}
        schools = resolve(**settings).only(options.get("only")).schools
        known: dict[str, int] = {}
        with self._loaded(to_write=True) as (pipeline, client):
            with changed(pipeline) as state:
                divide_by(state, report.run_id)
            if _stored(client, _LOADS.tables) >= _LOADS.tables:
                sql = _database(client, self.name).sql_client
                known = {w["estab"]: w["rows_at_last_full"] for w in _answer(sql, _LOADS)}
        parts = divide(
            {school.estab: int(known.get(school.estab) or 0) for school in schools}, count
        )
        return [Shard(report.run_id, i, tuple(estabs)) for i, estabs in enumerate(parts)]

    @contextmanager
    def divided(self) -> Iterator[None]:
        """Keeps others from dividing the schools too, while shards are loaded side by side.

        Raises:
            ConfigurationError: The destination takes one writer at a time.
            DestinationBusy: Another run does.
            DestinationError: The destination cannot be used.
        """
        with self._pipeline() as pipeline:
            if pipeline.destination_client().config.destination_type not in _MANY_WRITERS:
                raise ConfigurationError(
                    f"{self.name} takes one writer at a time, or is not known to keep several"
                    " apart, so that no shards can be loaded into it side by side",
                    todo="load into Postgres: --destination postgres",
                )
            with head(pipeline, self.name):
                yield

    def finish(
        self,
        report: Report,
        shards: Sequence[Shard],
        lost: Sequence[Outcome] = (),
        *,
        history: bool | None = None,
    ) -> None:
        """After all shards: takes over their cursors, and does what `load` does for the whole.

        A shard that was not loaded leaves its schools' cursors where they were. Until this is done,
        so do all: the next run reads again what they have read, and loses nothing.

        Args:
            report: The run's, with the outcomes of all shards. Without any, all tables are looked
                at.
            shards: All that `plan` has made.
            lost: Outcomes that no shard has written into `sync_run_details`: they are added there.
            history: The setting, if it is given to the shards and not configured.

        Raises:
            DestinationBusy: Another run is loading into this destination, or a shard still is.
            DestinationError: The destination cannot be used, or another run has divided or loaded
                the schools since.
        """
        kept = keeps_history(history)
        with self._loaded(to_write=True) as (pipeline, client):
            report.run_id = shards[0].run_id if shards else report.run_id
            if lost:
                resource = dlt.resource([report.details(lost)], name=SYNC_RUN_DETAILS.name)
                resource.apply_hints(**hints(SYNC_RUN_DETAILS), write_disposition=RUN_MERGE)
                pipeline.extract(resource, schema=pipeline.default_schema)
            with changed(pipeline) as state:
                for shard in shards:
                    refuse_outdated(state, shard)
                    for name, schools in entries_of(pipeline, shard).items():
                        entries = resources(state).setdefault(name, {})
                        entries.setdefault("schools", {}).update(schools)
            staging.drop(client)
            read = {outcome.endpoint for outcome in report.outcomes if outcome.rows}
            tables = {
                table.name
                for endpoint in V1P1.endpoints
                if endpoint.name in read or not report.outcomes
                for table in endpoint.tables()
            } & set(pipeline.default_schema.data_table_names(seen_data_only=True))
            report.problems += _problems(pipeline, tables, report)
            _notice_same(
                client,
                report,
                cursors(pipeline.state),
                lambda: {estab for shard in shards for estab in shard.estabs},
            )
            if kept:
                tables |= _keep_versions(client, report, None)
            _try_views(client, tables, report)

    def count(self, estabs: Collection[str]) -> dict[str, int]:
        """The rows of some schools, by table; of tables that hold any.

        Raises:
            DestinationError: It cannot be opened, was never loaded, or takes no SQL.
        """
        with self._loaded() as (_, client):
            database = _database(client, self.name)
            return counted(database.sql_client, _of_schools(database, estabs))

    @property
    def is_unfinished(self) -> bool:
        """Whether rows were removed, and not yet what they have left behind.

        Raises:
            DestinationError: It cannot be opened, or was never loaded.
        """
        with self._loaded() as (_, client):
            return isinstance(client, SqlJobClientBase) and due(client)

    def forget(self, estabs: Collection[str]) -> Removed:
        """Removes some schools: their rows in every table, their cursors, and what is left of them
        in the database.

        Raises:
            DestinationBusy: Another run is loading into this destination.
            DestinationError: It cannot be opened, was never loaded, or takes no SQL; or the rows
                are removed, and what they have left behind could not be.
        """
        removed = Removed()
        with self._loaded(to_write=True, removed=removed) as (pipeline, opened_client):
            client = _database(opened_client, self.name)
            # the cursors first: rows without one are read again, a cursor without rows hides them
            with changed(pipeline) as state:
                divide_by(state, "")
                for schools in (*cursors(state).values(), prunes(source_of(state))):
                    for estab in estabs:
                        schools.pop(estab, None)
            # of runs that were killed
            staging.drop(client)
            parts = _of_schools(client, estabs)
            removed.rows = counted(client.sql_client, parts)
            announce(client)
            with client.sql_client.begin_transaction():
                for part in parts:
                    if part.table.name in removed.rows:
                        part.delete(client.sql_client)
        return removed

    def leavers(self, before: datetime, estabs: Collection[str] | None = None) -> Leavers:
        """What was deleted at the source before an instant, as `prune` would remove it.

        Raises:
            DestinationError: It cannot be opened, was never loaded, or takes no SQL; or another
                pipeline has loaded it.
        """
        with self._loaded(own=True) as (_, opened_client):
            client = _database(opened_client, self.name)
            with Retention(client, V1P1, before, estabs).found() as found:
                return found

    def prune(self, before: datetime, estabs: Collection[str] | None = None) -> Removed:
        """Removes what was deleted at the source before an instant, with all that hangs on it and
        what is left of it in the database; no later load brings it back.

        Args:
            before: The instant.
            estabs: Of these schools; None for all that the dataset holds.

        Raises:
            DestinationBusy: Another run is loading into this destination.
            DestinationError: It cannot be opened, was never loaded, or takes no SQL; or another
                pipeline has loaded it; or the rows are removed, and what they have left behind
                could not be.
        """
        removed = Removed()
        with self._loaded(to_write=True, removed=removed) as (pipeline, opened_client):
            client = _database(opened_client, self.name)
            # first: what is removed before that is known, a load could bring back
            with changed(pipeline) as state:
                known = {estab for schools in cursors(state).values() for estab in schools}
                kept, instant = prunes(source_of(state)), before.astimezone(UTC).isoformat()
                source_of(state)["prunes"] = kept | {
                    estab: {
                        "before": max(kept.get(estab, {}).get("before", ""), instant),
                        "at": datetime.now(UTC).isoformat(),
                    }
                    for estab in (known if estabs is None else estabs)
                }
            # of runs that were killed
            staging.drop(client)
            retention = Retention(client, V1P1, before, estabs)
            with retention.found() as found:
                if found.rows or found.examples:
                    announce(client)
                    retention.remove()
            removed.rows = found.rows
        return removed

    def trace(
        self, estab: str, user: str, *, to_erase: bool = False, **settings: Any
    ) -> dict[str, int]:
        """Counts what is held on a person.

        Args:
            estab: The school.
            user: The person's sourcedId, as the provider gives it or as the dataset holds it.
            to_erase: Whether to refuse what `erase` refuses.
            **settings: Those of privacy, such as `privacy_key`.

        Returns:
            The rows by table, and the values in others' rows that name the person by table and
            column. None for somebody who was erased.

        Raises:
            ConfigurationError: There is nobody with this id, or a setting is missing or wrong.
            DestinationError: It cannot be opened, was never loaded, or takes no SQL.
        """
        refuse_what_is_no_id(estab, user)
        key = chosen_privacy(**settings).key
        with self._loaded() as (_, client):
            return self._person(client, estab, user, key, to_erase=to_erase).counts()

    def erase(self, estab: str, user: str, **settings: Any) -> Removed:
        """Removes a person for good: rows, versions, what names them in others' rows, and what is
        left of it all in the database. No load brings them back.

        Whoever was erased already is so again, which finishes what was cut short.

        Args:
            estab: The school.
            user: The person's sourcedId, as the provider gives it or as the dataset holds it.
            **settings: Those of privacy, such as `privacy_key`.

        Raises:
            ConfigurationError: There is nobody with this id, or no key, or another one than people
                were erased under before.
            DestinationBusy: Another run is loading into this destination.
            DestinationError: It cannot be opened, was never loaded, or takes no SQL; or the rows
                are removed, and what they have left behind could not be.
        """
        refuse_what_is_no_id(estab, user)
        key = chosen_privacy(**settings).key
        erased = Removed()
        with self._loaded(to_write=True, own=False, removed=erased) as (_, opened_client):
            client = _database(opened_client, self.name)
            # before anything: an id that was mistyped changes nothing
            person = self._person(client, estab, user, key, to_erase=True)
            # of runs that were killed
            staging.drop(client)
            announce(client)
            # at once: nobody is removed who is not listed
            with client.sql_client.begin_transaction():
                person.suppress()
                erased.rows = person.remove()
        return erased

    def export(self, estab: str, user: str, **settings: Any) -> dict[str, Any]:
        """All that is held on a person, and nothing on others, as JSON types; what these have no
        room for is text: numbers that are too large, and what is nested too deep.

        Args:
            estab: The school.
            user: The person's sourcedId, as the provider gives it or as the dataset holds it.
            **settings: Those of privacy, such as `privacy_key`.

        Raises:
            ConfigurationError: There is nobody with this id.
            DestinationError: It cannot be opened, was never loaded, or takes no SQL.
        """
        refuse_what_is_no_id(estab, user)
        key = chosen_privacy(**settings).key
        with self._loaded() as (_, client):
            rows = self._person(client, estab, user, key).rows()
        return {
            "estab": estab,
            "user": user,
            "destination": self.name,
            "dataset": self.dataset,
            "exported_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "tables": rows,
        }

    def _person(
        self,
        client: JobClientBase,
        estab: str,
        user: str,
        key: Key | None,
        *,
        to_erase: bool = False,
    ) -> Person:
        """A person of whom the dataset holds a row, or has.

        Raises:
            ConfigurationError: There is nobody with this id, or `erase` refuses the key.
            DestinationError: It takes no SQL.
        """
        person = Person(_database(client, self.name), V1P1, estab, user, key)
        if to_erase:
            person.refuse_other_key()
        if not person.is_known:
            raise ConfigurationError(
                f"{self.name} holds nobody with this id in school {estab}",
                todo="give the person's sourcedId, as the provider or the table users has it; where"
                " ids are pseudonyms, 'privacy_key' must be the key of these",
            )
        return person

    def make_views(self) -> list[Statement]:
        """Makes the views, as each load does; returns those that are there.

        Raises:
            DestinationBusy: Another run is loading into this destination.
            DestinationError: It cannot be opened, or was never loaded, or refuses a view.
        """
        with self._loaded(to_write=True) as (_, client):
            return _make_views(client)

    def examine(self) -> list[quality.Result]:
        """Looks for what is wrong with the rosters, and adds what it finds to `quality_results`.

        Raises:
            DestinationBusy: Another run is loading into this destination.
            DestinationError: It cannot be opened, was never loaded, or takes no SQL.
        """
        with self._loaded(to_write=True) as (pipeline, client):
            _make_views(client)
            kept_out = left_out(pipeline.state) or ()
            results = list(quality.examine(_database(client, self.name), kept_out))
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
        with self._loaded() as (_, opened_client):
            client = _database(opened_client, self.name)
            tables = {table for query in wanted for table in query.tables}
            there = _stored(client, tables)
            found: dict[str, list[dict[str, Any]]] = {query.name: [] for query in wanted}
            for query in wanted:
                if query.tables <= there:
                    found[query.name] = _answer(client.sql_client, query)
        return found

    def holdings(self) -> Holdings:
        """What the dataset holds now, also where it has no views.

        Raises:
            DestinationError: It cannot be opened, or has never been loaded.
        """
        found = Holdings(self.name, self.dataset)
        names = [t.name for e in V1P1.endpoints for t in e.tables()] + [REJECTED_ROWS.name]
        with self._loaded() as (pipeline, opened_client):
            found.cursors = cursors(pipeline.state)
            there = _stored(opened_client, [*names, SYNC_RUN_DETAILS.name])
            with pipeline.sql_client() as client:
                for name in names:
                    if name in there:
                        table = client.make_qualified_table_name(name)
                        counts = client.execute_sql(
                            f"SELECT estab, count(*) FROM {table} GROUP BY estab"
                        )
                        found.rows[name] = {str(e): int(n) for e, n in counts or ()}
                if there >= _LOADS.tables:
                    found.loads = _answer(client, _LOADS)
                loads = client.make_qualified_table_name("_dlt_loads")
                last = client.execute_sql(f"SELECT max(inserted_at) FROM {loads} WHERE status = 0")
                found.last_load = utc(last[0][0]) if last else None
        return found


def _stored(client: Any, names: Collection[str]) -> set[str]:
    """Which of these tables are there."""
    return {name for name, columns in client.get_storage_tables(names) if columns}


def _answer(client: SqlClientBase[Any], query: Statement) -> list[dict[str, Any]]:
    """The rows that a query finds."""
    with client.execute_query(query.written(client)) as rows:
        names = [column[0].lower() for column in rows.description]
        return [dict(zip(names, row, strict=True)) for row in rows.fetchall()]


def _database(client: JobClientBase, name: str) -> SqlJobClientBase:
    """dlt's client of a destination, if that is a database."""
    if isinstance(client, SqlJobClientBase):
        return client
    raise DestinationError(
        f"{name} is no database, and answers no questions",
        todo="load into one, such as a DuckDB file",
    )


_OF_A_RUN = ("since", "until", "full", "allow_deletes", "only")
# who was erased stays so, if the school is loaded again
_BY_SCHOOL = [t for t in V1P1.tables if t not in (HISTORY_KEPT, SUPPRESSED_USERS)]


def _problems(pipeline: dlt.Pipeline, changed: set[str], report: Report) -> list[str]:
    with pipeline.sql_client() as client:
        return list(problems(client, V1P1.endpoints, changed, report))


def _notice_same(
    client: JobClientBase,
    report: Report,
    known: Mapping[str, Mapping[str, Any]],
    configured: Callable[[], set[str]],
) -> None:
    """Warns where a school that was never loaded before has the rows of another one, which is not
    configured: it has got another estab, and its people are there twice.

    Args:
        client: dlt's client of the destination.
        report: The run's.
        known: The entries of all cursors, by endpoint and estab.
        configured: Tells the estabs of the configuration.
    """
    new = {o.estab for o in report.outcomes if o.first and o.loaded and o.live}
    others = {estab for schools in known.values() for estab in schools}
    others -= {outcome.estab for outcome in report.outcomes}
    if not new or not others or not isinstance(client, SqlJobClientBase):
        return
    others -= configured()
    endpoints = [V1P1[name] for name in known if name in V1P1.names]
    there = _stored(client, [endpoint.name for endpoint in endpoints])
    endpoints = [endpoint for endpoint in endpoints if endpoint.name in there]
    found = others and same_schools(client.sql_client, endpoints, sorted(new), sorted(others))
    for estab, by_endpoint in (found or {}).items():
        olds = sorted(set().union(*by_endpoint.values()))
        outcome = next(o for o in report.outcomes if o.estab == estab and o.endpoint in by_endpoint)
        outcome.warn(
            f"its rows are largely those of school {', '.join(olds)}, which is not configured: if"
            " the school has got another estab, its people are there twice until you run"
            f" `oneroster remove-school --school {','.join(olds)}`"
        )


def _begin_versions(
    client: JobClientBase, report: Report, made: Collection[str], *, kept: bool, alone: bool
) -> bool:
    """Before a load: catches up with versions, or warns that none are kept any more; returns
    whether they speak of all that is there. Tables that were just made, empty, say nothing yet."""
    if not isinstance(client, SqlJobClientBase):
        return False
    last = None if kept else history.newest(client)
    if last is not None:
        _log.warning(
            "history is false: of this load no versions are kept; those that there are stand still,"
            " the newest being of %s",
            f"{last:%Y-%m-%d %H:%M:%S} UTC",
        )
    return history.begin(client, report.started, catch_up=kept and alone, without=made)


def _keep_versions(
    client: JobClientBase, report: Report, loaded: Collection[str] | None
) -> set[str]:
    """Keeps versions of what was loaded into some tables, or of all that is there; returns the
    tables of versions that have changed."""
    # rows that a full pass found missing are not among the keys
    whole = {o.endpoint for o in report.outcomes if o.mode == "full" and o.loaded}
    where = (
        None
        if loaded is None
        else {
            name: None
            if name in whole or name not in report.keys
            else {key for _, key in report.keys[name]}
            for name in loaded
        }
    )
    # the source has refused what is none
    assert isinstance(client, SqlJobClientBase)
    if not history.is_kept(client):
        # nothing of it is loaded
        return set()
    return set(history.keep(client, at=report.started, loaded=where))


def _of_schools(client: SqlJobClientBase, estabs: Collection[str]) -> list[Rows]:
    """The rows of some schools, in all tables that are there."""
    marks = ", ".join(["%s"] * len(estabs))
    there = _stored(client, [table.name for table in _BY_SCHOOL])
    return [
        Rows(table, f"{{estab}} IN ({marks})", tuple(estabs))
        for table in _BY_SCHOOL
        if table.name in there
    ]


def _try_views(client: JobClientBase, changed: Collection[str], report: Report) -> None:
    try:
        _make_views(client, changed)
    except DestinationError as error:
        report.problems.append(str(error))


def _make_views(client: JobClientBase, changed: Collection[str] = ()) -> list[Statement]:
    """Makes the views, and what lets them answer soon, where the destination is a database.

    Args:
        client: dlt's client of the destination.
        changed: Tables into which something was loaded.

    Returns:
        The views that are there.

    Raises:
        DestinationError: It refuses one.
    """
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
            todo="all rows are loaded; see that this user may make views, and that none of your own"
            " hang on them, then run `oneroster views`",
        ) from None


def _leave_out(pipeline: dlt.Pipeline, client: JobClientBase, privacy: Privacy) -> None:
    """Takes away what earlier loads have brought of columns that are left out from now on."""
    known, wanted = left_out(pipeline.state), privacy.columns_left_out
    new = wanted - (known or frozenset())
    if known is not None and known != wanted:
        # in a load of its own: what this run brings may have to go again, if it dies, and what is
        # taken away now comes back by a full read alone, of whichever school and whenever
        with changed(pipeline) as state:
            leave_out(state, known & wanted)
            forget_left_out(state, new)
    if not new or not pipeline.default_schema_name:
        return
    if not isinstance(client, SqlJobClientBase):
        _log.warning(
            "columns are left out from now on: rows of earlier loads keep them until they are read"
            " again, and deleted ones keep them"
        )
        return
    found = filled(client, privacy, new)
    if found or staging.there(client):
        announce(client)
        staging.drop(client)
        clear(client, found)
    if found:
        names = ", ".join(f"{table}.{column}" for table, some in found.items() for column in some)
        _log.warning("left out from now on, and taken away: %s", names)


def _dropped(pipeline: dlt.Pipeline, client: JobClientBase) -> set[str]:
    """The tables that dlt takes for there, and that somebody has dropped."""
    if not pipeline.default_schema_name:
        return set()
    expected = pipeline.default_schema.data_table_names(seen_data_only=True)
    return set(expected) - _stored(client, expected)


def _read_whole(state: Any, missing: Collection[str]) -> None:
    """Has the endpoints read whole that fill some tables."""
    kept = resources(state)
    for endpoint in V1P1.endpoints:
        tables = {table.name for table in (*endpoint.tables(), REJECTED_ROWS)}
        if tables.intersection(missing):
            kept.pop(endpoint.name, None)


def _make_anew(pipeline: dlt.Pipeline, client: JobClientBase) -> set[str]:
    """Makes tables that somebody dropped, which dlt takes for there, and has them read whole;
    returns their names."""
    missing = _dropped(pipeline, client)
    if not missing:
        return missing
    _log.warning("dropped since the last load, and made anew: %s", ", ".join(sorted(missing)))
    # first, and in a load of its own: a run that is killed in between leaves nothing that looks
    # as if it had been loaded
    with changed(pipeline) as state:
        _read_whole(state, missing)
    # one that knows the schema which was found there
    with pipeline.destination_client() as knowing:
        knowing.update_stored_schema(only_tables=missing, force=True)
    return missing
