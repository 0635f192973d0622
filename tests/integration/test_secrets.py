"""Secrets and tokens, searched as bytes in everything that a run leaves behind or prints."""

from __future__ import annotations

import base64
import logging
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dlt
import duckdb
import pytest
from support.program import PATIENCE, Run
from support.settings import environment, settings
from support.traces import files, found, parts

from oneroster_source import DestinationBusy, DestinationError, Report, Warehouse, oneroster
from oneroster_source.destination.locks import early
from oneroster_source.simulator import Fault, School, Simulator, secondary_school

SECRET = "Zx9:|s3cr3t'\"%25 ü-canary"


@pytest.fixture
def guarded() -> School:
    return secondary_school(5, "3281110", pupils=15, shared_secret=SECRET)


def hidden(server: Simulator, school: School) -> list[bytes]:
    """What nobody may see: the secret, the header it makes, and every token that was used."""
    basic = base64.b64encode(f"{school.rp}|{school.estab}:{SECRET}".encode())
    used = {r.headers.get("authorization", "") for r in server.requests}
    tokens = [value.removeprefix("Bearer ").encode() for value in used if "Bearer " in value]
    assert tokens or all(r.path == "auth/token" for r in server.requests)
    return [SECRET.encode(), basic, *tokens]


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(None, id="a good run"),
        pytest.param(Fault("users", status=403, times=99), id="a denied endpoint"),
        pytest.param(
            Fault("users", at=2, kind="html", times=9),
            id="a broken endpoint",
            marks=pytest.mark.campaign,
        ),
        pytest.param(
            Fault("auth/token", status=401), id="a refused login", marks=pytest.mark.campaign
        ),
    ],
)
@pytest.mark.sample(1)
def test_a_run_of_the_command_shows_and_leaves_no_secret(
    serve, guarded: School, tmp_path: Path, fault: Fault | None
) -> None:
    server = serve(guarded)
    if fault:
        guarded.faults.append(fault)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "oneroster_source", "sync", "--report", "report.json"],
        cwd=tmp_path,
        env={
            **os.environ,
            **environment(server, guarded),
            "SOURCES__ONEROSTER__RETRY_BUDGET": "0",
            "SOURCES__ONEROSTER__ENDPOINTS": '["users", "orgs"]',
            "RUNTIME__LOG_LEVEL": "DEBUG",
            "TMPDIR": str(temporary),
        },
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == (1 if fault else 0), done.stderr
    texts = {"stdout": done.stdout, "stderr": done.stderr, **files(tmp_path)}
    assert found(texts, hidden(server, guarded)) == []
    assert files(temporary) == {}
    assert {path.name for path in tmp_path.iterdir()} == {
        "roster.duckdb",
        "report.json",
        "temporary",
    }


def test_no_secret_is_in_a_kept_working_folder_the_trace_or_the_log(
    serve, guarded: School, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(guarded)
    pipeline = dlt.pipeline(
        "canary",
        destination=dlt.destinations.duckdb(str(tmp_path / "canary.duckdb")),
        dataset_name="oneroster",
        pipelines_dir=str(tmp_path / "work"),
    )
    with caplog.at_level(logging.DEBUG):
        for name in ("urllib3", "requests", "dlt"):
            logging.getLogger(name).setLevel(logging.DEBUG)
        source = oneroster(report=Report(), **settings(server, guarded))
        pipeline.run(source)
    texts = {
        "log": caplog.text.encode(),
        "trace": pickle.dumps(pipeline.last_trace) + repr(pipeline.last_trace.asdict()).encode(),
        "state": repr(pipeline.state).encode(),
        "source": repr(source).encode() + repr(vars(source)).encode(),
        **files(tmp_path),
    }
    assert caplog.text
    assert found(texts, hidden(server, guarded)) == []


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    "fault",
    [
        Fault("auth/token", status=401),
        Fault("users", status=403, times=99),
        Fault("users", status=400, times=9),
        Fault("users", kind="redirect"),
        Fault("users", status=401, times=9),
    ],
    ids=lambda fault: f"{fault.path} {fault.kind} {fault.status or ''}",
)
def test_no_secret_hangs_on_an_error(serve, guarded: School, tmp_path: Path, fault: Fault) -> None:
    server = serve(guarded)
    guarded.faults.append(fault)
    pipeline = dlt.pipeline(
        "canary",
        destination=dlt.destinations.duckdb(str(tmp_path / "canary.duckdb")),
        pipelines_dir=str(tmp_path / "work"),
    )
    with pytest.raises(Exception, match="3281110") as caught:
        pipeline.run(oneroster(endpoints=["users"], **settings(server, guarded)))
    secrets = hidden(server, guarded)
    assert found({"error": parts(caught.value).encode()}, secrets) == []
    assert "requests" not in {type(e).__module__.split(".")[0] for e in _chain(caught.value)}


def test_personal_data_is_in_no_message_of_a_page_that_cannot_be_read(
    serve, guarded: School, tmp_path: Path, sync
) -> None:
    server = serve(guarded)
    name = next(u["familyName"] for u in guarded.rows("users"))
    body = f'{{"users": [{{"sourcedId": "a", "familyName": "{name}"'.encode()
    guarded.faults.append(Fault("users", status=200, body=body, times=9))
    report = sync(server, guarded, endpoints=["users"], retry_budget=0)
    assert report.failed
    assert name not in repr(report.as_dict())


def test_rejected_rows_hold_no_personal_data(serve, guarded: School, sync, warehouse) -> None:
    server = serve(guarded)
    user = guarded.rows("users")[0]
    guarded.change("users", user["sourcedId"], enabledUser="Zebedee Canary")
    sync(server, guarded, endpoints=["users"])
    with duckdb.connect(warehouse.name, read_only=True) as connection:
        rows = connection.sql("SELECT * FROM oneroster.rejected_rows").fetchall()
    assert rows and "Zebedee" not in repr(rows)


def _chain(error: BaseException | None) -> list[BaseException]:
    return [error, *_chain(error.__cause__ or error.__context__)] if error else []


LOGIN = "loader:hunter2-é@x"
PLACES = {
    f"postgresql+psycopg2://{LOGIN}@127.0.0.1:1/db": "Connection refused",
    f"POSTGRES://{LOGIN}@127.0.0.1:1/db": "Connection refused",
    "postgresql://loader:hun/ter2@127.0.0.1:1/db": "Connection refused",
    "postgresql://loader:hun?ter2@127.0.0.1:1/db": "Connection refused",
    "postgresql://127.0.0.1:1/db?user=loader@x&password=hunter2": "cannot be used",
    "postgresql://loader:x@127.0.0.1:1/db?sslpassword=hunter2": "Connection refused",
    "postgresql://loader:hunter2@127.0.0.1:port/db": "cannot be used",
    f"snowflake://{LOGIN}@account/db": "DESTINATION__SNOWFLAKE__CREDENTIALS",
    f"mssql+pyodbc://{LOGIN}@server/db": "DESTINATION__MSSQL__CREDENTIALS",
    f"mysql://{LOGIN}@server/db": "name --destination sqlalchemy",
    "md:?motherduck_token=hunter2": "DESTINATION__MOTHERDUCK__CREDENTIALS",
    "s3://key:hunter2@bucket": "DESTINATION__FILESYSTEM__BUCKET_URL",
    f"other://{LOGIN}@server/db": "neither a DuckDB file",
    "host=127.0.0.1 user=loader password=hunter2": "neither a DuckDB file",
    f"{LOGIN}@server/db": "neither a DuckDB file",
}


@pytest.mark.sample(4)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("words", [("sync", "--report", "report.json"), ("status",)], ids="-".join)
def test_a_password_in_a_destination_is_shown_nowhere(
    run: Run,
    serve,
    guarded: School,
    tmp_path: Path,
    words: tuple[str, ...],
    place: str,
) -> None:
    done = run(*words, "--destination", place, env=environment(serve(guarded), guarded))
    said = done.stdout + done.stderr
    assert done.returncode in (1, 2)
    # whatever a driver takes for the name of a server, or a program for that of a setting
    for part in ("unter2", "er2@", "x@127", "hun/", "hun?"):
        assert part.lower() not in said.lower()
        assert not [name for name, text in files(tmp_path).items() if part.encode() in text]
    assert PLACES[place] in said and "What to do" in said
    if done.returncode == 2 and "cannot be used" not in said:
        # refused before anything is said of it
        assert "run_started" not in said


def test_a_driver_that_sqlalchemy_would_take_is_no_other_database(postgres: str) -> None:
    _, rest = postgres.split("://", 1)
    for place in (f"postgresql+psycopg2://{rest}", f"Postgres://{rest}"):
        with pytest.raises(DestinationError, match="holds no dataset"):
            Warehouse(place).status()


@pytest.mark.parametrize(
    "configured",
    [
        {"POSTGRES__CREDENTIALS": "postgresql://loader:hun@ter2@127.0.0.1:1/db"},
        {"POSTGRES__CREDENTIALS": "postgres//loader:hunter2@127.0.0.1/db"},
        {"POSTGRES__CREDENTIALS": '{"password": "hunter2", "port": "x"}'},
        {"POSTGRES__CREDENTIALS__PASSWORD": "hunter2", "POSTGRES__CREDENTIALS__PORT": "x"},
    ],
    ids=["a sign", "no address", "a wrong port", "in parts"],
)
def test_a_configured_password_is_in_no_error(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    configured: dict[str, str],
) -> None:
    for name, value in configured.items():
        monkeypatch.setenv(f"DESTINATION__{name}", value)
    done = run("status", "--destination", "postgres")
    assert done.returncode in (1, 2)
    assert "ter2" not in done.stdout + done.stderr


def test_a_busy_destination_is_told_without_its_password() -> None:
    place = "md:roster?motherduck_token=hunter2"
    with early(place, "oneroster"), ThreadPoolExecutor(1) as other:

        def enter() -> None:
            with early(place, "oneroster"):
                pass

        with pytest.raises(DestinationBusy) as busy:
            other.submit(enter).result()
    assert "hunter2" not in str(busy.value)
