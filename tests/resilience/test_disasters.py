"""Full disks, lost and restored files: nothing is lost, and the next run is as good as any.

Disks of many sizes: `uv run pytest -m campaign tests/resilience/test_disasters.py`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import duckdb
import pytest
from support.program import ALONE, PATIENCE
from support.settings import settings
from support.truth import Truth, differences

from oneroster_source import DestinationError
from oneroster_source.simulator import School, Simulator, secondary_school

USERS = {"endpoints": ["users"]}
"""What is loaded where it does not matter what: a load of all takes longer."""


TWO_RUNS = """
import json, os, shutil, subprocess, sys, tempfile
from oneroster_source import OneRosterError, Report, Warehouse
from oneroster_source.extract import buffer

options, small, first, then, in_memory = json.loads(sys.argv[1])
mount = lambda *words: subprocess.run(["mount", *words], check=True)
os.mkdir("small")
mount("-t", "tmpfs", "-o", f"{first},mode=700", "tmpfs", "small")
database = "roster.duckdb"
if small == "database":
    database = "small/roster.duckdb"
else:
    tempfile.tempdir = os.path.abspath("small")
buffer.IN_MEMORY = in_memory
for _ in range(2):
    try:
        Warehouse(database).load(Report(), **options)
        print("good")
    except OneRosterError as error:
        print(type(error).__name__, " ".join(str(error).split()))
    mount("-o", f"remount,{then}", "small")
left = [name for _, _, names in os.walk("small") for name in names]
print(*left)
if small == "database":
    shutil.copy(database, ".")
"""


def two_runs(
    folder: Path,
    server: Simulator,
    school: School,
    small: str,
    first: str,
    *,
    then: str = "size=300m",
    in_memory: int = 4 << 20,
    **options: object,
) -> list[str]:
    """What comes of a run in a small file system, of another after a change, and what is left."""
    if subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    given = ({**settings(server, school), **options}, small, first, then, in_memory)
    done = subprocess.run(
        [*ALONE, sys.executable, "-c", TWO_RUNS, json.dumps(given)],
        cwd=folder,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


NO_ROOM = "DestinationError there is no room in "


@pytest.mark.parametrize(
    ("small", "size", "in_memory", "said"),
    [
        pytest.param(
            *("database", "size=16k", 4 << 20, NO_ROOM + "small/roster.duckdb: No space left"),
            id="the database's",
        ),
        pytest.param(
            *("temporary", "size=16k", 4 << 20, NO_ROOM + "the folder for temporary files, "),
            id="the packages'",
            marks=pytest.mark.campaign,
        ),
        pytest.param(
            *("temporary", "size=100k", 1000, NO_ROOM + "the folder for temporary files, "),
            id="the waiting pages'",
        ),
        pytest.param(
            *("database", "ro,size=1m", 4 << 20, "roster.duckdb.lock: Read-only file system"),
            id="to be read only",
            marks=pytest.mark.campaign,
        ),
    ],
)
@pytest.mark.sample(1)
def test_a_disk_that_is_full_is_told_and_harms_nothing(
    serve, tmp_path, small, size, in_memory, said
) -> None:
    school = secondary_school(1, pupils=10)
    server = serve(school)
    then = "rw,size=300m"
    first, second, left = two_runs(
        *(tmp_path, server, school, small, size), then=then, in_memory=in_memory
    )
    assert said in first and "What to do: " in first
    assert (second, left) == ("good", "roster.duckdb" if small == "database" else "")
    assert differences(str(tmp_path / "roster.duckdb"), Truth(server.base_url, [school])) == {}


@pytest.mark.campaign
@pytest.mark.parametrize("small", ["database", "temporary"])
def test_a_disk_of_any_size(serve, tmp_path, small) -> None:
    """However far a run comes before the disk is full, the next one ends equal to the server.

    Run it with: uv run pytest -m campaign tests/resilience/test_disasters.py
    """
    school = secondary_school(1, pupils=300)
    server = serve(school)
    ends = set()
    for size in (16, 48, 100, 200, 400, 800, 1200, 1800, 2500, 3500, 5000, 7000, 10_000, 20_000):
        folder = tmp_path / str(size)
        folder.mkdir()
        first, second, _ = two_runs(
            folder, server, school, small, f"size={size}k", in_memory=10_000
        )
        assert (first == "good" or first.startswith(NO_ROOM)) and second == "good", (size, first)
        assert differences(str(folder / "roster.duckdb"), Truth(server.base_url, [school])) == {}
        ends.add(first)
    assert len(ends) > 1, "some were too small, some were not"


@pytest.mark.slow
def test_a_database_that_was_deleted_is_loaded_anew(serve, sync, school, warehouse) -> None:
    server = serve(school)
    sync(server, school, endpoints=["orgs"])
    Path(warehouse.name).unlink()
    assert {o.mode for o in sync(server, school).outcomes} == {"full"}
    assert differences(warehouse.name, Truth(server.base_url, [school])) == {}


def test_a_database_that_was_restored_from_an_older_copy_is_brought_up_to_date(
    serve, sync, school, warehouse
) -> None:
    server = serve(school)
    first, second, third = (user["sourcedId"] for user in school.rows("users")[:3])
    sync(server, school, **USERS)
    shutil.copy(warehouse.name, "copy.duckdb")
    school.change("users", first, phone="1")
    school.delete("users", second)
    sync(server, school, **USERS)
    shutil.copy("copy.duckdb", warehouse.name)
    school.change("users", third, phone="3")
    assert {o.mode for o in sync(server, school, **USERS).outcomes} == {"delta"}
    assert differences(warehouse.name, Truth(server.base_url, [school], **USERS)) == {}


def test_a_working_folder_that_somebody_clears_ends_the_run_with_nothing_lost(
    serve, sync, school, warehouse, tmp_path, monkeypatch
) -> None:
    server = serve(school)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def clear(*_: object) -> None:
        for folder in tmp_path.glob("oneroster-*/*"):
            shutil.rmtree(folder)

    school.on_page = clear
    with pytest.raises(DestinationError, match="was removed while it ran"):
        sync(server, school, **USERS)
    school.on_page = None
    sync(server, school, **USERS)
    assert differences(warehouse.name, Truth(server.base_url, [school], **USERS)) == {}


def test_a_file_that_is_no_database_is_told_and_left_as_it_is(
    serve, sync, school, warehouse
) -> None:
    Path(warehouse.name).write_bytes(b"notes of a colleague\n" * 1000)
    with pytest.raises(DestinationError, match="not a valid DuckDB database file"):
        sync(serve(school), school)
    assert Path(warehouse.name).read_bytes() == b"notes of a colleague\n" * 1000


def test_a_notebook_in_the_same_process_that_only_reads_is_told(
    serve, sync, school, warehouse
) -> None:
    duckdb.connect(warehouse.name).close()
    with (
        duckdb.connect(warehouse.name, read_only=True),
        pytest.raises(DestinationError, match="different configuration than existing connections"),
    ):
        sync(serve(school), school)
