"""What a school's server allows, found out without loading anything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import orjson

from oneroster_source.client import Client
from oneroster_source.config import Settings
from oneroster_source.errors import BadResponse, OneRosterError, clean
from oneroster_source.filters import where
from oneroster_source.http import Server
from oneroster_source.patience import Gates
from oneroster_source.schools import School
from oneroster_source.shape import Shaper, engine

_LONG_AGO = "1970-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Finding:
    """One question to a server, and the answer."""

    estab: str
    subject: str
    good: bool
    detail: str


def check(settings: Settings) -> Iterator[Finding]:
    """Asks every school's server: login, versions, and each endpoint with filter and sort."""
    gates = Gates(settings.pause_budget)
    for school in settings.schools:
        server = Server(
            concurrency=1,
            timeout=settings.request_timeout,
            max_bytes=settings.max_page_mb << 20,
            ca_bundle=settings.ca_bundle,
            gates=gates,
        )
        try:
            yield from _check_school(school, settings, server)
        finally:
            server.close()


def _check_school(school: School, settings: Settings, server: Server) -> Iterator[Finding]:
    client = Client(school, settings, server)
    try:
        client.login()
    except OneRosterError as error:
        yield Finding(school.estab, "login", False, _said(error))
        return
    yield Finding(school.estab, "login", True, school.base_url)
    for path in ("/version", "/auth/version"):
        try:
            yield Finding(school.estab, path, True, client.get(path, {}, _version).value)
        except OneRosterError as error:
            # no endpoint needs them, so that a provider without them is as good
            yield Finding(school.estab, path, True, f"not available: {_said(error)}")
    for name in settings.endpoints:
        shaper = Shaper(settings.dialect[name], engine(), time_zone=settings.time_zone)
        yield _check_endpoint(client, shaper)


def _check_endpoint(client: Client, shaper: Shaper) -> Finding:
    estab, endpoint = client.school.estab, shaper.endpoint
    one = {"limit": "1", "offset": "0"}
    try:
        reply = client.get(endpoint.path, one, shaper.parse)
    except OneRosterError as error:
        return Finding(estab, endpoint.name, False, _said(error))
    details = [f"{reply.total:,} rows" if reply.total is not None else "states no total"]
    tries = {
        "sort": {"sort": "sourcedId", "orderBy": "asc"},
        "filter": {"filter": str(where("dateLastModified", ">", _LONG_AGO))},
    }
    for what, params in tries.items():
        try:
            client.get(endpoint.path, one | params, shaper.parse)
            details.append(f"{what} accepted")
        except OneRosterError as error:
            details.append(f"{what} refused ({_said(error)})")
    return Finding(estab, endpoint.name, True, ", ".join(details))


def _said(error: OneRosterError) -> str:
    """What happened, with the server's own words."""
    return ": ".join(filter(None, (error.what, error.words)))


def _version(body: bytes | bytearray) -> str:
    """The version that a server states, in whichever form."""
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError:
        payload = None
    if payload is None:
        raise BadResponse("the answer is not valid JSON")
    if isinstance(payload, dict):
        payload = payload.get("version", payload)
    return clean(payload if isinstance(payload, str) else orjson.dumps(payload).decode(), limit=60)
