"""The staging dataset, in which rows wait to be merged into the one beside it.

dlt names it by a layout. dlt's default makes `oneroster_staging`, a name that people choose: what
they have loaded there would be emptied. Names come from dlt's client, which shortens long ones, and
a dataset with such a name is examined before it is used or dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dlt
from dlt.common.destination.client import JobClientBase

from oneroster_source.destination.queries import DatabaseClient, existing_tables
from oneroster_source.destination.shards import NAMES, Shard
from oneroster_source.errors import ConfigurationError
from oneroster_source.model import V1P1

_LAYOUT = "%s_oneroster_source_staging"
_OLD_LAYOUT = "%s_staging"
"""The layout of earlier versions, and dlt's default."""
_OF_SHARD = "{}_{}"
SETTING = "staging_dataset_name_layout"


def layout(destination: str, shard: Shard | None = None) -> str:
    """The layout by which dlt names the staging dataset, or that of a shard.

    Args:
        destination: The destination's name in dlt's configuration, where users may set a layout.
        shard: The shard, if it is not for the whole dataset.
    """
    places = (f"destination.{destination}.{SETTING}", f"destination.{SETTING}")
    found = (dlt.config.get(place, str) for place in places)
    configured = next(filter(None, found), _LAYOUT)
    return _OF_SHARD.format(configured, shard.name) if shard else configured


def prepare(client: JobClientBase) -> None:
    """Checks, before a load, that nobody else uses the staging dataset, and drops that of an
    earlier version.

    Args:
        client: dlt's client of the destination, open.

    Raises:
        ConfigurationError: Somebody has loaded data into it.
    """
    if not isinstance(client, DatabaseClient):
        return
    name = client.sql_client.staging_dataset_name
    if _is_somebodys(client, name):
        raise ConfigurationError(
            f"rows are to be staged in the dataset {name!r}, and something was loaded into it",
            todo=f"name another dataset, or set {SETTING} of the destination to another layout",
        )
    old = _name(client, _OLD_LAYOUT)
    if old != name and _was_made_by_us(client, old):
        _drop(client, old)


def existing(client: DatabaseClient) -> list[str]:
    """The staging datasets that exist, of shards and of earlier versions too.

    Args:
        client: dlt's client of the destination, open.
    """
    schemas = "SELECT schema_name FROM information_schema.schemata"
    found = {str(name) for (name,) in client.sql_client.execute_sql(schemas) or ()}
    ours = found.intersection(_names(client, client.config.staging_dataset_name_layout))
    old = found.intersection(_names(client, _OLD_LAYOUT)) - ours
    return sorted(
        {name for name in ours if not _is_somebodys(client, name)}
        | {name for name in old if _was_made_by_us(client, name)}
    )


def drop(client: JobClientBase) -> None:
    """Drops all staging datasets: runs that died may have left rows there.

    Args:
        client: dlt's client of the destination, open.
    """
    if isinstance(client, DatabaseClient):
        for name in existing(client):
            _drop(client, name)


def _drop(client: DatabaseClient, name: str) -> None:
    with client.sql_client.with_alternative_dataset_name(name):
        client.sql_client.drop_dataset()


def _name(client: DatabaseClient, layout: str) -> str:
    """The name that dlt makes of a layout, as the database writes it."""
    config: Any = client.config.copy()
    config.staging_dataset_name_layout = layout
    name = config.normalize_staging_dataset_name(client.schema)
    return client.sql_client.capabilities.casefold_identifier(name)


def _names(client: DatabaseClient, layout: str) -> Iterator[str]:
    yield _name(client, layout)
    for shard in NAMES:
        yield _name(client, _OF_SHARD.format(layout, shard))


def _is_somebodys(client: DatabaseClient, name: str) -> bool:
    """Whether somebody has loaded data into a dataset: dlt stages no state."""
    own = (client.schema.loads_table_name, client.schema.state_table_name)
    with client.sql_client.with_alternative_dataset_name(name):
        return bool(existing_tables(client, own))


def _was_made_by_us(client: DatabaseClient, name: str) -> bool:
    """Whether a dataset exists in which rows of our tables, and of no others, were staged."""
    sql, schema = client.sql_client, client.schema
    query = "SELECT table_name FROM information_schema.tables WHERE table_schema = %s"
    found = {str(table).lower() for (table,) in sql.execute_sql(query, name) or ()}
    known = {table.name for table in V1P1.tables}.union(schema.tables)
    if schema.version_table_name not in found or not found <= known or _is_somebodys(client, name):
        return False
    with sql.with_alternative_dataset_name(name):
        table = sql.make_qualified_table_name(schema.version_table_name)
    column = sql.escape_column_name("schema_name")
    versions = sql.execute_sql(f"SELECT DISTINCT {column} FROM {table}")
    return [str(version) for (version,) in versions or ()] == [schema.name]
