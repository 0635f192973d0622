"""One class for each kind of destination, and the choice between them.

No other package, and no other module of this one, asks which kind of destination it has.
"""

from __future__ import annotations

from typing import Any

from dlt.common.destination.client import JobClientBase

from oneroster_source.destination.backends.base import Backend
from oneroster_source.destination.backends.duckdb_file import DuckDBFile
from oneroster_source.destination.backends.filesystem import Filesystem
from oneroster_source.destination.backends.postgres import PostgresDataset

_KINDS: dict[str, type[Backend]] = {
    "duckdb": DuckDBFile,
    "filesystem": Filesystem,
    "postgres": PostgresDataset,
}
__all__ = ["Backend", "adapt", "backend_of", "is_safe"]


def backend_of(client: JobClientBase) -> Backend:
    """The backend of dlt's client of a destination."""
    return _KINDS.get(str(client.config.destination_type), Backend)(client)


def adapt(destination: Any) -> Any:
    """Our own kind of a dlt destination, where we have one, or the destination as it is."""
    for kind in _KINDS.values():
        destination = kind.adapt(destination)
    return destination


def is_safe(error: BaseException) -> bool:
    """Whether the text of an error is about files, servers and packages, never about rows."""
    return Backend.is_safe(error) or any(kind.is_safe(error) for kind in _KINDS.values())
