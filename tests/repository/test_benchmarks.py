"""The benchmarks, each with little data: that they run, and find what they compare the same."""

from __future__ import annotations

import contextlib
import io
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import dlt
import pytest
from support.program import PATIENCE
from typer.main import get_command
from typer.testing import CliRunner

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs/evidence/benchmarks.md").read_text("utf-8")
DOCUMENTED = re.compile(r"[`n] ?benchmarks (\w+)((?: --\w+(?: \d+)?)*)")

ALONE = "compare --short --rounds 1 --rows 7000"
TINY = (
    "delta --rows 500 --rounds 1",
    "rows --most 1000 --rounds 1",
    "schools --most 1 --rounds 1",
    "latency --rows 500 --seconds 0.01",
    "postgres --rows 700 --rounds 1",
    "privacy --rows 700 --rounds 1",
    "history --rows 500 --rounds 1",
)


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The program, which runs all in this process, where it is imported already."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    for step in ("extract", "normalize", "load"):
        # timed by the contenders: as before at the end
        monkeypatch.setattr(dlt.Pipeline, step, getattr(dlt.Pipeline, step))
    program = runpy.run_path(str(ROOT / "benchmarks/__main__.py"))

    def apart(script: str, *words: Path | str) -> Any:
        said = io.StringIO()
        with monkeypatch.context() as patch, contextlib.redirect_stdout(said):
            patch.setattr(sys, "argv", [script, *map(str, words)])
            runpy.run_path(str(ROOT / "benchmarks" / script), run_name="__main__")
        return json.loads(said.getvalue().splitlines()[-1])

    program["load"].__globals__["apart"] = apart
    return program


@pytest.mark.slow
def test_the_benchmark_that_the_document_begins_with_runs_as_it_says_there() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks", *ALONE.split()],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "all ways have loaded the same tables" in done.stderr
    ways = ("fetch_only", "by_hand", "by_hand_duckdb", "ours", "rest_api_tuned", "rest_api")
    assert re.findall(r"^\| (\w+) \| \d", done.stdout, re.M) == list(ways)


@pytest.mark.slow
@pytest.mark.parametrize("command", TINY, ids=lambda command: command.split()[0])
def test_every_benchmark_runs(benchmarks: dict[str, Any], command: str) -> None:
    done = CliRunner().invoke(benchmarks["app"], command.split(), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert re.search(r"^\| ---", done.output, re.M)


def test_every_documented_benchmark_is_run_here(benchmarks: dict[str, Any]) -> None:
    commands = get_command(benchmarks["app"]).commands  # type: ignore[attr-defined]
    here = {command.split()[0] for command in (ALONE, *TINY)}
    assert here == set(commands)
    assert {name for name, _ in DOCUMENTED.findall(benchmarks["__doc__"])} == set(commands)
    found = DOCUMENTED.findall(DOCUMENT)
    assert len(found) > 5
    for name, options in found:
        known = {option for param in commands[name].params for option in param.opts}
        assert name in here and set(re.findall(r"--\w+", options)) <= known, name
