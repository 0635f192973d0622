"""What a run says where nobody looks: lines with times, or JSON, with no secret and no name."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.program import PATIENCE, TIME, Run, on_terminal
from support.settings import environment

from oneroster_source import log
from oneroster_source.cli import render
from oneroster_source.cli import run as one_run
from oneroster_source.destination.locks import early
from oneroster_source.errors import OneRosterError
from oneroster_source.run_report import Report
from oneroster_source.simulator import Fault, School, Simulator, secondary_school

JSON = ("sync", "--log-format", "json")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """What a command changes in its process is as before."""
    yield
    log.use("plain")


def objects(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """Everything that was printed, line by line: each must be JSON."""
    lines = (done.stdout + done.stderr).splitlines()
    found = [json.loads(line) for line in lines]
    for line in found:
        assert list(line)[:4] == ["time", "level", "event", "message"]
        assert re.fullmatch(TIME, line["time"])
    return found


def test_a_run_in_json_tells_each_school_and_the_whole(run: Run, serve) -> None:
    schools = [secondary_school(n, str(n), pupils=10) for n in (1, 2, 3)]
    server = serve(*schools)
    schools[1].forbidden.add("users")
    schools[2].faults.append(Fault("auth/token", status=401, times=99))
    done = run(*JSON, "--endpoint", "orgs,users", env=environment(server, *schools))
    assert done.returncode == 1
    started, *middle, ended = objects(done)
    assert started["event"] == "run_started" and started["destination"] == "roster.duckdb"
    told = {line["estab"]: line for line in middle if line["event"].startswith("school_")}
    assert [told[estab]["event"] for estab in "123"] == [
        "school_read",
        "school_failed",
        "school_failed",
    ]
    users, orgs = (len(schools[0].rows(name)) for name in ("users", "orgs"))
    first = told["1"]
    assert (first["rows"], first["changed"], first["modes"]) == (
        users + orgs,
        users + orgs,
        ["full"],
    )
    assert list(told["2"]["reasons"]) == ["users"] and "403" in told["2"]["message"]
    # the login is refused once for all that a school has
    assert len(told["3"]["reasons"]) == 2 and told["3"]["message"].count("refused") == 1
    assert [ended[name] for name in ("event", "level", "good", "schools", "schools_failed")] == [
        *("run_ended", "error", False, 3, 2)
    ]
    assert len({line["run_id"] for line in (started, ended, *middle)}) == 1


def test_a_school_that_fails_at_once_is_told_once_for_all_its_endpoints(caplog) -> None:
    report = Report()
    report.expect(2)
    error = OneRosterError("refused")
    with caplog.at_level(logging.INFO, logger="oneroster_source"):
        # the second endpoint of the school is begun when the first has failed
        for endpoint in ("orgs", "users"):
            outcome = report.outcome("1", endpoint)
            outcome.begin()
            report.end(outcome, error)
        lone = report.outcome("2", "orgs")
        lone.begin()
        report.end(lone, error)
        assert len(caplog.records) == 1
        report.end_reading()
    (both, one) = (record.fields["reasons"] for record in caplog.records)
    assert list(both) == ["orgs", "users"] and list(one) == ["orgs"]


def test_lines_with_times_go_to_stderr_where_that_is_no_terminal(
    run: Run,
    serve,
    school: School,
) -> None:
    env = environment(serve(school), school)
    done = run("sync", "--endpoint", "orgs", env=env)
    lines = done.stderr.splitlines()
    assert all(re.match(rf"{TIME} (INFO   |WARNING|ERROR  ) \w+: \S", line) for line in lines)
    assert [line.split()[2] for line in lines] == ["run_started:", "school_read:", "run_ended:"]
    # the summary is as it is on a terminal
    assert "school    endpoint" in done.stdout and "1 of 1 collections loaded" in done.stdout
    assert not re.search(TIME, done.stdout)
    # a unit file or a container sets the variable
    done = run("sync", "--endpoint", "orgs", env={"ONEROSTER_LOG_FORMAT": "json"})
    assert [line["event"] for line in objects(done)] == ["run_started", "school_read", "run_ended"]


@pytest.mark.slow
def test_a_terminal_gets_no_lines_with_times(serve, school: School, tmp_path: Path) -> None:
    env = {**os.environ, **environment(serve(school), school), "TERM": "dumb"}
    school.forbidden.add("users")
    code, text = on_terminal("sync", "--endpoint", "orgs,users", env=env)
    assert code == 1
    assert "Failed: users" in text and "1 of 2 collections loaded" in text
    # what failed is told once, at the end
    assert "Error: " not in text and not re.search(TIME, text)


def test_progress_says_which_server_is_waited_for() -> None:
    report, now = Report(), datetime.now(UTC)
    report.pauses["over.example"] = now - timedelta(seconds=1)
    assert render.doing(report) == "Reading: 0 of 0 collections read, 0 rows"
    report.pauses["busy.example:8"] = until = now + timedelta(minutes=5)
    said = f"waiting for busy.example:8 until {until:%H:%M:%S}Z"
    assert render.doing(report).endswith(f"0 rows; {said}")


def test_a_pause_that_a_server_asks_for_is_told_with_the_run(run: Run, serve, school) -> None:
    server = serve(school)
    school.faults.append(Fault("users", status=429, headers=(("Retry-After", "1"),)))
    done = run(*JSON, "--endpoint", "users", env=environment(server, school))
    assert done.returncode == 0
    started, *middle, _ = objects(done)
    (pause,) = [line for line in middle if line["event"] == "pause"]
    host = server.base_url.split("/")[2]
    assert (pause["server"], pause["run_id"]) == (host, started["run_id"])
    assert pause["message"].startswith(f"{host} asked for a pause of 1 s; waiting until ")


def test_progress_is_told_now_and_then(
    run: Run,
    serve,
    school: School,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(one_run, "SECONDS", 0.01)
    found = objects(run(*JSON, "--endpoint", "orgs", env=environment(serve(school), school)))
    told = [line for line in found if line["event"] == "progress"]
    assert told
    rows = [line["rows"] for line in told]
    assert rows == sorted(rows) and rows[-1] <= found[-1]["rows"]


def test_warnings_are_told_once_for_all_schools(run: Run, serve) -> None:
    schools = [secondary_school(n, str(n), pupils=5) for n in range(1, 6)]
    for each in schools:
        each.change("orgs", each.rows("orgs")[0]["sourcedId"], mascot="owl")
    done = run(*JSON, "--endpoint", "orgs", env=environment(serve(*schools), *schools))
    told = [line for line in objects(done) if line["level"] == "warning"]
    assert [(line["event"], line["endpoint"], len(line["estabs"])) for line in told] == [
        ("warning", "orgs", 5)
    ]
    assert "and 2 more, orgs: kept in the column extra: mascot" in told[0]["message"]


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("words", "code", "kind"),
    [
        (("--school", "9"), 2, "ConfigurationError"),
        (("--destination", "postgresql://u:hunter2@127.0.0.1:1/x"), 1, "DestinationError"),
        ((), 75, "DestinationBusy"),
    ],
    ids=["wrong use", "no destination", "busy"],
)
def test_an_error_has_the_format_of_the_other_lines(
    run: Run,
    serve,
    school: School,
    words: tuple[str, ...],
    code: int,
    kind: str,
) -> None:
    env = environment(serve(school), school)
    if code == 75:
        process = [sys.executable, "-m", "oneroster_source", *JSON]
        with early("duckdb", "oneroster"):
            done = subprocess.run(
                process,
                env={**os.environ, **env},
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
    else:
        done = run(*JSON, *words, env=env)
    error = objects(done)[-1]
    assert done.returncode == error["exit_code"] == code
    assert (error["event"], error["level"], error["error"]) == ("run_failed", "error", kind)
    assert "What to do" in error["message"] and "hunter2" not in done.stderr


def test_what_libraries_say_has_the_format_too(capsys: pytest.CaptureFixture[str]) -> None:
    log.use("json")
    logging.getLogger("urllib3").warning("a retry\nof %d", 3)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    try:
        raise ValueError("of a bug")
    except ValueError as error:
        sys.excepthook(ValueError, error, error.__traceback__)
    done = subprocess.CompletedProcess((), 0, *capsys.readouterr())
    said = [(line["event"], line["level"]) for line in objects(done)]
    assert said == [
        ("urllib3", "warning"),
        ("py.warnings", "warning"),
        ("oneroster_source", "critical"),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["text", "json"])
def test_no_line_holds_a_secret_or_a_name(
    run: Run,
    serve,
    form: str,
) -> None:
    secret = "Zx9:|s3cr3t'\"%25 ü-canary"
    school = secondary_school(5, "3281110", pupils=15, shared_secret=secret)
    server: Simulator = serve(school)
    names = {user["familyName"] for user in school.rows("users")}
    user = school.rows("users")[0]
    school.change("users", user["sourcedId"], enabledUser="Zebedee Canary")
    body = f'{{"classes": [{{"title": "{user["familyName"]}"'.encode()
    school.faults.append(Fault("classes", status=200, body=body, times=9))
    school.faults.append(Fault("orgs", status=500, body=secret.encode(), times=9))
    env = {**environment(server, school), "SOURCES__ONEROSTER__RETRY_BUDGET": "0"}
    words = ("--endpoint", "orgs,users,classes", "--log-format", form)
    done = run("sync", *words, env=env)
    assert done.returncode == 1 and "school_failed" in done.stderr
    used = {r.headers.get("authorization", "") for r in server.requests}
    hidden = [secret, json.dumps(secret)[1:-1], "Zebedee", *names]
    hidden += [value.partition(" ")[2] for value in used if value]
    assert len(hidden) > 10
    assert [text for text in hidden if text in done.stdout + done.stderr] == []
