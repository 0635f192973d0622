"""A fleet on a Dask cluster: its shards go to workers, their outcomes come back as one report.

A task says which schools to load, and never a secret: workers find those in their own environment
or configuration. What a worker does is `Warehouse.load`, as on one machine; if it dies, the
scheduler gives its shard to another one. dlt and DuckDB are imported only when it loads.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from oneroster_source.errors import (
    ConfigurationError,
    DestinationBusy,
    DestinationError,
    OneRosterError,
)
from oneroster_source.fleet import Shard
from oneroster_source.report import Report

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oneroster_source.config import Settings
    from oneroster_source.warehouse import Warehouse

SCHOOLS_IN_SHARD = 250
"""Most schools in one shard, if nobody says: what is done again when a worker dies."""
PATIENCE = 300.0
"""Seconds for which a shard waits for one that died while it was loading the same schools."""
_PAUSE = 2.0
_TIMEOUT = 15.0

# dlt knows one pipeline at a time in a process; a worker with more threads waits here
_one_at_a_time = threading.Lock()


def load(
    warehouse: Warehouse,
    report: Report,
    address: str,
    *,
    shards: int | None = None,
    only: Sequence[str] | None = None,
    **options: Any,
) -> None:
    """Loads as `Warehouse.load` does, on the workers of a cluster.

    Args:
        warehouse: The destination, under a name that the workers' configuration knows too.
        report: Filled with the outcomes of all shards, as they come.
        address: That of the scheduler, such as tcp://scheduler:8786.
        shards: How many, at most; if not given, as many as workers that may ask at once, and more
            where one would have more than `SCHOOLS_IN_SHARD` schools.
        only: The estabs to read, of the schools that are configured.
        **options: `full`, `allow_deletes`, `endpoints`: as `oneroster` takes them.

    Raises:
        ConfigurationError: There is no cluster, or the destination is none that it can share.
        DestinationBusy: Another run is loading into this destination.
        OneRosterError: As `Warehouse.load` does.
    """
    from distributed import as_completed

    from oneroster_source.config import resolve

    _refuse_secret(options)
    _refuse_address(warehouse.place)
    settings = resolve(endpoints=options.get("endpoints")).only(only)
    with warehouse.divided(), _connected(address) as client:
        lanes = min(len(client.scheduler_info(n_workers=-1)["workers"]), settings.concurrency)
        if not lanes:
            raise ConfigurationError(
                f"the cluster at {address} has no workers", todo="start some: dask worker ADDRESS"
            )
        # the limit is the servers', however many workers ask
        options["concurrency"] = settings.concurrency // lanes
        count = shards or max(lanes, -(-len(settings.schools) // SCHOOLS_IN_SHARD))
        plan = warehouse.plan(count, only=only, **options)
        waiting = deque(plan)
        running: dict[Any, Shard] = {}

        def submit() -> Any:
            shard = waiting.popleft()
            key = f"oneroster-{shard.run_id}-{shard.name}"
            place = (warehouse.place, warehouse.dataset)
            future = client.submit(load_shard, shard, *place, options, key=key, pure=False)
            running[future] = shard
            return future

        try:
            done = as_completed([submit() for _ in plan[:lanes]], loop=client.loop)
            for future in done:
                shard = running.pop(future)
                _note(report, future, shard, settings)
                report.tell(shard.estabs)
                if waiting:
                    done.add(submit())
        finally:
            client.cancel(list(running))
        warehouse.finish(report, plan)


def load_shard(shard: Shard, place: str, dataset: str, options: dict[str, Any]) -> Report:
    """What a worker does: loads a shard, waiting for one that died while it was at it.

    Raises nothing, so that the words of no other library reach the logs of the cluster.
    """
    # dlt reads this one as it is imported
    os.environ.setdefault("RUNTIME__DLTHUB_TELEMETRY", "false")
    from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

    from oneroster_source.warehouse import Warehouse

    def once() -> Report:
        report = Report()
        try:
            Warehouse(place, dataset).load(report, shard=shard, **options)
        except DestinationBusy:
            raise
        except OneRosterError as error:
            report.error = str(error)
        except Exception as error:
            report.error = f"stopped by a mistake of this program: {type(error).__name__}"
        # ids of children are not for the cluster
        report.keys.clear()
        return report

    with _one_at_a_time:
        try:
            return Retrying(
                retry=retry_if_exception_type(DestinationBusy),
                stop=stop_after_delay(PATIENCE),
                wait=wait_fixed(_PAUSE),
                reraise=True,
            )(once)
        except DestinationBusy as error:
            return Report(error=str(error))


def _note(report: Report, future: Any, shard: Shard, settings: Settings) -> None:
    """Adds what a shard did to the report; one that gave nothing has failed for all its schools."""
    from distributed import KilledWorker

    try:
        done: Report = future.result()
        report.outcomes += done.outcomes
        report.problems += done.problems
        reason = done.error
    except KilledWorker:
        done, reason = Report(), "every worker that was given it died"
    except (CancelledError, Exception) as error:
        done, reason = Report(), f"the cluster gave it up: {type(error).__name__}"
    if not reason:
        return
    # of a load that failed, nothing was committed, whatever had been read
    read = {(outcome.estab, outcome.endpoint): outcome for outcome in done.outcomes}
    for estab in shard.estabs:
        for endpoint in settings.endpoints:
            outcome = read.get((estab, endpoint)) or report.outcome(estab, endpoint)
            if outcome.state != "failed":
                outcome.end(DestinationError(reason, where=f"{shard.name}, school {estab}"))
                outcome.started = None


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    try:
        from distributed import Client
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"a cluster needs {error.name}, which is not installed",
            todo="install the extra, here and on all workers: pip install 'oneroster-source[dask]'",
        ) from None
    try:
        client = Client(address, timeout=_TIMEOUT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"no Dask scheduler answers at {address} ({type(error).__name__})",
            todo="give --cluster the address that `dask scheduler` shows, such as tcp://host:8786",
        ) from None
    with client:
        yield client


def _refuse_secret(options: dict[str, Any]) -> None:
    strange = sorted(options.keys() - {"full", "allow_deletes", "endpoints"})
    if strange:
        raise ConfigurationError(
            f"{strange[0]!r} cannot be handed to a cluster",
            todo="set it in the configuration of the workers, and of this machine",
        )


def _refuse_address(place: str) -> None:
    if "://" in place:
        raise ConfigurationError(
            "an address of a database may hold a password, which no task of a cluster may",
            todo="let the environment of the workers, and of this machine, hold it"
            " (DESTINATION__POSTGRES__CREDENTIALS), and name --destination postgres",
        )
