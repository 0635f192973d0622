"""One server: its connections, its limit of requests at once, and what each failure means.

Nothing here follows a redirect, keeps a cookie, reads a netrc file, or contacts another host. An
error carries text alone: a `requests` exception would hold the token and the page.
"""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy

import orjson
import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase

from oneroster_source.errors import (
    AccessDenied,
    BadResponse,
    EndpointNotFound,
    InsecureServer,
    OneRosterError,
    RequestRefused,
    ServerUnavailable,
    clean,
)

CONNECT_SECONDS = 10.0
DRIP = 5
"""How many times the timeout a whole answer may take, however steadily it drips."""
_CHUNK = 1 << 16
_TRANSIENT = {408, 425, 429}
_DESCRIPTIONS = ("error_description", "imsx_description", "description", "message", "error")


@dataclass(frozen=True, slots=True)
class Answer:
    """A server's answer, read to its end."""

    status: int
    body: bytes
    total: int | None
    """`X-Total-Count`, if it is a number: a hint, which may be wrong."""
    date: datetime | None
    """The server's clock."""
    retry_after: float | None
    """Seconds that the server asks to wait."""

    def description(self, secrets: tuple[str, ...]) -> str:
        """The server's own words on an error, cut and cleaned; empty if it has none."""
        try:
            payload = orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return ""
        if not isinstance(payload, dict):
            return ""
        words = next((payload[key] for key in _DESCRIPTIONS if payload.get(key)), "")
        return clean(words, secrets=secrets) if isinstance(words, str) else ""


class _Plain(AuthBase):
    """Sets one Authorization header; as an auth object it also keeps netrc entries away."""

    def __init__(self, authorization: str) -> None:
        self._authorization = authorization

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._authorization:
            request.headers["Authorization"] = self._authorization
        return request


class Server:
    """One host and port.

    Args:
        concurrency: Requests under way at once, for all schools that it serves.
        timeout: Seconds to wait for it to answer.
        max_bytes: Largest body to accept, unpacked.
    """

    def __init__(self, *, concurrency: int, timeout: float, max_bytes: int) -> None:
        self.pool = ThreadPoolExecutor(concurrency, thread_name_prefix="oneroster-page")
        self._timeout = timeout
        self._max_bytes = max_bytes
        self._session = requests.Session()
        self._session.headers["User-Agent"] = "oneroster-source"
        self._session.headers["Accept"] = "application/json"
        # schools share the connections, and must not share a session at the server
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        adapter = HTTPAdapter(pool_maxsize=concurrency, max_retries=0)
        self._session.mount("https://", adapter)
        self._session.mount("http://", adapter)

    def close(self) -> None:
        """Drops what has not begun, waits for what has, and closes the connections."""
        self.pool.shutdown(cancel_futures=True)
        self._session.close()

    def request(
        self, method: str, url: str, *, authorization: str, form: dict[str, str] | None = None
    ) -> Answer:
        """Sends one request, once.

        Raises:
            ServerUnavailable: No answer, or one that broke off or was too large.
            BadResponse: The body is not what its encoding says.
        """
        try:
            return self._send(method, url, authorization, form)
        except OneRosterError:
            raise
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            problem = _named(error)
        raise problem

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
            timeout=(min(CONNECT_SECONDS, self._timeout), self._timeout),
        ) as response:
            body, deadline = bytearray(), time.monotonic() + DRIP * self._timeout
            for chunk in response.iter_content(_CHUNK):
                body += chunk
                if time.monotonic() > deadline:
                    raise ServerUnavailable(
                        "the server did not finish its answer in time",
                        todo="lower page_size, or raise request_timeout",
                    )
                if len(body) > self._max_bytes:
                    raise BadResponse(
                        f"the answer is larger than {self._max_bytes >> 20} MiB",
                        todo="lower page_size, or raise max_page_mb",
                    )
            headers = response.headers
            return Answer(
                status=response.status_code,
                body=bytes(body),
                total=_count(headers.get("X-Total-Count", "")),
                date=_date(headers.get("Date", "")),
                retry_after=_retry_after(headers.get("Retry-After", "")),
            )


def checked(answer: Answer, secrets: tuple[str, ...]) -> Answer:
    """The answer, if its status is 200.

    Raises:
        RequestRefused: 400 and other refusals of the request as such.
        AccessDenied: 401 and 403.
        EndpointNotFound: 404, 405, 410 and redirects.
        ServerUnavailable: Everything that may pass: 408, 425, 429, 5xx.
    """
    status = answer.status
    if status == 200:
        return answer
    words = answer.description(secrets)
    what = f"the server answered {status}" + (f": {words}" if words else "")
    if status in (401, 403):
        raise AccessDenied(what, todo="ask the provider to grant this school's data to this client")
    if status in (404, 405, 410) or 300 <= status < 400:
        raise EndpointNotFound(what, todo="check base_url: redirects are not followed")
    if status in _TRANSIENT or status >= 500:
        error = ServerUnavailable(what, todo="try again later, or ask the provider")
        error.retry_after = answer.retry_after
        raise error
    raise RequestRefused(
        what, todo="check the filter and page_size, or ask the provider what it supports"
    )


def _named(error: Exception) -> OneRosterError:
    """Our error for one of `requests`, with nothing of it inside."""
    reasons = _reasons(error)
    if "SSLError" in reasons or "SSLCertVerificationError" in reasons:
        return InsecureServer(
            "the server's TLS certificate cannot be verified",
            todo="check base_url; for a private authority set REQUESTS_CA_BUNDLE to its file",
        )
    if "NameResolutionError" in reasons or "gaierror" in reasons:
        what = "the server's name cannot be resolved"
    elif "ConnectionRefusedError" in reasons:
        what = "the server refuses the connection"
    elif any("Timeout" in reason for reason in reasons):
        what = "the server did not answer in time"
    elif "ContentDecodingError" in reasons or "DecodeError" in reasons:
        return BadResponse("the answer's compression is broken", todo="ask the provider")
    elif "ChunkedEncodingError" in reasons or "IncompleteRead" in reasons:
        what = "the answer broke off"
    else:
        what = "the connection failed"
    return ServerUnavailable(what, todo="check the network and base_url, then run again")


def _reasons(error: BaseException) -> set[str]:
    """Class names of an error and of all that it wraps."""
    names: set[str] = set()
    waiting: list[object] = [error]
    while waiting and len(names) < 50:
        item = waiting.pop()
        if isinstance(item, BaseException):
            names.add(type(item).__name__)
            waiting += [item.__cause__, item.__context__, getattr(item, "reason", None), *item.args]
    return names


def _count(text: str) -> int | None:
    return int(text) if re.fullmatch(r"\d{1,9}", text.strip()) else None


def _date(text: str) -> datetime | None:
    try:
        value = parsedate_to_datetime(text)
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    except (ValueError, TypeError, OverflowError):
        return None


def _retry_after(text: str) -> float | None:
    """Seconds, from a number (fractions too) or from a date."""
    if re.fullmatch(r"\s*\d{1,9}(\.\d+)?\s*", text):
        return float(text)
    date = _date(text)
    return max(0.0, (date - datetime.now(UTC)).total_seconds()) if date else None
