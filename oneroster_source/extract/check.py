"""Checks what a school's server allows, without loading anything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import orjson

from oneroster_source.client.client import Client
from oneroster_source.client.pauses import Gates
from oneroster_source.client.transport import Server
from oneroster_source.config.schools import School
from oneroster_source.config.settings import Settings
from oneroster_source.errors import BadResponse, OneRosterError, ResponseTooLarge, clean
from oneroster_source.extract.page_requests import Order, query, refuses_sort, smaller_limits
from oneroster_source.model.filters import Filter, where
from oneroster_source.transform.duckdb_engine import engine
from oneroster_source.transform.parser import PageParser

_ORDERS: tuple[Order | None, ...] = ("asc", None)


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    estab: str
    subject: str
    good: bool
    detail: str


def check(settings: Settings) -> Iterator[Finding]:
    """Checks every school's server: login, versions, and each endpoint as a sync reads it."""
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
            # no endpoint needs it
            yield Finding(school.estab, path, True, f"not available: {_said(error)}")
    for name in settings.endpoints:
        parser = PageParser(settings.dialect[name], engine(), time_zone=settings.time_zone)
        yield _check_endpoint(client, parser, settings)


def _check_endpoint(client: Client, parser: PageParser, settings: Settings) -> Finding:
    """Sends the first request of a sync: with its filter, order and page size; where that is
    refused, the simpler ones that a sync tries.
    """
    estab, endpoint = client.school.estab, parser.endpoint
    own = settings.filters.get(endpoint.name, Filter())
    recent = own & where("dateLastModified", ">", datetime.now(UTC) - timedelta(days=1))
    refusals: dict[tuple[int, Order | None], OneRosterError] = {}
    for limit in (settings.page_size, *smaller_limits(settings.page_size)):
        for order in _ORDERS:
            try:
                reply = client.get(
                    endpoint.path, query(own, limit=limit, order=order), parser.parse
                )
            except OneRosterError as error:
                if not refuses_sort(error) and not isinstance(error, ResponseTooLarge):
                    return Finding(estab, endpoint.name, False, _said(error))
                refusals[limit, order] = error
                continue
            details = [f"{reply.total:,} rows" if reply.total is not None else "states no total"]
            if first := refusals.get((settings.page_size, None)):
                details.append(f"{limit:,} rows in a page: more are refused ({_said(first)})")
            refused = refusals.get((limit, "asc"))
            details.append(f"sort refused ({_said(refused)})" if refused else "sort accepted")
            details.append(_filter(client, parser, query(recent, limit=limit, order=order)))
            details += filter(None, [reply.warning])
            return Finding(estab, endpoint.name, True, ", ".join(details))
    return Finding(estab, endpoint.name, False, _said(refusals[settings.page_size, "asc"]))


def _filter(client: Client, parser: PageParser, params: dict[str, str]) -> str:
    """Says whether the server accepts the filter of the next sync."""
    try:
        client.get(parser.endpoint.path, params, parser.parse)
        return "filter accepted"
    except OneRosterError as error:
        return f"filter refused ({_said(error)})"


def _said(error: OneRosterError) -> str:
    """Returns what happened, with the server's own words."""
    return ": ".join(filter(None, (error.what, error.words)))


def _version(body: bytes | bytearray) -> str:
    """Returns the version that a server states, in whichever form."""
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError:
        payload = None
    if payload is None:
        raise BadResponse("the answer is not valid JSON")
    if isinstance(payload, dict):
        payload = payload.get("version", payload)
    return clean(payload if isinstance(payload, str) else orjson.dumps(payload).decode(), limit=60)
