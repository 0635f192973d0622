"""The HTTP session of a server. It follows no redirects, keeps no cookies, reads no netrc file, and
ends answers that take too long, however steadily they drip.
"""

from __future__ import annotations

import http.client
import io
import math
import threading
import time
from collections.abc import Callable
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase


class Authorization(AuthBase):
    """Sets the Authorization header; being an auth object, it keeps netrc entries out too."""

    def __init__(self, authorization: str) -> None:
        self._authorization = authorization

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._authorization:
            request.headers["Authorization"] = self._authorization
        return request


def _nobody_stops() -> None:
    pass


class _Exchange(threading.local):
    """The request that a thread is making."""

    ends = math.inf
    """When it must be complete, by the monotonic clock."""
    require_open: Callable[[], None] = staticmethod(_nobody_stops)
    """Raises an error if the request is to be aborted."""


_exchange = _Exchange()


def limit_exchange(seconds: float, require_open: Callable[[], None]) -> None:
    """Limits the next request of this thread to a time, and lets `require_open` abort it."""
    _exchange.ends, _exchange.require_open = time.monotonic() + seconds, require_open


class TooSlow(TimeoutError):
    """An answer takes too long."""


class _Timed(io.RawIOBase):
    """A socket's stream that ends when the time of its request is over: a socket's own timeout
    begins again with each byte.
    """

    def __init__(self, raw: Any, sock: Any) -> None:
        self._raw = raw
        self._sock = sock
        self._ends, self._go_on = _exchange.ends, _exchange.require_open

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._go_on()
        left = self._ends - time.monotonic()
        if left <= 0:
            raise TooSlow
        timeout = self._sock.gettimeout()
        if timeout is None or left < timeout:
            self._sock.settimeout(left)
        try:
            received: int | None = self._raw.readinto(buffer)
        except TimeoutError:
            if time.monotonic() < self._ends:
                raise
            raise TooSlow from None
        return received

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimedResponse(http.client.HTTPResponse):
    """Reads everything through `_Timed`, headers and a proxy's answers too."""

    def __init__(self, sock: Any, *args: Any, **more: Any) -> None:
        super().__init__(sock, *args, **more)
        self.fp = io.BufferedReader(_Timed(self.fp.detach(), sock))


def _timed(manager: urllib3.PoolManager) -> None:
    """Makes all connections of a manager use `_TimedResponse`."""

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


class Session(requests.Session):
    """A session for one server.

    Args:
        connections: Most that are kept open.
    """

    def __init__(self, connections: int) -> None:
        super().__init__()
        self._environment: dict[tuple[str, ...], Any] = {}
        self.headers["User-Agent"] = "oneroster-source"
        self.headers["Accept"] = "application/json"
        self.headers["Accept-Encoding"] = "gzip"
        # schools share the connections, and must not share a session at the server
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        adapter = _Adapter(pool_maxsize=connections, max_retries=0)
        self.mount("https://", adapter)
        self.mount("http://", adapter)

    def get_redirect_target(self, resp: requests.Response) -> None:
        # even if it is not to follow, `requests` would read the body to its end, however large
        return None

    def merge_environment_settings(self, url: Any, *args: Any) -> Any:
        # proxies and certificates: looked up once for each host, since that takes as long as the
        # rest of a request
        host = urlsplit(url)[:2]
        if host not in self._environment:
            self._environment[host] = super().merge_environment_settings(url, *args)
        return self._environment[host]
