"""The command `oneroster`, run by a test, and other programs that a test starts."""

from __future__ import annotations

import ctypes
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

Run = Callable[..., subprocess.CompletedProcess[str]]


TIME = r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


ALONE = ["unshare", "--user", "--map-root-user", "--mount"]
"""Starts a program that may mount what only it sees."""

PATIENCE = 600.0
"""Seconds after which something has hung: a busy machine takes long, and fails no test for it."""

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def spawn(
    words: list[Any], *, at_the_end: int = signal.SIGKILL, **options: Any
) -> subprocess.Popen[Any]:
    """Starts a program that ends with this process, however that ends, and that heeds Ctrl-C.

    Args:
        words: The program and its arguments.
        at_the_end: The signal that it gets when this process is no more, where that is Linux.
        **options: Those of `subprocess.Popen`.
    """

    def prepare() -> None:
        # what a shell starts in the background ignores Ctrl-C, and so does what that starts
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if hasattr(_LIBC, "prctl"):
            _LIBC.prctl(_PR_SET_PDEATHSIG, at_the_end)

    return subprocess.Popen(words, preexec_fn=prepare, **options)  # noqa: PLW1509 - forks no lock


def on_terminal(*words: str, env: dict[str, str]) -> tuple[int, str]:
    """Runs `oneroster` on a terminal; its exit code, and all that the terminal was sent."""
    screen, program = pty.openpty()
    process = spawn(
        [sys.executable, "-m", "oneroster_source", *words], stdout=program, stderr=program, env=env
    )
    os.close(program)
    said = b""
    try:
        # Linux says that a terminal is closed by an error
        while part := os.read(screen, 1 << 16):
            said += part
    except OSError:
        pass
    finally:
        os.close(screen)
    return process.wait(timeout=PATIENCE), said.decode()
