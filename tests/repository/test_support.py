"""Promises about the tests' own tools."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.program import PATIENCE

TESTS = Path(__file__).parents[1]


@pytest.mark.skipif(sys.platform != "linux", reason="a parent is watched on Linux only")
def test_what_a_killed_test_run_has_started_ends() -> None:
    program = (
        "import sys, time; from support.program import spawn;"
        "print(spawn([sys.executable, '-c', 'import time; time.sleep(9999)']).pid, flush=True);"
        "time.sleep(9999)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=TESTS, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        started = Path("/proc", run.stdout.readline().strip())
        assert started.exists()
        run.kill()
    end = time.monotonic() + PATIENCE
    # a zombie has ended, too, where nobody collects it
    while started.exists() and ") Z " not in (started / "stat").read_text():
        assert time.monotonic() < end
        time.sleep(0.01)
