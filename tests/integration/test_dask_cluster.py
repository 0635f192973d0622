"""A fleet on a real Dask cluster: a scheduler and worker processes on loopback, and Postgres."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.postgres import query
from support.program import PATIENCE, spawn
from support.settings import environment
from support.truth import Truth, differences

from oneroster_source import Report, Warehouse
from oneroster_source.errors import ConfigurationError
from oneroster_source.simulator import School, Simulator, secondary_school
from oneroster_source.sync import dask_cluster as cluster_module

WORKERS = 3


class Cluster:
    """A scheduler and its workers, which have the settings and secrets in their environment."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self.folder = folder
        self._environment = {**os.environ, **settings, "TMPDIR": str(folder)}
        self._file = folder / "scheduler.json"
        own = ("--scheduler-file", str(self._file), "--host", "127.0.0.1", "--no-dashboard")
        self.processes = [self._start("scheduler", *own, "--port", "0")]
        self._wait(lambda: self._file.exists() and self._file.stat().st_size > 0)
        self.address = json.loads(self._file.read_text())["address"]
        alone = ("--nthreads", "1", "--no-nanny", "--host", "127.0.0.1", "--no-dashboard")
        self.processes += [
            self._start("worker", self.address, *alone, "--local-directory", str(folder / str(n)))
            for n in range(WORKERS)
        ]

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{words[0]}-{time.monotonic_ns()}.log").open("wb")
        with log:
            return spawn(
                [sys.executable, "-m", "dask", *words],
                cwd=self.folder,
                env=self._environment,
                stdout=log,
                stderr=log,
            )

    @property
    def logs(self) -> str:
        return "".join(log.read_text() for log in sorted(self.folder.glob("*.log")))

    def ready(self) -> None:
        """Waits for all workers."""
        self._wait(lambda: self.logs.count("Registered to:") == WORKERS)

    def _wait(self, done: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not done():
            assert time.monotonic() < end, self.logs
            time.sleep(0.05)

    def kill_a_worker(self) -> None:
        self.processes[1].send_signal(signal.SIGKILL)

    def sync(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "oneroster_source", "sync", "--cluster", self.address, *words],
            cwd=self.folder,
            env={**self._environment, **more},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.kill()
            process.wait(PATIENCE)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    pytest.importorskip("distributed", reason="there is no Dask: install the extra [dask]")
    started: list[Cluster] = []

    def start(settings: dict[str, str]) -> Cluster:
        folder = tmp_path / "cluster"
        folder.mkdir()
        started.append(Cluster(folder, settings))
        started[-1].ready()
        return started[-1]

    yield start
    for one in started:
        one.stop()


def told(server: Simulator, schools: list[School], postgres: str) -> dict[str, str]:
    """What the workers, and whoever starts the run, find in their environment."""
    return {
        **environment(server, *schools),
        "DESTINATION__POSTGRES__CREDENTIALS": postgres,
        "SOURCES__ONEROSTER__ENDPOINTS": '["users", "enrollments"]',
    }


def when(server: Simulator, requests: int, act: Callable[[], None]) -> threading.Thread:
    """Acts once a server has had so many requests."""

    def wait() -> None:
        end = time.monotonic() + PATIENCE
        while len(server.requests) < requests and time.monotonic() < end:
            time.sleep(0.01)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.mark.parametrize("killed", [True, False], ids=["a worker killed", "nobody killed"])
@pytest.mark.parametrize("count", [9, 200])
@pytest.mark.campaign
def test_a_worker_that_is_killed_and_a_broken_school_cost_the_others_nothing(
    cluster, serve, postgres, count, killed
) -> None:
    schools = [secondary_school(n, f"{n:04}", pupils=10) for n in range(1, count + 1)]
    broken, good = schools[4], [s for s in schools if s is not schools[4]]
    broken.forbidden.add("users")
    server = serve(*schools, latency=0.02)
    settings = told(server, schools, postgres)
    machines = cluster(settings)
    words = ("--destination", "postgres", "--report", "report.json", "--shards", "6")
    begun = time.monotonic()
    kill = when(server, 3 * count // 2, machines.kill_a_worker) if killed else None
    done = machines.sync(*words)
    seconds = time.monotonic() - begun
    if kill is not None:
        kill.join(PATIENCE)
        assert machines.processes[1].wait(PATIENCE) == -signal.SIGKILL
    assert done.returncode == 1, done.stderr + done.stdout + machines.logs
    assert "Traceback" not in done.stderr
    found = json.loads((machines.folder / "report.json").read_text())
    failed = {(c["estab"], c["endpoint"]) for c in found["collections"] if c["state"] == "failed"}
    assert failed == {(broken.estab, "users")} and found["problems"] == []
    assert len(found["collections"]) == 2 * count
    rows = sum(collection["rows"] for collection in found["collections"])
    print(f"{count} schools, {rows:,} rows, {killed=}: {seconds:.1f} s")  # noqa: T201
    for endpoint, loaded in (("users", good), ("enrollments", schools)):
        truth = Truth(server.base_url, loaded, endpoints=(endpoint,))
        assert differences(postgres, truth) == {}
    # the next night, with one worker less
    broken.forbidden.clear()
    begun = time.monotonic()
    done = machines.sync(*words)
    print(f"{count} schools, the next night: {time.monotonic() - begun:.1f} s")  # noqa: T201
    assert done.returncode == 0, done.stderr + done.stdout + machines.logs
    truth = Truth(server.base_url, schools, endpoints=("users", "enrollments"))
    assert differences(postgres, truth) == {}
    modes = query(
        postgres,
        "SELECT mode, count(*) FROM oneroster.sync_run_details WHERE run_id ="
        " (SELECT max(run_id) FROM oneroster.sync_run_details) GROUP BY mode ORDER BY mode",
    )
    assert modes == [("delta", 2 * count - 1), ("full", 1)]
    secrets = [s.shared_secret for s in schools] + ["hunter2"]
    assert not [s for s in secrets if s in machines.logs + done.stdout + done.stderr]
    assert server.most_at_once <= 4


@pytest.mark.parametrize(
    ("killed", "why"),
    [(slice(1, None), "no worker is left"), (slice(0, 1), "the scheduler was lost")],
    ids=["all workers", "the scheduler"],
)
@pytest.mark.campaign
def test_a_cluster_that_is_lost_ends_the_run_and_loses_nothing(
    cluster, serve, postgres, monkeypatch, killed, why
) -> None:
    monkeypatch.setattr(cluster_module, "PATIENCE", 20.0)
    monkeypatch.setattr(cluster_module, "_LOOK", 1.0)
    schools = [secondary_school(n, f"{n:04}", pupils=10) for n in range(1, 10)]
    server = serve(*schools, latency=0.05)
    settings = told(server, schools, postgres)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    machines = cluster(settings)

    def kill() -> None:
        for process in machines.processes[killed]:
            process.send_signal(signal.SIGKILL)

    killing = when(server, 12, kill)
    report = Report()
    Warehouse("postgres").load_on(machines.address, report, shards=6)
    killing.join(PATIENCE)
    assert report.failed and report.problems == []
    assert all(why in outcome.error for outcome in report.failed)
    standing = {s.estab: s.state for s in Warehouse("postgres").status().schools()}
    failed = {outcome.estab for outcome in report.failed}
    assert {estab for estab, state in standing.items() if state == "failing"} == failed
    # without the cluster
    assert Warehouse("postgres").load(again := Report()) is again
    assert again.good
    truth = Truth(server.base_url, schools, endpoints=("users", "enrollments"))
    assert differences(postgres, truth) == {}


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("postgres", "no Dask scheduler answers at tcp://127.0.0.1:1"),
        ("x.duckdb", "takes one writer at a time"),
        ("duckdb", "takes one writer at a time"),
        ("postgresql://a:geheim@host/x", "may hold a password"),
    ],
)
def test_what_cannot_be_loaded_on_a_cluster_is_refused_at_once(
    monkeypatch, serve, school, postgres, place, said
) -> None:
    pytest.importorskip("distributed", reason="there is no Dask: install the extra [dask]")
    monkeypatch.setattr(cluster_module, "_TIMEOUT", 0.5)
    for name, value in told(serve(school), [school], postgres).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=said) as refused:
        Warehouse(place).load_on("tcp://127.0.0.1:1")
    assert "geheim" not in str(refused.value)


def test_no_secret_is_handed_to_a_cluster() -> None:
    with pytest.raises(ConfigurationError, match="'schools' cannot be handed to a cluster"):
        Warehouse("postgres").load_on("tcp://127.0.0.1:1", schools=[])
