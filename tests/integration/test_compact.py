"""What removed rows have left behind is gone: as bytes, in every file; and nothing else is.

A full disk: `uv run pytest -m campaign tests/integration/test_compact.py`.
"""

from __future__ import annotations

import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dlt
import duckdb
import psycopg2
import pytest
from support.postgres import query
from support.program import ALONE, PATIENCE, spawn
from support.settings import settings

from oneroster_source import DestinationError, Report, Warehouse
from oneroster_source.destination.backends import backend_of
from oneroster_source.simulator import secondary_school

MARK = b"canary-marked-name"
ROWS = 30_000

OBJECTS = """
PRAGMA force_compression = 'uncompressed';
CREATE SCHEMA oneroster; CREATE SCHEMA "of others";
CREATE TABLE oneroster.users (estab VARCHAR NOT NULL, name VARCHAR);
INSERT INTO oneroster.users SELECT (i % 2)::VARCHAR, 'pupil ' || i FROM range({rows}) r(i);
INSERT INTO oneroster.users SELECT '3', 'canary-marked-name ' || i FROM range(500) r(i);
CREATE INDEX by_name ON oneroster.users (name);
CREATE VIEW oneroster.roster AS SELECT * FROM "{name}".oneroster.users;
CREATE VIEW oneroster.a_view_of_it AS SELECT count(*) AS n FROM "{name}"."oneroster".roster;
CREATE TYPE "of others".mood AS ENUM ('good', 'bad');
CREATE SEQUENCE "of others".numbers START 5 INCREMENT 2;
CREATE TABLE "of others".parents (
    id INTEGER PRIMARY KEY DEFAULT nextval('"of others".numbers'),
    "the ""mood" "of others".mood,
    twice INTEGER GENERATED ALWAYS AS (id * 2),
    code VARCHAR DEFAULT NULL UNIQUE,
    positive INTEGER CHECK (positive > 0),
    listed STRUCT(a INTEGER, b DATE[])
);
INSERT INTO "of others".parents ("the ""mood", code, positive, listed)
    VALUES ('good', 'x', 1, {{'a': 1, 'b': [DATE '2026-03-03']}}), ('bad', 'y', 2, NULL);
CREATE TABLE "of others".children (id INTEGER, made TIMESTAMP DEFAULT now());
INSERT INTO "of others".children (id) VALUES (5), (7);
CREATE MACRO one_more(a) AS a + 1;
CREATE MACRO "of others".some_users(n) AS TABLE SELECT * FROM "{name}".oneroster.users LIMIT n;
CREATE VIEW of_nothing AS SELECT * FROM oneroster.users;
COMMENT ON TABLE "of others".parents IS 'who';
COMMENT ON COLUMN "of others".parents.code IS 'which';
COMMENT ON VIEW oneroster.roster IS 'all';
CREATE TABLE gone (id INTEGER); CREATE VIEW broken AS SELECT * FROM gone; DROP TABLE gone;
"""


def _pipeline(file: Path) -> dlt.Pipeline:
    return dlt.pipeline(
        "oneroster",
        destination=dlt.destinations.duckdb(str(file)),
        dataset_name="oneroster",
        pipelines_dir=str(file.parent / "work"),
    )


def compact(file: Path, patience: float) -> str:
    return backend_of(_pipeline(file).destination_client()).compact("it", patience)


@contextmanager
def _asking(file: Path) -> Iterator[Any]:
    with duckdb.connect(str(file)) as connection:
        yield lambda text: connection.execute(text).fetchall()


def _make(file: Path) -> None:
    """A file with everything that DuckDB can keep in one, of which marked rows were deleted."""
    with _asking(file) as ask:
        ask(OBJECTS.format(name=file.stem, rows=ROWS))
    with _asking(file) as ask:
        ask("DELETE FROM oneroster.users WHERE estab = '3'; CHECKPOINT")


def _holding(folder: Path) -> list[str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path.name for path in files if MARK in path.read_bytes()]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my roster.duckdb"
    _make(path)
    assert _holding(tmp_path) == [path.name], "deleted rows leave their bytes"
    Path(f"{path}.rewrite").touch()
    return path


def test_the_bytes_of_deleted_rows_are_gone_and_all_else_works_as_before(file, tmp_path) -> None:
    file.chmod(0o640)
    link = tmp_path / "link.duckdb"
    link.symlink_to(file)
    # of runs that were killed
    for name in (".rewrite.duckdb", ".rewrite.duckdb.wal", ".tmp/duckdb_temp_storage-0.tmp"):
        left = Path(f"{file}{name}")
        left.parent.mkdir(exist_ok=True)
        left.write_bytes(MARK)
    assert "compacted" in compact(link, 1)
    assert _holding(tmp_path) == []
    assert link.is_symlink() and sorted(p.name for p in tmp_path.glob("*roster*")) == [file.name]
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    with _asking(file) as ask:
        assert ask("SELECT estab, count(*) FROM oneroster.users GROUP BY 1 ORDER BY 1") == [
            ("0", ROWS // 2),
            ("1", ROWS // 2),
        ]
        assert ask("FROM oneroster.a_view_of_it") == [(ROWS,)]
        assert len(ask("FROM of_nothing")) == len(ask("FROM oneroster.roster")) == ROWS
        assert ask('SELECT one_more(1), (SELECT count(*) FROM "of others".some_users(3))') == [
            (2, 3)
        ]
        plan = str(ask("EXPLAIN ANALYZE SELECT * FROM oneroster.users WHERE name = 'pupil 7'"))
        assert "Index Scan" in plan
        parents = '"of others".parents'
        assert ask(f"SELECT twice, * EXCLUDE (listed, twice) FROM {parents} ORDER BY id") == [
            (10, 5, "good", "x", 1),
            (14, 7, "bad", "y", 2),
        ]
        assert ask(f"SELECT listed.b[1]::VARCHAR FROM {parents} WHERE id = 5") == [("2026-03-03",)]
        assert ask(f"INSERT INTO {parents} (code) VALUES ('z') RETURNING id") == [(9,)]
        for wrong in (
            f"INSERT INTO {parents} (code) VALUES ('x')",
            f"INSERT INTO {parents} (id) VALUES (5)",
            f"INSERT INTO {parents} (positive) VALUES (0)",
            "INSERT INTO oneroster.users VALUES (NULL, '')",
        ):
            with pytest.raises(duckdb.ConstraintException):
                ask(wrong)
        assert ask("SELECT 'good'::\"of others\".mood::VARCHAR") == [("good",)]
        comments = "SELECT comment FROM duckdb_{}() WHERE comment IS NOT NULL AND NOT internal"
        for what, said in (("tables", "who"), ("columns", "which"), ("views", "all")):
            assert ask(comments.format(what)) == [(said,)]
        assert ask("SELECT count(*) FROM duckdb_views() WHERE view_name = 'broken'") == [(1,)]


DIES = """
import os, signal, sys
from collections import Counter
import dlt, duckdb
from oneroster_source.destination.backends import backend_of

def die_at(moment):
    seen = Counter()

    def event(name):
        seen[name] += 1
        if moment == f"{name} {seen[name]}":
            os.kill(os.getpid(), signal.SIGKILL)

    def called(frame, what, function):
        if what == "c_call" and frame.f_code.co_name == "_copy":
            event(function.__name__)

    sys.addaudithook(lambda name, args: event(name))
    sys.setprofile(called)

for moment in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        file = os.path.abspath(f"{moment}/roster.duckdb")
        pipeline = dlt.pipeline(
            "oneroster", destination=dlt.destinations.duckdb(file), dataset_name="oneroster",
            pipelines_dir=f"{moment}/work",
        )
        backend = backend_of(pipeline.destination_client())
        die_at(moment)
        backend.compact("it", 1)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_all_rows_and_the_next_compaction_clears_up(
    file, tmp_path
) -> None:
    # amid the copy, after it, as it takes its place, and when it has
    moments = ("execute 3", "execute 4", "os.chmod 1", "os.rename 1", "os.remove 3")
    for moment in moments:
        Path(moment).mkdir()
        shutil.copy(file, f"{moment}/roster.duckdb")
        Path(f"{moment}/roster.duckdb.rewrite").touch()
    done = subprocess.run(
        [sys.executable, "-c", DIES, *moments],
        check=False,
        **{"capture_output": True, "text": True, "timeout": PATIENCE},
    )
    assert done.stdout.split() == [str(-signal.SIGKILL)] * len(moments), done.stderr
    for moment in moments:
        copy = Path(moment, "roster.duckdb").absolute()
        is_new = moment == moments[-1]
        assert (_holding(Path(moment)) == []) == is_new
        assert Path(f"{copy}.rewrite.duckdb").exists() != is_new
        with _asking(copy) as ask:
            assert ask("SELECT count(*) FROM oneroster.users") == [(ROWS,)]
        assert Path(f"{copy}.rewrite").exists()
        compact(copy, 1)
        assert "nothing to compact" in compact(copy, 1)
        assert [path.name for path in Path(moment).glob("roster*")] == [copy.name]
        assert _holding(Path(moment)) == []


FULL = """
import os, subprocess
from pathlib import Path
import dlt, duckdb
from oneroster_source import OneRosterError
from oneroster_source.destination.backends import backend_of

mount = lambda *words: subprocess.run(["mount", *words], check=True)
file = Path("small/roster.duckdb").absolute()
size = Path("my roster.duckdb").stat().st_size
os.mkdir("small")
mount("-t", "tmpfs", "-o", f"size={size + (1 << 20)},mode=700", "tmpfs", "small")
file.write_bytes(Path("my roster.duckdb").read_bytes())
Path(f"{file}.rewrite").touch()
pipeline = dlt.pipeline(
    "oneroster", destination=dlt.destinations.duckdb(str(file)), dataset_name="oneroster",
    pipelines_dir="work",
)
for _ in range(2):
    try:
        print(backend_of(pipeline.destination_client()).compact("it", 1))
    except OneRosterError as error:
        print(" ".join(str(error).split()))
    with duckdb.connect(str(file)) as connection:
        rows = connection.execute("SELECT count(*) FROM oneroster.users").fetchone()[0]
    print(rows, sorted(os.listdir("small")), b"canary-marked" in file.read_bytes())
    mount("-o", "remount,size=300m", "small")
"""


@pytest.mark.campaign
def test_a_disk_without_room_for_the_copy_is_told_and_loses_nothing(file, tmp_path) -> None:
    if subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    done = subprocess.run(
        [*ALONE, sys.executable, "-c", FULL],
        check=False,
        **{"capture_output": True, "text": True, "timeout": PATIENCE},
    )
    assert done.returncode == 0, done.stderr
    said, before, then, after = done.stdout.splitlines()
    assert (
        "it: the rows are deleted, but their bytes are still on disk" in said
        and "No space left" in said
    )
    assert "has room for another" in said and "run the same command again" in said
    assert before == f"{ROWS} ['roster.duckdb', 'roster.duckdb.rewrite'] True"
    assert "compacted" in then and after == f"{ROWS} ['roster.duckdb'] False"


def test_nothing_is_replaced_while_somebody_has_the_file_open(file, tmp_path) -> None:
    before = file.read_bytes()
    with (
        duckdb.connect(str(file)),
        pytest.raises(DestinationError, match="something else in this process") as told,
    ):
        compact(file, 0)
    assert "rows are deleted, but their bytes are still on disk" in str(told.value)
    code = f"import duckdb; c = duckdb.connect({str(file)!r}); print(1, flush=True); input()"
    other = spawn([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None and other.stdout.readline()
        with pytest.raises(DestinationError, match=f"held open by process {other.pid}"):
            compact(file, 0)
    finally:
        other.communicate(b"\n", timeout=PATIENCE)
    assert file.read_bytes() == before


def test_what_duckdb_cannot_copy_is_told_and_left_as_it_is(file, tmp_path) -> None:
    with _asking(file) as ask:
        # a foreign key, which DuckDB would break, into the table itself or another one
        ask("CREATE TABLE tree (id INTEGER PRIMARY KEY, above INTEGER REFERENCES tree (id))")
        ask("INSERT INTO tree VALUES (1, NULL)")
        ask("INSERT INTO tree VALUES (2, 1)")
    with pytest.raises(DestinationError, match="cannot copy the table") as told:
        compact(file, 0)
    assert 'table "main"."tree" without' in str(told.value)
    with _asking(file) as ask:
        assert ask("FROM tree") == [(1, None), (2, 1)]
        assert ask("SELECT count(*) FROM oneroster.users") == [(ROWS,)]
    note = Path(f"{file}.rewrite")
    assert sorted(tmp_path.glob("*roster*")) == [file, note]
    with _asking(file) as ask:
        ask("DROP TABLE tree; CREATE TABLE a (id INTEGER PRIMARY KEY)")
        ask("CREATE TABLE child (id INTEGER REFERENCES a (id))")
        ask("INSERT INTO a VALUES (1); INSERT INTO child VALUES (1)")
    with pytest.raises(DestinationError, match="cannot copy the table") as told:
        compact(file, 0)
    assert 'table "main"."child" without' in str(told.value)
    with _asking(file) as ask:
        # what the message says to do
        ask("CREATE TABLE without AS FROM child; DROP TABLE child")
    assert "compacted" in compact(file, 0) and _holding(tmp_path) == []


def test_a_file_with_a_second_name_is_told_and_left_as_it_is(file, tmp_path) -> None:
    # where it would stay under that name
    other = tmp_path / "another.duckdb"
    other.hardlink_to(file)
    with pytest.raises(DestinationError, match="a second name"):
        compact(file, 0)


def _in_postgres(url: str) -> list[str]:
    """The tables whose files hold marked names."""
    query(url, "CHECKPOINT")
    files = query(
        url,
        "SELECT relname FROM pg_class WHERE relkind IN ('r', 't', 'i')"
        " AND position(%s::bytea IN pg_read_binary_file(pg_relation_filepath(oid))) > 0",
        MARK,
    )
    return [name for (name,) in files]


@pytest.mark.sample(1)
@pytest.mark.parametrize("kind", ["duckdb", "postgres"])
def test_of_a_school_that_is_forgotten_no_byte_is_left(serve, request, tmp_path, kind) -> None:
    duck = str(tmp_path / "roster.duckdb")
    place = duck if kind == "duckdb" else request.getfixturevalue("postgres")
    schools = [secondary_school(n, str(n), pupils=10) for n in (1, 2)]
    for n, user in enumerate(schools[0].rows("users")):
        schools[0].change("users", user["sourcedId"], familyName=f"{MARK.decode()}{n:09}")
    warehouse = Warehouse(place)
    warehouse.load(Report(), **settings(serve(*schools), *schools), endpoints=["users"])
    assert kind != "duckdb" or _holding(tmp_path) == ["roster.duckdb"]
    removed = warehouse.forget(["1"])
    assert removed.rows["users"] == len(schools[0].rows("users"))
    assert warehouse.status().rows["users"] == {"2": len(schools[1].rows("users"))}
    assert "compacted" in removed.bytes and not warehouse.is_unfinished
    if kind == "duckdb":
        assert _holding(tmp_path) == []
        return
    assert _in_postgres(place) == []
    statistics = "SELECT tablename FROM pg_stats WHERE pg_stats::text LIKE %s"
    assert query(place, statistics, f"%{MARK.decode()}%") == []


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("begins", "why"),
    [
        ("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT 1", "still sees rows"),
        ("SELECT count(*) FROM oneroster.orgs", "another session has the table"),
    ],
)
@pytest.mark.slow
def test_what_others_do_in_postgres_is_not_waited_for_and_the_rest_is_made_up_for(
    serve, postgres, school, monkeypatch, begins, why
) -> None:
    school.change("orgs", school.rows("orgs")[0]["sourcedId"], name=MARK.decode())
    warehouse, server = Warehouse(postgres), serve(school)
    warehouse.load(Report(), **settings(server, school), endpoints=["orgs"])
    monkeypatch.setenv("SOURCES__ONEROSTER__LOCK_TIMEOUT", "0")
    other = psycopg2.connect(postgres)
    try:
        with other.cursor() as cursor:
            cursor.execute(begins)
            with pytest.raises(DestinationError, match=why) as told:
                warehouse.forget([school.estab])
            # whoever reads waits for nobody
            query(postgres, "SET statement_timeout = 5000; SELECT count(*) FROM oneroster.orgs")
    finally:
        other.close()
    assert "run VACUUM (FULL, ANALYZE) " in str(told.value)
    assert warehouse.count([school.estab]) == {} and warehouse.is_unfinished
    assert "orgs" in _in_postgres(postgres)
    # the same command does it, and so does any load
    if "orgs" in begins:
        warehouse.load(Report(), **settings(server, school), endpoints=["courses"])
    else:
        assert "compacted" in warehouse.forget([school.estab]).bytes
    assert _in_postgres(postgres) == [] and not warehouse.is_unfinished
