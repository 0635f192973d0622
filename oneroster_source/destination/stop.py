"""Ends what a server does for a run when a signal ends the run."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

SESSIONS: set[Any] = set()
"""The open connections of this process to servers; any thread may call their method `cancel`."""
_STOPS = frozenset((signal.SIGINT, signal.SIGTERM))
_PAUSE = 0.5
_LEAVE = 5.0


@contextmanager
def stoppable() -> Iterator[None]:
    """Makes Ctrl-C and SIGTERM cancel what the server does for this process.

    Python handles a signal only after the call that waits for the server, and dlt waits for all its
    jobs: either may take an hour. A process gets its signals in the main thread, so this does
    nothing in another one.
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
        # a server that is out of reach may hold it up
        watch.join(_LEAVE)
        told.close()


def _watch(told: socket.socket, before: int, stopped: threading.Event) -> None:
    """Cancels everything in progress after a signal that ends the process."""
    while signals := told.recv(64):
        if before >= 0:
            # someone else listens too, such as an event loop
            with suppress(OSError):
                os.write(before, signals)
        if not _STOPS.isdisjoint(signals):
            break
    # repeatedly: a job whose statement has just ended may send another
    while signals and not stopped.is_set():
        for session in list(SESSIONS):
            # it may have been closed meanwhile, or the server may be out of reach
            with suppress(Exception):
                session.cancel()
        stopped.wait(_PAUSE)
