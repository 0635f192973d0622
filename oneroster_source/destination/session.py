"""A dataset in a destination, opened with dlt for a load, for a change, or to be read.

Each session works in a directory of its own, which is removed afterwards: the destination is the
only state, so that a run that was killed, or a database restored from a backup, leaves nothing
behind that could mislead the next one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dlt
import duckdb
from dlt.common.configuration.container import Container
from dlt.common.configuration.exceptions import ConfigurationException
from dlt.common.configuration.providers.doc import CustomLoaderDocProvider
from dlt.common.configuration.specs import PluggableRunContext
from dlt.common.destination.client import JobClientBase
from dlt.common.exceptions import DltException

from oneroster_source.config.options import sections_only
from oneroster_source.config.settings import lock_timeout
from oneroster_source.destination import workdir
from oneroster_source.destination.backends import backend_of
from oneroster_source.destination.locks import duckdb_file, working_folder
from oneroster_source.destination.memory import use_thrifty_arrow
from oneroster_source.destination.queries import DatabaseClient, Removed, existing_tables
from oneroster_source.destination.resolve import our_error, parse_destination, prepare
from oneroster_source.destination.shards import Shard
from oneroster_source.destination.state import PIPELINE, pipeline_name
from oneroster_source.destination.stop import stoppable
from oneroster_source.errors import ConfigurationError, DestinationError, OneRosterError, chain
from oneroster_source.model import SYNC_RUN_DETAILS

_DEFAULTS = {
    # nothing of a load stays outside the destination's own tables
    "load": {"delete_completed_jobs": True, "truncate_staging_dataset": True},
    # nobody sees it, and it takes a tenth of a run in which nothing changed
    PIPELINE: {"enable_runtime_trace": False},
}


def use_defaults() -> None:
    """Sets dlt's options as this project needs them; what the user has configured comes first."""
    providers = Container()[PluggableRunContext].providers
    if "oneroster defaults" not in providers:
        # dlt checks every value of a provider without locations for being a secret
        dlt.config.register_provider(
            CustomLoaderDocProvider("oneroster defaults", lambda: _DEFAULTS, True, locations=[])
        )
        use_thrifty_arrow()
        # dlt logs what a destination refuses, and so children's records
        logging.getLogger("dlt").addFilter(lambda record: False)


class Target:
    """A dataset in a destination, as users name it.

    Args:
        place: A path or URL of a DuckDB file, a Postgres URL, or the name of a dlt destination.
        dataset: The dataset, or schema, that holds the tables.

    Raises:
        ConfigurationError: There can be no such destination or dataset.
    """

    def __init__(self, place: str, dataset: str) -> None:
        use_defaults()
        for what, text in (("destination", place), ("dataset", dataset)):
            if not text.strip():
                raise ConfigurationError(f"the {what} is empty", todo=f"name a {what}")
        self.place, self.dataset = place, dataset
        _, self.name = parse_destination(place, dataset)
        """Names the destination for people: there is no password in it."""

    @property
    def is_missing_file(self) -> bool:
        """Whether this is a DuckDB file that does not exist."""
        file = duckdb_file(self.name)
        return file is not None and not Path(file).exists()

    @contextmanager
    def pipeline(
        self, shard: Shard | None = None, *, may_make_file: bool = True
    ) -> Iterator[dlt.Pipeline]:
        """A pipeline with a new working folder, which knows only what the destination tells it.

        Args:
            shard: The shard that it loads; None for all schools.
            may_make_file: If not, a DuckDB file that does not exist is replaced by one in the
                working folder.

        Raises:
            OneRosterError: In place of dlt's errors, whose text may hold records.
        """
        problem: OneRosterError
        try:
            destination, _ = parse_destination(self.place, self.dataset)
            with workdir.umask(), sections_only(), stoppable(), working_folder() as folder:
                if self.is_missing_file and not may_make_file:
                    destination = dlt.destinations.duckdb(str(folder / "no_file_yet.duckdb"))
                yield dlt.pipeline(
                    pipeline_name(shard),
                    destination=prepare(destination, shard),
                    dataset_name=self.dataset,
                    pipelines_dir=str(folder),
                )
            return
        except OneRosterError as error:
            problem = error
        except (DltException, ConfigurationException, duckdb.Error, OSError) as error:
            if any(isinstance(cause, KeyboardInterrupt) for cause in chain(error)):
                raise KeyboardInterrupt from None
            problem = our_error(error, self.name)
        raise problem

    @contextmanager
    def loaded(
        self,
        *,
        to_write: bool = False,
        own: bool | None = None,
        removed: Removed | None = None,
        patience: float | None = None,
    ) -> Iterator[tuple[dlt.Pipeline, JobClientBase]]:
        """A pipeline of a dataset that was loaded before, and dlt's client of it, open.

        Args:
            to_write: Whether to keep other runs out.
            own: Whether it must have been loaded by this project's own pipeline, which would not
                know of changes otherwise; if not given, it must to be written to.
            removed: Rows that are removed meanwhile, after the backend's `mark_compaction_due`: the
                database is compacted at the end too, before another run may load.
            patience: The setting `lock_timeout`, if it is resolved.

        Raises:
            DestinationBusy: Another run is loading into it.
            DestinationError: It cannot be opened, or was never loaded.
        """
        never_loaded = DestinationError(
            f"{self.name} holds no dataset {self.dataset!r} that was loaded from OneRoster",
            todo="run `oneroster sync` first, or name another --destination or --dataset",
        )
        # to open a file is to make it
        if self.is_missing_file:
            raise never_loaded
        patience = lock_timeout() if patience is None else patience
        with ExitStack() as stack:
            pipeline = stack.enter_context(self.pipeline())
            if to_write:
                lock = backend_of(pipeline.destination_client())
                stack.enter_context(lock.exclusive(self.name, patience))
            client = pipeline.destination_client()
            with backend_of(client).opened(patience):
                pipeline.sync_destination()
                if pipeline.first_run or not pipeline.default_schema_name:
                    if not existing_tables(client, [SYNC_RUN_DETAILS.name]):
                        raise never_loaded
                    if to_write if own is None else own:
                        raise DestinationError(
                            f"the dataset {self.dataset!r} of {self.name} was loaded by another"
                            " pipeline than that of `oneroster sync`, which would not know of this",
                            todo="load it with `oneroster sync`",
                        )
                yield pipeline, client
            if removed is not None:
                removed.bytes = backend_of(client).compact(self.name, patience)


def require_database(client: JobClientBase, name: str) -> DatabaseClient:
    """Dlt's client of a destination that takes SQL.

    Args:
        client: dlt's client.
        name: The destination, for people.

    Raises:
        DestinationError: It takes none.
    """
    if isinstance(client, DatabaseClient):
        return client
    raise DestinationError(
        f"{name} is no database, and takes no queries",
        todo="load into one, such as a DuckDB file",
    )
