"""Locks on what one run at a time may use: a destination, and a working folder.

They are `flock` locks of the operating system, which end with the process, however it ends. This
module imports neither dlt nor DuckDB, so that a second run stops before it has waited for them.

The package `filelock` (4.3) would replace half of `_flock` and nothing else: it leaves its files
behind, cannot lock a folder, and does not say who holds a lock.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
import threading
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from oneroster_source.destination import workdir
from oneroster_source.errors import DestinationBusy, DestinationError, OneRosterError

DATABASE = "roster.duckdb"
"""The destination where none is named."""

_WORK = "work-"
# who holds which lock file: a thread may enter twice, which flock cannot tell
_holders: dict[Path, tuple[int, int]] = {}


def duckdb_file(destination: str) -> str | None:
    """The path of the DuckDB file that a text names, or None if it names none."""
    path = destination.removeprefix("duckdb:///")
    return path if path.endswith((".duckdb", ".ddb", ".db")) and "://" not in path else None


def beside(database: str) -> Path:
    """The lock file of a DuckDB file: next to it, so that other users and containers see it."""
    return Path(os.path.realpath(database) + ".lock")


def hidden(*parts: str) -> Path:
    """The lock file of a destination that is no file; `parts` may hold a password."""
    return workdir.folder() / (sha256("\0".join(parts).encode()).hexdigest()[:32] + ".lock")


@contextmanager
def exclusive(place: Path, name: str) -> Iterator[None]:
    """Locks a destination against every other run. The thread that holds the lock may enter again.

    Args:
        place: The lock file: see `beside` and `hidden`. It exists only as long as the run.
        name: The destination, for people.

    Raises:
        DestinationBusy: Another run holds the lock.
        DestinationError: The lock file cannot be made.
    """
    me = (os.getpid(), threading.get_ident())
    if _holders.get(place) == me:
        yield
        return
    try:
        lock = _flock(place, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise DestinationError(
            f"{name} cannot be locked: {place}: {error.strerror}",
            todo="see that this folder exists and has room, and that this user may write there",
        ) from None
    if lock is None:
        raise _busy(place, name)
    try:
        _holders[place] = me
        # only people read this, so a full disk is no reason to stop
        with suppress(OSError):
            os.ftruncate(lock, 0)
            os.write(lock, f"{os.getpid()} {os.uname().nodename}".encode())
        yield
    finally:
        _holders.pop(place, None)
        # while it is locked: whoever opened it before finds that it is not there any more
        with suppress(OSError):
            place.unlink()
        os.close(lock)


@contextmanager
def early(destination: str, dataset: str) -> Iterator[None]:
    """Locks out other runs as far as the text alone tells which destination it names.

    Where it is configured, only dlt can tell; `Backend.exclusive` then takes the exact lock.

    Raises:
        DestinationBusy: Another run holds the lock.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(exclusive(*_place(destination, dataset)))
        except DestinationBusy:
            raise
        except OneRosterError:
            # perhaps not the place that will be used
            pass
        yield


@contextmanager
def working_folder() -> Iterator[Path]:
    """Makes a new private folder, and removes it at the end, with those of runs that were killed.

    Raises:
        ConfigurationError: There is no place for it.
        DestinationError: Somebody else removed it meanwhile.
    """
    base = workdir.folder()
    for path in base.glob(_WORK + "*"):
        # a locked one belongs to a run that is alive
        with suppress(OSError):
            _remove(path, _flock(path, os.O_DIRECTORY))
    lock = None
    while lock is None:
        path = Path(tempfile.mkdtemp(prefix=_WORK, dir=base))
        # another run that removes leftovers may be quicker
        with suppress(FileNotFoundError):
            lock = _flock(path, os.O_DIRECTORY)
    try:
        yield path
    except Exception:
        if not _is_at(path, lock):
            raise DestinationError(
                f"the folder of this run, {path}, was removed while it ran",
                todo="nothing was lost: run this again, and let nothing clear that folder",
            ) from None
        raise
    finally:
        _remove(path, lock)


def _flock(path: Path, flags: int) -> int | None:
    """Locks a file or folder; returns it opened, or None where another process has locked it."""
    while True:
        opened = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # the holder before may have removed it in the meantime: then it locks nothing
            if _is_at(path, opened):
                return opened
        except BlockingIOError:
            os.close(opened)
            return None
        except BaseException:
            os.close(opened)
            raise
        os.close(opened)


def _is_at(path: Path, opened: int) -> bool:
    try:
        return os.path.samestat(os.fstat(opened), path.lstat())
    except FileNotFoundError:
        return False


def _remove(path: Path, lock: int | None) -> None:
    if lock is not None:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def _busy(place: Path, name: str) -> DestinationBusy:
    try:
        pid, _, host = place.read_text("utf-8").partition(" ")
    except (OSError, ValueError):
        pid = host = ""
    who = "another run"
    if pid.isdigit():
        who += f" (process {pid}" + (f" on {host})" if host != os.uname().nodename else ")")
    return DestinationBusy(
        f"{who} is loading into {name}",
        todo="run this again when that one has ended",
    )


def _place(destination: str, dataset: str) -> tuple[Path, str]:
    """The lock file of a destination, and a name for people without a password in it."""
    file = duckdb_file(destination)
    if destination == "duckdb" and not _destinations_are_configured():
        file = DATABASE
    if file is not None:
        return beside(file), file
    if not re.fullmatch(r"[\w.-]+", destination):
        # an address, or what may be one
        return hidden(destination, dataset), "this destination"
    # in another folder the same name may mean another place
    configured = sorted(f"{key}={os.environ[key]}" for key in os.environ if "DESTINATION__" in key)
    return hidden(destination, dataset, str(Path.cwd()), *configured), destination


def _destinations_are_configured() -> bool:
    if any("DESTINATION__" in key for key in os.environ):
        return True
    try:
        files = [tomllib.loads(file.read_text("utf-8")) for file in Path(".dlt").glob("*.toml")]
    except (OSError, ValueError):
        return True
    return any("destination" in file for file in files)
