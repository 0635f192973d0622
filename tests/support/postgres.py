"""A real Postgres server: started when a test first asks for one, ended after the last."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import psycopg2
import pytest

from support.program import PATIENCE, spawn

_OPTIONS = ("-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
_SETTINGS = ("fsync=off", "unix_socket_directories=", "shared_buffers=32MB")


@contextmanager
def server() -> Iterator[str]:
    """Starts a server; its URL, to which the name of a database can be added.

    The test is skipped where there is no Postgres.
    """
    programs = _programs()
    # it refuses to be run by root
    who = {"user": "postgres", "group": "postgres", "extra_groups": []} if _root() else {}
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        if who:
            shutil.chown(folder, "postgres")
        data = Path(folder, "data")
        subprocess.run(
            [programs / "initdb", "-D", data, "-U", "loader", *_OPTIONS],
            check=True,
            **{"capture_output": True, "timeout": PATIENCE, "cwd": folder, **who},
        )
        with _running(programs / "postgres", data, who) as url:
            yield url


@contextmanager
def fresh(url: str) -> Iterator[str]:
    """A new database of a server, dropped at the end: its URL."""
    name = f"roster_{time.monotonic_ns()}"
    query(f"{url}/postgres", f"CREATE DATABASE {name}")
    try:
        yield f"{url}/{name}"
    finally:
        query(f"{url}/postgres", f"DROP DATABASE {name} WITH (FORCE)")


def query(url: str, text: str, *values: object) -> list[tuple[Any, ...]]:
    """What a database answers."""
    connection = psycopg2.connect(url)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(text, values or None)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def _programs() -> Path:
    """The folder of the server's programs: on the path, or where Debian keeps them."""
    folders = [*os.get_exec_path(), *map(str, Path("/usr/lib/postgresql").glob("*/bin"))]
    found = shutil.which("initdb", path=os.pathsep.join(folders))
    if found is None:
        pytest.skip("there is no Postgres server on this machine")
    if _root() and not any(user.pw_name == "postgres" for user in pwd.getpwall()):
        pytest.skip("root may not run a Postgres server, and there is no user postgres")
    return Path(found).resolve().parent


def _root() -> bool:
    return os.geteuid() == 0


@contextmanager
def _running(program: Path, data: Path, who: dict[str, Any]) -> Iterator[str]:
    # another program may take a free port before the server does
    for _ in range(5):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        url = f"postgresql://loader:hunter2@127.0.0.1:{port}"
        settings = [word for setting in _SETTINGS for word in ("-c", setting)]
        with (data.parent / "log").open("wb") as log:
            # at the end of a killed test run it shuts down at once
            process = spawn(
                [program, "-D", data, "-p", str(port), *settings],
                at_the_end=signal.SIGQUIT,
                **{"stdout": log, "stderr": log, "cwd": data.parent, **who},
            )
        try:
            if _ready(process, url, data):
                yield url
                return
        finally:
            # not SIGTERM, which waits for everybody to leave
            process.send_signal(signal.SIGINT)
            process.wait(timeout=PATIENCE)
    pytest.fail(f"Postgres does not start: {(data.parent / 'log').read_text()[-1000:]}")


def _ready(process: subprocess.Popen[bytes], url: str, data: Path) -> bool:
    """Whether it is this server that answers there, as soon as that is known."""
    end = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < end:
        try:
            return query(f"{url}/postgres", "SHOW data_directory") == [(str(data),)]
        except psycopg2.OperationalError:
            time.sleep(0.05)
    return False


def execute(database: str, statement: str) -> None:
    if "://" in database:
        query(database, statement)
    else:
        with duckdb.connect(database) as connection:
            connection.execute(statement)
