"""Log events of a run: one line each, as text or JSON.

All modules log through `event`, or through the logger `oneroster_source`. The program decides what
becomes of it: the command line calls `use`, an orchestrator has its own handlers. No event holds a
secret or personal data, and texts from elsewhere are cleaned before any handler gets them.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal

import orjson

from oneroster_source.errors import MOST_LETTERS, clean, shown, told

Format = Literal["plain", "text", "json"]

_log = logging.getLogger("oneroster_source")


def _clean(record: logging.LogRecord) -> bool:
    """Makes a record safe to write: each part of its message becomes one line."""
    record.msg, record.args = told(record.getMessage()), None
    if hasattr(record, "fields"):
        record.fields = shown(record.fields)
    return True


# for all handlers, other programs' too
_log.addFilter(_clean)

_FOR_PEOPLE = {"run_stopped", "run_failed", "pause", None}
"""Events that a person at a terminal would not see otherwise."""


def event(name: str, message: str, *, level: int = logging.INFO, **fields: Any) -> None:
    """Logs an event.

    Args:
        name: The kind of event, for programs.
        message: What happened, for people.
        level: A level of `logging`.
        **fields: What the message contains, for programs.
    """
    _log.log(level, "%s", message, extra={"event": name, "fields": fields}, stacklevel=2)


def use(form: Format) -> None:
    """Writes what all loggers log to stderr.

    Args:
        form: `plain` for people at a terminal, without times, and only what needs their attention;
            `text` or `json` with times, one line for each event.
    """
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Stderr)]:
        root.removeHandler(handler)
    handler = _Stderr()
    handler.setFormatter(_FORMATTERS[form]())
    # libraries' records do not pass the filter of our logger
    handler.addFilter(_clean)
    if form == "plain":
        handler.addFilter(lambda record: getattr(record, "event", None) in _FOR_PEOPLE)
    root.addHandler(handler)
    _log.setLevel(logging.WARNING if form == "plain" else logging.INFO)
    # Python prints these by itself, over several lines
    logging.captureWarnings(form != "plain")
    sys.excepthook = _crashed_plainly if form == "plain" else _crashed


@contextmanager
def every(seconds: float, tell: Callable[[], None]) -> Iterator[None]:
    """Calls `tell` at an interval until the block ends."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(seconds):
            tell()

    thread = threading.Thread(target=run, name="oneroster-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _crashed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    _log.critical("unhandled exception: %s", kind.__name__, exc_info=(kind, error, trace))


def _crashed_plainly(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    sys.stderr.write(_trace("".join(traceback.format_exception(kind, error, trace))) + "\n")


def _trace(text: str) -> str:
    """Cleans a traceback, which may quote texts from elsewhere: none forges a line of the log."""
    lines = text.rstrip("\n").split("\n")
    return "\n".join(
        line[: len(line) - len(line.lstrip(" "))] + clean(line, limit=MOST_LETTERS)
        for line in lines
    )


class _Stderr(logging.Handler):
    """Writes to the `sys.stderr` of the moment."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except Exception:  # noqa: BLE001 - a log must not end what it tells of
            self.handleError(record)


class _Form(logging.Formatter):
    def formatException(self, ei: Any) -> str:  # noqa: N802 - the name that logging calls
        return _trace(super().formatException(ei))


class _Plain(_Form):
    def format(self, record: logging.LogRecord) -> str:
        said = super().format(record)
        return f"Error: {said}" if record.levelno >= logging.ERROR else said


class _Text(_Form):
    def format(self, record: logging.LogRecord) -> str:
        said = " ".join(record.getMessage().split())
        trace = self.formatException(record.exc_info) if record.exc_info else ""
        trace = "".join(f"\n    {line}" for line in trace.splitlines())
        return f"{_time(record)} {record.levelname:<7} {_name(record)}: {said}{trace}"


class _Json(_Form):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "event": _name(record),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


_FORMATTERS: dict[Format, Callable[[], logging.Formatter]] = {
    "plain": _Plain,
    "text": _Text,
    "json": _Json,
}


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _name(record: logging.LogRecord) -> str:
    """Returns the kind of event, or the name of a library's logger."""
    return str(getattr(record, "event", record.name))
