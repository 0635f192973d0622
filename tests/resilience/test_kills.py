"""Runs that are killed at any moment: nothing is lost, doubled, or left behind.

200 random moments for each destination:
`uv run pytest -m campaign tests/resilience/test_kills.py -s -n 0`.
"""

from __future__ import annotations

import json
import os
import queue
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import dlt
import duckdb
import psycopg2
import pytest
from dlt.common.destination.client import RunnableLoadJob
from dlt.common.versioned_state import decompress_state
from dlt.destinations.job_client_impl import SqlJobClientBase, SqlLoadJob
from support import later
from support.postgres import execute, query
from support.program import PATIENCE, spawn
from support.settings import settings
from support.truth import STAGING, Truth, differences, held, opened, staged

from oneroster_source import DestinationBusy, DestinationError, Report, Warehouse
from oneroster_source.simulator import School, Simulator, secondary_school

EVENTS = {
    "sync": (dlt.Pipeline, "sync_destination"),
    "extract": (dlt.Pipeline, "extract"),
    "normalize": (dlt.Pipeline, "normalize"),
    "load": (dlt.Pipeline, "load"),
    "job": (RunnableLoadJob, "run_managed"),
    "merge": (SqlLoadJob, "run"),
    "commit": (SqlJobClientBase, "complete_load"),
}
"""What a run tells as it begins, and as it is done."""

STEPS = {
    **dict.fromkeys(("start", "sync", "sync done"), "start"),
    **dict.fromkeys(("extract", "extract done"), "extract"),
    **dict.fromkeys(("normalize", "normalize done"), "normalize"),
    "load": "load: stage",
    **dict.fromkeys(("merge", "merge done", "commit"), "load: merge"),
    **dict.fromkeys(("commit done", "load done"), "load: clear up"),
}
"""The step of a run after each event that begins one."""

LOADING = ("load: stage", "load: merge", "load: clear up")
BUSY = os.EX_TEMPFAIL
LIMIT = 120
"""Seconds after which nothing is expected to happen any more."""


# --- runs in processes of their own ---


def _serve_runs() -> None:
    """Runs what is asked for, each time in a new process, which has imported everything already."""
    tell = os.dup(1)
    os.dup2(2, 1)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.write(tell, f"{os.getpid()}\n".encode())
                _run(tell, **json.loads(line))
                code = 0
            except DestinationBusy:
                code = BUSY
            except BaseException as error:
                sys.stderr.write(f"{error!r}\n")
            finally:
                os.write(tell, b"end\n")
                os._exit(code)
        # not before it is asked for: until then no other process gets this number
        sys.stdin.readline()
        _, status = os.waitpid(child, 0)
        os.write(tell, f"code {os.waitstatus_to_exitcode(status)}\n".encode())


def _run(
    tell: int, folder: str, destination: str, options: dict[str, Any], dies_at: list[Any] | None
) -> None:
    """A run that tells what it is at, and may kill itself at the n-th event of a name."""
    os.chdir(folder)
    tempfile.tempdir = f"{folder}/temporary"
    seen: Counter[str] = Counter()
    lock = threading.Lock()

    def event(name: str) -> None:
        with lock:
            seen[name] += 1
            os.write(tell, f"{name}\n".encode())
            if dies_at == [name, seen[name]]:
                os.write(tell, b"end\n")
                os.kill(os.getpid(), signal.SIGKILL)

    def telling(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def told(*args: Any, **kwargs: Any) -> Any:
            event(name)
            result = function(*args, **kwargs)
            event(f"{name} done")
            return result

        return told

    for name, (owner, attribute) in EVENTS.items():
        setattr(owner, attribute, telling(name, getattr(owner, attribute)))
    report = Report()
    Warehouse(destination).load(report, **options)
    report.raise_for_failures()


@dataclass
class Ended:
    """How a run ended: its exit code, negative if it was killed, and the step it was at."""

    code: int
    step: str

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL


class Runs:
    """Starts runs, one after the other, and kills them."""

    def __init__(self) -> None:
        self._process = spawn(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # it imports what tests share, as they do
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self._usual: dict[str, list[float]] = defaultdict(list)

    def stop(self) -> None:
        """Ends the process that starts the others."""
        self._process.stdin.close()
        try:
            self._process.wait(timeout=PATIENCE)
        finally:
            self._process.kill()
            self._reader.join(timeout=PATIENCE)
            self._process.stdout.close()

    def __call__(
        self,
        folder: Path,
        destination: str,
        options: dict[str, Any],
        *,
        kill: tuple[str, float] | None = None,
        dies_at: tuple[str, int] | None = None,
    ) -> Ended:
        """Runs a load to its end, or until it is killed.

        Args:
            folder: Where it runs, with a folder for temporary files.
            destination: Where to load.
            options: Those of `Warehouse.load`.
            kill: A step, and which share of the time that it usually takes to let it go on.
            dies_at: An event, and at which time that it happens.
        """
        job = {"folder": str(folder), "destination": destination, "options": options}
        self._say(job | {"dies_at": dies_at})
        child = int(self._lines.get(timeout=LIMIT))
        begun, step, event = time.monotonic(), "", "start"
        seconds: Counter[str] = Counter()
        end: float | None = None
        try:
            while event != "end":
                if STEPS.get(event, step) != step:
                    now = time.monotonic()
                    seconds[step] += now - begun
                    begun, step = now, STEPS[event]
                    if kill and kill[0] == step:
                        end = now + kill[1] * statistics.median(self._usual[step][-9:] or [0.2])
                try:
                    left = LIMIT if end is None else max(0, end - time.monotonic())
                    event = self._lines.get(timeout=left)
                except queue.Empty:
                    assert end is not None, f"a run hangs in the step {step}"
                    break
        finally:
            if event != "end":
                os.kill(child, signal.SIGKILL)
            self._say("wait for it")
        while not (event := self._lines.get(timeout=LIMIT)).startswith("code "):
            step = STEPS.get(event, step)
        ended = Ended(int(event.removeprefix("code ")), step)
        if ended.code == 0:
            seconds[step] += time.monotonic() - begun
            for name, took in seconds.items():
                self._usual[name].append(took)
        return ended

    def _say(self, what: object) -> None:
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()

    def _read(self) -> None:
        for line in self._process.stdout:
            self._lines.put(line.strip())


# --- schools that change, and what became of them ---


def change(school: School, choose: random.Random, *, purge: bool = False) -> None:
    """Some of all that happens to a school, later than all before; only full passes see a purge."""
    school.skew += timedelta(minutes=1)
    for collection in ("orgs", "courses", "classes", "users", "enrollments"):
        for _ in range(choose.randint(0 if collection == "orgs" else 1, 4)):
            rows = school.rows(collection)
            row = choose.choice(rows)
            name, what = row.pop("sourcedId"), choose.random()
            if purge and what < 0.2 and len(rows) > 9:
                school.purge(collection, name)
            elif what < 0.2:
                school.delete(collection, name)
            elif what < 0.4:
                del row["dateLastModified"]
                school.add(collection, row | {"sourcedId": f"new{choose.getrandbits(64):x}"})
            else:
                news = {
                    field: choose.sample(row[field], choose.randint(0, len(row[field]))) or None
                    for field in row
                    if isinstance(row[field], list)
                }
                some = [str(choose.randint(1, 13)) for _ in range(choose.randint(0, 3))]
                if collection in ("courses", "classes", "users"):
                    news["grades"] = some or None
                text = {"orgs": "name", "users": "phone", "enrollments": "role"}
                news[text.get(collection, "title")] = f"{choose.random()}"
                school.change(collection, name, status="active", **news)


def cursors(database: str) -> dict[str, Any]:
    """The cursors that the next run would find, by endpoint."""
    with opened(database) as ask:
        try:
            found = ask(
                "SELECT s.state FROM oneroster._dlt_pipeline_state s"
                " JOIN oneroster._dlt_loads l ON l.load_id = s._dlt_load_id"
                " WHERE l.status = 0 ORDER BY l.load_id DESC LIMIT 1"
            )
        except (duckdb.CatalogException, psycopg2.errors.UndefinedTable):
            found = []
    return decompress_state(found[0][0])["sources"]["oneroster"]["resources"] if found else {}


@contextmanager
def as_it_is(database: str, folder: Path) -> Iterator[str]:
    """A database to look into, without a change of what the next run will find."""
    if "://" in database:
        yield database
        return
    copy = folder / "copy" / "roster.duckdb"
    copy.parent.mkdir()
    for end in ("", ".wal"):
        if Path(database + end).exists():
            shutil.copy(database + end, f"{copy}{end}")
    if not copy.exists():
        duckdb.connect(str(copy)).close()
    yield str(copy)
    shutil.rmtree(copy.parent)


class Story:
    """A school, a database, and the runs between them, each checked.

    Args:
        database: The path of a DuckDB file in `folder`, or a Postgres URL.
        endpoints: What is loaded; all if not given.
        keep: Whether rows that are deleted are kept.
    """

    def __init__(
        self,
        runs: Runs,
        folder: Path,
        database: str,
        server: Simulator,
        school: School,
        endpoints: Sequence[str] = (),
        keep: bool = True,
    ) -> None:
        self._runs, self._folder, self._database = runs, folder, database
        self._server, self._school, self._endpoints = server, school, endpoints
        self.keep = keep
        self._cursors: dict[str, Any] = {}
        self._before = self._truth()
        self.torn = 0
        """Kills that left tables neither as they were before, nor as they were to become."""
        self.refused = 0
        """Runs that Postgres kept out at first, as it had not noticed the end of the one before."""
        (folder / "temporary").mkdir()

    def run(self, *, full: bool = False, moving: bool = False, **how: Any) -> Ended:
        """A run, as `Runs` makes it: where it moved cursors, all rows are there too.

        Args:
            full: Whether everything is read.
            moving: Whether the school changes meanwhile, so that only the next run can tell.
            **how: When it is killed.
        """
        truth = self._truth()
        options = settings(self._server, self._school) | {"full": full, "lag": 0}
        options["deleted"] = "keep" if self.keep else "remove"
        if self._endpoints:
            options["endpoints"] = self._endpoints
        end = time.monotonic() + LIMIT
        while (ended := self._runs(self._folder, self._database, options, **how)).code == BUSY:
            self.refused += 1
            assert time.monotonic() < end
            time.sleep(0.1)
        assert ended.killed or ended.code == 0
        with as_it_is(self._database, self._folder) as database:
            now = cursors(database)
            moved = {name for name in now if now[name] != self._cursors.get(name)}
            if moved and not moving:
                wrong = differences(database, truth)
                assert not {t for t in wrong if t.split("__")[0] in moved}, (ended, wrong)
            elif ended.step in LOADING[:2] and self._cursors:
                self.torn += differences(database, self._before) != {}
        self._cursors = now
        return ended

    def finish(self, *, full: bool = False) -> None:
        """A run that nobody disturbs: all is as at the server, and nothing else is left."""
        assert self.run(full=full).code == 0
        self._before = self._truth()
        assert differences(self._database, self._before) == {}
        assert staged(self._database) == []
        self._sweep()

    def begin_anew(self) -> None:
        """Takes the database away."""
        self._cursors = {}
        if "://" in self._database:
            query(self._database, f"DROP SCHEMA oneroster, {STAGING} CASCADE")
        else:
            Path(self._database).unlink()

    def _truth(self) -> Truth:
        some = {"endpoints": self._endpoints} if self._endpoints else {}
        return Truth(self._server.base_url, [self._school], keep=self.keep, **some)

    def _sweep(self) -> None:
        """Nothing but the database is left, and statements of dlt's that speak of no record."""
        users = self._school.rows("users")
        records = {row[field] for row in users for field in ("sourcedId", "username")}
        for path in (self._folder / "temporary").glob("*.sql"):
            text = path.read_text("utf-8")
            assert text.startswith(("ANALYZE", "DELETE", "INSERT")) or not text
            assert not [record for record in records if record in text]
            path.unlink()
        left = {str(path.relative_to(self._folder)) for path in self._folder.rglob("*")}
        private = f"temporary/oneroster-{os.geteuid()}"
        assert left - {Path(self._database).name} == {"temporary", private}


@pytest.fixture(scope="session")
def runs() -> Iterator[Runs]:
    runs = Runs()
    try:
        yield runs
    finally:
        runs.stop()


@pytest.fixture
def small() -> School:
    """A school whose changes are in the past, so that they can be minutes apart."""
    school = secondary_school(7, "3281110", pupils=5)
    school.skew = -timedelta(days=1)
    return school


@pytest.fixture
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new database of the kind that a test is parametrised with."""
    if request.param == "duckdb":
        return str(tmp_path / "roster.duckdb")
    return str(request.getfixturevalue("postgres"))


FEW = ("orgs", "users")
"""Endpoints, where time is short."""


# --- moments that matter ---

MOMENTS = {
    "before anything is loaded": ("load", 1),
    "when all is staged, and the state is loaded": ("merge", 1),
    "when some tables are filled": ("job done", 4),
    "between two merges": ("merge done", 1),
    "when all is merged": ("commit", 1),
    "when the load is done, before staged rows are removed": ("commit done", 1),
}


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("database", "moment"),
    [
        ("duckdb", "when all is staged, and the state is loaded"),
        ("postgres", "when some tables are filled"),
        *(later("duckdb", moment) for moment in list(MOMENTS)[:1] + list(MOMENTS)[2:]),
        later("postgres", "between two merges"),
    ],
    indirect=["database"],
)
def test_a_first_load_and_a_delta_that_die(runs, serve, small, tmp_path, database, moment) -> None:
    server, choose = serve(small), random.Random(1)
    story = Story(runs, tmp_path, database, server, small, FEW)
    for _ in range(2):
        assert story.run(dies_at=MOMENTS[moment]).killed
        change(small, choose)
        story.finish()
        change(small, choose)


@pytest.mark.sample(1)
@pytest.mark.parametrize("database", ["duckdb", "postgres"], indirect=True)
def test_a_merge_that_cannot_insert_deletes_nothing(serve, small, database) -> None:
    """Deleted and inserted at once: a run that is killed in between takes nothing away."""
    server = serve(small)
    options = settings(server, small) | {"endpoints": FEW}
    Warehouse(database).load(Report(), **options)
    unique = {"users": "phone", "users__orgs": "user_sourced_id"}
    before = {table: sorted(held(database, table)) for table in unique}
    for table, column in unique.items():
        execute(database, f"CREATE UNIQUE INDEX one_{column} ON oneroster.{table} ({column})")
    for user in small.rows("users")[:2]:
        orgs = [{"sourcedId": name, "type": "org"} for name in ("one", "two")]
        small.change("users", user["sourcedId"], phone="of both", orgs=orgs)
    with pytest.raises(DestinationError):
        Warehouse(database).load(Report(), full=True, **options)
    assert {table: sorted(held(database, table)) for table in unique} == before


# --- random moments ---

AIMS = {
    "start": 2,
    "extract": 3,
    "normalize": 3,
    "load: stage": 5,
    "load: merge": 8,
    "load: clear up": 3,
}
"""How often each step is aimed at."""

Figures = Counter[tuple[str, str]]


def disturb(
    story: Story, school: School, choose: random.Random, enough: Callable[[Figures], bool]
) -> Figures:
    """Kills runs, and the runs that come after, until it is enough: kills by run and step."""
    figures: Figures = Counter()

    def struck(which: str, full: bool) -> bool:
        moving = choose.random() < 0.2
        if moving:
            school.on_page = lambda *_: (setattr(school, "on_page", None), change(school, choose))
        step = choose.choices(list(AIMS), list(AIMS.values()))[0]
        ended = story.run(kill=(step, choose.uniform(0, 1.05)), full=full, moving=moving)
        school.on_page = None
        figures[which if ended.killed else "missed", ended.step] += 1
        return ended.killed

    story.finish()
    while not enough(figures):
        assert figures.total() < 1000
        # what is purged and kept is no longer in the server's truth
        purge, share = choose.random() < 0.2 and not story.keep, choose.choice([0, 0.5])

        def full(purge: bool = purge, share: float = share) -> bool:
            # a full pass that is cut short may be followed by a delta, but none that sees a purge
            return purge or choose.random() < share

        change(school, choose, purge=purge)
        if choose.random() < 0.15:
            story.begin_anew()
        if struck("run", full()):
            while choose.random() < 0.5:
                if choose.random() < 0.5:
                    change(school, choose, purge=purge)
                if not struck("recovery", full()):
                    break
        if choose.random() < 0.5:
            change(school, choose)
        story.finish(full=full())
    return figures


def kills(figures: Figures, *steps: str, which: Sequence[str] = ("run", "recovery")) -> int:
    return sum(figures[run, step] for run in which for step in steps or AIMS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("database", "some"), [("duckdb", 4), later("postgres", 2)], indirect=["database"]
)
def test_some_random_kills(runs, serve, small, tmp_path, database, some) -> None:
    story = Story(runs, tmp_path, database, serve(small), small, FEW)
    figures = disturb(story, small, random.Random(some), lambda f: kills(f) >= some)
    assert kills(figures) >= some


@pytest.mark.campaign
@pytest.mark.parametrize("database", ["duckdb", "postgres"], indirect=True)
def test_two_hundred_random_kills(runs, serve, small, tmp_path, database, request, capsys) -> None:
    """At least 60 of them in a load, and 30 in the load of a run that comes after a kill.

    Run it with: uv run pytest -m campaign tests/resilience/test_kills.py -s -n 0
    """
    story = Story(runs, tmp_path, database, serve(small), small, keep=False)
    begun = time.monotonic()

    def enough(figures: Figures) -> bool:
        return (
            kills(figures) >= 200
            and kills(figures, *LOADING) >= 60
            and kills(figures, *LOADING, which=["recovery"]) >= 30
        )

    figures = disturb(story, small, random.Random(200), enough)
    lines = [f"{'step':16}{'in a run':>10}{'in recovery':>13}"]
    lines += [f"{s:16}{figures['run', s]:10}{figures['recovery', s]:13}" for s in AIMS]
    lines.append(
        f"{kills(figures)} kills, 0 rows lost, 0 doubled, in {time.monotonic() - begun:.0f} s;"
        f" {story.torn} left tables half loaded, {story.refused} runs were refused at first,"
        f" {kills(figures, which=['missed'])} came too late"
    )
    with capsys.disabled():
        print(f"\n{request.node.callspec.id}\n" + "\n".join(lines))  # noqa: T201


if __name__ == "__main__":
    _serve_runs()
