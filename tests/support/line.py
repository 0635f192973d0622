"""A client and the school that it asks."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from oneroster_source import OneRosterError
from oneroster_source.client.client import Client
from oneroster_source.client.pauses import Gates
from oneroster_source.client.transport import Server
from oneroster_source.config.settings import resolve
from oneroster_source.model import V1P1
from oneroster_source.simulator import Fault, Request, School, Simulator
from oneroster_source.transform.duckdb_engine import Engine
from oneroster_source.transform.parser import PageParser

USERS = [{"sourcedId": f"x{n}", "status": "active", "role": "student"} for n in range(1, 6)]


IDS = [user["sourcedId"] for user in USERS]


PAGE = {"limit": "10", "offset": "0"}


PARSER = PageParser(V1P1["users"], Engine())


def ids(body: bytes) -> list[str]:
    return PARSER.parse(body).column("sourced_id").to_pylist()


class Line:
    """A client, the school that it asks, and everything that happened between them."""

    def __init__(self, simulator: Simulator, school: School, **settings: Any) -> None:
        own = {"estab": school.estab, "rp": school.rp, "shared_secret": school.shared_secret}
        self.given = settings
        self.settings = resolve(**{"base_url": simulator.base_url} | own | settings)
        self.simulator, self.school = simulator, school
        # nobody waits, and the clock goes on all the same
        self.waits: list[float] = []
        self.gates = Gates(
            self.settings.pause_budget, clock=lambda: time.monotonic() + sum(self.waits)
        )
        self.server = Server(
            concurrency=self.settings.concurrency,
            timeout=self.settings.request_timeout,
            max_bytes=self.settings.max_page_mb << 20,
            ca_bundle=self.settings.ca_bundle,
            gates=self.gates,
        )
        self.client = Client(
            self.settings.schools[0], self.settings, self.server, sleep=self.waits.append
        )

    def users(self) -> list[str]:
        return self.client.get("/users", PAGE, ids).value

    def fails(self, kind: type[OneRosterError] = OneRosterError) -> OneRosterError:
        with pytest.raises(kind) as caught:
            self.users()
        return caught.value

    def happens(self, *faults: Fault) -> None:
        self.school.faults.extend(faults)

    def received(self, path: str) -> list[Request]:
        return [request for request in self.simulator.requests if request.path == path]

    @property
    def statuses(self) -> list[tuple[str, int]]:
        return [(request.path, request.status) for request in self.simulator.requests]


def text(**payload: Any) -> bytes:
    return json.dumps(payload).encode()
