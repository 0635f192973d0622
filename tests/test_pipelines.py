"""The scripts that people copy, run as they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_cli import environment
from truth import Truth, differences

from oneroster_source.lock import early
from oneroster_source.simulator import School, Simulator, secondary_school

SCRIPTS = sorted((Path(__file__).parents[1] / "pipelines").glob("*.py"))


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
        timeout=90,
        check=False,
    )


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
