"""Fixtures that all tests share: a clean environment, schools on a real server, a database."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"

import dlt
import hypothesis
from support import postgres as postgres_server
from support.program import Run
from support.settings import ESTAB, settings

from oneroster_source.cli.app import main
from oneroster_source.run_report import Report
from oneroster_source.simulator import School, Simulator, secondary_school
from oneroster_source.warehouse import Warehouse

# what was imported stays: to look through it again and again takes 3 to 9% of a load's time
gc.freeze()
gc.set_threshold(100_000, 50, 50)

# how long an example takes is no fault of the code's where the machine has other things to do
hypothesis.settings.register_profile(
    "anywhere", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("anywhere")

TEST_DATA = "ONEROSTER_TEST_DATA"
"""Names the folder of data sets that are no part of the repository: generated/, lms-toolkit/."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what takes the data sets, for `-m needs_data` to select, and what a sample leaves out.

    A parametrised test with `@pytest.mark.sample(2)` runs two of its cases by default, spread
    evenly over all; the others are slow. Cases are counted among those collected: one that is named
    on the command line runs.
    """
    sampled: dict[tuple[Path, str], list[pytest.Item]] = defaultdict(list)
    for item in items:
        if "data_sets" in getattr(item, "fixturenames", ()):
            item.add_marker("needs_data")
        left_out = [name for name in ("slow", "campaign") if item.get_closest_marker(name)]
        if item.get_closest_marker("sample") and not left_out:
            sampled[item.path, item.nodeid.partition("[")[0]].append(item)
    for cases in sampled.values():
        (count,) = cases[0].get_closest_marker("sample").args
        kept = {number * len(cases) // count for number in range(count)}
        for number, item in enumerate(cases):
            if number not in kept:
                item.add_marker("slow")


@pytest.fixture(scope="session")
def data_sets() -> Path:
    """The folder of data sets; a test that takes it is skipped where nothing names it."""
    named = os.environ.get(TEST_DATA)
    if not named:
        pytest.skip(f"{TEST_DATA} names no folder of data sets")
    folder = Path(named)
    assert (folder / "generated").is_dir() and (folder / "lms-toolkit").is_dir(), folder
    return folder.resolve()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the developer's own reaches a test, and files land in its own folder."""
    for name in list(os.environ):
        if name.startswith(("SOURCES__", "DESTINATION__")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def serve() -> Iterator[Callable[..., Simulator]]:
    """Serves schools on a free port until the test ends."""
    running: list[Simulator] = []

    def start(*schools: School, **options: object) -> Simulator:
        server = Simulator(schools, **options)
        server.start()
        running.append(server)
        return server

    yield start
    for server in running:
        server.stop()


@pytest.fixture
def school() -> School:
    """A small secondary school."""
    return secondary_school(7, ESTAB, pupils=40)


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(str(tmp_path / "roster.duckdb"))


@pytest.fixture
def pipeline(tmp_path: Path) -> dlt.Pipeline:
    """A pipeline of a user's own, with a working folder that is kept."""
    return dlt.pipeline(
        "anybody",
        destination=dlt.destinations.duckdb(str(tmp_path / "any.duckdb")),
        dataset_name="oneroster",
        pipelines_dir=str(tmp_path / "work"),
    )


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """A Postgres server, one for all tests of a process."""
    with postgres_server.server() as url:
        yield url


@pytest.fixture
def postgres(server_url: str) -> Iterator[str]:
    """The URL of a new Postgres database."""
    with postgres_server.fresh(server_url) as url:
        yield url


@pytest.fixture
def sync(warehouse: Warehouse) -> Callable[..., Report]:
    """Loads what a server serves; a failed collection is in the report."""

    def run(server: Simulator, *schools: School, **options: object) -> Report:
        report = Report()
        warehouse.load(report, **{**settings(server, *schools), **options})
        return report

    return run


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], umask: None) -> Run:
    """Runs `oneroster` in this process, which has imported what it needs."""

    def run(*words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        for name, value in (env or {}).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["oneroster", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        assert code is None or isinstance(code, int)
        return subprocess.CompletedProcess(words, code or 0, *capsys.readouterr())

    return run


@pytest.fixture
def umask() -> Iterator[None]:
    """What a command changes in its process is as before."""
    before, numbers = os.umask(0o022), (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    stops = [signal.getsignal(number) for number in numbers]
    yield
    os.umask(before)
    for number, handler in zip(numbers, stops, strict=True):
        signal.signal(number, handler)
