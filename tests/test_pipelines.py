"""The scripts that people copy, run as they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_cli import environment
from truth import Truth, differences

from oneroster_source.simulator import secondary_school

SCRIPTS = sorted((Path(__file__).parents[1] / "pipelines").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_loads_what_the_server_holds(script: Path, serve, tmp_path: Path) -> None:
    schools = [secondary_school(n, str(n), pupils=15) for n in (1, 2)]
    server = serve(*schools)
    done = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        env={**os.environ, **environment(server, *schools), "DLT_DATA_DIR": str(tmp_path / "dlt")},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert differences(str(tmp_path / "roster.duckdb"), Truth(server.base_url, schools)) == {}
    assert done.stderr == ""
