"""Servers that misbehave: what they send is bounded, where they point to is not visited."""

from __future__ import annotations

import gc
import math
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from threading import Event
from urllib.parse import parse_qsl, urlsplit

import pytest
from support import slow
from support.line import IDS, PARSER, USERS, Line, text
from support.program import PATIENCE
from support.settings import ESTAB, environment
from support.truth import held

from oneroster_source.client.transport import DRIP, Server
from oneroster_source.errors import (
    BadResponse,
    IncompleteRead,
    InsecureServer,
    ServerUnavailable,
)
from oneroster_source.extract.collection import Collection, collect
from oneroster_source.extract.page_requests import ReadRequest
from oneroster_source.run_report import Report
from oneroster_source.simulator import Fault, Quirks, School, Simulator

MIB = 1 << 20


@pytest.fixture
def users() -> School:
    return School(ESTAB, collections={"users": USERS})


Dial = Callable[..., Line]


@pytest.fixture
def dial(users: School) -> Iterator[Dial]:
    """Connects clients to a server."""
    lines: list[Line] = []

    def connect(server: Simulator, **more: object) -> Line:
        lines.append(Line(server, users, **more))
        return lines[-1]

    yield connect
    for line in lines:
        line.server.close()


def read(line: Line) -> Collection:
    """The users, read whole."""
    outcome = Report().outcome(ESTAB, "users")
    return collect(line.client, PARSER, ReadRequest("full"), line.settings, outcome)


def rows(line: Line) -> int:
    collection = read(line)
    try:
        return sum(len(wide) - wide.column("sourced_id").null_count for wide in collection.rows())
    finally:
        collection.close()


# too much


BOMBS = """
import sys
from pathlib import Path
from oneroster_source.errors import OneRosterError
from oneroster_source.client.transport import DRIP, Server

def memory(what):
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index(what) + 1]) >> 10

server = Server(concurrency=1, timeout=10, max_bytes=64 << 20)
for _ in range(int(sys.argv[3])):
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS:")
    try:
        server.request("GET", sys.argv[1], authorization=sys.argv[2])
    except OneRosterError as error:
        print(type(error).__name__, memory("VmHWM:") - before)
"""


def bomb(mib: int) -> bytes:
    """That many MiB of nothing, in gzip; a block that ends on a whole byte can be repeated."""
    packer = zlib.compressobj(9, wbits=31)
    blocks = [packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2)]
    return blocks[0] + blocks[1] * (mib - 1)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no /proc to measure by")
def test_a_bomb_of_300_mib_is_an_error_within_100_mib(serve, users) -> None:
    packed = (("content-encoding", "gzip"),)
    led = (*packed, ("location", "/elsewhere"))
    bombs = [(200, packed), (302, led), (500, packed)]
    users.faults += [
        Fault("users", status=status, body=bomb(300), headers=headers) for status, headers in bombs
    ]
    server = serve(users)
    basic = "Basic cGFydG5lci1ycHwzMjgxMTEwOnN1cGVyLXNlY3JldA=="
    done = subprocess.run(
        [sys.executable, "-c", BOMBS, f"{server.base_url}/users", basic, str(len(bombs))],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    found = [line.split() for line in done.stdout.splitlines()]
    assert [name for name, _ in found] == ["ResponseTooLarge"] * len(bombs)
    assert all(int(grown) <= 100 for _, grown in found), found


DEEP = 100_000
PITS = {
    "a list": b"[" * DEEP + b"]" * DEEP,
    "a list without an end": b"[" * DEEP,
    "an object": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "the envelope": b'{"users":' + b"[" * DEEP + b"]" * DEEP + b"}",
}


@pytest.mark.parametrize("body", PITS.values(), ids=PITS)
def test_json_without_a_floor_gives_no_rows_and_does_no_harm(serve, dial, users, body) -> None:
    users.faults.append(Fault("users", status=200, body=body, times=999))
    line = dial(serve(users), retry_budget=0)
    try:
        assert rows(line) == 0
    except (BadResponse, IncompleteRead) as error:
        assert len(str(error)) < 500  # noqa: PT017 - either is well
    assert len(line.simulator.requests) < 50
    users.faults.clear()
    assert rows(line) == len(USERS)


@pytest.mark.parametrize("depth", [DEEP // 10, slow(DEEP)])
def test_a_deep_value_is_kept_as_text(serve, dial, users, depth) -> None:
    deep = b'{"a":' * depth + b"1" + b"}" * depth
    row = b'{"sourcedId":"a","status":"active","metadata":%b,"odd":%b}' % (deep, deep)
    users.faults.append(Fault("users", status=200, body=b'{"users":[%b]}' % row, times=9))
    assert rows(dial(serve(users))) == 1


@pytest.mark.parametrize("total", ["right", "none", "low"])
def test_a_collection_without_an_end_is_an_error(serve, dial, users, total) -> None:
    numbers = count()

    def grow(name: str, offset: int, limit: int) -> None:
        for number in [next(numbers) for _ in range(100)]:
            users.add(name, {"sourcedId": f"y{number:06}"})

    users.on_page, users.quirks = grow, Quirks(total=total)
    line = dial(serve(users), page_size=50, max_rows=1000)
    with pytest.raises(IncompleteRead, match="more than 1,000 rows") as caught:
        read(line)
    assert "max_rows" in caught.value.todo and f"school {ESTAB}, users" in caught.value.where
    assert len(line.simulator.requests) < 50


def test_a_collection_of_just_as_many_rows_as_allowed_is_read(serve, dial, users) -> None:
    assert rows(dial(serve(users), max_rows=len(USERS))) == len(USERS)
    with pytest.raises(IncompleteRead):
        read(dial(serve(users), max_rows=len(USERS) - 1))


@pytest.mark.parametrize(("page_size", "total"), [(1, "9"), (5, "9"), (10, "999999999")])
def test_the_same_page_for_ever_is_no_collection(serve, dial, users, page_size, total) -> None:
    page, headers = text(users=USERS), (("X-Total-Count", total),)
    users.faults.append(Fault("users", status=200, body=page, headers=headers, times=9999))
    line = dial(serve(users), page_size=page_size)
    with pytest.raises(IncompleteRead):
        read(line)
    assert len(line.simulator.requests) < 50


# too slow


@contextmanager
def talking(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server of bytes: `talk` is called with each connection, in a thread of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(8) as threads:
        listener.settimeout(0.05)
        open_, ended = [], Event()

        def accept() -> None:
            while not ended.is_set():
                with suppress(TimeoutError):
                    connection, _ = listener.accept()
                    open_.append(connection)
                    threads.submit(_quietly, talk, connection)

        accepting = threads.submit(accept)
        try:
            yield listener.getsockname()[1]
        finally:
            ended.set()
            accepting.result(PATIENCE)
            for connection in open_:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                connection.close()


def _quietly(talk: Callable[[socket.socket], None], connection: socket.socket) -> None:
    with suppress(OSError):
        talk(connection)


def head(connection: socket.socket) -> bytes:
    """A request, up to its body."""
    got = b""
    while b"\r\n\r\n" not in got and (more := connection.recv(1 << 16)):
        got += more
    return got


def drip(connection: socket.socket, before: bytes, again: bytes) -> None:
    """Sends a little, and a little again and again, never long enough apart for a timeout."""
    connection.sendall(before)
    while True:
        connection.sendall(again)
        time.sleep(0.02)


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
DRIPS = {
    "its status": (b"HTTP/1.1 200 ", b"x"),
    "its headers": (OK, b"X-More: 1\r\n"),
    "one header": (OK + b"X-More: ", b"x"),
    "that it goes on": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "its body": (OK + b"Content-Length: 9999999\r\n\r\n", b" "),
    "a body without an end": (OK + b"\r\n", b" "),
    "chunks": (CHUNKED, b"1\r\n \r\n"),
    "the size of a chunk": (CHUNKED, b"0"),
    "what follows the chunks": (CHUNKED + b"0\r\n", b"X-More: 1\r\n"),
}
SOON = {"request_timeout": 0.4, "retry_budget": 0}


@pytest.mark.parametrize("path", ["users", "auth/token"])
@pytest.mark.parametrize("parts", DRIPS.values(), ids=DRIPS)
@pytest.mark.sample(1)
def test_a_server_that_drips_whatever_it_sends_is_left(dial, serve, users, parts, path) -> None:
    def talk(connection: socket.socket) -> None:
        while got := head(connection):
            if path.encode() in got.partition(b"\r\n")[0]:
                drip(connection, *parts)
            token = text(access_token="t", expires_in=3600)
            connection.sendall(OK + b"Content-Length: %d\r\n\r\n" % len(token) + token)

    with ThreadPoolExecutor(1) as other, talking(talk) as port:
        line = dial(serve(users), base_url=f"http://127.0.0.1:{port}/api", **SOON)
        error = other.submit(line.fails, ServerUnavailable).result(PATIENCE)
        assert "did not finish its answer in time" in error.what
        assert error.where == f"school {ESTAB}, " + (
            "users at offset 0" if path == "users" else "login"
        )
        # others go on
        assert dial(line.simulator).users() == IDS


def test_a_run_that_is_stopped_does_not_wait_for_an_answer_that_drips(dial, serve, users) -> None:
    dripping = Event()

    def talk(connection: socket.socket) -> None:
        head(connection)
        dripping.set()
        drip(connection, OK, b" ")

    with ThreadPoolExecutor(2) as other, talking(talk) as port:
        line = dial(serve(users), base_url=f"http://127.0.0.1:{port}/api", request_timeout=600)
        asked = other.submit(line.fails)
        assert dripping.wait(PATIENCE)
        line.server.close()
        assert "the run was stopped" in asked.result(PATIENCE).what


def test_a_school_whose_login_hangs_keeps_no_other_school_waiting(dial, serve, users) -> None:
    come, go = Event(), Event()

    def talk(connection: socket.socket) -> None:
        while got := head(connection):
            if b"/slow/auth/token" in got:
                come.set()
                go.wait(PATIENCE)
            body = text(users=USERS, access_token="t", expires_in=3600)
            connection.sendall(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    with ThreadPoolExecutor(8) as other, talking(talk) as port:
        own = {"base_url": f"http://127.0.0.1:{port}", "concurrency": 2}
        quick = dial(simulator := serve(users), **own)
        slow = dial(simulator, **own | {"base_url": own["base_url"] + "/slow"})
        slow.client.server = slow.client._token._server = quick.server
        waiting = [other.submit(slow.users) for _ in range(6)]
        try:
            assert come.wait(PATIENCE)
            assert other.submit(quick.users).result(PATIENCE) == IDS
            assert not any(future.done() for future in waiting)
        finally:
            go.set()
        assert [future.result(PATIENCE) for future in waiting] == [IDS] * 6


@pytest.mark.parametrize("hello", [b"", b"\x16\x03\x03\x40\x00"], ids=["nothing", "a record"])
def test_a_server_that_drips_while_tls_is_agreed_on_is_left(dial, serve, users, hello) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        drip(connection, hello, b"\x02" if hello else b"")

    with ThreadPoolExecutor(1) as other, talking(talk) as port:
        line = dial(serve(users), base_url=f"https://127.0.0.1:{port}/api", **SOON)
        error = other.submit(line.fails, ServerUnavailable).result(PATIENCE)
    assert "in time" in error.what


@pytest.mark.slow
def test_a_proxy_that_drips_is_left(dial, serve, users, monkeypatch) -> None:
    def talk(connection: socket.socket) -> None:
        head(connection)
        drip(connection, OK, b"X-More: 1\r\n")

    with ThreadPoolExecutor(1) as other, talking(talk) as port:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        line = dial(serve(users), base_url="https://school.example/api", **SOON)
        error = other.submit(line.fails, ServerUnavailable).result(PATIENCE)
    assert "did not finish its answer in time" in error.what


@pytest.mark.slow
def test_the_time_for_an_answer_begins_again_with_each_request(dial, serve, users) -> None:
    line = dial(serve(users), request_timeout=0.5)
    assert line.users() == IDS
    time.sleep(DRIP * 0.5 + 0.1)
    assert line.users() == IDS and line.waits == []


# too busy


class Limited(ThreadingHTTPServer):
    """Answers so many requests in a while, logins too, and asks all others to wait for the next.

    Args:
        requests: How many.
        seconds: The while.
    """

    daemon_threads = True

    def __init__(self, requests: int, seconds: float) -> None:
        super().__init__(("127.0.0.1", 0), _LimitedHandler)
        self.rows = [u | {"sourcedId": f"{n:04}"} for n in range(150) for u in USERS[:1]]
        self._requests, self._seconds = requests, seconds
        self._lock = threading.Lock()
        self._ends, self._left = 0.0, 0
        self.refused = 0

    def admits(self) -> int:
        """0 for a request that is answered; or the seconds to wait."""
        with self._lock:
            now = time.monotonic()
            if now >= self._ends:
                self._ends, self._left = now + self._seconds, self._requests
            self._left -= 1
            self.refused += self._left < 0
            return 0 if self._left >= 0 else math.ceil(self._ends - now)


class _LimitedHandler(BaseHTTPRequestHandler):
    server: Limited
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        wait = self.server.admits()
        asked = dict(parse_qsl(urlsplit(self.path).query))
        begin = int(asked.get("offset", 0))
        rows = self.server.rows[begin : begin + int(asked.get("limit", 100))]
        body = text(users=rows) if "token" not in self.path else text(access_token="t")
        self.send_response(429 if wait else 200)
        if wait:
            self.send_header("Retry-After", str(wait))
        self.send_header("X-Total-Count", str(len(self.server.rows)))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *args: object) -> None:
        pass


@pytest.mark.slow
def test_a_server_that_counts_requests_is_loaded_whole(warehouse) -> None:
    """Each pause counts once, though all that have come meanwhile wait for it: the pauses of all
    requests together would be some times the budget of retries."""
    schools = [{"estab": estab, "rp": "rp", "shared_secret": "s"} for estab in "123"]
    server, report = Limited(30, 2), Report()
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    try:
        reach = {"base_url": f"http://127.0.0.1:{server.server_port}", "schools": schools}
        only = {"endpoints": ["users"], "page_size": 5, "privacy": "full"}
        warehouse.load(report, **reach, **only, retry_budget=10)
    finally:
        server.shutdown()
        server.server_close()
        serving.join()
    assert report.good, [outcome.error for outcome in report.failed]
    assert server.refused >= 2
    assert list(report.pauses) == [f"127.0.0.1:{server.server_port}"]
    loaded = [row[:2] for row in held(warehouse.name, "users")]
    expected = [(s["estab"], row["sourcedId"]) for s in schools for row in server.rows]
    assert sorted(loaded) == sorted(expected)


# elsewhere


WATCHED = """
import sys

def watch(event, details):
    if event in ("socket.connect", "socket.getaddrinfo"):
        print(event, details[-1] if event == "socket.connect" else details[:2], file=sys.stderr)

sys.addaudithook(watch)
from oneroster_source.cli.app import main
main()
"""


def test_nothing_but_the_configured_server_is_contacted(serve, users, tmp_path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        there = f"http://127.0.0.1:{other.getsockname()[1]}/users"
        row = USERS[0] | {"orgs": [{"sourcedId": "o", "type": "org", "href": there}], "href": there}
        body = text(users=[row], next=there, links={"next": {"href": there}})
        headers = tuple(
            {
                "Link": f'<{there}>; rel="next"',
                "Location": there,
                "Content-Location": there,
                "Refresh": f"0; url={there}",
                "X-Total-Count": "1",
            }.items()
        )
        users.faults += [
            Fault("auth/token", kind="hang", headers=headers),
            Fault("users", status=200, body=body, headers=headers, times=99),
            Fault("orgs", kind="redirect", headers=headers, times=99),
        ]
        server = serve(users)
        done = subprocess.run(
            [sys.executable, "-c", WATCHED, "sync"],
            cwd=tmp_path,
            env={
                **os.environ,
                **environment(server, users),
                "SOURCES__ONEROSTER__ENDPOINTS": '["users", "orgs"]',
            },
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.accept()
    assert done.returncode == 1 and "redirects are not followed" in done.stdout + done.stderr
    assert held(str(tmp_path / "roster.duckdb"), "users__orgs")[0][-1] == there
    contacts = {line for line in done.stderr.splitlines() if line.startswith("socket.")}
    own = server.base_url.split("/")[2].split(":")
    assert contacts and all(own[0] in contact and own[1] in contact for contact in contacts)


# TLS


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of certificates and their keys, of two authorities and of servers."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make certificates with")
    folder = tmp_path_factory.mktemp("keys")

    def openssl(words: str) -> None:
        subprocess.run(
            ["openssl", *words.split()],
            cwd=folder,
            capture_output=True,
            timeout=PATIENCE,
            check=True,
        )

    def made(name: str) -> str:
        new = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
        return f"req {new} -keyout {name}.key -out {name}.pem -subj /CN={name}"

    for name in ("authority", "stranger"):
        openssl(f"{made(name)} -x509 -days 2 -addext keyUsage=critical,keyCertSign,cRLSign")
    openssl(f"{made('self-signed')} -x509 -days 2 -addext subjectAltName=IP:127.0.0.1")
    for number, (name, address, days) in enumerate(
        [("good", "127.0.0.1", 2), ("expired", "127.0.0.1", -1), ("elsewhere", "127.0.0.2", 2)], 1
    ):
        openssl(made(name))
        (folder / "more").write_text(
            f"subjectAltName=IP:{address}\nauthorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash"
        )
        signed = f"-CA authority.pem -CAkey authority.key -set_serial {number} -extfile more"
        openssl(f"x509 -req -in {name}.pem -out {name}.pem -days {days} {signed}")
    return folder


Secure = Callable[..., Line]


@pytest.fixture
def secure(serve, dial, users, keys, monkeypatch) -> Secure:
    """Serves https with a certificate; the client trusts one bundle, its environment another."""

    def connect(certificate: str, bundle: str = "", environment: str | None = None) -> Line:
        server = serve(
            users,
            certificate=str(keys / f"{certificate}.pem"),
            key=str(keys / f"{certificate}.key"),
        )
        if environment is not None:
            path = environment and str(keys / f"{environment}.pem")
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", path)
            monkeypatch.setenv("CURL_CA_BUNDLE", path)
        return dial(server, **({"ca_bundle": str(keys / f"{bundle}.pem")} if bundle else {}))

    return connect


@pytest.mark.parametrize(
    "trusted",
    [("authority",), ("", "authority"), ("authority", "stranger"), ("self-signed",)],
    ids=["ca_bundle", "the environment", "ca_bundle before the environment", "itself"],
)
def test_a_server_is_read_whose_authority_is_trusted(secure, trusted) -> None:
    line = secure("self-signed" if "self-signed" in trusted else "good", *trusted)
    assert line.simulator.base_url.startswith("https://")
    assert line.users() == IDS


@pytest.mark.parametrize(
    ("certificate", "trusted", "why"),
    [
        pytest.param("good", (), "unable to get local issuer", id="an authority nobody knows"),
        pytest.param("good", ("stranger",), "", id="another authority"),
        pytest.param("good", ("stranger", "authority"), "", id="the environment alone"),
        pytest.param("good", ("", ""), "", id="an empty environment"),
        pytest.param("self-signed", ("authority",), "self-signed", id="itself"),
        pytest.param("expired", ("authority",), "expired", id="one that has expired"),
        pytest.param("elsewhere", ("authority",), "127.0.0.1", id="one of another host"),
    ],
)
def test_a_server_is_told_nothing_whose_certificate_is_not_trusted(
    secure, certificate, trusted, why
) -> None:
    line = secure(certificate, *trusted)
    error = line.fails(InsecureServer)
    assert "certificate cannot be verified" in error.what and why in error.what
    assert "ca_bundle" in error.todo and f"school {ESTAB}" in error.where
    assert line.waits == [] and line.simulator.requests == []


def test_a_bundle_that_holds_no_certificate_trusts_nobody(dial, serve, users, keys) -> None:
    server = serve(users, certificate=str(keys / "good.pem"), key=str(keys / "good.key"))
    line = dial(server, ca_bundle=str(keys / "good.key"))
    assert "ca_bundle" in line.fails(InsecureServer).todo
    assert server.requests == []


def test_a_server_that_speaks_no_tls_is_told_nothing(dial, serve, users) -> None:
    server = serve(users)
    line = dial(server, base_url=server.base_url.replace("http:", "https:"))
    assert "secure connection" in line.fails(InsecureServer).what
    assert server.requests == []


def test_a_server_that_hangs_up_while_tls_is_agreed_on_may_come_back() -> None:
    server = Server(concurrency=1, timeout=10, max_bytes=MIB)
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as other:

        def hang_up() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 16)

        listener.settimeout(10)
        done = other.submit(hang_up)
        with pytest.raises(ServerUnavailable):
            server.request(
                "GET", f"https://127.0.0.1:{listener.getsockname()[1]}/", authorization="Bearer x"
            )
        done.result(PATIENCE)
    server.close()


def test_a_server_that_stops_while_tls_is_agreed_on_leaves_no_connection(users, keys) -> None:
    files = {"certificate": str(keys / "good.pem"), "key": str(keys / "good.key")}
    trust = ssl.create_default_context(cafile=str(keys / "authority.pem"))

    def connect(port: int) -> None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 10) as plain:
            trust.wrap_socket(plain, server_hostname="127.0.0.1").close()

    for turn in range(20):
        with ThreadPoolExecutor(8) as clients, Simulator([users], **files) as server:
            port = int(server.base_url.split(":")[2].split("/")[0])
            done = [clients.submit(connect, port) for _ in range(8)]
            time.sleep(turn / 10_000)
        for client in done:
            client.result(PATIENCE)
    gc.collect()  # a connection that was left would warn here, and warnings are errors
