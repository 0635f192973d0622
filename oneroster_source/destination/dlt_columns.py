"""dlt's own columns, which its setting `normalize.parquet_normalizer` adds to all tables.

dlt makes them NOT NULL: then they cannot be added to existing tables, rows that SQL makes here have
no value for them, and nothing can be loaded once the setting is off again. Here they may be NULL.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dlt
from dlt.common.configuration import resolve_configuration
from dlt.common.destination.client import JobClientBase
from dlt.common.schema.typing import C_DLT_ID, C_DLT_LOAD_ID
from dlt.normalize.configuration import ItemsNormalizerConfiguration

from oneroster_source.destination.queries import DatabaseClient, existing_tables

_SECTIONS = ("normalize", "parquet_normalizer")


def fit(pipeline: dlt.Pipeline, client: JobClientBase) -> bool:
    """Adapts existing tables to the setting, before a load, whether it is on or off now.

    Args:
        pipeline: A pipeline that has read its schema from the destination.
        client: dlt's client of the destination, open.

    Returns:
        Whether tables were changed, so that those of the staging dataset are outdated.

    Raises:
        DatabaseException: dlt's, if this user may not change them.
    """
    if not pipeline.default_schema_name or not isinstance(client, DatabaseClient):
        return False
    setting = resolve_configuration(ItemsNormalizerConfiguration(), sections=_SECTIONS)
    wanted = {C_DLT_ID: setting.add_dlt_id, C_DLT_LOAD_ID: setting.add_dlt_load_id}
    schema = pipeline.default_schema
    names = schema.data_table_names(seen_data_only=True)
    changed = False
    for name in names:
        columns = schema.tables[name]["columns"]
        for column, is_wanted in wanted.items():
            changed |= (column in columns) != is_wanted
            if not is_wanted:
                # a column that is not in the schema needs no value
                columns.pop(column, None)
    if not changed:
        return False
    stored = existing_tables(client, names)
    allow_null(client, stored)
    sql = client.sql_client
    kind = client.capabilities.get_type_mapper().to_destination_type(
        {"data_type": "text"}, {"name": ""}
    )
    for name, columns in stored.items():
        place = sql.make_qualified_table_name(name)
        for column in (c for c, is_wanted in wanted.items() if is_wanted and c not in columns):
            quoted = sql.escape_column_name(column)
            sql.execute_sql(f"ALTER TABLE {place} ADD COLUMN {quoted} {kind}")
    return True


def allow_null(client: DatabaseClient, tables: Mapping[str, Any]) -> None:
    """Lets dlt's own columns be NULL.

    Args:
        client: dlt's client of the destination, open.
        tables: Tables and their columns, as `existing_tables` returns them.

    Raises:
        DatabaseException: dlt's, if this user may not change them.
    """
    sql = client.sql_client
    for name, columns in tables.items():
        for column in (C_DLT_ID, C_DLT_LOAD_ID):
            if column in columns and not columns[column].get("nullable", True):
                place, quoted = sql.make_qualified_table_name(name), sql.escape_column_name(column)
                sql.execute_sql(f"ALTER TABLE {place} ALTER COLUMN {quoted} DROP NOT NULL")
