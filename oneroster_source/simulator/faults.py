"""What goes wrong on purpose, as data, and how it is brought about."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

FaultKind: TypeAlias = Literal[
    "status",
    "reset",
    "cut",
    "drip",
    "hang",
    "html",
    "bad_json",
    "bad_gzip",
    "no_envelope",
    "null_envelope",
    "redirect",
]


@dataclass(frozen=True)
class Fault:
    """A scripted fault, used up as it happens."""

    path: str = "*"
    """A collection, "auth/token", "oauth/token" or "version"; "*" for all of them."""
    at: int = 1
    """Happens at the n-th request to that path, counted from when the fault was added."""
    times: int = 1
    """How many requests in a row."""
    status: int | None = None
    body: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()
    kind: FaultKind = "status"
    seconds: float = 0.0
    """How long a "hang" waits before it answers, and a "drip" before each byte."""


Genuine: TypeAlias = Callable[[], Awaitable[Response]]
"""Gets the answer that the request would have had."""


async def enact(fault: Fault, path: str, genuine: Genuine) -> Response:
    """The answer to a request that `fault` happens to."""
    response = await _KINDS[fault.kind](fault, path, genuine)
    for name, value in fault.headers:
        response.headers[name] = value
    return response


class Reset(Response):
    """Closes the connection at once, with no answer: the client sees a TCP reset."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        transport: asyncio.Transport = scope["state"]["transport"]
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
        await _disconnected(receive)


class Cut(Response):
    """Promises the whole body, sends half of it and closes the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        transport: asyncio.Transport = scope["state"]["transport"]
        start = {"status": self.status_code, "headers": self.raw_headers}
        half = bytes(self.body[: len(self.body) // 2])
        await send({"type": "http.response.start", **start})
        await send({"type": "http.response.body", "body": half, "more_body": True})
        transport.close()
        await _disconnected(receive)


class Drip(Response):
    """Sends the body byte by byte."""

    seconds = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **start})
        for byte in bytes(self.body):
            await asyncio.sleep(self.seconds)
            await send({"type": "http.response.body", "body": bytes([byte]), "more_body": True})
        await send({"type": "http.response.body"})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _status(fault: Fault, path: str, genuine: Genuine) -> Response:
    error = {"error": "server_error", "error_description": "The request could not be completed"}
    return _json(fault, orjson.dumps(error), status=500)


async def _reset(fault: Fault, path: str, genuine: Genuine) -> Response:
    return Reset()


async def _cut(fault: Fault, path: str, genuine: Genuine) -> Response:
    answer = await genuine()
    cut = Cut(answer.body, answer.status_code)
    cut.raw_headers = answer.raw_headers
    return cut


async def _drip(fault: Fault, path: str, genuine: Genuine) -> Response:
    answer = await genuine()
    drip = Drip(answer.body, answer.status_code)
    drip.raw_headers, drip.seconds = answer.raw_headers, fault.seconds
    return drip


async def _hang(fault: Fault, path: str, genuine: Genuine) -> Response:
    await asyncio.sleep(fault.seconds)
    return await (genuine() if fault.status is None else _status(fault, path, genuine))


async def _html(fault: Fault, path: str, genuine: Genuine) -> Response:
    page = b"<!DOCTYPE html><html><body><h1>The service is unavailable.</h1></body></html>"
    return Response(fault.body or page, fault.status or 200, media_type="text/html")


async def _bad_json(fault: Fault, path: str, genuine: Genuine) -> Response:
    whole = bytes((await genuine()).body)
    return _json(fault, whole[: len(whole) // 2])


async def _bad_gzip(fault: Fault, path: str, genuine: Genuine) -> Response:
    response = _json(fault, b"\x1f\x8b\x08 this is no gzip")
    response.headers["content-encoding"] = "gzip"
    return response


async def _no_envelope(fault: Fault, path: str, genuine: Genuine) -> Response:
    return _json(fault, b'{"message":"ok"}')


async def _null_envelope(fault: Fault, path: str, genuine: Genuine) -> Response:
    return _json(fault, orjson.dumps({path: None}))


async def _redirect(fault: Fault, path: str, genuine: Genuine) -> Response:
    return Response(b"", fault.status or 302, headers={"location": "/login"})


def _json(fault: Fault, body: bytes, status: int = 200) -> Response:
    content = body if fault.body is None else fault.body
    return Response(content, fault.status or status, media_type="application/json")


_KINDS: dict[FaultKind, Callable[[Fault, str, Genuine], Awaitable[Response]]] = {
    "status": _status,
    "reset": _reset,
    "cut": _cut,
    "drip": _drip,
    "hang": _hang,
    "html": _html,
    "bad_json": _bad_json,
    "bad_gzip": _bad_gzip,
    "no_envelope": _no_envelope,
    "null_envelope": _null_envelope,
    "redirect": _redirect,
}
