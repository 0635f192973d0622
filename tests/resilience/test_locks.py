"""One run at a time, a file that others hold open, and what is on disk during and after a run.

Fifty times two runs at once: `uv run pytest -m campaign tests/resilience/test_locks.py -s -n 0`.
"""

from __future__ import annotations

import json
import logging
import os
import random
import re
import signal
import stat
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import duckdb
import psycopg2
import pytest
from support.postgres import query
from support.program import PATIENCE, spawn
from support.settings import environment, settings
from support.truth import Truth, differences

from oneroster_source import DestinationBusy, DestinationError, Report, Warehouse
from oneroster_source.destination import workdir
from oneroster_source.destination.backends.duckdb_file import holder as holder_in
from oneroster_source.destination.locks import beside, early, exclusive, hidden, working_folder
from oneroster_source.errors import ConfigurationError
from oneroster_source.simulator import School, Simulator, secondary_school

ORGS = {"endpoints": ["orgs"]}
"""One small collection, where the locks are what matters."""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files of the test's own, so that all that is left there is its."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def left(folder: Path) -> list[str]:
    """All that is in a folder and below, except the two folders that stay."""
    stays = ("temporary", f"oneroster-{os.geteuid()}")
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.name not in stays or not path.is_dir()
    )


@contextmanager
def python(code: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Another process, which is there when it has printed a line, and is killed at the end."""
    process = spawn(
        [sys.executable, "-c", code, *words],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)


def elsewhere(work: Callable[[], object]) -> object:
    """What comes of something in another thread: to a lock, another run."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result(timeout=PATIENCE)


def differs(database: str, server: Simulator, school: School) -> dict[str, object]:
    """How the tables of `ORGS` differ from what the server holds."""
    truth = Truth(server.base_url, [school])
    truth.tables = {name: rows for name, rows in truth.tables.items() if name.startswith("orgs")}
    return differences(database, truth)


def enter(destination: str, dataset: str = "oneroster") -> None:
    with early(destination, dataset):
        pass


# --- one run at a time ---


def run_both(
    folder: Path, server: Simulator, school: School, *names: str, words: tuple[str, ...] = ()
) -> list[tuple[int, float, str]]:
    """Starts a run for each name of the destination at once: exit codes, seconds, errors."""

    def run(name: str) -> tuple[int, float, str]:
        begun = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "oneroster_source", "sync", "--destination", name, *words],
            cwd=folder,
            env={**os.environ, **environment(server, school)},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return done.returncode, time.monotonic() - begun, done.stderr

    with ThreadPoolExecutor(len(names)) as pool:
        return sorted(pool.map(run, names))


def test_of_two_runs_at_once_one_works_and_the_other_says_who_does(serve, tmp_path) -> None:
    school = secondary_school(1, pupils=5)
    server = serve(school)
    (good, _, _), (busy, _, said) = run_both(
        *(tmp_path, server, school, "duckdb", str(tmp_path / "roster.duckdb")),
        words=("--endpoints", "orgs"),
    )
    assert (good, busy) == (0, os.EX_TEMPFAIL)
    assert "run_failed: another run (process " in said and "is loading into" in said
    assert "What to do: run this again when that one has ended" in said
    assert differs(str(tmp_path / "roster.duckdb"), server, school) == {}
    assert left(tmp_path) == ["roster.duckdb"]


@pytest.mark.campaign
def test_fifty_times_two_runs_at_once(serve, tmp_path, capsys) -> None:
    """Each time one works and the other stops; the file equals the server every time.

    Run it with: uv run pytest -m campaign tests/resilience/test_locks.py -s -n 0
    """
    school = secondary_school(1, pupils=20)
    server = serve(school)
    (tmp_path / "link.duckdb").symlink_to("roster.duckdb")
    database = str(tmp_path / "roster.duckdb")
    names = [
        "duckdb",
        "roster.duckdb",
        "./roster.duckdb",
        database,
        "link.duckdb",
        f"duckdb:///{database}",
    ]
    choose = random.Random(50)
    users = [user["sourcedId"] for user in school.rows("users")]
    seconds = []
    for trial in range(50):
        school.change("users", choose.choice(users), phone=str(trial))
        (good, _, said), (busy, took, _) = run_both(
            tmp_path, server, school, choose.choice(names), choose.choice(names)
        )
        assert (good, busy) == (0, os.EX_TEMPFAIL), said
        assert differences(database, Truth(server.base_url, [school])) == {}
        seconds.append(took)
    assert left(tmp_path) == ["link.duckdb", "roster.duckdb"]
    with capsys.disabled():
        print(  # noqa: T201
            f"\n50 trials: 50 worked, 50 stopped, after {statistics.median(seconds):.2f} s (median)"
            f" and {max(seconds):.2f} s (most)"
        )


@pytest.mark.parametrize(
    "name",
    [
        "roster.duckdb",
        "./roster.duckdb",
        "folder/../roster.duckdb",
        "{}/roster.duckdb",
        "link.duckdb",
        "duckdb:///roster.duckdb",
        "duckdb:///{}/roster.duckdb",
    ],
)
def test_a_duckdb_file_is_one_by_whatever_name(name: str, tmp_path: Path) -> None:
    (tmp_path / "link.duckdb").symlink_to("roster.duckdb")
    (tmp_path / "folder").mkdir()
    with early("duckdb", "oneroster"):
        with pytest.raises(DestinationBusy, match=f"process {os.getpid()}"):
            elsewhere(lambda: enter(name.format(tmp_path), "another_dataset"))
        elsewhere(lambda: enter("other.duckdb"))
    elsewhere(lambda: enter(name.format(tmp_path)))


def test_other_destinations_are_one_by_their_text_and_dataset() -> None:
    with early("postgresql://loader:hunter2@db/rosters", "oneroster"):
        elsewhere(lambda: enter("postgresql://loader:hunter2@db/rosters", "other"))
        elsewhere(lambda: enter("postgresql://loader:hunter2@db/other"))
        with pytest.raises(DestinationBusy) as caught:
            elsewhere(lambda: enter("postgresql://loader:hunter2@db/rosters"))
    assert "hunter2" not in str(caught.value)


def test_a_name_means_what_is_configured_where_it_is_said(tmp_path, monkeypatch) -> None:
    """Two projects of one user do not stop each other: each has a snowflake of its own."""
    (tmp_path / "there").mkdir()
    with early("snowflake", "oneroster"):
        with pytest.raises(DestinationBusy, match="snowflake"):
            elsewhere(lambda: enter("snowflake"))
        monkeypatch.chdir("there")
        elsewhere(lambda: enter("snowflake"))
    monkeypatch.setenv("DESTINATION__DUCKDB__CREDENTIALS", "a.duckdb")
    with early("duckdb", "oneroster"):
        monkeypatch.setenv("DESTINATION__DUCKDB__CREDENTIALS", "b.duckdb")
        elsewhere(lambda: enter("duckdb"))
    assert list(tmp_path.glob("there/*")) == []


@pytest.mark.slow
def test_a_script_and_a_configured_file_are_kept_out_too(
    serve, school, tmp_path, monkeypatch
) -> None:
    found = settings(serve(school), school)
    monkeypatch.setenv("DESTINATION__DUCKDB__CREDENTIALS", "duckdb:///roster.duckdb")
    with early("roster.duckdb", "oneroster"):
        for name in ("roster.duckdb", "duckdb"):
            with pytest.raises(DestinationBusy, match=f"process {os.getpid()}"):
                elsewhere(lambda name=name: Warehouse(name).load(Report(), **found))
        assert not (tmp_path / "roster.duckdb").exists()
        # the thread that is in goes further in
        Warehouse("duckdb").load(Report(), **ORGS, **found)
        with pytest.raises(DestinationBusy):
            elsewhere(lambda: enter("roster.duckdb"))
    assert left(tmp_path) == ["roster.duckdb"]


def test_the_lock_of_a_killed_process_is_no_lock(tmp_path: Path, temporary: Path) -> None:
    code = (
        "import sys, time\nfrom oneroster_source.destination.locks import early, working_folder\n"
        "with early(sys.argv[1], 'oneroster'), working_folder() as folder:\n"
        "    (folder / 'package').write_text('records'); print('in', flush=True); time.sleep(60)"
    )
    for name in ("roster.duckdb", "snowflake"):
        with python(code, name) as process:
            with pytest.raises(DestinationBusy, match=f"process {process.pid}"):
                enter(name)
            process.send_signal(signal.SIGKILL)
            process.wait(timeout=PATIENCE)
        assert len(left(tmp_path)) == 3, "its lock, its folder, and the package in it"
        enter(name)
        with working_folder():
            pass
        assert left(tmp_path) == []


@pytest.mark.slow
def test_no_two_processes_are_ever_in_together(tmp_path: Path) -> None:
    """Also while the lock file is made and removed over and over."""
    code = (
        "import os, sys\nfrom pathlib import Path\n"
        "from oneroster_source import DestinationBusy\n"
        "from oneroster_source.destination.locks import early\n"
        "print('ready', flush=True); sys.stdin.readline(); entered = 0\n"
        "while entered < 400:\n"
        "    try:\n"
        "        with early('roster.duckdb', 'oneroster'):\n"
        "            os.close(os.open('in', os.O_CREAT | os.O_EXCL))\n"
        "            os.unlink('in'); entered += 1\n"
        "    except DestinationBusy: pass"
    )
    with python(code) as one, python(code) as two, python(code) as three:
        for process in (one, two, three):
            process.stdin.write("go\n")
            process.stdin.flush()
        assert [process.wait(timeout=PATIENCE) for process in (one, two, three)] == [0, 0, 0]
    assert left(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, serve, school) -> None:
    found = settings(serve(school), school)
    with pytest.raises(
        DestinationError, match=r"no/such/roster\.duckdb\.lock: No such file"
    ) as caught:
        Warehouse("no/such/roster.duckdb").load(Report(), **found)
    assert "see that this folder exists" in str(caught.value)


# --- Postgres ---


def on_first_page(school: School, work: Callable[[], None]) -> None:
    """Does something once, while a run has read a page and waits for it."""
    school.on_page = lambda *_: (setattr(school, "on_page", None), work())  # type: ignore[assignment]


@pytest.mark.slow
def test_two_machines_do_not_load_into_one_postgres_dataset(
    serve, school, postgres, tmp_path
) -> None:
    found = settings(serve(school), school)
    said = []

    def another_machine() -> None:
        # what the two share is the database: not the files, nor the name they call it by
        (tmp_path / "other").mkdir()
        code = (
            "import json, sys\nfrom oneroster_source import Report, Warehouse\n"
            "Warehouse(sys.argv[1]).load(Report(), **json.loads(sys.argv[2]))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, postgres, json.dumps({**ORGS, **found})],
            env={**os.environ, "TMPDIR": str(tmp_path / "other")},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        said.append(done.stderr)

    on_first_page(school, another_machine)
    Warehouse(postgres).load(Report(), **ORGS, **found)
    assert "DestinationBusy: another run is loading into the dataset 'oneroster'" in said[0]
    assert "hunter2" not in said[0]
    counts = query(postgres, "SELECT count(*) FROM oneroster.orgs")
    assert counts == [(len(school.rows("orgs")),)]


@pytest.mark.slow
def test_a_long_silence_while_schools_are_read_loses_no_lock(serve, school, postgres) -> None:
    query(postgres, "ALTER ROLE loader SET idle_in_transaction_session_timeout = '300ms'")
    try:
        on_first_page(school, lambda: time.sleep(1))
        report = Report()
        Warehouse(postgres, "silent").load(report, **ORGS, **settings(serve(school), school))
    finally:
        query(postgres, "ALTER ROLE loader RESET idle_in_transaction_session_timeout")
    assert report.good


def test_a_lost_lock_stops_the_run_before_it_writes(serve, school, postgres) -> None:
    found = settings(serve(school), school)
    on_first_page(
        school,
        lambda: (
            query(
                postgres,
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'",
            )
            and None
        ),
    )
    with pytest.raises(DestinationError, match="nothing was lost"):
        Warehouse(postgres, "lost").load(Report(), **ORGS, **found)
    assert query(postgres, "SELECT 1 FROM pg_namespace WHERE nspname = 'lost'") == []
    Warehouse(postgres, "lost").load(Report(), **ORGS, **found)
    assert query(postgres, "SELECT count(*) FROM lost.orgs") == [(len(school.rows("orgs")),)]


# --- a file that somebody else holds open ---

HOLD = (
    "import duckdb, sys\nheld = duckdb.connect(sys.argv[1], read_only=sys.argv[2] == 'True')\n"
    "print('in', flush=True); sys.stdin.readline()"
)


class Waits(logging.Handler):
    """The messages of waiting; does something at the first."""

    def __init__(self, then: Callable[[], object]) -> None:
        super().__init__()
        self.said: list[str] = []
        self._then = then

    def emit(self, record: logging.LogRecord) -> None:
        if "waiting up to" in record.getMessage():
            self.said.append(record.getMessage())
            self._then()


@contextmanager
def on_wait(then: Callable[[], object]) -> Iterator[list[str]]:
    handler = Waits(then)
    log = logging.getLogger("oneroster_source")
    log.addHandler(handler)
    try:
        yield handler.said
    finally:
        log.removeHandler(handler)


def test_a_file_that_is_held_at_the_start_is_waited_for(serve, sync, school, warehouse) -> None:
    server = serve(school)
    duckdb.connect(warehouse.name).close()
    program = Path(sys.executable).resolve().name
    with python(HOLD, warehouse.name, "True") as holder, on_wait(holder.kill) as said:
        sync(server, school, **ORGS)
    assert said == [
        (
            f"{Path(warehouse.name).name} is held open by process {holder.pid} ({program}):"
            " waiting up to 60 s"
        )
    ]
    assert differs(warehouse.name, server, school) == {}
    with python(HOLD, warehouse.name, "False") as holder, on_wait(holder.kill) as said:
        assert warehouse.status().rows["orgs"] == {school.estab: len(school.rows("orgs"))}
    assert [f"process {holder.pid} " in text for text in said] == [True]


@contextmanager
def held_from_the_first_page(school: School, warehouse: Warehouse) -> Iterator[list[Any]]:
    """A process opens the file while a run reads; the list then holds it."""
    holders: list[Any] = []
    with ExitStack() as stack:
        on_first_page(
            school,
            lambda: holders.append(stack.enter_context(python(HOLD, warehouse.name, "False"))),
        )
        yield holders


def test_a_file_is_free_while_schools_are_read_and_waited_for_before_the_load(
    serve, sync, school, warehouse
) -> None:
    server = serve(school)
    held = held_from_the_first_page(school, warehouse)
    with held as holders, on_wait(lambda: holders[0].kill()) as said:  # noqa: PLW0108 - there is none yet
        sync(server, school, **ORGS)
    assert [f"process {holders[0].pid} " in text for text in said] == [True]
    assert differs(warehouse.name, server, school) == {}


@pytest.mark.slow
def test_a_file_that_stays_held_ends_the_run_with_nothing_lost(
    serve, sync, school, warehouse, tmp_path
) -> None:
    server = serve(school)
    with held_from_the_first_page(school, warehouse) as holders:
        with pytest.raises(
            DestinationError, match=r"held open by process .*lock_timeout"
        ) as caught:
            sync(server, school, lock_timeout=0.3, **ORGS)
        assert f"process {holders[0].pid} " in str(caught.value)
        assert "close the file there" in str(caught.value)
        assert not isinstance(caught.value, DestinationBusy)
    sync(server, school, **ORGS)
    assert differs(warehouse.name, server, school) == {}
    assert left(tmp_path) == ["roster.duckdb"]


@pytest.mark.slow
def test_a_file_that_stays_held_is_not_waited_for_again_for_each_school(
    serve, warehouse, sync
) -> None:
    """Full passes ask the destination what they did not contain."""
    schools = [secondary_school(1, estab, pupils=3) for estab in ("1", "2", "3")]
    server = serve(*schools)
    sync(server, *schools, **ORGS)
    holders: list[Any] = []
    with ExitStack() as stack, on_wait(lambda: None) as said:

        def hold() -> None:
            if not holders:
                holders.append(stack.enter_context(python(HOLD, warehouse.name, "False")))

        for school in schools:
            on_first_page(school, hold)
        with pytest.raises(DestinationError, match="held open by process"):
            sync(server, *schools, full=True, lock_timeout=0.3, **ORGS)
    # once for what they hold, once for the load of what failed
    assert len(said) == 2
    assert sync(server, *schools, full=True, **ORGS).good


@pytest.mark.slow
def test_the_command_says_once_whom_it_waits_for(serve, school, warehouse) -> None:
    env = {**environment(serve(school), school), "SOURCES__ONEROSTER__LOCK_TIMEOUT": "0.5"}
    duckdb.connect(warehouse.name).close()
    with python(HOLD, warehouse.name, "True") as holder:
        done = subprocess.run(
            [sys.executable, "-m", "oneroster_source", "sync"],
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert done.returncode == 1
    _, waits, error = done.stderr.splitlines()
    assert f"held open by process {holder.pid} (" in waits and "waiting up to 0.5 s" in waits
    assert "ERROR   run_failed: " in error and str(holder.pid) in error and "What to do" in error


@pytest.mark.slow
def test_no_program_steps_in_between_two_connections_of_a_run(
    serve, sync, school, warehouse
) -> None:
    server = serve(school)
    duckdb.connect(warehouse.name).close()
    code = (
        "import duckdb, sys\nprint('in', flush=True)\n"
        "while True:\n"
        "    try: duckdb.connect(sys.argv[1], read_only=True).close()\n"
        "    except duckdb.IOException: pass"
    )
    with python(code, warehouse.name):
        sync(server, school, **ORGS)
    assert differs(warehouse.name, server, school) == {}


@pytest.mark.parametrize(
    ("said", "holder"),
    [
        (
            (
                'IO Error: Could not set lock on file "/d/r.duckdb": Conflicting lock is held in'
                " /usr/bin/python3.11 (PID 42). See also https://duckdb.org"
            ),
            "process 42 (python3.11)",
        ),
        ('Could not set lock on file "x": Conflicting lock is held in PID 42', "process 42"),
        ('Could not set lock on file "x": Resource temporarily unavailable', "another process"),
        ("The process cannot access the file: used by another process", "another process"),
        ('Cannot open file "/a lock/PID 42": Permission denied', ""),
        ("Connection Error: different configuration than existing connections", ""),
    ],
)
def test_the_holder_is_found_in_whatever_words_duckdb_chooses(said: str, holder: str) -> None:
    assert holder_in(said) == holder


# --- private, and nothing left ---


def test_every_file_of_a_run_is_private_and_the_umask_is_as_before(
    serve, school, sync, warehouse, tmp_path
) -> None:
    server = serve(school)
    seen: dict[str, int] = {}
    stop = threading.Event()

    def look(*_: object) -> None:
        # what goes away in the meantime is passed over
        for folder, _, names in os.walk(tmp_path):
            for path in (Path(folder), *(Path(folder, name) for name in names)):
                with suppress(FileNotFoundError):
                    mode = path.lstat().st_mode
                    kind = "folder" if stat.S_ISDIR(mode) else path.suffix
                    seen[kind] = seen.get(kind, 0) | stat.S_IMODE(mode) & 0o077

    def watch() -> None:
        while not stop.is_set():
            look()

    before = os.umask(0o022)
    (tmp_path / "temporary").chmod(0o700)
    try:
        with ThreadPoolExecutor(1) as pool:
            school.on_page = look
            watching = pool.submit(watch)
            try:
                sync(server, school, **ORGS)
                warehouse.status()
            finally:
                stop.set()
            watching.result()
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
    look()
    assert {".duckdb", ".wal", ".lock", ".parquet", "folder"} <= seen.keys()
    assert {kind: mode for kind, mode in seen.items() if mode} == {}
    assert left(tmp_path) == ["roster.duckdb"]


def test_the_folder_of_a_run_that_is_alive_is_not_swept(serve, sync, school, tmp_path) -> None:
    with working_folder() as mine:
        (mine / "package").write_text("records")
        sync(serve(school), school, **ORGS)
        assert (mine / "package").exists()
    assert not mine.exists()


@pytest.mark.slow
def test_what_a_killed_run_left_is_gone_after_the_next(
    serve, school, sync, warehouse, tmp_path
) -> None:
    server = serve(school)
    reading, go_on = threading.Event(), threading.Event()
    school.on_page = lambda *_: (reading.set(), go_on.wait(PATIENCE))  # type: ignore[assignment]
    process = spawn(
        [sys.executable, "-m", "oneroster_source", "sync"],
        env={**os.environ, **environment(server, school)},
        stderr=subprocess.PIPE,
    )
    try:
        assert reading.wait(PATIENCE)
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)
        school.on_page = None
        go_on.set()
    assert "roster.duckdb.lock" in left(tmp_path)
    assert any("/work-" in name for name in left(tmp_path))
    sync(server, school, **ORGS)
    assert left(tmp_path) == ["roster.duckdb"]
    assert differs(warehouse.name, server, school) == {}


@pytest.mark.parametrize("trap", ["a link", "a file", "another's", "open to others"])
def test_a_private_folder_that_is_not_is_refused(temporary: Path, monkeypatch, trap: str) -> None:
    path = temporary / f"oneroster-{os.geteuid()}"
    if trap == "a link":
        (temporary / "elsewhere").mkdir(0o700)
        path.symlink_to("elsewhere")
    elif trap == "a file":
        path.touch(0o600)
    else:
        path.mkdir(0o700)
    if trap == "open to others":
        path.chmod(0o770)
    if trap == "another's":
        # it is named after who runs this, and belongs to who made it
        mine = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
        path.rename(temporary / f"oneroster-{mine + 1}")
    with pytest.raises(ConfigurationError, match="not a folder that is yours alone"):
        workdir.folder()
    with pytest.raises(ConfigurationError), working_folder():
        pass
    with pytest.raises(ConfigurationError):
        hidden("postgresql://db", "oneroster")


def test_a_lock_file_holds_no_secret_and_only_its_owner_reads_it(temporary: Path) -> None:
    with early("postgresql://loader:hunter2@db/rosters", "oneroster"), early("r.duckdb", "o"):
        for path in [*temporary.rglob("*.lock"), beside("r.duckdb")]:
            assert "hunter2" not in path.name + path.read_text("utf-8")
            assert path.read_text("utf-8").split()[0] == str(os.getpid())
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert left(temporary) == []


def test_a_lock_file_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    beside("roster.duckdb").symlink_to("precious")
    with pytest.raises(DestinationError), exclusive(beside("roster.duckdb"), "roster.duckdb"):
        pass
    assert (tmp_path / "precious").read_text() == "kept"


@pytest.mark.slow
def test_what_the_server_still_does_for_a_run_that_was_killed_is_waited_for(
    serve, school, postgres, caplog
) -> None:
    server = serve(school)
    found = settings(server, school)
    Warehouse(postgres).load(Report(), **ORGS, **found)
    left = psycopg2.connect(postgres)
    try:
        with left.cursor() as cursor:
            cursor.execute(
                "INSERT INTO oneroster.orgs (estab, sourced_id, _deleted) VALUES (%s, 'x', false)",
                [school.estab],
            )
        with pytest.raises(DestinationBusy, match=r"writing to the dataset 'oneroster'.* 0.1 s"):
            Warehouse(postgres).load(Report(), **ORGS, **found, lock_timeout=0.1)
        end = threading.Timer(1, left.commit)
        end.start()
        Warehouse(postgres).load(Report(), **ORGS, **found, full=True, deleted="remove")
        end.join()
    finally:
        left.close()
    assert "another session writes" in caplog.text
    rows = query(postgres, "SELECT sourced_id FROM oneroster.orgs")
    assert {name for (name,) in rows} == {row["sourcedId"] for row in school.rows("orgs")}


@contextmanager
def slow_statement(database: str, table: str) -> Iterator[None]:
    """Has the next statement that changes a table take minutes."""
    query(
        database,
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_sleep(300); RETURN NULL; END';"
        f"CREATE TRIGGER slow BEFORE DELETE OR UPDATE ON oneroster.{table}"
        " EXECUTE FUNCTION slow()",
    )
    yield
    query(database, "DROP FUNCTION slow CASCADE")


def at_work(database: str) -> list[int]:
    """The sessions for which the server works, this one aside."""
    found = query(
        database,
        "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid()"
        " AND datname = current_database() AND query LIKE '%oneroster%' AND wait_event = 'PgSleep'",
    )
    return [pid for (pid,) in found]


def wait_until(there: Callable[[], object]) -> None:
    """Waits until something is so."""
    end = time.monotonic() + PATIENCE
    while not there():
        assert time.monotonic() < end, "it is not so in time"
        time.sleep(0.05)


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("table", "sent"),
    [
        # a job of dlt's, which it waits for, and a statement that the main thread waits for
        ("users", signal.SIGTERM),
        ("users_history", signal.SIGINT),
        ("users", signal.SIGKILL),
        ("users_history", signal.SIGKILL),
    ],
)
@pytest.mark.slow
def test_the_server_works_no_longer_than_the_run_that_asked_it_to(
    serve, school, postgres, tmp_path, table, sent
) -> None:
    server = serve(school)
    found = settings(server, school) | {"endpoints": ["users"], "history": True}
    Warehouse(postgres).load(Report(), **found)
    school.change("users", school.rows("users")[0]["sourcedId"], familyName="Nowak-Żak")
    more = {"SOURCES__ONEROSTER__HISTORY": "true", "SOURCES__ONEROSTER__PRIVACY": "full"}
    with slow_statement(postgres, table):
        words = ["--full", "--endpoints", "users", "--destination", postgres]
        run = spawn(
            [sys.executable, "-m", "oneroster_source", "sync", *words],
            cwd=tmp_path,
            env={**os.environ, **environment(server, school), **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            wait_until(lambda: at_work(postgres))
            run.send_signal(sent)
            said, _ = run.communicate(timeout=PATIENCE)
            wait_until(lambda: not at_work(postgres))
        finally:
            run.kill()
            run.wait(timeout=PATIENCE)
    if sent != signal.SIGKILL:
        assert run.returncode == 130 and "Stopped. Nothing was lost" in said
        assert "Traceback" not in said
    Warehouse(postgres).load(report := Report(), **found, full=True)
    assert report.good
    truth = Truth(server.base_url, [school], endpoints=["users"])
    assert differences(postgres, truth) == {}
    rows = query(postgres, "SELECT count(*) FROM oneroster.users_history WHERE valid_to IS NULL")
    assert rows == [(len(school.rows("users")),)]


@pytest.mark.slow
def test_it_is_told_who_is_waited_for_and_how_to_end_it(serve, school, postgres, caplog) -> None:
    found = settings(serve(school), school)
    Warehouse(postgres).load(Report(), **ORGS, **found)
    left = psycopg2.connect(postgres, application_name="left\x1b[31mover")
    try:
        with left.cursor() as cursor:
            cursor.execute("DELETE FROM oneroster.orgs")
        pid = left.info.backend_pid
        with pytest.raises(DestinationBusy) as caught:
            Warehouse(postgres).load(Report(), **ORGS, **found, lock_timeout=0.1)
    finally:
        left.close()
    who = rf"process {pid} of the server \(left.*over, since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC\)"
    assert re.search(who, str(caught.value)) and re.search(who, caplog.text)
    assert f"SELECT pg_terminate_backend({pid});" in str(caught.value)
    assert "\x1b" not in str(caught.value) + caplog.text


def test_a_session_has_the_name_of_this_program_unless_its_url_gives_one(
    serve, school, postgres
) -> None:
    def look() -> None:
        text = "SELECT application_name FROM pg_stat_activity WHERE state LIKE 'idle%'"
        names.update(name for (name,) in query(postgres, text))

    for url, name in ((postgres, "oneroster_source"), (f"{postgres}?application_name=x", "x")):
        names = set[str]()
        on_first_page(school, look)
        Warehouse(url).load(Report(), **ORGS, **settings(serve(school), school))
        assert name in names
