"""Turns what a user names into a dlt destination, and its errors into ours."""

from __future__ import annotations

import re
import tempfile
from typing import Any
from urllib.parse import quote, unquote

import dlt
from dlt.common.configuration.exceptions import ConfigurationException
from dlt.common.destination import Destination
from dlt.common.destination.exceptions import UnknownDestinationModule
from dlt.common.exceptions import DltException
from dlt.destinations.exceptions import DatabaseUndefinedRelation
from dlt.pipeline.exceptions import PipelineStepFailed

from oneroster_source.destination import backends, staging
from oneroster_source.destination.backends.duckdb_file import require_distinct_names
from oneroster_source.destination.backends.postgres import Postgres
from oneroster_source.destination.locks import DATABASE, duckdb_file
from oneroster_source.destination.shards import Shard
from oneroster_source.errors import (
    ConfigurationError,
    DestinationError,
    OneRosterError,
    chain,
    clean,
)

_FULL = re.compile("No space left on device|Disk quota exceeded|File too large")


_POSTGRES = ("postgres", "postgresql")
_DATABASES = ("snowflake", "mssql", "redshift", "clickhouse", "databricks", "motherduck")
"""dlt's destinations that are named by an address of their own kind."""
_OTHERS = {
    **dict.fromkeys(_DATABASES, ("CREDENTIALS", "")),
    "md": ("CREDENTIALS", "motherduck"),
    **dict.fromkeys(("mysql", "mariadb", "oracle", "sqlite"), ("CREDENTIALS", "sqlalchemy")),
    **dict.fromkeys(("s3", "gs", "gcs", "az", "abfss", "file"), ("BUCKET_URL", "filesystem")),
}
"""What an address begins with; the setting and the destination that dlt expects it in."""


def parse_destination(text: str, dataset: str) -> tuple[Any, str]:
    """Returns the dlt destination that a text names, and a name for people without a password.

    Args:
        text: What the user names.
        dataset: The dataset.

    Raises:
        ConfigurationError: It names none. The text, which may hold a password, is not quoted.
    """
    file = duckdb_file(text)
    if text == "duckdb" and not _duckdb_is_configured():
        file = DATABASE
    if file is not None:
        require_distinct_names(file, dataset)
        return dlt.destinations.duckdb(file), file
    kind, _, rest = text.partition("://")
    if rest and _scheme(kind) in _POSTGRES:
        return Postgres(_address(rest), destination_name="postgres"), "the Postgres database"
    if not re.fullmatch(r"[\w.-]+", text):
        raise _no_name(text)
    return text, text


def _scheme(text: str) -> str:
    """What an address begins with, without SQLAlchemy's driver."""
    return text.partition("+")[0].lower()


def _address(rest: str) -> str:
    """The address of a Postgres database. Its password may hold characters that should be encoded:
    the driver would take what follows an '@' for the name of a server, and print it.
    """
    place, mark, query = rest.partition("?")
    if "@" in query and ":" in place and not {"@", "/"} & set(place):
        place, mark, query = rest, "", ""
    login, at, server = place.rpartition("@")
    user, colon, password = (quote(unquote(part), safe="") for part in login.partition(":"))
    return f"postgresql://{user}{':' if colon else ''}{password}{at}{server}{mark}{query}"


def _no_name(text: str) -> ConfigurationError:
    """The error for a text that names no destination; it may hold a password, and is not quoted."""
    known = _scheme(text.partition(":")[0])
    if known in _OTHERS and ":" in text:
        variable, name = _OTHERS[known]
        name = name or known
        return ConfigurationError(
            f"a destination is not named by an address that begins with {known}:",
            todo=f"put the address into the environment variable DESTINATION__{name.upper()}__"
            f"{variable}, or into .dlt/secrets.toml, and name --destination {name}",
        )
    return ConfigurationError(
        "the destination is neither a DuckDB file, nor the address of a Postgres database, nor a"
        " name",
        todo="name a file that ends in .duckdb, an address that begins with postgresql://, or a"
        " destination that is configured, such as postgres or filesystem",
    )


def prepare(destination: Any, shard: Shard | None = None) -> Any:
    """Returns our own kind of a destination, where we have one, with a staging dataset that nobody
    else uses.

    Args:
        destination: What `parse_destination` returned.
        shard: The shard that is loaded into it, if not the whole dataset.

    Raises:
        DltException: dlt's, if there is no destination of that name.
    """
    found: Any = backends.adapt(Destination.from_reference(destination))
    if staging.SETTING in found.spec.get_resolvable_fields():
        found.config_params[staging.SETTING] = staging.layout(found.destination_name, shard)
    return found


def _duckdb_is_configured() -> bool:
    keys = ("destination.duckdb.credentials", "destination.duckdb.credentials.database")
    return any(place.get(key) is not None for place in (dlt.secrets, dlt.config) for key in keys)


def our_error(error: BaseException, name: str) -> OneRosterError:
    """Turns an error of dlt's, whose text may hold whole pages of records, into one of ours.

    Args:
        error: What dlt, or a package that it calls, has raised.
        name: The destination, for people.
    """
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
        # Python itself writes only what waits to be loaded
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
    safe = next((e for e in causes if backends.is_safe(e)), None)
    said = clean(safe, limit=500) if safe is not None else type(causes[-1]).__name__
    return DestinationError(
        f"{name} could not be used" + (f" (step {step})" if step else "") + f": {said}",
        todo="nothing was lost: fix this and run again",
    )
