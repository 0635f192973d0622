"""A DuckDB file: one process has it open at a time, and it takes as much memory as it is let."""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
from dlt.destinations.exceptions import DestinationConnectionError

from oneroster_source.destination.backends import duckdb_compaction
from oneroster_source.destination.backends.base import (
    NOTHING_TO_COMPACT,
    Backend,
    CompactionFailed,
)
from oneroster_source.destination.locks import beside
from oneroster_source.destination.waiting import InUse, retry_while_in_use
from oneroster_source.errors import ConfigurationError, DestinationError, clean

_OWN_CATALOGS = ("temp", "system")
_OWN_SCHEMAS = ("information_schema", "pg_catalog")
_MB_PER_THREAD = 48
"""What DuckDB may take for each of its threads to fill new tables. Measured for 700,000 rows: no
slower than without a limit, with which it takes 200 MB more."""


class DuckDBFile(Backend):
    """A dataset in a DuckDB file."""

    load_workers = 2
    """Each table holds rows in memory, and DuckDB uses all cores for one."""

    @staticmethod
    def is_safe(error: BaseException) -> bool:
        return isinstance(error, (duckdb.IOException, duckdb.ConnectionException))

    @property
    def _database(self) -> str:
        return str(self.client.config.credentials.database)

    @property
    def _file(self) -> Path:
        return Path(os.path.realpath(self._database))

    def lock_file(self, part: str = "") -> Path:
        return beside(self._database)

    @contextmanager
    def opened(self, patience: float) -> Iterator[None]:
        """Opens the file. As long as it is open, no other process gets in between two of dlt's
        connections.
        """
        sql = self.client.sql_client
        require_distinct_names(self._database, sql.dataset_name, sql.staging_dataset_name)
        path = Path(self._database)
        name = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path

        def open_connection() -> None:
            try:
                sql.open_connection()
            except DestinationConnectionError as error:
                if who := holder(str(error)):
                    raise InUse(who) from error
                raise

        try:
            retry_while_in_use(open_connection, patience, f"{name} is held open by")
        except InUse as who:
            raise DestinationError(
                f"{name} is held open by {who}, for longer than the {patience:g} s of the"
                " setting 'lock_timeout'",
                todo="close the file there and run this again: nothing was lost",
            ) from None
        try:
            yield
        finally:
            sql.close_connection()

    @contextmanager
    def bounded_memory(self) -> Iterator[None]:
        sql = self.client.sql_client
        query = "SELECT current_setting('threads'), current_setting('memory_limit')"
        ((threads, before),) = sql.execute_sql(query)
        sql.execute_sql(f"SET memory_limit = '{_MB_PER_THREAD * threads}MB'")
        try:
            yield
        finally:
            sql.execute_sql(f"SET memory_limit = '{before}'")

    def compaction_is_due(self) -> bool:
        return duckdb_compaction.mark(self._file).exists()

    def mark_compaction_due(self) -> None:
        duckdb_compaction.mark(self._file).touch(0o600)

    def _compact(self, name: str, patience: float) -> str:
        if not self.compaction_is_due():
            return NOTHING_TO_COMPACT
        with self._only_connection(patience) as connection:
            duckdb_compaction.compact(connection, self._file)
        return f"The file {name} was compacted: deleted rows are no longer on disk."

    @contextmanager
    def _only_connection(self, patience: float) -> Iterator[duckdb.DuckDBPyConnection]:
        """Opens the one connection to the file: as long as it lasts no other process, and nothing
        else in this one, has the file open.
        """

        def connect() -> duckdb.DuckDBPyConnection:
            try:
                # DuckDB refuses other connections of this process that are set up differently
                return duckdb.connect(
                    self._database, config={"custom_user_agent": "oneroster compaction"}
                )
            except duckdb.ConnectionException:
                raise InUse("something else in this process") from None
            except duckdb.IOException as error:
                if who := holder(str(error)):
                    raise InUse(who) from None
                raise CompactionFailed(clean(error)) from None

        # what nothing refers to any more may still wait to be closed
        gc.collect()
        try:
            connection = retry_while_in_use(connect, patience)
        except InUse as who:
            raise CompactionFailed(
                f"the file is held open by {who}", "close it there and run the same command again"
            ) from None
        try:
            yield connection
        finally:
            connection.close()


def catalog(database: str) -> str:
    """What DuckDB calls a file's database: the file's name up to the first dot."""
    name = next(filter(None, Path(database).name.split(".")), "")
    return f"{name}_db" if name in ("main", "temp", "system") else name


def require_distinct_names(database: str, *datasets: str) -> None:
    """Checks that DuckDB, which ignores case in names, can tell a file from the datasets in it.

    Raises:
        ConfigurationError: It cannot.
    """
    file = catalog(database)
    if file.lower() in _OWN_CATALOGS:
        raise ConfigurationError(
            f"the name of the DuckDB file {database} begins with {file!r}, which is a name that"
            " DuckDB keeps for itself",
            todo="name the file differently",
        )
    for dataset in datasets:
        if dataset.lower() in _OWN_CATALOGS + _OWN_SCHEMAS:
            raise ConfigurationError(
                f"the dataset {dataset!r} has a name that DuckDB keeps for itself",
                todo="name the dataset differently",
            )
        if dataset.lower() == file.lower():
            raise ConfigurationError(
                f"the DuckDB file {database} and the dataset {dataset!r} have the same name, which"
                " DuckDB cannot tell apart: of a file's name it takes what is before the first dot",
                todo="name the file or the dataset differently",
            )


def holder(message: str) -> str:
    """The process that holds a file open, as DuckDB's error message names it; empty if none does.

    The wording is no promise of DuckDB's, so it may say less one day.
    """
    words = re.sub(r'"[^"]*"', "", message)
    if not re.search(r"\block\b|another process", words, re.I):
        return ""
    process = re.search(r"PID (\d+)", words)
    program = re.search(r"held in (.+?) \(", words)
    return (f"process {process[1]}" if process else "another process") + (
        f" ({clean(Path(program[1]).name)})" if program else ""
    )
