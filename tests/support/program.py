"""The command `oneroster`, run by a test."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

Run = Callable[..., subprocess.CompletedProcess[str]]


TIME = r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


ALONE = ["unshare", "--user", "--map-root-user", "--mount"]
"""Starts a program that may mount what only it sees."""
