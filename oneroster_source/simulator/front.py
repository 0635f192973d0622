"""The front of the server: every request passes here to be recorded, delayed and spoiled."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from urllib.parse import parse_qsl

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from oneroster_source.simulator.faults import enact
from oneroster_source.simulator.recorder import Recorder, Request
from oneroster_source.simulator.school import School
from oneroster_source.simulator.tokens import basic_credentials, bearer_token, form_decoded


class Front:
    """An ASGI app around the one that answers."""

    def __init__(
        self,
        app: ASGIApp,
        schools: Sequence[School],
        recorder: Recorder,
        *,
        prefix: str,
        latency: float,
    ) -> None:
        self._app = app
        self._schools = schools
        self._recorder = recorder
        self._prefix = prefix
        self._latency = latency

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _read(receive)
        school = self._school(Headers(scope=scope), body)
        path = scope["path"].removeprefix(self._prefix).strip("/")
        scope["state"]["school"] = school
        with self._recorder.handling(_request(scope, school, path)) as number:

            async def noted(message: Message) -> None:
                # before it is sent: who has the answer finds its status in the record
                if message["type"] == "http.response.start":
                    self._recorder.answered(number, message["status"])
                await send(message)

            response = await self._answer(scope, body, school, path)
            response.headers["date"] = _http_date(school)
            await response(scope, receive, noted)

    async def _answer(
        self, scope: Scope, body: bytes, school: School | None, path: str
    ) -> Response:
        if self._latency:
            await asyncio.sleep(self._latency)

        async def genuine() -> Response:
            return await _captured(self._app, scope, body)

        fault = school.next_fault(path) if school is not None else None
        return await (genuine() if fault is None else enact(fault, path, genuine))

    def _school(self, headers: Headers, body: bytes) -> School | None:
        """The school that a request's token or credentials name, valid or not."""
        authorization = headers.get("authorization", "")
        if (token := bearer_token(authorization)) is not None:
            return next((s for s in self._schools if s.tokens.known(token)), None)
        credentials = basic_credentials(authorization) or form_credentials(body)
        for text in (credentials, form_decoded(credentials)):
            for school in self._schools:
                if school.knows(text):
                    return school
        return None


def form_credentials(body: bytes) -> str:
    """The client id and secret in the body of an OAuth2 token request, as `id:secret`."""
    form = dict(parse_qsl(body.decode("utf-8", "replace")))
    return f"{form.get('client_id', '')}:{form.get('client_secret', '')}"


async def _captured(app: ASGIApp, scope: Scope, body: bytes) -> Response:
    """The whole answer of `app`, to be spoiled or sent."""
    response = Response()
    chunks: list[bytes] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            response.status_code = message["status"]
            response.raw_headers = list(message["headers"])
        else:
            chunks.append(message.get("body", b""))

    await app(scope, receive, send)
    response.body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    return response


async def _read(receive: Receive) -> bytes:
    body = bytearray()
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return bytes(body)


def _request(scope: Scope, school: School | None, path: str) -> Request:
    query = scope["query_string"].decode("latin-1")
    return Request(
        estab=None if school is None else school.estab,
        method=scope["method"],
        path=path,
        params=dict(parse_qsl(query, keep_blank_values=True)),
        query=query,
        headers=dict(Headers(scope=scope)),
    )


def _http_date(school: School | None) -> str:
    now = datetime.now(UTC) if school is None else school.now()
    return format_datetime(now, usegmt=True)
