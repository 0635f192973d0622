"""The HTTP clients of one run: one for each school, one connection pool for each server."""

from __future__ import annotations

import threading

from oneroster_source.client.client import Client
from oneroster_source.client.pauses import Gates
from oneroster_source.client.transport import Server
from oneroster_source.config.schools import School
from oneroster_source.config.settings import Settings
from oneroster_source.errors import OneRosterError
from oneroster_source.run_report import Report


class Clients:
    """Makes the client of a school when it is first needed.

    Args:
        settings: The run's.
        report: Notes the pauses that servers ask for.
    """

    def __init__(self, settings: Settings, report: Report) -> None:
        self._settings = settings
        self._gates = Gates(
            settings.pause_budget, tell=report.pauses.__setitem__, run_id=report.run_id
        )
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._servers: dict[str, Server] = {}
        self._clients: dict[str, Client] = {}

    def of(self, school: School) -> Client:
        """The client of a school."""
        with self._lock:
            server = self._servers.get(school.server)
            if server is None:
                server = self._servers[school.server] = Server(
                    concurrency=self._settings.concurrency,
                    timeout=self._settings.request_timeout,
                    max_bytes=self._settings.max_page_mb << 20,
                    ca_bundle=self._settings.ca_bundle,
                    gates=self._gates,
                )
            client = self._clients.get(school.estab)
            if client is None:
                client = Client(school, self._settings, server, sleep=self._pause)
                self._clients[school.estab] = client
            return client

    def close(self) -> None:
        """Ends all pauses and closes all connections."""
        self._stopped.set()
        for server in self._servers.values():
            server.close()

    def _pause(self, seconds: float) -> None:
        """Waits between two tries, unless nobody waits for the answer any more."""
        if self._stopped.wait(seconds):
            raise OneRosterError("the run was stopped")
