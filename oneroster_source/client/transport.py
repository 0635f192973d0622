"""Sends single requests to one server, and contacts no other host."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urljoin, urlsplit

import orjson
import requests
import urllib3

from oneroster_source.client.failures import description_in, translated, with_words
from oneroster_source.client.pauses import Gates, RequestLimit
from oneroster_source.client.session import Authorization, Session, limit_exchange
from oneroster_source.errors import (
    AccessDenied,
    BadResponse,
    EndpointNotFound,
    OneRosterError,
    RequestRefused,
    ResponseTooLarge,
    ServerUnavailable,
    clean,
)
from oneroster_source.transform.charset import as_utf8

CONNECT_SECONDS = 10.0
DRIP = 5
"""A request may take so many timeouts, from the connection to the last byte of the answer."""
THREADS = 16
"""Threads for each request at once: most of them wait for their turn, or for a retry."""
MOST_TARGET = 120
"""Characters of an address that a message quotes."""
_CHUNK = 1 << 18
_PACKED = ("gzip", "x-gzip", "deflate")
TRANSIENT = {408, 425, 429}


@dataclass(frozen=True, slots=True)
class Answer:
    """A response, read to its end."""

    status: int
    body: bytes | bytearray
    total: int | None
    """`X-Total-Count`, if it is a number; it may be wrong."""
    date: datetime | None
    """The server's clock."""
    retry_after: float | None
    """Seconds that the server asks to wait."""
    host: str
    """The host that sent it."""
    content_type: str
    target: str
    """Where it redirects to, without what may be secret; empty if it does not."""

    def text(self) -> tuple[bytes | bytearray, str]:
        """Returns the body as UTF-8, and a warning if the charset is a guess: see `as_utf8`."""
        return as_utf8(self.body, self.content_type)

    def json(self) -> Any:
        """Returns the parsed body; None if it is not JSON."""
        try:
            return orjson.loads(self.text()[0])
        except (orjson.JSONDecodeError, BadResponse):
            return None

    def description(self, secrets: tuple[str, ...]) -> str:
        """Returns the server's own words on an error, cut and cleaned; empty if there are none."""
        return clean(description_in(self.json()), secrets=secrets)


class Server:
    """One host and port, for all schools that it serves.

    Args:
        concurrency: Most requests at once.
        timeout: Seconds to wait for an answer.
        max_bytes: Largest body to accept, unpacked.
        ca_bundle: Path of the certificates to trust; empty for the usual ones.
        gates: The pauses of the run.
    """

    def __init__(
        self,
        *,
        concurrency: int,
        timeout: float,
        max_bytes: int,
        ca_bundle: str = "",
        gates: Gates | None = None,
    ) -> None:
        self.pool = ThreadPoolExecutor(THREADS * concurrency, thread_name_prefix="oneroster-page")
        self.request_limit = RequestLimit(concurrency)
        self._gates = gates or Gates()
        self._timeout = timeout
        self._max_bytes = max_bytes
        self._closed = False
        # passed with each request, since the environment may override a session's own
        self._verify = ca_bundle or True
        self._session = Session(concurrency)

    def close(self) -> None:
        """Cancels requests that have not begun, waits for the others, closes the connections."""
        self._closed = True
        self.pool.shutdown(cancel_futures=True)
        self._session.close()

    def require_open(self) -> None:
        """Raises an error if the server was closed, as nobody waits for answers any more."""
        if self._closed:
            raise OneRosterError("the run was stopped")

    def request(
        self,
        method: str,
        url: str,
        *,
        authorization: str,
        form: dict[str, str] | None = None,
        sent: Callable[[], None] = lambda: None,
    ) -> Answer:
        """Sends one request, once; calls `sent` just before.

        Raises:
            Paused: The server has asked for a pause; nothing was sent.
            InsecureServer: Its certificate cannot be verified; nothing was sent.
            ServerUnavailable: There is no answer, or it broke off.
            BadResponse: The body cannot be unpacked.
            ResponseTooLarge: It is larger than `max_bytes`.
        """
        self.require_open()
        self._gates.of(_host(url)).check()
        sent()
        limit_exchange(DRIP * self._timeout, self.require_open)
        try:
            return self._send(method, url, authorization, form)
        except OneRosterError:
            raise
        except (
            requests.RequestException,
            urllib3.exceptions.HTTPError,
            OSError,
            zlib.error,
        ) as error:
            problem = translated(error)
        raise problem

    def pause(self, host: str, seconds: float, *, asked: bool) -> None:
        """Pauses all requests to a host, and then sends fewer at once.

        Args:
            host: The server.
            seconds: How long.
            asked: Whether it named that time.

        Raises:
            ServerUnavailable: The pause is longer than what is left of `pause_budget`.
        """
        if self._gates.of(host).pause(seconds, asked=asked):
            self.request_limit.fewer()

    def _send(
        self, method: str, url: str, authorization: str, form: dict[str, str] | None
    ) -> Answer:
        with self._session.request(
            method,
            url,
            data=form,
            auth=Authorization(authorization),
            allow_redirects=False,
            stream=True,
            verify=self._verify,
            timeout=(min(CONNECT_SECONDS, self._timeout), self._timeout),
        ) as response:
            headers = response.headers
            date = _date(headers.get("Date", ""))
            status = response.status_code
            location = headers.get("Location", "") if 300 <= status < 400 else ""
            return Answer(
                status=status,
                body=self._body(response),
                total=_count(headers.get("X-Total-Count", "")),
                date=date,
                retry_after=_retry_after(headers.get("Retry-After", ""), date),
                host=_host(url),
                content_type=headers.get("Content-Type", ""),
                target=_target(url, location),
            )

    def _body(self, response: requests.Response) -> bytearray:
        body = bytearray()
        chunks = _received(response.raw)
        packed = response.headers.get("Content-Encoding", "").strip().lower() in _PACKED
        for chunk in _unpacked(chunks) if packed else chunks:
            body += chunk
            if len(body) > self._max_bytes:
                raise ResponseTooLarge(
                    f"the answer is larger than {self._max_bytes >> 20} MiB",
                    todo="lower page_size, or raise max_page_mb",
                )
        return body


def _received(raw: Any) -> Iterator[bytes]:
    """Gives a body as it comes in."""
    # `read` waits until a chunk is full, but urllib3 before 2.2 has nothing else
    read = getattr(raw, "read1", raw.read)
    while chunk := read(_CHUNK, decode_content=False):
        yield chunk


def _unpacked(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Unpacks a body in pieces: `requests` may make 64 MiB of one chunk."""
    unpacker = None
    for chunk in chunks:
        while chunk:
            if unpacker is None or unpacker.eof:
                unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)
            yield unpacker.decompress(chunk, _CHUNK)
            chunk = unpacker.unconsumed_tail or unpacker.unused_data  # noqa: PLW2901 - the rest of it
    if unpacker is not None and not unpacker.eof:
        raise zlib.error("cut short")


def require_success(answer: Answer, secrets: tuple[str, ...]) -> Answer:
    """Returns the answer, if its status is one of success.

    The server's own words on an error may quote rows: they are in the error's `words` alone.

    Raises:
        RequestRefused: 400 and other refusals of the request as such.
        AccessDenied: 401 and 403.
        EndpointNotFound: 404, 405, 410 and redirects.
        ServerUnavailable: Everything that may pass: 408, 425, 429, 5xx.
    """
    status = answer.status
    if 200 <= status < 300:
        return answer
    words = answer.description(secrets)
    kind: type[OneRosterError] = RequestRefused
    todo = "check the filter and page_size, or ask the provider what it supports"
    if status in (401, 403):
        kind, todo = AccessDenied, "ask the provider to grant this school's data to this client"
    elif status in (404, 405, 410) or 300 <= status < 400:
        kind, todo = EndpointNotFound, "check base_url: redirects are not followed"
    elif status in TRANSIENT or (status >= 500 and status != 501):
        kind, todo = ServerUnavailable, "try again later, or ask the provider"
    what = f"the server answered {status}"
    if answer.target:
        what += f": it redirects to {clean(answer.target, secrets=secrets, limit=MOST_TARGET)}"
    error = with_words(kind(what, todo=todo), words)
    error.status = status
    if isinstance(error, ServerUnavailable):
        error.retry_after = answer.retry_after
        # without it, as from a proxy that has no server, the answer is just a failed try
        if status == 429 or answer.retry_after is not None:
            error.pausing = answer.host
    raise error


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2].lower()


def _target(url: str, location: str) -> str:
    """Returns scheme, host and path of the address that an answer redirects to."""
    try:
        parts = urlsplit(urljoin(url, location))
        _ = parts.port
    except ValueError:
        return ""
    if not location or parts.scheme not in ("http", "https") or not parts.hostname:
        return ""
    # servers put session ids behind a ';'
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.partition(';')[0]}"


def _count(text: str) -> int | None:
    return int(text) if re.fullmatch(r"\d{1,9}", text.strip()) else None


def _date(text: str) -> datetime | None:
    try:
        value = parsedate_to_datetime(text)
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    except (ValueError, TypeError, OverflowError):
        return None


def _retry_after(text: str, now: datetime | None) -> float | None:
    """Returns seconds, from a number or from a date by the server's clock."""
    if re.fullmatch(r"\s*\d{1,9}(\.\d+)?\s*", text):
        return float(text)
    date = _date(text)
    return max(0.0, (date - (now or datetime.now(UTC))).total_seconds()) if date else None
