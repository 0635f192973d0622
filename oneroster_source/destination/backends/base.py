"""A destination as the rest of the package sees it: the part that differs from kind to kind."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

from dlt.common.destination.client import JobClientBase
from dlt.common.exceptions import MissingDependencyException
from dlt.destinations.exceptions import DestinationConnectionError
from dlt.destinations.sql_client import WithSqlClient

from oneroster_source.destination.locks import exclusive, hidden
from oneroster_source.destination.queries import DatabaseClient, SqlClient
from oneroster_source.errors import DestinationError

NOTHING_TO_COMPACT = "There is nothing to compact."


class QueriesNotSupported(Exception):
    """The destination answers no SQL."""


class CompactionFailed(Exception):
    """Deleted rows are still on disk; the message says why.

    Args:
        why: What happened.
        todo: What to do.
    """

    def __init__(self, why: str, todo: str = "fix this and run the same command again") -> None:
        self.todo = todo
        super().__init__(why)


class Backend:
    """Any dlt destination; the subclasses are the kinds that need something of their own.

    Args:
        client: dlt's client of the destination. `exclusive`, `dividing`, `opened`, `queries` and
            `compact` open it themselves; for the other methods it must be open.
    """

    load_workers: ClassVar[int] = 20
    """Tables to load at the same time; this is dlt's default."""
    many_writers: ClassVar[bool] = False
    """Whether shards may be loaded side by side: whether locks in the destination itself keep them
    apart, and apart from what is left of those that died."""
    json_as_text: ClassVar[bool] = False
    """Whether queries must cast JSON to text, since the driver would parse it: Python may have no
    room for what it holds."""

    def __init__(self, client: JobClientBase) -> None:
        self.client: Any = client

    @staticmethod
    def adapt(destination: Any) -> Any:
        """Our own kind of a dlt destination, where we have one, or the destination as it is."""
        return destination

    @staticmethod
    def is_safe(error: BaseException) -> bool:
        """Whether the text of an error is about files, servers and packages, never about rows."""
        return isinstance(error, (OSError, MissingDependencyException))

    @property
    def is_database(self) -> bool:
        """Whether it is a database, in which views, versions and deletions can be made by SQL."""
        return isinstance(self.client, DatabaseClient)

    def lock_file(self, part: str = "") -> Path:
        """The file by which runs on this machine lock the dataset, or a part of it."""
        config = self.client.config
        return hidden(str(config), getattr(config, "dataset_name", ""), part)

    @contextmanager
    def exclusive(
        self, name: str, patience: float, part: str = ""
    ) -> Iterator[Callable[[], object]]:
        """Locks the dataset against every other run. Nothing else may use the client meanwhile.

        Args:
            name: The destination, for people.
            patience: Seconds to wait for what a server still does for a run that was killed.
            part: The shard to lock: other shards may be loaded meanwhile, the dataset may not.

        Yields:
            A function to call before writing, which raises if the server has lost the lock.

        Raises:
            DestinationBusy: Another run holds the lock.
            DestinationError: The lock cannot be made.
        """
        with exclusive(self.lock_file(), name):
            yield bool

    def dividing(self, name: str) -> AbstractContextManager[None]:
        """Locks out runs that would divide the same dataset too; its shards may be loaded.

        Raises:
            DestinationBusy: Another run has divided it, and waits for its shards.
        """
        raise NotImplementedError

    @contextmanager
    def opened(self, patience: float) -> Iterator[None]:
        """Opens the client.

        Args:
            patience: Seconds to wait for another process that keeps everyone out.

        Raises:
            ConfigurationError: The dataset has a name that the database cannot use.
            DestinationError: The other process took longer.
        """
        with connected(self.client.sql_client) if self.is_database else self.client:
            yield

    @contextmanager
    def queries(self, patience: float) -> Iterator[Any]:
        """Opens the client for queries; returns it.

        Raises:
            QueriesNotSupported: It answers no SQL.
            DestinationError: As `opened`.
        """
        if not isinstance(self.client, WithSqlClient):
            raise QueriesNotSupported
        # the client of files does not open its SQL client itself
        with (
            self.opened(patience),
            nullcontext() if self.is_database else self.client.sql_client,
        ):
            yield self.client

    def bounded_memory(self) -> AbstractContextManager[None]:
        """Limits the memory that filling new tables takes. Merges need more, as tables grow."""
        return nullcontext()

    def tune(self, read: Collection[str], changed: Collection[str]) -> None:
        """Makes queries fast on what a load has changed.

        Args:
            read: The tables that views and checks read.
            changed: The tables into which rows were loaded.

        Raises:
            DatabaseException: dlt's, if the database refuses it.
        """

    def compaction_is_due(self) -> bool:
        """Whether rows were removed, or were about to be, without a compaction since."""
        return False

    def mark_compaction_due(self) -> None:
        """Notes, just before rows are removed, that they must be removed from the disk too.

        Raises:
            OSError: There is no room even for that.
            DatabaseException: dlt's, if this user may not make a table.
        """

    def compact(self, name: str, patience: float) -> str:
        """Removes deleted rows from the disk, if that is due.

        Nothing else in this process may have the destination open, and no other run may load into
        it.

        Args:
            name: The destination, for people.
            patience: Seconds to wait for others that use the destination.

        Returns:
            What was done, for people.

        Raises:
            DestinationError: The rows are deleted, but still on disk.
        """
        try:
            return self._compact(name, patience)
        except CompactionFailed as problem:
            raise DestinationError(
                f"{name}: the rows are deleted, but their bytes are still on disk: {problem}",
                todo=f"{problem.todo}; no other row was touched",
            ) from None

    def _compact(self, name: str, patience: float) -> str:
        return f"Whether and when their bytes are gone from the disk too is up to {name}."


@contextmanager
def connected(client: SqlClient) -> Iterator[None]:
    """Opens a connection, and raises dlt's error if that fails: some of dlt's clients let the
    driver's own error through.
    """
    try:
        client.open_connection()
    except Exception as error:
        kind = type(client).__name__
        raise DestinationConnectionError(kind, client.dataset_name, str(error), error) from error
    try:
        yield
    finally:
        client.close_connection()
