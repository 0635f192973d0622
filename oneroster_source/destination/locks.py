"""Locks on what only one run at a time may touch: a destination, and a working folder.

All are locks of the operating system, which end with the process, however it ends. This module
imports neither dlt nor DuckDB, so that a second run can stop before it has waited for them.
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
from oneroster_source.errors import (
    ConfigurationError,
    DestinationBusy,
    DestinationError,
    OneRosterError,
)

DATABASE = "roster.duckdb"
"""The destination where none is named."""

_OWN = ("temp", "system")
_SYSTEM = ("information_schema", "pg_catalog")
_WORK = "work-"
# who holds which lock file, of all threads: a thread may enter twice, and flock cannot tell
_holders: dict[Path, tuple[int, int]] = {}


def duckdb_file(destination: str) -> str | None:
    """The path of the DuckDB file that a text names, if it names one."""
    path = destination.removeprefix("duckdb:///")
    return path if path.endswith((".duckdb", ".ddb", ".db")) and "://" not in path else None


def catalog(database: str) -> str:
    """What DuckDB calls a file's database: the file's name as far as the first dot."""
    name = next(filter(None, os.path.basename(database).split(".")), "")
    return f"{name}_db" if name in ("main", "temp", "system") else name


def refuse_names(database: str, *datasets: str) -> None:
    """Looks whether DuckDB can tell a file from datasets in it: it makes no difference between
    small letters and capitals.

    Raises:
        ConfigurationError: It cannot.
    """
    file = catalog(database)
    if file.lower() in _OWN:
        raise ConfigurationError(
            f"the name of the DuckDB file {database} begins with {file!r}, which is a name that"
            " DuckDB keeps for itself",
            todo="name the file differently",
        )
    for dataset in datasets:
        if dataset.lower() in _OWN + _SYSTEM:
            raise ConfigurationError(
                f"the dataset {dataset!r} has a name that DuckDB keeps for itself",
                todo="name the dataset differently",
            )
        if dataset.lower() == file.lower():
            raise ConfigurationError(
                f"the DuckDB file {database} and the dataset {dataset!r} have the same name, which"
                " DuckDB cannot tell apart: of a file's name it takes what is before the first dot",
                todo="name the file or the dataset differently",
            )


def beside(database: str) -> Path:
    """The lock file of a DuckDB file: next to it, so that other users and containers see it."""
    return Path(os.path.realpath(database) + ".lock")


def hidden(*parts: str) -> Path:
    """The lock file of a destination that is no file; `parts` may hold a password."""
    return workdir.folder() / (sha256("\0".join(parts).encode()).hexdigest()[:32] + ".lock")


@contextmanager
def alone(place: Path, name: str) -> Iterator[None]:
    """Keeps every other run from a destination. The thread that is in may enter again.

    Args:
        place: The lock file: see `beside` and `hidden`. It is there only as long as the run.
        name: The destination, for people.

    Raises:
        DestinationBusy: Another run is in.
        DestinationError: The lock file cannot be made.
    """
    me = (os.getpid(), threading.get_ident())
    if _holders.get(place) == me:
        yield
        return
    try:
        held = _take(place, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise DestinationError(
            f"{name} cannot be locked: {place}: {error.strerror}",
            todo="see that this folder exists and has room, and that this user may write there",
        ) from None
    if held is None:
        raise _busy(place, name)
    try:
        _holders[place] = me
        # only people read this, so a full disk is no reason to stop
        with suppress(OSError):
            os.ftruncate(held, 0)
            os.write(held, f"{os.getpid()} {os.uname().nodename}".encode())
        yield
    finally:
        _holders.pop(place, None)
        # while it is locked: who opened it before finds that it is not there any more
        with suppress(OSError):
            place.unlink()
        os.close(held)


@contextmanager
def early(destination: str, dataset: str) -> Iterator[None]:
    """Keeps other runs away as far as the bare words tell which destination is meant.

    What is configured, dlt must tell; `Warehouse.load` then takes the lock that is exact.

    Raises:
        DestinationBusy: Another run is in.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(alone(*_place(destination, dataset)))
        except DestinationBusy:
            raise
        except OneRosterError:
            # perhaps not the place that will be used
            pass
        yield


@contextmanager
def working_folder() -> Iterator[Path]:
    """A new private folder, removed at the end; so are those that a killed run left behind.

    Raises:
        ConfigurationError: There is no place for it.
        DestinationError: Somebody else removed it meanwhile.
    """
    base = workdir.folder()
    for path in base.glob(_WORK + "*"):
        # what is locked belongs to a run that is alive
        with suppress(OSError):
            _remove(path, _take(path, os.O_DIRECTORY))
    held = None
    while held is None:
        path = Path(tempfile.mkdtemp(prefix=_WORK, dir=base))
        # another run that looks for leftovers may be quicker
        with suppress(FileNotFoundError):
            held = _take(path, os.O_DIRECTORY)
    try:
        yield path
    except Exception:
        if not _stands_at(path, held):
            raise DestinationError(
                f"the folder of this run, {path}, was removed while it ran",
                todo="nothing was lost: run this again, and let nothing clear that folder",
            ) from None
        raise
    finally:
        _remove(path, held)


def _take(path: Path, flags: int) -> int | None:
    """A lock on what stands at a path, as an open file; None where another holds it."""
    while True:
        held = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # the one before may have removed it in the meantime: then it locks nothing
            if _stands_at(path, held):
                return held
        except BlockingIOError:
            os.close(held)
            return None
        except BaseException:
            os.close(held)
            raise
        os.close(held)


def _stands_at(path: Path, held: int) -> bool:
    try:
        return os.path.samestat(os.fstat(held), path.lstat())
    except FileNotFoundError:
        return False


def _remove(path: Path, held: int | None) -> None:
    if held is not None:
        shutil.rmtree(path, ignore_errors=True)
        os.close(held)


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
    """The lock file of a destination, and a name for people in which there is no password."""
    file = duckdb_file(destination)
    if destination == "duckdb" and not _destinations_are_configured():
        file = DATABASE
    if file is not None:
        return beside(file), file
    if not re.fullmatch(r"[\w.-]+", destination):
        # an address, or what may be one
        return hidden(destination, dataset), "this destination"
    # the same name may mean another place in another folder
    told = sorted(f"{key}={os.environ[key]}" for key in os.environ if "DESTINATION__" in key)
    return hidden(destination, dataset, os.getcwd(), *told), destination


def _destinations_are_configured() -> bool:
    if any("DESTINATION__" in key for key in os.environ):
        return True
    try:
        files = [tomllib.loads(file.read_text("utf-8")) for file in Path(".dlt").glob("*.toml")]
    except (OSError, ValueError):
        return True
    return any("destination" in file for file in files)
