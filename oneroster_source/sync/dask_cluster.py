"""A fleet on a Dask cluster: its shards go to workers, their outcomes come back as one report.

A task says which schools to load, and never a secret: workers find those in their own environment
or configuration. What a worker does is `Warehouse.load`, as on one machine; if it dies, the
scheduler gives its shard to another one. dlt and DuckDB are imported only when it loads.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from oneroster_source.destination.shards import Shard
from oneroster_source.errors import (
    ConfigurationError,
    DestinationBusy,
    DestinationError,
    OneRosterError,
)
from oneroster_source.run_report import Outcome, Report

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oneroster_source.config.settings import Settings
    from oneroster_source.warehouse import Warehouse

SCHOOLS_IN_SHARD = 250
"""Most schools in one shard, if nobody says: what is done again when a worker dies."""
PATIENCE = 300.0
"""Seconds for which a shard waits for one that died while it was loading the same schools, and a
run for a worker where none is left."""
T = TypeVar("T")
_PAUSE = 2.0
_LOOK = 5.0
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
    from oneroster_source.config.settings import resolve

    _refuse_secret(options)
    _refuse_address(warehouse.place)
    settings = resolve(endpoints=options.get("endpoints")).only(only)
    with warehouse.divided(), _connected(address) as client:
        lanes = min(_workers(client), settings.concurrency)
        if not lanes:
            raise ConfigurationError(
                f"the cluster at {address} has no workers", todo="start some: dask worker ADDRESS"
            )
        # the limit is the servers', however many workers ask
        options["concurrency"] = settings.concurrency // lanes
        count = shards or max(lanes, -(-len(settings.schools) // SCHOOLS_IN_SHARD))
        plan = warehouse.plan(count, only=only, **options)
        lost: list[Outcome] = []

        def submit(shard: Shard) -> Any:
            key = f"oneroster-{shard.run_id}-{shard.name}"
            place = (warehouse.place, warehouse.dataset)
            return client.submit(load_shard, shard, *place, options, key=key, pure=False)

        for shard, done in _spread(client, plan, lanes, submit):
            report.outcomes += done.outcomes
            report.problems += done.problems
            if done.error:
                lost += _lost(report, done, shard, settings)
            report.tell(shard.estabs)
        # a shard whose worker the scheduler has lost may still be at it
        _patient(lambda: warehouse.finish(report, plan, lost))


def _spread(
    client: Any, plan: Sequence[Shard], lanes: int, submit: Callable[[Shard], Any]
) -> Iterator[tuple[Shard, Report]]:
    """Has all shards loaded, some at once; yields each with its report, also when all is lost."""
    from distributed import wait

    waiting, running = deque(plan), dict[Any, Shard]()
    seen, reason = time.monotonic(), "no worker is left in the cluster"
    try:
        while (waiting or running) and time.monotonic() - seen < PATIENCE:
            while waiting and len(running) < lanes:
                running[submit(waiting[0])] = waiting[0]
                waiting.popleft()
            with suppress(TimeoutError), client.as_current():
                wait(list(running), timeout=_LOOK, return_when="FIRST_COMPLETED")
            for future in [future for future in running if future.done()]:
                yield running.pop(future), _result(future)
            if _workers(client):
                seen = time.monotonic()
    except Exception as error:
        reason = f"the scheduler was lost: {type(error).__name__}"
    finally:
        with suppress(Exception):
            client.cancel(list(running))
    for shard in (*running.values(), *waiting):
        yield shard, Report(error=reason)


def _result(future: Any) -> Report:
    from distributed import KilledWorker

    try:
        done: Report = future.result()
        return done
    except KilledWorker:
        return Report(error="every worker that was given it died")
    except Exception as error:
        return Report(error=f"the cluster gave it up: {type(error).__name__}")


def _workers(client: Any) -> int:
    return len(client.scheduler_info(n_workers=-1)["workers"])


def _patient(load: Callable[[], T]) -> T:
    """Does what another run may keep from being done, for a while."""
    from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

    return Retrying(
        retry=retry_if_exception_type(DestinationBusy),
        stop=stop_after_delay(PATIENCE),
        wait=wait_fixed(_PAUSE),
        reraise=True,
    )(load)


def load_shard(shard: Shard, place: str, dataset: str, options: dict[str, Any]) -> Report:
    """What a worker does: loads a shard, waiting for one that died while it was at it.

    Raises nothing, so that the words of no other library reach the logs of the cluster.
    """
    # dlt reads this one as it is imported
    os.environ.setdefault("RUNTIME__DLTHUB_TELEMETRY", "false")
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
            report.error = f"internal error: {type(error).__name__}"
        # ids of children are not for the cluster
        report.keys.clear()
        return report

    with _one_at_a_time:
        try:
            return _patient(once)
        except DestinationBusy as error:
            return Report(error=str(error))


def _lost(report: Report, done: Report, shard: Shard, settings: Settings) -> list[Outcome]:
    """The outcomes of a shard that was not loaded, each a failure: whatever had been read, nothing
    of it was committed, not even that it was read."""
    found = {(outcome.estab, outcome.endpoint): outcome for outcome in done.outcomes}
    lost = []
    for estab in shard.estabs:
        for endpoint in settings.endpoints:
            outcome = found.get((estab, endpoint)) or report.outcome(estab, endpoint)
            if outcome.state != "failed":
                outcome.begin()
                outcome.end(DestinationError(done.error, where=f"{shard.name}, school {estab}"))
            lost.append(outcome)
    return lost


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
    except Exception as error:
        # of many kinds: by the address, by what listens there, by what it speaks
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
