"""Keeps files of a run on this machine private: they hold children's records."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from oneroster_source.errors import ConfigurationError


@contextmanager
def umask() -> Iterator[None]:
    """Makes all files private that any thread of this process creates meanwhile."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def folder() -> Path:
    """Returns this user's own folder for temporary files, and makes it if need be.

    Raises:
        ConfigurationError: It cannot be made, or someone else made it or may read it.
    """
    problem: OSError
    try:
        path = Path(tempfile.gettempdir(), f"oneroster-{os.geteuid()}")
        with suppress(FileExistsError):
            path.mkdir(0o700)
        found = path.lstat()
    except OSError as error:
        problem = error
    else:
        # anyone may write to the temporary folder: someone else may have taken the name
        if (
            stat.S_ISDIR(found.st_mode)
            and found.st_uid == os.geteuid()
            and not found.st_mode & 0o077
        ):
            return path
        raise ConfigurationError(
            f"{path} is not a folder that is yours alone",
            todo="remove it, or let the variable TMPDIR name another folder for temporary files",
        )
    raise ConfigurationError(
        f"no temporary file can be written: {problem.strerror}",
        todo="make room, or let the variable TMPDIR name another folder for temporary files",
    )
