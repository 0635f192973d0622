"""The server of the benchmarks: sends bytes that it has ready, in a process of its own.

Every school is the same school: the token is the estab. It knows `limit`, `offset`, one filter by
dateLastModified, and one order, that of sourcedId. Below `/tenth` it has the first tenth of the
rows only. `POST /change/1000` changes every thousandth row.
"""

from __future__ import annotations

import base64
import json
import socketserver
import sys
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import formatdate
from functools import partial
from subprocess import PIPE, Popen
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from roster import Served, made

if TYPE_CHECKING:
    from collections.abc import Iterator

_SINCE = "dateLastModified>'"


class Handler(socketserver.StreamRequestHandler):
    """One connection: HTTP as far as clients need it here."""

    server: Server

    disable_nagle_algorithm = True
    wbufsize = 0

    def handle(self) -> None:
        while line := self.rfile.readline():
            method, target, _ = line.split()
            headers = {}
            while (header := self.rfile.readline()) not in (b"\r\n", b""):
                name, _, value = header.partition(b":")
                headers[name.strip().lower()] = value.strip()
            self.rfile.read(int(headers.get(b"content-length", 0)))
            with self.server.counted():
                self._answer(method, target.decode(), headers)

    def _answer(self, method: bytes, target: str, headers: dict[bytes, bytes]) -> None:
        parts = urlsplit(target)
        name = parts.path.rpartition("/")[2]
        if method == b"POST" and name == "token":
            user = base64.b64decode(headers[b"authorization"][6:]).partition(b":")[0]
            token = user.rpartition(b"|")[2].decode()
            answer = {"access_token": token, "token_type": "Bearer", "expires_in": 3600}
            self._send([json.dumps(answer).encode()])
        elif method == b"POST":
            now = datetime.now(UTC)
            self.server.remembered.clear()
            done = {n: c.change(int(name), now) for n, c in self.server.collections.items()}
            self._send([json.dumps(done).encode()])
        elif name == "statistics":
            self._send([json.dumps(self.server.statistics()).encode()])
        else:
            asked = {key: values[0] for key, values in parse_qs(parts.query).items()}
            tenth = parts.path.startswith("/tenth/")
            pieces, total = self.server.page(name, asked, share=0.1 if tenth else 1.0)
            self._send([b'{"%s":[' % name.encode(), *pieces, b"]}"], total)

    def _send(self, pieces: list[Any], total: int | None = None) -> None:
        length = sum(len(piece) for piece in pieces)
        head = (
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            f"Content-Length: {length}\r\nDate: {formatdate(usegmt=True)}\r\n"
        )
        if total is not None:
            head += f"X-Total-Count: {total}\r\n"
        self.connection.sendall(head.encode() + b"\r\n" + b"".join(p for p in pieces[:1]))
        for piece in pieces[1:]:
            self.connection.sendall(piece)


class Server(socketserver.ThreadingTCPServer):
    """Serves collections.

    Args:
        rows: Rows of each collection, by its name.
        latency: Seconds to wait before each answer.
    """

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, rows: dict[str, int], latency: float) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.collections: dict[str, Served] = {name: made(name, n) for name, n in rows.items()}
        self.remembered: dict[str, list[int]] = {}
        self._latency = latency
        self._lock = threading.Lock()
        self._now = self._most = self._requests = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        with self._lock:
            self._requests += 1
            self._now += 1
            self._most = max(self._most, self._now)
        if self._latency:
            time.sleep(self._latency)
        try:
            yield
        finally:
            with self._lock:
                self._now -= 1

    def statistics(self) -> dict[str, int]:
        """Requests since the last time, this one not counted, and the most that came at once."""
        with self._lock:
            told = {"requests": self._requests - 1, "most_at_once": self._most}
            self._requests = self._most = 0
            return told

    def page(self, name: str, asked: dict[str, str], *, share: float) -> tuple[list[Any], int]:
        collection = self.collections[name]
        rows = int(len(collection) * share)
        begin, limit = int(asked.get("offset", 0)), int(asked.get("limit", rows))
        _, _, since = asked.get("filter", "").partition(_SINCE)
        if not since:
            return collection.part(begin, min(begin + limit, rows)), rows
        key = name + since
        if key not in self.remembered:
            moment = datetime.fromisoformat(since.rstrip("'"))
            self.remembered[key] = collection.later_than(moment)
        found = self.remembered[key]
        rows = [collection.row(i) for i in found[begin : begin + limit]]
        return [b",".join(rows)] if rows else [], len(found)


@contextmanager
def serving(rows: dict[str, int], latency: float = 0.0) -> Iterator[str]:
    """Serves in a process of its own; yields its address."""
    command = [sys.executable, __file__, json.dumps(rows), str(latency)]
    with Popen(command, stdout=PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline().strip()
            if not port:
                raise RuntimeError("the server of the benchmark did not start")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


if __name__ == "__main__":
    server = partial(Server, json.loads(sys.argv[1]), float(sys.argv[2]))()
    print(server.server_address[1], flush=True)  # noqa: T201
    server.serve_forever()
