"""What a run writes on this machine is children's records, and is for its owner alone."""

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
    """Makes all files of this process private as long as it lasts, whoever writes them."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def folder() -> Path:
    """This user's own folder among the temporary ones.

    Raises:
        ConfigurationError: It cannot be made, or others made it or may look into it.
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
        # the temporary folder is everybody's: the name may have been taken by someone else
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
