"""Each command: what it prints, what it leaves behind, and its exit code."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from support import later
from support.program import PATIENCE, Run, spawn
from support.settings import environment
from support.truth import Truth, differences
from typer.main import get_command
from typer.testing import CliRunner

from oneroster_source.cli.app import app
from oneroster_source.cli.common import OLD_COMMANDS, OLD_OPTIONS, split_list
from oneroster_source.errors import ConfigurationError
from oneroster_source.model import V1P1
from oneroster_source.simulator import (
    Fault,
    School,
    csv_school,
    live,
    secondary_school,
    spoil,
)


@pytest.fixture
def start(tmp_path: Path) -> Run:
    """Starts `oneroster` as people do, in a folder of its own."""

    def run(*words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "oneroster_source", *words],
            cwd=tmp_path,
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    return run


def test_demo_needs_no_settings_and_says_what_to_try_next(start: Run, tmp_path: Path) -> None:
    done = start("demo", "--pupils", "60", "--weeks", "0")
    assert done.returncode == 0, done.stderr
    assert "collections loaded into roster.duckdb" in done.stdout
    assert "One week later" not in done.stdout
    steps = re.findall(r"^  [1234]\. ", done.stdout, re.M)
    assert len(steps) == 4
    assert done.stderr == ""
    assert stat.S_IMODE((tmp_path / "roster.duckdb").stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["roster.duckdb"]
    query = re.search(r"sql\('''(.*?)'''\)", done.stdout, re.S)
    assert query is not None
    import duckdb

    with duckdb.connect(str(tmp_path / "roster.duckdb"), read_only=True) as connection:
        assert len(connection.sql(query[1]).fetchall()) == 10


def enrolled(rows: Iterable[dict[str, Any]]) -> set[tuple[object, ...]]:
    """Who is in which class, and when, of rows as the API writes them."""
    return {
        (
            *(row["sourcedId"], row["user"]["sourcedId"], row["class"]["sourcedId"]),
            # one of them cannot be read
            *(row["beginDate"] if row["beginDate"] < "3" else None, row.get("endDate")),
        )
        for row in rows
        if row["status"] == "active"
    }


@pytest.mark.slow
def test_demo_loads_what_each_week_brings_also_where_a_demo_was(run: Run, tmp_path: Path) -> None:
    done = [run("demo", "--pupils", pupils, "--weeks", "1") for pupils in ("60", "40")]
    weeks = [
        re.findall(
            r"^One week later: [\d,]+ rows read, (\d+) changed, \d+ deleted, in [\d.]+ s\.$",
            demo.stdout,
            re.M,
        )
        for demo in done
    ]
    assert [len(changed) for changed in weeks] == [1, 1], done
    assert any(int(changed) for changed in weeks[0])
    # the first load has a table, the others have not
    assert [demo.stdout.count(" 9990001 ") for demo in done] == [6, 6]
    import duckdb

    with duckdb.connect(str(tmp_path / "roster.duckdb"), read_only=True) as connection:
        first_day = connection.sql("SELECT min(start_date) FROM oneroster.academic_sessions")
        (begin,) = first_day.fetchall()[0]
        loaded = connection.sql(
            "SELECT sourced_id, user_sourced_id, class_sourced_id, begin_date::text, end_date::text"
            " FROM oneroster.enrollments WHERE NOT _deleted"
        ).fetchall()
    expected = set()
    for seed, estab in enumerate(("9990001", "9990002"), 1):
        school = secondary_school(seed, estab, pupils=40, first_day=begin)
        if seed == 2:
            spoil(school)
        live(school, begin, datetime.now(UTC).date() - timedelta(weeks=2))
        expected |= enrolled(school.rows("enrollments"))
    assert set(loaded) == expected


def test_demo_does_not_mix_with_real_schools(run: Run, serve, school: School) -> None:
    env = environment(serve(school), school)
    assert run("sync", "--endpoint", "orgs", env=env).returncode == 0
    done = run("demo", "--pupils", "20")
    assert done.returncode == 2
    assert "holds schools other" in done.stderr


def test_sync_loads_reports_and_loads_again(run: Run, serve, school, tmp_path) -> None:
    server = serve(school)
    env = environment(server, school)
    first = run("sync", "--report", "report.json", env=env)
    assert first.returncode == 0, first.stderr
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert report["good"] is True
    assert {c["endpoint"]: c["rows"] for c in report["collections"]} == {
        "orgs": len(school.rows("orgs")),
        "academic_sessions": len(school.rows("academicSessions")),
        "courses": len(school.rows("courses")),
        "classes": len(school.rows("classes")),
        "users": len(school.rows("users")),
        "enrollments": len(school.rows("enrollments")),
    }
    second = run("sync", env=env)
    assert second.stdout.count(" delta ") == 6
    database = str(tmp_path / "roster.duckdb")
    assert differences(database, Truth(server.base_url, [school])) == {}


def test_sync_takes_some_schools_some_endpoints_another_file_and_dataset(
    run: Run, serve, tmp_path
) -> None:
    schools = [secondary_school(n, str(n), pupils=10) for n in (1, 2)]
    env = environment(serve(*schools), *schools)
    done = run(
        *("sync", "--school", "2", "--endpoint", "users,orgs"),
        *("--destination", "other.duckdb", "--dataset", "rosters"),
        env=env,
    )
    assert done.returncode == 0, done.stderr
    import duckdb

    with duckdb.connect(str(tmp_path / "other.duckdb"), read_only=True) as connection:
        found = connection.sql("SELECT DISTINCT estab FROM rosters.users").fetchall()
    assert found == [("2",)]


def test_a_failed_endpoint_is_told_in_the_last_lines_and_exits_with_1(
    run: Run, serve, school
) -> None:
    env = environment(serve(school), school)
    school.forbidden.add("classes")
    done = run("sync", env=env)
    assert done.returncode == 1
    assert "5 of 6 collections loaded" in done.stdout
    assert "Failed: classes: school 3281110, classes at offset 0: the server answered 403" in (
        done.stdout
    )
    assert "Traceback" not in done.stdout + done.stderr


def test_a_wrong_password_names_the_school_and_check_the_servers_words(
    run: Run, serve, school, tmp_path
) -> None:
    env = environment(serve(school), School("3281110", shared_secret="not-the-secret"))
    echo = f"not-the-secret is wrong, and so is {quote('not-the-secret', safe='')}"
    body = json.dumps({"error_description": echo}).encode()
    school.faults.append(Fault("auth/token", status=401, body=body, times=99))
    done = run("sync", "--report", "report.json", env=env)
    assert done.returncode == 1
    assert "school 3281110, login: the login was refused with 401" in done.stdout
    import duckdb

    with duckdb.connect(str(tmp_path / "roster.duckdb"), read_only=True) as connection:
        told = connection.sql("SELECT DISTINCT reason FROM oneroster.sync_run_details").fetchall()
    ((reason,),) = told
    assert reason == "school 3281110, login: the login was refused with 401"
    shown = done.stdout + done.stderr + (tmp_path / "report.json").read_text() + reason
    assert "is wrong" not in shown
    checked = run("check-connection", env=env)
    assert "*** is wrong, and so is ***" in " ".join(checked.stdout.split())
    assert "not-the-secret" not in shown + checked.stdout + checked.stderr


@pytest.mark.parametrize(
    ("words", "env", "said"),
    [
        (("sync",), {}, "the setting 'estab' is missing"),
        (("check-connection",), {}, "the setting 'estab' is missing"),
        (("sync", "--endpoint", "pupils"), {"ESTAB": "1"}, "'pupils', which is not an endpoint"),
        (("sync", "--school", "9"), {"ESTAB": "1"}, "no school '9' is configured"),
        (("sync",), {"ESTAB": "1", "PAGE_SIZE": "many"}, "'page_size'"),
        (("sync",), {"ESTAB": "1", "PAGE_SISE": "5"}, "no setting 'page_sise'"),
        (("sync", "--destination", "oneroster.duckdb"), {"ESTAB": "1"}, "have the same name"),
        (("simulate", "--csv", "nowhere"), {}, "no folder nowhere"),
        (("sync", "--report", "no/such/folder.json"), {"ESTAB": "1"}, "cannot be written"),
        (("sync", "--nonsense"), {}, "No such option"),
        (("demo", "--weeks", "13"), {}, "less than or equal to 12"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_use_is_one_clear_message_and_exits_with_2(run: Run, words, env, said) -> None:
    full = {f"SOURCES__ONEROSTER__{key}": value for key, value in env.items()}
    if env:
        full |= {"SOURCES__ONEROSTER__RP": "r", "SOURCES__ONEROSTER__SHARED_SECRET": "s"}
    done = run(*words, env=full)
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_check_tells_what_the_server_allows_and_loads_nothing(
    run: Run, serve, school, tmp_path
) -> None:
    env = environment(serve(school), school)
    school.forbidden.add("courses")
    done = run("check-connection", env=env)
    assert done.returncode == 1
    for line in ("login +ok", "/version +ok +1.1", "/auth/version +ok", "users +ok +[0-9]+ rows"):
        assert re.search(line, done.stdout), line
    assert re.search("courses +FAILED +the server answered 403", done.stdout)
    assert list(tmp_path.iterdir()) == []


def test_status_tells_rows_cursors_and_the_last_load(run: Run, serve, school) -> None:
    run("sync", "--endpoint", "users", env=environment(serve(school), school))
    done = run("status")
    assert done.returncode == 0, done.stderr
    assert re.search(rf"users +{len(school.rows('users'))} ", done.stdout)
    newest = max(u["dateLastModified"] for u in school.rows("users"))
    assert newest[:19].replace("T", " ") in done.stdout
    assert "Last load: 20" in done.stdout
    assert "School 3281110: good; last good load: 20" in done.stdout


def test_status_of_nothing_says_what_to_do_and_makes_no_file(run: Run, tmp_path) -> None:
    done = run("status")
    assert done.returncode == 1
    assert "run `oneroster sync` first" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_destination_that_cannot_be_reached_is_an_error_without_its_password(
    run: Run, serve, school
) -> None:
    done = run(
        "sync",
        "--destination",
        "postgresql://loader:hunter2@127.0.0.1:1/rosters",
        env=environment(serve(school), school),
    )
    assert done.returncode == 1
    assert "Connection refused" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr


def test_a_school_is_forgotten_only_after_it_was_shown_what_that_is(run: Run, serve) -> None:
    schools = [secondary_school(n, str(n), pupils=5) for n in (1, 2)]
    server = serve(*schools)
    schools[1].forbidden |= {"users", "orgs"}
    env = environment(server, *schools)
    assert run("sync", "--endpoint", "users,orgs", env=env).returncode == 1
    asked = run("remove-school", "--school", "1,2")
    assert asked.returncode == 2 and "add --yes" in asked.stderr
    users = len(schools[0].rows("users"))
    assert f"{users:>12,}  users\n" in asked.stdout
    truth = Truth(server.base_url, schools[:1], endpoints=("users", "orgs"))
    assert differences("roster.duckdb", truth) == {}
    stranger = run("remove-school", "--school", "1,3", "--yes")
    assert stranger.returncode == 2 and "holds no school '3'" in stranger.stderr
    # the second was never read well: what is known of it goes too
    done = run("remove-school", "--school", "1,2", "--yes")
    assert done.returncode == 0 and "rows removed" in done.stdout
    nothing = run("remove-school", "--school", "2", "--yes")
    assert nothing.returncode == 2 and "holds no school '2'" in nothing.stderr


CSV = {
    "orgs": "sourcedId,status,dateLastModified,name,type\n"
    "o1,active,2026-09-01T00:00:00.000Z,Any,school",
    "users": "sourcedId,status,dateLastModified,enabledUser,orgSourcedIds,role,givenName,grades\n"
    + "\n".join(
        f'u{n},active,2026-09-01T00:00:00.000Z,true,o1,student,Zoë,"{n},10"' for n in range(5)
    ),
}


@pytest.mark.slow
def test_simulate_serves_a_folder_of_csv_files_that_sync_loads(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "csv"
    folder.mkdir()
    for name, text in CSV.items():
        (folder / f"{name}.csv").write_text(text + "\n", "utf-8")
    rows = served_and_loaded(run, folder)
    assert (len(rows["users"]), len(rows["users__grades"])) == (5, 10)


def test_simulate_serves_a_district_of_csv_files(run: Run, data_sets: Path) -> None:
    rows = served_and_loaded(run, data_sets / "generated/district-medium")
    assert len(rows["enrollments"]) == 5810


def served_and_loaded(run: Run, folder: Path) -> dict[str, Any]:
    """Has a folder served and loaded; returns the rows that must be there, and are."""
    process = spawn(
        [sys.executable, "-m", "oneroster_source", "simulate", "--csv", folder, "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        env = {}
        for line in process.stdout:
            if match := re.match(r"export (\w+)='?([^']*?)'?$", line.strip()):
                env[match[1]] = match[2]
            if line.startswith("oneroster sync"):
                break
        assert run("sync", env={**env, "SOURCES__ONEROSTER__PRIVACY": "full"}).returncode == 0
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE)
    truth = Truth(env["SOURCES__ONEROSTER__BASE_URL"], [csv_school(folder, "3281110")])
    assert differences("roster.duckdb", truth) == {}
    return truth.tables


def test_the_help_lists_every_command_and_says_in_a_line_what_it_is_for() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).stdout
    assert len(commands) == 13
    for name, command in commands.items():
        assert re.search(rf"│ {name} +[A-Z].*[^ ] +│\n", shown), name
        assert command.help and "\n" not in command.help


@pytest.mark.parametrize(("old", "new"), OLD_COMMANDS.items())
def test_a_command_is_found_by_its_old_name_which_no_help_shows(old: str, new: str) -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    shown = CliRunner().invoke(app, [old, "--help"])
    assert old not in commands and shown.exit_code == 0
    assert f"Usage: root {new} [OPTIONS]" in shown.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("sync --schools 1,2 --school 3", {"school": ["1,2", "3"]}),
        ("sync --endpoints=users,orgs", {"endpoint": ["users,orgs"]}),
        ("sync --plan", {"dry_run": True}),
        ("check --schools 1 --endpoints orgs", {"school": ["1"], "endpoint": ["orgs"]}),
        ("prune --leavers-after 2y --schools 1", {"older_than": "2y", "school": ["1"]}),
        ("erase --estab 1 --user a", {"school": "1", "user": "a"}),
        ("export --estab=1 --user=--a=b", {"school": "1", "user": "--a=b"}),
        ("forget --school 1", {"school": ["1"]}),
        # a number of schools, which is another thing
        ("simulate --schools 3", {"schools": 3}),
    ],
)
def test_old_spellings_of_options_work_and_no_help_shows_them(
    words: str, expected: dict[str, object]
) -> None:
    group = get_command(app)
    context = group.make_context("oneroster", words.split())
    name, command, rest = group.resolve_command(context, [*words.split()])  # type: ignore[attr-defined]
    assert command.make_context(name, rest).params.items() >= expected.items()
    shown = command.get_help(command.make_context(name, ["--help"], resilient_parsing=True))
    assert not [old for old in OLD_OPTIONS if name != "simulate" and f"{old} " in shown]


def test_a_list_may_be_repeated_or_have_commas_and_is_never_empty() -> None:
    assert split_list(["1, 2", "3", ","]) == ["1", "2", "3"] and split_list(None) is None
    with pytest.raises(ConfigurationError, match="empty value"):
        split_list([" , "])


@pytest.mark.parametrize(
    "sent",
    [signal.SIGINT, later(signal.SIGTERM), later(signal.SIGHUP)],
    ids=["Ctrl-C", "SIGTERM", "SIGHUP"],
)
def test_a_run_that_is_told_to_stop_stops_soon_and_leaves_nothing(
    serve, school, tmp_path, sent
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    # a server that always asks for patience: the run would wait for longer than the test does
    school.faults.append(Fault("*", status=503, times=10**6, headers=(("Retry-After", "250"),)))
    process = spawn(
        [sys.executable, "-m", "oneroster_source", "sync"],
        cwd=tmp_path,
        env={
            **os.environ,
            **environment(server := serve(school), school),
            "TMPDIR": str(temporary),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + PATIENCE
        while not server.requests and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(sent)
        _, said = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Stopped. Nothing was lost" in said and "Traceback" not in said
    # the private folder itself stays, empty
    assert [path for folder in temporary.iterdir() for path in folder.iterdir()] == []
    assert list(tmp_path.glob("roster*")) == [tmp_path / "roster.duckdb"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("before", [signal.SIG_IGN, signal.SIG_DFL])
def test_what_is_ignored_in_the_background_stays_so(run: Run, number: int, before: Any) -> None:
    """As nohup and shells want it; a scheduler's SIGTERM always stops a run."""
    signal.signal(number, before)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    run("data-dictionary", "--json")
    expected = before if before == signal.SIG_IGN else signal.default_int_handler
    assert signal.getsignal(number) == expected
    assert signal.getsignal(signal.SIGTERM) == signal.default_int_handler


def test_fields_tells_of_every_column_without_a_destination(run: Run, tmp_path: Path) -> None:
    told = run("data-dictionary", "--json")
    assert told.returncode == 0
    fields = {(field["table"], field["column"]): field for field in json.loads(told.stdout)}
    assert len(fields) == sum(len(table.columns) for table in V1P1.tables)
    assert fields["users", "email"] == {
        "table": "users",
        "column": "email",
        "type": "text",
        "source": "users.email",
        "meaning": "Email address",
        "personal": True,
        "sensitive": True,
        "key": False,
        "kept": "left out",
    }
    shown = run("data-dictionary").stdout
    for table, column in fields:
        assert re.search(rf"^{table}$", shown.replace(" ", ""), re.M), table
        assert re.search(rf"^ *{column} .* (kept|left out|pseudonym) *$", shown, re.M), column
    assert list(tmp_path.iterdir()) == []


def test_fields_goes_by_the_setting(run: Run) -> None:
    setting = "SOURCES__ONEROSTER__PRIVACY"
    told = run("data-dictionary", "--json", env={setting: "full"})
    assert {field["kept"] for field in json.loads(told.stdout)} == {"kept", "pseudonym"}
    # it takes no key to tell what one would be used for
    told = run("data-dictionary", "--json", env={setting: "pseudonymous"})
    assert any(
        (entry["table"], entry["column"], entry["kept"]) == ("users", "sourced_id", "pseudonym")
        for entry in json.loads(told.stdout)
    )
    told = run("data-dictionary", env={setting: "some"})
    assert told.returncode == 2
    assert "the setting 'privacy' is 'some'" in told.stderr and not told.stdout
