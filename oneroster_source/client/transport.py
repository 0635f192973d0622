"""One server: its connections, its limit of requests at once, and what each failure means.

Nothing here follows a redirect, keeps a cookie, reads a netrc file, or contacts another host. An
error carries text alone: a `requests` exception would hold the token and the page.
"""

from __future__ import annotations

import http.client
import io
import math
import re
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

import orjson
import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase

from oneroster_source.client.pauses import Gates, Turns
from oneroster_source.errors import (
    AccessDenied,
    BadResponse,
    EndpointNotFound,
    InsecureServer,
    OneRosterError,
    RequestRefused,
    ResponseTooLarge,
    ServerUnavailable,
    clean,
)
from oneroster_source.transform.charset import as_utf8

E = TypeVar("E", bound=OneRosterError)

CONNECT_SECONDS = 10.0
DRIP = 5
"""How many times the timeout a request may take, from the connection to the last byte of the
answer, however steadily it drips."""
THREADS = 16
"""Threads for each request that may be under way: most of them wait for their turn, or a retry."""
MOST_TARGET = 120
"""Characters of an address that a message quotes."""
_CHUNK = 1 << 18
_PACKED = ("gzip", "x-gzip", "deflate")
TRANSIENT = {408, 425, 429}
_DESCRIPTIONS = ("error_description", "imsx_description", "description", "message", "error")


@dataclass(frozen=True, slots=True)
class Answer:
    """A server's answer, read to its end."""

    status: int
    body: bytes | bytearray
    total: int | None
    """`X-Total-Count`, if it is a number: a hint, which may be wrong."""
    date: datetime | None
    """The server's clock."""
    retry_after: float | None
    """Seconds that the server asks to wait."""
    host: str
    """Who gave it."""
    content_type: str
    target: str
    """Where it redirects to, without what may be secret; empty if nowhere."""

    def text(self) -> tuple[bytes | bytearray, str]:
        """The body as UTF-8, and a warning if that was a guess: see `as_utf8`."""
        return as_utf8(self.body, self.content_type)

    def json(self) -> Any:
        """What the body holds; None if it is no JSON."""
        try:
            return orjson.loads(self.text()[0])
        except (orjson.JSONDecodeError, BadResponse):
            return None

    def description(self, secrets: tuple[str, ...]) -> str:
        """The server's own words on an error, cut and cleaned; empty if it has none."""
        return clean(_words(self.json()), secrets=secrets)


class _Plain(AuthBase):
    """Sets one Authorization header; as an auth object it also keeps netrc entries away."""

    def __init__(self, authorization: str) -> None:
        self._authorization = authorization

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._authorization:
            request.headers["Authorization"] = self._authorization
        return request


class _Exchange(threading.local):
    """The request that a thread has under way."""

    ends = math.inf
    """When it has to be over, answer and all, by the monotonic clock."""
    server: Server | None = None


_exchange = _Exchange()


class _TooSlow(TimeoutError):
    """An answer goes on and on."""


class _Timed(io.RawIOBase):
    """What is received of an answer, until its time is over. A socket's own timeout begins again
    with each byte."""

    def __init__(self, raw: Any, sock: Any) -> None:
        self._raw = raw
        self._sock = sock
        self._ends, self._server = _exchange.ends, _exchange.server

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._server is not None:
            self._server.go_on()
        left = self._ends - time.monotonic()
        if left <= 0:
            raise _TooSlow
        timeout = self._sock.gettimeout()
        if timeout is None or left < timeout:
            self._sock.settimeout(left)
        try:
            received: int | None = self._raw.readinto(buffer)
        except TimeoutError:
            if time.monotonic() < self._ends:
                raise
            raise _TooSlow from None
        return received

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimedResponse(http.client.HTTPResponse):
    """Everything that is read from a server is read through this, headers and a proxy's too."""

    def __init__(self, sock: Any, *args: Any, **more: Any) -> None:
        super().__init__(sock, *args, **more)
        self.fp = io.BufferedReader(_Timed(self.fp.detach(), sock))


def _timed(manager: urllib3.PoolManager) -> None:
    """Makes all connections of a manager keep the time."""

    def timed(pool: Any) -> Any:
        kind = pool.ConnectionCls
        connection = type(kind.__name__, (kind,), {"response_class": _TimedResponse})
        return type(pool.__name__, (pool,), {"ConnectionCls": connection})

    kinds = manager.pool_classes_by_scheme
    manager.pool_classes_by_scheme = {scheme: timed(pool) for scheme, pool in kinds.items()}


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **more: Any) -> None:
        super().init_poolmanager(*args, **more)
        _timed(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **more: Any) -> Any:
        known = proxy in self.proxy_manager
        manager = super().proxy_manager_for(proxy, **more)
        if not known:
            _timed(manager)
        return manager


class _Session(requests.Session):
    def __init__(self) -> None:
        super().__init__()
        self._environment: dict[tuple[str, ...], Any] = {}

    def get_redirect_target(self, resp: requests.Response) -> None:
        # where it is told not to follow, `requests` still reads the body to its end, however large
        return None

    def merge_environment_settings(self, url: Any, *args: Any) -> Any:
        # proxies and certificates: looked up once for each host, since that takes as long as all
        # else that is done for a request
        host = urlsplit(url)[:2]
        if host not in self._environment:
            self._environment[host] = super().merge_environment_settings(url, *args)
        return self._environment[host]


class Server:
    """One host and port.

    Args:
        concurrency: Requests under way at once, for all schools that it serves.
        timeout: Seconds to wait for it to answer.
        max_bytes: Largest body to accept, unpacked.
        ca_bundle: Path of the certificates to trust; empty for those that everyone trusts.
        gates: Those of the run, which know the pauses that servers asked for.
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
        self.turns = Turns(concurrency)
        self._gates = gates or Gates()
        self._timeout = timeout
        self._max_bytes = max_bytes
        self._closed = False
        # with each request, since the environment may override a session's own
        self._verify = ca_bundle or True
        self._session = _Session()
        self._session.headers["User-Agent"] = "oneroster-source"
        self._session.headers["Accept"] = "application/json"
        self._session.headers["Accept-Encoding"] = "gzip"
        # schools share the connections, and must not share a session at the server
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        adapter = _Adapter(pool_maxsize=concurrency, max_retries=0)
        self._session.mount("https://", adapter)
        self._session.mount("http://", adapter)

    def close(self) -> None:
        """Drops what has not begun, waits for what has, and closes the connections."""
        self._closed = True
        self.pool.shutdown(cancel_futures=True)
        self._session.close()

    def go_on(self) -> None:
        """Raises an error if nobody waits for answers any more."""
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
        """Sends one request, once; calls `sent` before that, if it may be sent.

        Raises:
            Paused: The server has asked for a pause; nothing was sent.
            InsecureServer: Its certificate cannot be verified; nothing was sent.
            ServerUnavailable: No answer, or one that broke off.
            BadResponse: The body is not what its encoding says.
            ResponseTooLarge: It is larger than what may be kept in memory.
        """
        self.go_on()
        self._gates.of(_host(url)).check()
        sent()
        _exchange.ends, _exchange.server = time.monotonic() + DRIP * self._timeout, self
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
            problem = _named(error)
        raise problem

    def pause(self, host: str, seconds: float, *, asked: bool) -> None:
        """Sends nothing to a host for so long, and then fewer requests at once.

        Args:
            host: The server.
            seconds: How long.
            asked: Whether it named that time.

        Raises:
            ServerUnavailable: That is longer than what is left for pauses.
        """
        if self._gates.of(host).pause(seconds, asked=asked):
            self.turns.fewer()

    def _send(
        self, method: str, url: str, authorization: str, form: dict[str, str] | None
    ) -> Answer:
        with self._session.request(
            method,
            url,
            data=form,
            auth=_Plain(authorization),
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
    """A body as it comes in."""
    # `read` would wait until a chunk is full; before urllib3 2.2 there is nothing else
    read = getattr(raw, "read1", raw.read)
    while chunk := read(_CHUNK, decode_content=False):
        yield chunk


def _unpacked(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """A body unpacked in pieces: `requests` may make 64 MiB of one chunk."""
    unpacker = None
    for chunk in chunks:
        while chunk:
            if unpacker is None or unpacker.eof:
                unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)
            yield unpacker.decompress(chunk, _CHUNK)
            chunk = unpacker.unconsumed_tail or unpacker.unused_data
    if unpacker is not None and not unpacker.eof:
        raise zlib.error("cut short")


def checked(answer: Answer, secrets: tuple[str, ...]) -> Answer:
    """The answer, if its status tells of success.

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
    error = worded(kind(what, todo=todo), words)
    error.status = status
    if isinstance(error, ServerUnavailable):
        error.retry_after = answer.retry_after
        # what asks for nothing, such as a proxy without its server, is one try that failed
        if status == 429 or answer.retry_after is not None:
            error.pausing = answer.host
    raise error


def worded(error: E, words: str) -> E:
    """The error with the server's own words, which may quote rows or what it was sent: for who
    asks for them, and in no message."""
    if not words:
        return error
    more = "`oneroster check-connection` shows what the server says to it"
    error = type(error)(error.what, where=error.where, todo=f"{error.todo}; {more}")
    error.words = words
    return error


def placed(error: E, where: str, what: str = "") -> E:
    """A new error that says where it happened, if the first one does not; it holds nothing of what
    led to that one."""
    new = type(error)(what or error.what, where=error.where or where, todo=error.todo)
    new.words, new.status = error.words, error.status
    if isinstance(error, ServerUnavailable) and isinstance(new, ServerUnavailable):
        new.retry_after, new.pausing, new.tries = error.retry_after, error.pausing, error.tries
    return new


def _words(payload: object, levels: int = 3) -> str:
    """The description in an error's JSON: providers wrap it in objects and lists of their own."""
    if isinstance(payload, list):
        payload = dict(enumerate(payload[:1]))
    if not isinstance(payload, dict) or not levels:
        return ""
    own = (payload.get(key) for key in _DESCRIPTIONS)
    inner = (_words(value, levels - 1) for value in payload.values())
    return next((text for text in (*own, *inner) if isinstance(text, str) and text), "")


def _named(error: Exception) -> OneRosterError:
    """Our error for one of `requests`, with nothing of it inside."""
    reasons = _reasons(error)
    names = {type(reason).__name__ for reason in reasons}
    for reason in reasons:
        if isinstance(reason, ssl.SSLCertVerificationError):
            return InsecureServer(
                f"the server's TLS certificate cannot be verified: {clean(reason.verify_message)}",
                todo="check base_url; for a private authority set ca_bundle to its certificates",
            )
    if "SSLError" in names and "SSLEOFError" not in names:
        return InsecureServer(
            "no secure connection to the server can be made", todo="check base_url and ca_bundle"
        )
    if isinstance(error, zlib.error):
        return BadResponse("the answer's compression is broken", todo="ask the provider")
    if "_TooSlow" in names:
        slow = ServerUnavailable(
            "the server did not finish its answer in time",
            todo="lower page_size, or raise request_timeout",
        )
        # it has taken some timeouts already
        slow.tries = 2
        return slow
    if names & {"NameResolutionError", "gaierror"}:
        what = "the server's name cannot be resolved"
    elif "ConnectionRefusedError" in names:
        what = "the server refuses the connection"
    elif any("Timeout" in name for name in names):
        what = "the server did not answer in time"
    elif "IncompleteRead" in names:
        what = "the answer broke off"
    else:
        what = "the connection failed"
    return ServerUnavailable(what, todo="check the network and base_url, then run again")


def _reasons(error: BaseException) -> list[BaseException]:
    """An error and all that it wraps."""
    found: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting and len(found) < 50:
        item = waiting.pop()
        if isinstance(item, BaseException):
            found.append(item)
            waiting += [item.__cause__, item.__context__, getattr(item, "reason", None), *item.args]
    return found


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2].lower()


def _target(url: str, location: str) -> str:
    """Scheme, host and path of where an answer redirects to."""
    try:
        parts = urlsplit(urljoin(url, location))
        _ = parts.port
    except ValueError:
        return ""
    if not location or parts.scheme not in ("http", "https") or not parts.hostname:
        return ""
    # behind a ';' servers put sessions
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
    """Seconds, from a number (fractions too) or from a date, which is by the server's clock."""
    if re.fullmatch(r"\s*\d{1,9}(\.\d+)?\s*", text):
        return float(text)
    date = _date(text)
    return max(0.0, (date - (now or datetime.now(UTC))).total_seconds()) if date else None
