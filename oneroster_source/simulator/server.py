"""The server in this process: a thread with a socket, an event loop and the app."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from oneroster_source.simulator.app import OAUTH, PREFIX, api
from oneroster_source.simulator.front import Front
from oneroster_source.simulator.recorder import Recorder, Request
from oneroster_source.simulator.school import School

PATIENCE = 60.0
"""Seconds that starting and stopping may take."""


class Simulator:
    """In-process server: `with Simulator(schools) as server:`; ready or raises; always stopped.

    Args:
        schools: who is served; a request's token says which of them it is about.
        port: 0 takes a free one; started again, a server keeps the port it had.
        host: a loopback address.
        latency: seconds that every answer takes at least.
        certificate: path of a PEM file; with it, and its `key`, https is served.
    """

    def __init__(
        self,
        schools: Sequence[School],
        *,
        port: int = 0,
        host: str = "127.0.0.1",
        latency: float = 0.0,
        certificate: str | None = None,
        key: str | None = None,
    ) -> None:
        self._schools = {school.estab: school for school in schools}
        if len(self._schools) < len(schools):
            raise ValueError("two schools with the same estab")
        self.errors: list[Exception] = []
        """What was raised, and answered with 500: by hooks, or by mistakes in here."""
        self._host = host
        self._certificate, self._key = certificate, key
        self._port = port
        self._recorder = Recorder()
        everyone = list(self._schools.values())
        app = api(everyone, lambda: self.base_url, self.errors.append)
        self._app = Front(app, everyone, self._recorder, prefix=PREFIX, latency=latency)
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def base_url(self) -> str:
        """Where the collections are, once the server was started."""
        return self._url(PREFIX)

    @property
    def oauth_url(self) -> str:
        """A token endpoint for plain OAuth2 client credentials."""
        return self._url(OAUTH)

    @property
    def requests(self) -> list[Request]:
        """Everything received, in the order of arrival."""
        return self._recorder.requests

    @property
    def most_at_once(self) -> int:
        """The highest number of requests that were being handled at the same time."""
        return self._recorder.most_at_once

    def __getitem__(self, estab: str) -> School:
        return self._schools[estab]

    def start(self) -> None:
        """Start serving.

        Raises:
            OSError: the port is taken.
            RuntimeError: the server is running already, or was not ready in time.
        """
        if self._thread is not None:
            raise RuntimeError("the simulator is running already")
        listener = socket.create_server((self._host, self._port), backlog=1024)
        # asyncio sees to this only for sockets that were made with a protocol
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._port = listener.getsockname()[1]
        self._server = _Server(_config(self._app, self._certificate, self._key))
        self._thread = threading.Thread(
            target=self._server.run, args=([listener],), name="oneroster-simulator", daemon=True
        )
        self._thread.start()
        if not self._server.ready.wait(PATIENCE):
            self.stop()
            raise RuntimeError(f"the simulator was not ready after {PATIENCE:.0f} s")

    def stop(self) -> None:
        """Stop serving; requests that are being handled are dropped.

        Raises:
            RuntimeError: the server did not stop in time.
        """
        if self._server is None or self._thread is None:
            return
        self._server.leave()
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            raise RuntimeError(f"the simulator did not stop within {PATIENCE:.0f} s")
        self._server = self._thread = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _url(self, path: str) -> str:
        if not self._port:
            raise RuntimeError("the simulator has no address before it is started")
        scheme = "https" if self._certificate else "http"
        return f"{scheme}://{self._host}:{self._port}{path}"


class _Protocol(HttpToolsProtocol):
    """Hands the connection to the app: faults break it."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"]["transport"] = self.transport


class _Server(uvicorn.Server):
    """A server that another thread waits for, and that stops at once."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._left: asyncio.Event | None = None

    def leave(self) -> None:
        """Make the server stop; called from another thread."""
        self.should_exit = True
        if self._loop is not None and self._left is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._left.set)

    async def main_loop(self) -> None:
        self._loop, self._left = asyncio.get_running_loop(), asyncio.Event()
        self.ready.set()
        if not self.should_exit:
            await self._left.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # asyncio leaks a connection that was accepted just before its server closes, or that agrees
        # on TLS just then: accept no more, let all get as far as a handshake, then end each one
        for listener in sockets or ():
            asyncio.get_running_loop().remove_reader(listener)
        for _ in range(3):
            await asyncio.sleep(0)
        for server in self.servers:
            server.close()
        for handshake in asyncio.all_tasks() - {asyncio.current_task()} - self.server_state.tasks:
            handshake.cancel()
        await asyncio.sleep(0)
        for task in self.server_state.tasks:
            task.cancel()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        while self.server_state.connections:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0)


def _config(app: Front, certificate: str | None, key: str | None) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        loop="asyncio",
        interface="asgi3",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        date_header=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=60,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
