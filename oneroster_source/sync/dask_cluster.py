"""One run on a Dask cluster: shards go to workers, their outcomes come back as one report.

A task says which schools to load, and never a secret: workers find those in their own environment
or configuration. A worker loads a shard as one machine loads everything; if it dies, the scheduler
gives its shard to another one. dlt and DuckDB are imported only when it loads.
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
    from oneroster_source.destination.session import Target

SCHOOLS_IN_SHARD = 250
"""Most schools in one shard by default: what is done again when a worker dies."""
PATIENCE = 300.0
"""Seconds for which a shard waits for one that died while it was loading the same schools, and for
which a run without workers waits for one."""
T = TypeVar("T")
_PAUSE = 2.0
_LOOK = 5.0
_TIMEOUT = 15.0

# dlt knows one pipeline at a time in a process; a worker with more threads waits here
_one_at_a_time = threading.Lock()


def load(
    target: Target,
    report: Report,
    address: str,
    *,
    shards: int | None = None,
    only: Sequence[str] | None = None,
    **options: Any,
) -> Report:
    """Loads on the workers of a cluster: see `Warehouse.load_on`."""
    from oneroster_source.config.settings import resolve
    from oneroster_source.extract.run import RunOptions
    from oneroster_source.sync import sharding

    _refuse_secret(options)
    _refuse_address(target.place)
    chosen = RunOptions(only=only, **{k: v for k, v in options.items() if k != "endpoints"})
    settings = resolve(endpoints=options.get("endpoints"))
    report.privacy = str(settings.privacy)
    wanted = settings.only(only)
    with sharding.divided(target), _connected(address) as client:
        lanes = min(_workers(client), settings.concurrency)
        if not lanes:
            raise ConfigurationError(
                f"the cluster at {address} has no workers", todo="start some: dask worker ADDRESS"
            )
        # the limit is the servers', however many workers ask
        options["concurrency"] = settings.concurrency // lanes
        count = shards or max(lanes, -(-len(wanted.schools) // SCHOOLS_IN_SHARD))
        parts = sharding.divide(target, settings, chosen, count)
        lost: list[Outcome] = []

        def submit(shard: Shard) -> Any:
            key = f"oneroster-{shard.run_id}-{shard.name}"
            place = (target.place, target.dataset)
            return client.submit(load_shard, shard, *place, options, key=key, pure=False)

        for shard, done in _spread(client, parts, lanes, submit):
            report.outcomes += done.outcomes
            report.problems += done.problems
            if done.error:
                lost += _lost(report, done, shard, wanted)
            report.tell(shard.estabs)
        # a shard whose worker the scheduler has lost may still be at it
        _patient(
            lambda: sharding.finish(
                target,
                parts,
                report,
                lost,
                history=settings.history,
                patience=settings.lock_timeout,
            )
        )
    return report


def _spread(
    client: Any, parts: Sequence[Shard], lanes: int, submit: Callable[[Shard], Any]
) -> Iterator[tuple[Shard, Report]]:
    """Has all shards loaded, several at once; yields each with its report, also when it is lost."""
    from distributed import wait

    waiting, running = deque(parts), dict[Any, Shard]()
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
    except Exception as error:  # noqa: BLE001 - whatever it is, the shard is lost
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
    except Exception as error:  # noqa: BLE001 - whatever it is, the shard is lost
        return Report(error=f"the cluster gave it up: {type(error).__name__}")


def _workers(client: Any) -> int:
    return len(client.scheduler_info(n_workers=-1)["workers"])


def _patient(load: Callable[[], T]) -> T:
    """Calls `load` again, for a while, if another run keeps it from the destination."""
    from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

    return Retrying(
        retry=retry_if_exception_type(DestinationBusy),
        stop=stop_after_delay(PATIENCE),
        wait=wait_fixed(_PAUSE),
        reraise=True,
    )(load)


def load_shard(shard: Shard, place: str, dataset: str, options: dict[str, Any]) -> Report:
    """Loads a shard, on a worker; waits for one that died while it was loading the same shard.

    Raises nothing, so that no other library's messages reach the logs of the cluster.
    """
    # dlt reads this one as it is imported
    os.environ.setdefault("RUNTIME__DLTHUB_TELEMETRY", "false")
    from oneroster_source.config.settings import resolve
    from oneroster_source.destination.session import Target
    from oneroster_source.extract.run import RunOptions
    from oneroster_source.sync.load import load

    def once() -> Report:
        report = Report()
        try:
            target = Target(place, dataset)
            given = {k: v for k, v in options.items() if k not in ("full", "allow_deletes")}
            chosen = RunOptions(**{k: v for k, v in options.items() if k not in given})
            load(target, resolve(**given), chosen, report, shard)
        except DestinationBusy:
            raise
        except OneRosterError as error:
            report.error = str(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the shard is lost
            report.error = f"internal error: {type(error).__name__}"
        return report

    with _one_at_a_time:
        try:
            return _patient(once)
        except DestinationBusy as error:
            return Report(error=str(error))


def _lost(report: Report, done: Report, shard: Shard, settings: Settings) -> list[Outcome]:
    """The outcomes of a shard that was not loaded, each a failure: whatever was read, nothing of it
    was committed.
    """
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
    except Exception as error:  # noqa: BLE001 - whatever it is, the shard is lost
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
