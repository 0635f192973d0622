"""dlt's client of Postgres, with statements that end with the run that sent them.

It is not in `postgres`, since it imports the driver, which not every installation has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dlt.common.destination import DestinationCapabilitiesContext
from dlt.common.destination.client import FollowupJobRequest
from dlt.common.destination.typing import PreparedTableSchema
from dlt.common.schema import Schema
from dlt.destinations.impl.postgres.configuration import PostgresClientConfiguration
from dlt.destinations.impl.postgres.postgres import PostgresClient
from dlt.destinations.impl.postgres.sql_client import Psycopg2SqlClient
from dlt.destinations.sql_client import SqlClientBase
from dlt.destinations.sql_jobs import SqlMergeFollowupJob

from oneroster_source.destination.stop import SESSIONS

_SETTINGS = {"tcp_keepalives_idle": "60", "tcp_keepalives_interval": "10"}
_SETTINGS_OF_14 = {"client_connection_check_interval": "2s"}
"""From that version on a server can check, while it works, that the client is still there."""
_NAME = "application_name"


class _SqlClient(Psycopg2SqlClient):
    """Names its sessions, and makes the server end their statements if this process dies."""

    def open_connection(self) -> Any:
        connection = super().open_connection()
        SESSIONS.add(connection)
        return connection

    def close_connection(self) -> None:
        SESSIONS.discard(self._conn)
        super().close_connection()

    def _reset_connection(self) -> None:
        # resets all settings
        super()._reset_connection()
        settings = dict(_SETTINGS)
        if self._conn.server_version >= 140_000:
            settings |= _SETTINGS_OF_14
        # a name that the URL gives stays
        if not self._conn.get_parameter_status(_NAME):
            settings[_NAME] = "oneroster_source"
        calls = ", ".join(["set_config(%s, %s, false)"] * len(settings))
        with self._conn.cursor() as cursor:
            cursor.execute(f"SELECT {calls}", [word for pair in settings.items() for word in pair])


class _Merge(SqlMergeFollowupJob):
    @classmethod
    def _gen_table_setup_clauses(
        cls, table_chain: Sequence[PreparedTableSchema], sql_client: SqlClientBase[Any]
    ) -> list[str]:
        """Makes Postgres count the staged rows. By statistics of an earlier load, which may have
        been small, it would scan them all for each row of the table.
        """
        found = []
        for table in table_chain:
            _, staged = sql_client.get_qualified_table_names(str(table["name"]))
            keys = [name for name, column in table["columns"].items() if column.get("primary_key")]
            names = f" ({', '.join(map(sql_client.escape_column_name, keys))})" if keys else ""
            found.append(f"ANALYZE {staged}{names}")
        return found


class Client(PostgresClient):
    """dlt's, with these sessions and merges."""

    def __init__(
        self,
        schema: Schema,
        config: PostgresClientConfiguration,
        capabilities: DestinationCapabilitiesContext,
    ) -> None:
        super().__init__(schema, config, capabilities)
        names = self.sql_client.dataset_name, self.sql_client.staging_dataset_name
        self.sql_client = _SqlClient(*names, config.credentials, capabilities)

    def _create_merge_followup_jobs(
        self, table_chain: Sequence[PreparedTableSchema]
    ) -> list[FollowupJobRequest]:
        return [_Merge.from_table_chain(table_chain, self.sql_client)]
