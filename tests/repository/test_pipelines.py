"""The scripts that people copy, run as they are."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.program import PATIENCE
from support.settings import environment
from support.truth import Truth, differences
from typer.main import get_command

from oneroster_source.cli.app import app
from oneroster_source.destination.locks import early
from oneroster_source.simulator import School, Simulator, secondary_school

FOLDER = Path(__file__).parents[2] / "pipelines"
# the adapters of Airflow and Dagster are tested where these are: see tests/schedulers
SCRIPTS = [FOLDER / f"{name}.py" for name in ("many_schools", "one_school")]


def run(
    script: Path, folder: Path, server: Simulator, schools: list[School]
) -> subprocess.CompletedProcess[str]:
    for name in ("dlt", "temporary"):
        (folder / name).mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, script],
        cwd=folder,
        env={
            **os.environ,
            **environment(server, *schools),
            "DLT_DATA_DIR": str(folder / "dlt"),
            "TMPDIR": str(folder / "temporary"),
        },
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.sample(1)
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_loads_what_the_server_holds_and_leaves_nothing_else(
    script: Path, serve, tmp_path: Path
) -> None:
    schools = [secondary_school(n, str(n), pupils=15) for n in (1, 2)]
    server = serve(*schools)
    done = run(script, tmp_path, server, schools)
    assert done.returncode == 0, done.stderr
    assert differences(str(tmp_path / "roster.duckdb"), Truth(server.base_url, schools)) == {}
    assert done.stderr == ""
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "roster.duckdb"]


def test_a_script_stops_where_another_run_is_loading(serve, school, tmp_path: Path) -> None:
    with early(str(tmp_path / "roster.duckdb"), "oneroster"):
        done = run(SCRIPTS[0], tmp_path, serve(school), [school])
    assert done.returncode == 1
    assert f"DestinationBusy: another run (process {os.getpid()}) is loading" in done.stderr
    assert not (tmp_path / "roster.duckdb").exists()


def commands(text: str) -> list[list[str]]:
    """The words of each `oneroster sync` in a text, up to what the shell makes of the output."""
    found = re.findall(r"^(?! *#).*?\boneroster (sync .*?)(?: >>.*)?$", text, re.M)
    return [shlex.split(line) for line in found]


@pytest.mark.parametrize("name", ["crontab", "oneroster.service", "github_actions.yml"])
def test_a_scheduler_runs_a_command_that_there_is(name: str) -> None:
    (words,) = commands((FOLDER / name).read_text("utf-8"))
    # what a person may ask for, and is empty at night
    words = [word for word in words if word != "$FULL"]
    sync = get_command(app).commands["sync"]  # type: ignore[attr-defined]
    context = sync.make_context("sync", words[1:], resilient_parsing=False)
    assert context.params["destination"] != "duckdb"


def test_every_pipeline_is_short() -> None:
    lengths = {path.name: len(path.read_text("utf-8").splitlines()) for path in FOLDER.iterdir()}
    assert {name for name, lines in lengths.items() if lines >= 60} == set()


def test_systemd_takes_the_unit_files(tmp_path: Path) -> None:
    if not (program := shutil.which("systemd-analyze")):
        pytest.skip("there is no systemd-analyze on this machine")
    for unit in FOLDER.glob("oneroster.*"):
        # it looks whether the program is there
        text = unit.read_text("utf-8").replace("/opt/oneroster/bin/oneroster", sys.executable)
        (tmp_path / unit.name).write_text(text, "utf-8")
    units = sorted(map(str, tmp_path.glob("oneroster.*")))
    assert len(units) == 2
    done = subprocess.run(
        [program, "verify", *units], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_busy_destination_is_tried_again_and_files_are_private() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(FOLDER / "oneroster.service")
    service = unit["Service"]
    assert service["RestartForceExitStatus"] == str(os.EX_TEMPFAIL) and service["Restart"] == "no"
    assert (service["UMask"], service["StateDirectoryMode"]) == ("0077", "0700")
    timer = configparser.ConfigParser()
    timer.read(FOLDER / "oneroster.timer")
    assert timer["Timer"]["Persistent"] == "true" and timer["Timer"]["RandomizedDelaySec"]


@pytest.mark.parametrize(("code", "mail"), [(0, False), (75, False), (1, True)])
def test_cron_mails_what_failed_and_not_that_another_run_is_loading(
    tmp_path: Path, code: int, mail: bool
) -> None:
    (line,) = re.findall(r"^30 4 \* \* \* +(.*)$", (FOLDER / "crontab").read_text("utf-8"), re.M)
    # cron ends a command at a percent sign
    assert "%" not in line
    program = tmp_path / "oneroster"
    program.write_text(f"#!/bin/sh\necho 2026-11-25 told >&2\nexit {code}\n", "utf-8")
    program.chmod(0o700)
    line = line.replace("/srv/rosters", str(tmp_path)).replace("/opt/oneroster/bin", str(tmp_path))
    done = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    said = f"oneroster sync ended with {code}:\n2026-11-25 told\n" if mail else ""
    assert (done.stdout, done.stderr) == (said, "")
    assert (tmp_path / "sync.log").read_text("utf-8") == "2026-11-25 told\n"


def test_the_workflow_is_pinned_runs_alone_and_shows_its_secrets_to_one_step_only() -> None:
    flow = yaml.safe_load((FOLDER / "github_actions.yml").read_text("utf-8"))
    # YAML takes the word `on` for true
    assert flow[True]["schedule"] == [{"cron": "37 4 * * *"}]
    assert flow["concurrency"] == {"group": "oneroster", "cancel-in-progress": False}
    assert flow["permissions"] == {"contents": "read"}
    steps = flow["jobs"]["sync"]["steps"]
    used = [step["uses"] for step in steps if "uses" in step]
    # nothing is uploaded
    assert [re.sub("@[0-9a-f]{40}$", "", name) for name in used] == ["actions/checkout"]
    secret = [step for step in steps if "secrets." in str(step)]
    (step,) = secret
    assert "oneroster sync" in step["run"] and "secrets." not in step["run"]
    names = {name.removeprefix("SOURCES__ONEROSTER__").lower() for name in step["env"]}
    assert names == {"rp", "schools", "destination__postgres__credentials", "full"}
