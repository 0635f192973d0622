"""Signals that end a run also end what a server is doing for it."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

SESSIONS: set[Any] = set()
"""The open connections of this process to servers: each has a method `cancel`, for any thread."""
_STOPS = frozenset((signal.SIGINT, signal.SIGTERM))
_PAUSE = 0.5
_LEAVE = 5.0


@contextmanager
def stoppable() -> Iterator[None]:
    """Lets Ctrl-C and SIGTERM cancel what the server does for this process.

    Python tells of a signal only when the call is done that waits for the server, and dlt waits
    for all its jobs: either may be an hour. Signals of a process go to its main thread, and so
    this does nothing in another one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    told, tell = socket.socketpair()
    # Python writes into one that does not block
    tell.setblocking(False)
    before = signal.set_wakeup_fd(tell.fileno(), warn_on_full_buffer=False)
    stopped = threading.Event()
    watch = threading.Thread(target=_watch, args=(told, before, stopped), daemon=True)
    watch.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        stopped.set()
        tell.close()
        # a server that is out of reach may keep it
        watch.join(_LEAVE)
        told.close()


def _watch(told: socket.socket, before: int, stopped: threading.Event) -> None:
    """Cancels all that is under way, once a signal came that ends the process."""
    while signals := told.recv(64):
        if before >= 0:
            # somebody else listens too, such as an event loop
            with suppress(OSError):
                os.write(before, signals)
        if not _STOPS.isdisjoint(signals):
            break
    # again and again: a job whose statement was just done may send another
    while signals and not stopped.is_set():
        for session in list(SESSIONS):
            # it may be closed meanwhile, or the server out of reach
            with suppress(Exception):
                session.cancel()
        stopped.wait(_PAUSE)
