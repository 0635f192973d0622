"""Delta tables in a folder or a bucket: dlt's filesystem destination, with the merge that we need.

dlt merges into Delta row by row, by primary key: a list that shrinks would keep its last items. It
refuses the strategy `delete-insert` there. Here each load of a table is one commit that deletes the
rows in the scope of our hints (see `hints`) and inserts the staged rows. DuckDB finds both, by the
SQL of the hints. A run that is killed leaves a table as it was, or complete.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import duckdb
import pyarrow as pa
from dlt.common.destination import DestinationCapabilitiesContext
from dlt.common.destination.exceptions import DestinationUndefinedEntity
from dlt.common.destination.typing import PreparedTableSchema
from dlt.common.exceptions import MissingDependencyException
from dlt.common.schema import Schema
from dlt.common.storages.configuration import FileSystemCredentials
from dlt.common.storages.load_package import ParsedLoadJobFileName
from dlt.destinations import filesystem
from dlt.destinations.impl.filesystem.filesystem import (
    DeltaLoadFilesystemJob,
    FilesystemClient,
    ReferenceFollowupJob,
)
from dlt.destinations.impl.filesystem.sql_client import FilesystemSqlClient
from dlt.destinations.sql_client import SqlClientBase

from oneroster_source.errors import ConfigurationError, DestinationError
from oneroster_source.model.quoting import literal, quoted

_DELETES = "_deletes"


class Delta(filesystem):
    """A dlt destination: `dlt.destinations.filesystem`, all of whose tables are Delta tables.

    Args:
        bucket_url: A folder or a bucket, such as `s3://rosters`; if not given, dlt's setting.
        destination_name: The section of dlt's configuration, such as `filesystem`.
        **options: Any other of `dlt.destinations.filesystem`.
    """

    # dlt compares given options with its defaults
    __orig_base__ = filesystem

    def __init__(
        self,
        bucket_url: str | None = None,
        destination_name: str = "filesystem",
        **options: Any,
    ) -> None:
        super().__init__(bucket_url, destination_name=destination_name, **options)  # type: ignore[arg-type]

    @property
    def client_class(self) -> type[FilesystemClient]:
        return _Client

    def _raw_capabilities(self) -> DestinationCapabilitiesContext:
        capabilities = super()._raw_capabilities()
        capabilities.preferred_table_format = "delta"
        capabilities.supported_table_formats = ["delta"]
        capabilities.supported_merge_strategies = ["delete-insert"]
        return capabilities


class _Client(FilesystemClient):
    def __init__(self, *args: Any, **options: Any) -> None:
        try:
            import dlt.common.libs.deltalake  # noqa: F401
        except MissingDependencyException:
            raise ConfigurationError(
                "a filesystem destination gets Delta tables, and the package deltalake is missing",
                todo="install oneroster-source[delta], or load into a DuckDB file instead",
            ) from None
        super().__init__(*args, **options)

    @property
    def sql_client_class(self) -> type[SqlClientBase[Any]]:
        return _SqlClient

    @property
    def sql_client(self) -> SqlClientBase[Any]:
        if self._sql_client is None:
            self._sql_client = _SqlClient(self, self.dataset_name)
        return self._sql_client

    @sql_client.setter
    def sql_client(self, client: SqlClientBase[Any]) -> None:
        self._sql_client = client

    def verify_schema(
        self,
        only_tables: Iterable[str] | None = None,
        new_jobs: Iterable[ParsedLoadJobFileName] | None = None,
    ) -> list[PreparedTableSchema]:
        jobs = list(new_jobs or ())
        self._tables_with_jobs = {job.table_name for job in jobs}
        # skips FilesystemClient, which rejects a scope with a subquery
        return super(FilesystemClient, self).verify_schema(only_tables, jobs)  # type: ignore[arg-type]

    @staticmethod
    def get_reference_followup_job_class(
        table: PreparedTableSchema,
    ) -> type[ReferenceFollowupJob] | None:
        return _Job if table.get("table_format") == "delta" else None


class _Job(DeltaLoadFilesystemJob):
    """Loads one table, which may be in many files."""

    def run(self) -> None:
        if self._load_table["write_disposition"] != "merge":
            super().run()
            return
        from dlt.common.libs.deltalake import evolve_delta_table_schema

        staged = self.arrow_dataset
        try:
            table = self._job_client.load_open_table("delta", self.load_table_name)
        except DestinationUndefinedEntity:
            with _answer(self._rows(), staging=staged) as rows:
                self._make(_as(staged.schema, rows))
            return
        evolve_delta_table_schema(table, staged.schema)
        # replaced rows too are deleted and inserted
        names = self._key() or staged.schema.names
        same = "=" if self._key() else "IS NOT DISTINCT FROM"
        keys = " AND ".join(f"(target.{n} {same} source.{n})" for n in map(quoted, names))
        columns = ", ".join(map(quoted, names))
        query = (
            f"SELECT DISTINCT {columns}, TRUE AS {_DELETES} FROM target WHERE {self._scope()}"
            f" UNION ALL BY NAME SELECT *, FALSE AS {_DELETES} FROM ({self._rows()})"
        )
        # only the columns that hints use; read completely, since Arrow cannot filter all its files
        target = table.to_pyarrow_dataset().scanner(columns=names).to_reader()
        if "{table}" in str(self._load_table.get("x-merge-destination-scope")):
            # it can be read only once, and the scope reads it too
            query = f"WITH target AS MATERIALIZED (FROM target_once) {query}"
            tables = {"target_once": target}
        else:
            tables = {"target": target}
        with _answer(query, staging=staged, **tables) as rows:
            table.merge(
                source=rows,
                predicate=f"source.{_DELETES} AND {keys}",
                source_alias="source",
                target_alias="target",
                streamed_exec=self._job_client.config.deltalake_streamed_exec,
            ).when_matched_delete().when_not_matched_insert_all(
                predicate=f"NOT source.{_DELETES}", except_cols=[_DELETES]
            ).execute()

    def _make(self, rows: pa.RecordBatchReader) -> None:
        from dlt.common.libs.deltalake import deltalake_storage_options, write_delta_table

        config = self._job_client.config
        write_delta_table(
            table_or_uri=self._job_client.get_open_table_location("delta", self.load_table_name),
            data=rows,
            write_disposition="append",
            storage_options=deltalake_storage_options(
                config.credentials, config.deltalake_storage_options
            ),
            configuration=config.deltalake_configuration,
        )

    def _key(self) -> list[str]:
        return [str(n) for n, c in self._load_table["columns"].items() if c.get("primary_key")]

    def _rows(self) -> str:
        """The staged rows, one for each key, as dlt does it in a database."""
        chosen = self._hint("source-filter") or "TRUE"
        columns = ", ".join(map(quoted, self._key()))
        once = f" QUALIFY row_number() OVER (PARTITION BY {columns}) = 1" if columns else ""
        return f"SELECT * FROM staging WHERE {chosen}{once}"

    def _scope(self) -> str:
        """The condition on the rows to delete."""
        scope = self._hint("destination-scope")
        if scope is None:
            keys = " AND ".join(f"s.{n} = target.{n}" for n in map(quoted, self._key()))
            scope = f"EXISTS (SELECT 1 FROM staging s WHERE {keys})"
        return scope

    def _hint(self, name: str) -> str | None:
        said: Any = self._load_table.get(f"x-merge-{name}")
        return None if said is None else said.format(staging_table="staging", table="target")


class _SqlClient(FilesystemSqlClient):
    """Runs queries in DuckDB on the files that deltalake finds and fsspec reads: DuckDB's own
    readers of Delta and of buckets are extensions, which it would download.
    """

    def create_secret(
        self,
        scope: str,
        credentials: FileSystemCredentials,
        secret_name: str | None = None,
        persist_secrets: bool = False,
    ) -> bool:
        config = self.remote_client.config
        if not config.is_local_filesystem:
            self._register_filesystem(self.remote_client.fs_client, config.protocol)
        return True

    def should_replace_view(self, view_name: str, table_schema: PreparedTableSchema) -> bool:
        return True

    def create_view_select(
        self, table_schema: PreparedTableSchema, schema: Schema | None = None
    ) -> tuple[str, str] | None:
        name = str(table_schema["name"])
        if not self.remote_client.is_open_table("delta", name):
            return super().create_view_select(table_schema, schema)  # type: ignore[arg-type]
        table = self.remote_client.load_open_table("delta", name)
        if table.metadata().partition_columns or table.protocol().min_reader_version > 1:
            raise DestinationError(
                f"the Delta table {name} has partitions, or features beyond a reader of version 1,"
                " which somebody gave it: it cannot be queried",
                todo="drop it and run `oneroster sync --full`",
            )
        # a table without files has columns too, and old files lack the columns that came later
        self._conn.register(f"{name}__none", pa.schema(table.schema()).empty_table())
        select = f'SELECT * FROM "{name}__none"'
        # only their names: deltalake writes the folder with %20
        if names := [uri.rpartition("/")[2] for uri in table.file_uris()]:
            folder = self.remote_client.get_table_dir(name)
            if not self.remote_client.config.is_local_filesystem:
                folder = f"{self.remote_client.config.protocol}://{folder}"
            files = ", ".join(literal(f"{folder}{file}") for file in names)
            select += f" UNION ALL BY NAME FROM read_parquet([{files}], union_by_name=true)"
        return table.table_uri, select


@contextmanager
def _answer(query: str, **tables: Any) -> Iterator[pa.RecordBatchReader]:
    """Runs a query on Arrow tables in DuckDB, which spills to a private folder."""
    with (
        tempfile.TemporaryDirectory() as folder,
        duckdb.connect(config={"temp_directory": folder}) as connection,
    ):
        connection.execute("SET TimeZone = 'UTC'")
        for name, rows in tables.items():
            connection.register(name, rows)
        yield connection.execute(query).to_arrow_reader()


def _as(schema: pa.Schema, rows: pa.RecordBatchReader) -> pa.RecordBatchReader:
    """The same rows with another schema, whose columns may be declared as not null."""
    batches = (pa.RecordBatch.from_arrays(batch.columns, schema=schema) for batch in rows)
    return pa.RecordBatchReader.from_batches(schema, batches)
