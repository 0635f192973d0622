"""The facade: everything that can be done with a dataset, from Python as from the command line."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

from oneroster_source.admin import erase, forget, prune
from oneroster_source.admin.prune import Leavers
from oneroster_source.config.settings import keeps_history, lock_timeout, resolve
from oneroster_source.destination.queries import Removed
from oneroster_source.destination.session import Target
from oneroster_source.destination.shards import Shard
from oneroster_source.extract.run import RunOptions
from oneroster_source.reporting import refresh, status
from oneroster_source.reporting.quality import Result
from oneroster_source.reporting.sql_files import Statement
from oneroster_source.reporting.status import Status
from oneroster_source.run_report import Outcome, Report
from oneroster_source.sync import dask_cluster, load, sharding


class Warehouse:
    """A dataset in a destination.

    Args:
        destination: A path or URL of a DuckDB file, a Postgres URL, or the name of any dlt
            destination that is configured in dlt's way. `duckdb` alone is the file `roster.duckdb`;
            a filesystem destination gets Delta tables.
        dataset: The dataset, or schema, that holds the tables.

    Attributes:
        place: The destination, as it was given.
        dataset: The dataset.
        name: The display name of the destination, without any password.

    Raises:
        ConfigurationError: The destination or dataset is invalid.

    Every method raises `DestinationError` if the destination cannot be opened. All but `load` and
    `preview` also raise it if nothing was ever loaded, and those that query or remove rows if the
    destination takes no SQL. Methods that write raise `DestinationBusy` while another run is
    loading.

    Examples:
        With the school in the environment, or in dlt's configuration:

        >>> from oneroster_source import Warehouse
        >>> warehouse = Warehouse("roster.duckdb")
        >>> report = warehouse.load(endpoints=["orgs", "users"])
        >>> report.good
        True
        >>> sorted(table for table in warehouse.status().rows if "__" not in table)
        ['orgs', 'rejected_rows', 'users']
    """

    def __init__(self, destination: str = "duckdb", dataset: str = "oneroster") -> None:
        self._target = Target(destination, dataset)
        self.place, self.dataset, self.name = destination, dataset, self._target.name

    def load(
        self,
        report: Report | None = None,
        *,
        shard: Shard | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        full: bool = False,
        allow_deletes: bool = False,
        only: Sequence[str] | None = None,
        **settings: Any,
    ) -> Report:
        """Reads the schools and loads what has changed; everything on the first run.

        Files that the process makes meanwhile, in any thread, are for their owner only.

        Args:
            report: Filled while the run goes on, and also when it raises; a new one if not given.
            shard: Load only this one of the shards that `divide` has made, perhaps beside others.
                `finish` must follow.
            since: With or without `until`: load rows changed after this instant, and leave the
                cursors where they are. With a time zone.
            until: Load rows changed before this instant. With a time zone.
            full: Read everything again, whatever the cursors say.
            allow_deletes: Skip the mass-deletion guard.
            only: The estabs to read, of the schools that are configured.
            **settings: Any setting, such as `schools` or `endpoints`, as `oneroster` takes it.

        Returns:
            What the run did. One school's failure does not stop the others: call
            `raise_for_failures`.

        Raises:
            ConfigurationError: A setting is missing or wrong.
            OneRosterError: Nothing could be read, or the destination failed.

        Examples:
            >>> from oneroster_source import Warehouse
            >>> report = Warehouse("roster.duckdb").load(endpoints=["users"], full=True)
            >>> {(outcome.endpoint, outcome.mode) for outcome in report.outcomes}
            {('users', 'full')}
        """
        options = RunOptions(
            since=since, until=until, full=full, allow_deletes=allow_deletes, only=only
        )
        return load.load(self._target, resolve(**settings), options, report or Report(), shard)

    def preview(
        self,
        report: Report | None = None,
        *,
        full: bool = False,
        allow_deletes: bool = False,
        only: Sequence[str] | None = None,
        **settings: Any,
    ) -> Report:
        """Reads and decides as `load` does, and writes nothing: no rows, tables or cursors.

        Another run may load meanwhile; then some counts may predate it.

        Args:
            report: As `load` takes it.
            full: As `load` takes it.
            allow_deletes: As `load` takes it.
            only: As `load` takes it.
            **settings: As `load` takes them.

        Returns:
            What would be done: see `Outcome.plan`.

        Raises:
            ConfigurationError: A setting is missing or wrong.
            OneRosterError: Nothing could be read, or the destination cannot be queried.

        Examples:
            >>> from oneroster_source import Warehouse
            >>> outcome, = Warehouse("roster.duckdb").preview(endpoints=["users"]).outcomes
            >>> outcome.plan.added == outcome.live
            True
        """
        options = RunOptions(full=full, allow_deletes=allow_deletes, only=only)
        return load.preview(self._target, resolve(**settings), options, report or Report())

    def load_on(
        self,
        address: str,
        report: Report | None = None,
        *,
        shards: int | None = None,
        only: Sequence[str] | None = None,
        **options: Any,
    ) -> Report:
        """Loads as `load` does, on the workers of a Dask cluster.

        The destination must have the same name in the configuration of the workers.

        Args:
            address: The scheduler's, such as tcp://scheduler:8786.
            report: As `load` takes it; outcomes come as each shard ends.
            shards: How many shards to make, at most. By default as many as workers that may send
                requests at once, and more where one would have more than 250 schools.
            only: As `load` takes it.
            **options: `full`, `allow_deletes`, `endpoints`; all else must be configured.

        Returns:
            What the run did.

        Raises:
            ConfigurationError: There is no cluster, or the destination cannot be shared.
            OneRosterError: As `load` does.
        """
        report = report or Report()
        return dask_cluster.load(self._target, report, address, shards=shards, only=only, **options)

    def divide(
        self, count: int, *, only: Sequence[str] | None = None, **settings: Any
    ) -> list[Shard]:
        """Makes the tables, and divides the schools into shards with roughly equal row counts.

        Args:
            count: How many shards, at most.
            only: As `load` takes it.
            **settings: As `load` takes them.

        Returns:
            The shards, to be loaded side by side with `load`, and put together with `finish`. Each
            is a plain dataclass of JSON types, and holds no secret.

        Raises:
            ConfigurationError: A setting is missing or wrong.
            OneRosterError: As `load` does.

        Examples:
            >>> from oneroster_source import Warehouse
            >>> warehouse = Warehouse("roster.duckdb")
            >>> shards = warehouse.divide(4, endpoints=["users"])
            >>> reports = [warehouse.load(shard=shard, endpoints=["users"]) for shard in shards]
            >>> warehouse.finish(shards).good
            True
        """
        return sharding.divide(self._target, resolve(**settings), RunOptions(only=only), count)

    def divided(self) -> AbstractContextManager[None]:
        """Keeps other runs from dividing the schools too, while shards are loaded side by side.

        Returns:
            A context manager.

        Raises:
            ConfigurationError: The destination takes one writer at a time.
            DestinationBusy: Another run is already dividing the schools.
        """
        return sharding.divided(self._target)

    def finish(
        self,
        shards: Sequence[Shard],
        report: Report | None = None,
        lost: Sequence[Outcome] = (),
        *,
        history: bool | None = None,
    ) -> Report:
        """Puts the shards together: takes over their cursors, then checks and makes the views.

        A shard that was not loaded leaves its schools' cursors where they were. Until `finish`
        runs, no cursor moves: the next run reads the same changes again, and loses nothing.

        Args:
            shards: All that `divide` has made.
            report: The run's, with the outcomes of all shards. Without any, all tables are checked.
            lost: Outcomes that no shard has written into `sync_run_details`: they are added there.
            history: The setting, if it is given to the shards and not configured.

        Returns:
            The report, with the integrity checks that failed.

        Raises:
            DestinationBusy: Another run is loading into this destination, or a shard still is.
            DestinationError: Another run has divided or loaded the schools since.
        """
        return sharding.finish(
            self._target,
            shards,
            report or Report(),
            lost,
            history=keeps_history(history),
            patience=lock_timeout(),
        )

    def status(self) -> Status:
        """Looks up what the dataset holds, and which schools need attention.

        Returns:
            Rows by table and school, cursors, and the status of each school.

        Examples:
            >>> from oneroster_source import Warehouse
            >>> warehouse = Warehouse("roster.duckdb")
            >>> report = warehouse.load(endpoints=["orgs"])
            >>> [school.state for school in warehouse.status().schools()]
            ['good']
        """
        return status.status(self._target)

    def query(self, statements: Iterable[Statement]) -> dict[str, list[dict[str, Any]]]:
        """Runs SQL statements of this project, as the destination writes names and SQL.

        Args:
            statements: Statements, such as those of `reporting.views.VIEWS`.

        Returns:
            Rows by the statement's name, each by column; none where a table does not exist.
        """
        return status.query(self._target, statements)

    def make_views(self) -> list[Statement]:
        """Makes the views, as each load does; returns those that exist then.

        Raises:
            DestinationError: The destination refuses a view.
        """
        return refresh.refresh_views(self._target)

    def check_quality(self) -> list[Result]:
        """Runs the data-quality checks, and adds their results to `quality_results`.

        Returns:
            A result for each check and school, good or not.

        Examples:
            >>> from oneroster_source import Warehouse
            >>> warehouse = Warehouse("roster.duckdb")
            >>> report = warehouse.load()
            >>> found = [result for result in warehouse.check_quality() if result.found]
            >>> [result.check.name for result in found if result.severity == "error"]
            []
        """
        return refresh.check_quality(self._target)

    def count(self, estabs: Collection[str]) -> dict[str, int]:
        """Counts the rows of some schools, as `forget` would remove them.

        Args:
            estabs: The schools.

        Returns:
            Rows by table, of tables that hold any.
        """
        return forget.count(self._target, estabs)

    def forget(self, estabs: Collection[str]) -> Removed:
        """Removes schools: their rows in every table, their cursors, and their bytes in the file.

        Args:
            estabs: The schools.

        Returns:
            What was removed. A school that is still configured is loaded completely the next time.

        Raises:
            DestinationError: The rows were removed, but the database could not be compacted.
        """
        return forget.forget(self._target, estabs)

    @property
    def is_unfinished(self) -> bool:
        """Whether rows were removed whose bytes are still there."""
        return forget.is_unfinished(self._target)

    def leavers(self, before: datetime, estabs: Collection[str] | None = None) -> Leavers:
        """Counts what was deleted at the source before an instant, as `prune` would remove it.

        Args:
            before: The instant, with a time zone.
            estabs: The schools; None for all.

        Raises:
            DestinationError: Another pipeline has loaded the dataset.
        """
        return prune.leavers(self._target, before, estabs)

    def prune(self, before: datetime, estabs: Collection[str] | None = None) -> Removed:
        """Removes what was deleted at the source before an instant, with all that refers to it.

        No later load brings it back.

        Args:
            before: The instant, with a time zone.
            estabs: The schools; None for all.

        Returns:
            What was removed.

        Raises:
            DestinationError: Another pipeline has loaded the dataset; or the rows were removed,
                but the database could not be compacted.
        """
        return prune.prune(self._target, before, estabs)

    def trace(
        self, estab: str, user: str, *, to_erase: bool = False, **settings: Any
    ) -> dict[str, int]:
        """Counts what is held on a person.

        Args:
            estab: The school.
            user: The person's sourcedId, as the provider gives it or as the dataset holds it.
            to_erase: Whether to raise where `erase` would.
            **settings: Those of privacy, such as `privacy_key`.

        Returns:
            Rows by table, and values in others' rows that name the person by table and column.
            Empty for a person who was erased.

        Raises:
            ConfigurationError: There is nobody with this id, or a setting is missing or wrong.
        """
        return erase.trace(self._target, estab, user, to_erase=to_erase, **settings)

    def erase(self, estab: str, user: str, **settings: Any) -> Removed:
        """Removes a person for good: rows, versions, mentions in others' rows, and their bytes.

        No load brings them back. Calling it again completes an interrupted erasure.

        Args:
            estab: The school.
            user: The person's sourcedId, as the provider gives it or as the dataset holds it.
            **settings: Those of privacy, such as `privacy_key`, which every later load needs.

        Returns:
            What was removed.

        Raises:
            ConfigurationError: There is nobody with this id, or no key, or another key than the one
                that people were erased under before.
            DestinationError: The rows were removed, but the database could not be compacted.
        """
        return erase.erase(self._target, estab, user, **settings)

    def export(self, estab: str, user: str, **settings: Any) -> dict[str, Any]:
        """Returns all that is held on a person, and nothing on others.

        Args:
            estab: The school.
            user: The person's sourcedId, as the provider gives it or as the dataset holds it.
            **settings: Those of privacy, such as `privacy_key`.

        Returns:
            JSON types: who, from where, when, and rows by table. Numbers that are too large for
            JSON, and what is nested too deep, are text.

        Raises:
            ConfigurationError: There is nobody with this id.
        """
        return erase.export(self._target, estab, user, **settings)
