"""One school's requests, against a real server: login, retries, and what each failure becomes."""

from __future__ import annotations

import gzip
import html
import json
import logging
import re
import threading
import time
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from threading import Event
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from support.line import IDS, PAGE, USERS, Line, ids, text
from support.program import PATIENCE
from support.settings import ESTAB

from oneroster_source.client import auth
from oneroster_source.client.client import TRIES
from oneroster_source.client.paginator import Page, PageSource, read
from oneroster_source.client.pauses import Gates, Paused, RequestLimit
from oneroster_source.errors import (
    AccessDenied,
    BadResponse,
    EndpointNotFound,
    LoginError,
    OneRosterError,
    RequestRefused,
    ResponseTooLarge,
    ServerUnavailable,
    clean,
)
from oneroster_source.simulator import Fault, Quirks, School, Simulator

SECRET = "super-secret"
VENDORS_HEADER = "Basic cGFydG5lci1ycHwzMjgxMTEwOnN1cGVyLXNlY3JldA=="


Dial = Callable[..., Line]


@pytest.fixture
def dial() -> Iterator[Dial]:
    """Connects a client to a school of its own."""
    running: list[Simulator] = []
    lines: list[Line] = []

    def connect(secret: str = SECRET, *, latency: float = 0, **settings: Any) -> Line:
        school = School(ESTAB, shared_secret=secret, collections={"users": USERS})
        running.append(Simulator([school], latency=latency))
        running[-1].start()
        lines.append(Line(running[-1], school, **settings))
        return lines[-1]

    yield connect
    for line in lines:
        line.server.close()
    for simulator in running:
        simulator.stop()


@pytest.fixture
def line(dial: Dial) -> Line:
    return dial()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The clock by which tokens grow old, turned by the test."""
    turned = SimpleNamespace(ahead=0.0)
    ticking = SimpleNamespace(monotonic=lambda: time.monotonic() + turned.ahead)
    monkeypatch.setattr(auth, "time", ticking)
    return turned


def logins(line: Line) -> int:
    return len(line.received("auth/token"))


# login


def test_the_login_is_the_vendors_example_byte_for_byte(line) -> None:
    assert line.users() == IDS
    login = line.received("auth/token")[0]
    assert (login.method, login.headers["authorization"]) == ("POST", VENDORS_HEADER)
    assert login.headers.get("content-length", "0") == "0" and not login.query
    assert login.headers["accept"] == "application/json"
    assert "content-type" not in login.headers and "transfer-encoding" not in login.headers


@pytest.mark.parametrize(
    "secret", ["a:b|c", "a\"b'c", "pä55-文字-🔑", " a ", "a%20b+c", "\\", "x" * 500]
)
def test_an_unusual_secret_arrives_as_it_is(dial, secret) -> None:
    line = dial(secret)
    assert line.users() == IDS
    raw = b64encode(f"partner-rp|{ESTAB}:{secret}".encode()).decode()
    assert line.received("auth/token")[0].headers["authorization"] == f"Basic {raw}"


def test_a_token_is_used_again_and_again(line) -> None:
    for _ in range(3):
        assert line.users() == IDS
    assert logins(line) == 1
    assert len({request.headers["authorization"] for request in line.received("users")}) == 1


def test_login_gets_a_token_and_the_data_uses_it(line) -> None:
    line.client.login()
    line.client.login()
    assert line.users() == IDS and logins(line) == 1


@pytest.mark.parametrize(
    ("life", "still_good", "too_old"), [(3600, 3535, 3545), (100, 88, 92), (1000, 935, 945)]
)
def test_a_token_is_renewed_shortly_before_its_end(line, clock, life, still_good, too_old) -> None:
    line.school.token_life = life
    line.users()
    for clock.ahead, expected in ((still_good, 1), (too_old, 2)):
        assert line.users() == IDS and logins(line) == expected
    assert {status for _, status in line.statuses} == {200}


@pytest.mark.slow
def test_tokens_that_live_for_a_moment_are_renewed_in_the_middle_of_a_run(line) -> None:
    line.school.token_life = 1.0
    for _ in range(4):
        assert line.users() == IDS
        time.sleep(1.0)
    assert logins(line) >= 3 and line.waits == []


def test_a_token_that_was_revoked_is_renewed_once(line) -> None:
    line.users()
    line.school.revoke_tokens()
    assert line.users() == IDS
    assert [status for path, status in line.statuses if path == "users"] == [200, 401, 200]
    assert logins(line) == 2 and line.waits == []


def test_a_request_logs_in_at_most_twice(line) -> None:
    line.happens(Fault("users", status=401, times=9))
    error = line.fails(AccessDenied)
    assert "401" in error.what and logins(line) == 2 and len(line.received("users")) == 2


def test_a_request_counts_its_logins_over_all_its_tries(line) -> None:
    line.happens(*[Fault("users", status=status) for status in (401, 503, 401)])
    line.fails(AccessDenied)
    assert logins(line) == 2 and len(line.received("users")) == 3


def test_a_request_with_the_token_of_an_earlier_one_may_log_in_twice(line) -> None:
    line.users()
    line.happens(Fault("users", status=401, times=99))
    line.fails(AccessDenied)
    assert logins(line) == 3 and len(line.received("users")) == 4


def test_a_token_that_another_request_renewed_and_that_died_is_no_denial(line) -> None:
    line.users()
    turns = iter([True])

    def sent() -> None:
        if next(turns, False):
            line.school.revoke_tokens()
            assert line.users() == IDS
            line.school.revoke_tokens()

    assert line.client.get("/users", PAGE, ids, sent=sent).value == IDS
    assert [r.status for r in line.received("users")] == [200, 401, 200, 401, 401, 200]
    assert logins(line) == 3


@pytest.mark.parametrize("uses", [1, 2, 3])
def test_a_token_that_is_soon_used_up_is_renewed_as_often(line, uses) -> None:
    line.school.token_uses = uses
    assert [line.users() for _ in range(6)] == [IDS] * 6
    assert logins(line) == 6 / uses and line.waits == []


@pytest.mark.parametrize("uses", [1, 2])
def test_requests_that_use_up_each_others_tokens_all_get_through(dial, uses) -> None:
    line = dial(latency=0.01, concurrency=4)
    line.school.token_uses = uses
    asked = [line.server.pool.submit(line.users) for _ in range(24)]
    assert [future.result(PATIENCE) for future in asked] == [IDS] * 24
    assert logins(line) <= 2 * 24 and len(line.received("users")) <= 4 * 24


def test_a_token_that_says_it_lives_for_a_moment_is_used_once(line) -> None:
    line.school.token_answer = {"expires_in": 0.001}
    for _ in range(3):
        assert line.users() == IDS
        time.sleep(0.002)
    assert logins(line) == 3 and line.waits == []


def test_tokens_that_never_were_alive_are_a_denial_after_two(line) -> None:
    line.school.token_life, line.school.token_answer = 0, {"expires_in": 3600}
    line.fails(AccessDenied)
    assert logins(line) == 2 and len(line.received("users")) == 2


def test_a_login_waits_as_long_as_it_is_asked_to(line) -> None:
    line.happens(Fault("auth/token", status=429, headers=(("Retry-After", "7"),)))
    assert line.users() == IDS
    assert len(line.waits) == 1 and 7 <= line.waits[0] <= 7.2


def test_many_threads_share_one_login_and_one_renewal(dial) -> None:
    line = dial(latency=0.02, concurrency=8)
    with ThreadPoolExecutor(8) as pool:
        for expected in (1, 2):
            assert list(pool.map(lambda _: line.users(), range(16))) == [IDS] * 16
            assert logins(line) == expected
            line.school.revoke_tokens()


def test_a_refused_login_is_final(dial) -> None:
    line = dial(shared_secret="wrong")
    error = line.fails(LoginError)
    assert line.statuses == [("auth/token", 401)] and line.waits == []
    assert f"school {ESTAB}" in str(error) and "401" in error.what
    assert error.words == "Request contains an invalid client ID or secret"
    assert error.words not in str(error) and "oneroster check-connection" in error.todo
    assert "shared_secret" in error.todo


def test_a_refused_login_is_final_for_all_collections_of_the_school(dial) -> None:
    line = dial(shared_secret="wrong")
    first = line.fails(LoginError)
    with pytest.raises(LoginError) as caught:
        line.client.get("/orgs", PAGE, bytes)
    assert caught.value.what == first.what and len(line.simulator.requests) == 1
    assert caught.value.words == first.words != ""


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405])
def test_a_token_endpoint_that_refuses_is_asked_once(line, status) -> None:
    line.happens(Fault("auth/token", status=status, body=text(error_description="no way")))
    error = line.fails(LoginError)
    assert line.statuses == [("auth/token", status)]
    assert all(word in str(error) for word in (ESTAB, str(status), "What to do"))
    # a server may repeat what it was sent, and a run writes its errors down
    assert error.words == "no way" and "no way" not in str(error)


@pytest.mark.parametrize("status", [404, 405])
def test_a_token_endpoint_that_is_not_there_is_a_matter_of_the_address(line, status) -> None:
    line.happens(Fault("auth/token", status=status))
    assert "base_url" in line.fails(LoginError).todo


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"<html>Please log in</html>", id="HTML"),
        pytest.param(b"{}", id="an empty object"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"null", id="null"),
        pytest.param(text(access_token=None), id="a token of null"),
        pytest.param(text(access_token=""), id="an empty token"),
        pytest.param(text(access_token=7), id="a number for a token"),
        pytest.param(text(access_token="a\nb"), id="a line break in it"),
        pytest.param(text(access_token="a\r\nX-Evil: 1"), id="a header in it"),
        pytest.param(text(access_token="tökén"), id="not ASCII"),
        pytest.param(text(error="invalid_client"), id="an error"),
        pytest.param(text(access_token="t", token_type="mac"), id="another type"),
    ],
)
@pytest.mark.parametrize("status", [200, 201, 202, 299])
def test_an_answer_without_a_token_is_a_login_error(line, body, status) -> None:
    line.happens(Fault("auth/token", status=status, body=body))
    error = line.fails(LoginError)
    assert line.statuses == [("auth/token", status)]
    assert error.where == f"school {ESTAB}, login"
    assert str(status) in error.what or "type" in error.what
    # whatever it says, it says to nobody
    assert not any(said in str(error) for said in ("invalid_client", "mac", "log in", "X-Evil"))


def test_an_answer_of_204_is_a_login_error(line) -> None:
    line.happens(Fault("auth/token", status=204, body=b""))
    error = line.fails(LoginError)
    assert error.where == f"school {ESTAB}, login" and "204" in error.what


@pytest.mark.parametrize("status", [200, 201, 202, 203, 206])
def test_a_token_is_a_token_with_every_status_of_success(line, status) -> None:
    granted = text(access_token=line.school.tokens.issue(3600), expires_in=3600)
    line.happens(Fault("auth/token", status=status, body=granted))
    assert line.users() == IDS and logins(line) == 1


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        pytest.param(Fault("auth/token", status=500, times=99), ServerUnavailable, id="500"),
        pytest.param(Fault("auth/token", status=502, times=99), ServerUnavailable, id="502"),
        pytest.param(Fault("auth/token", status=429, times=99), ServerUnavailable, id="429"),
        pytest.param(Fault("auth/token", kind="reset", times=99), ServerUnavailable, id="a reset"),
        pytest.param(Fault("auth/token", kind="bad_gzip", times=99), BadResponse, id="bad gzip"),
        pytest.param(
            Fault("auth/token", status=200, body=b" " * (1 << 21)), ResponseTooLarge, id="too much"
        ),
        pytest.param(Fault("auth/token", kind="redirect"), LoginError, id="302"),
        pytest.param(Fault("auth/token", status=304, body=b""), LoginError, id="304"),
        pytest.param(Fault("auth/token", kind="html"), LoginError, id="an HTML page"),
    ],
)
def test_whatever_is_wrong_with_the_login_is_told_of_the_login(dial, fault, kind) -> None:
    line = dial(max_page_mb=1, pause_budget=60)
    line.happens(fault)
    error = line.fails()
    assert type(error) is kind and error.where == f"school {ESTAB}, login" and error.todo


@pytest.mark.parametrize("said", [None, 0, -1, "soon", "", [], {}, "nan"], ids=repr)
def test_a_token_without_a_sensible_life_is_used_for_five_minutes(line, clock, said) -> None:
    token = line.school.tokens.issue(3600)
    granted = text(access_token=token, token_type="Bearer", expires_in=said)
    line.happens(Fault("auth/token", status=200, body=granted))
    for clock.ahead, expected in ((0, 1), (265, 1), (275, 2)):
        assert line.users() == IDS and logins(line) == expected


@pytest.mark.parametrize(
    ("more", "life"),
    [
        pytest.param({"expires_in": "3600"}, 3600, id="a life as text"),
        pytest.param({"expires_in": 3600.5}, 3600, id="a life with a fraction"),
        pytest.param({"expires_in": 3600, "token_type": "bearer"}, 3600, id="bearer"),
        pytest.param({"expires_in": 3600, "token_type": None}, 3600, id="a type of null"),
        pytest.param({}, 300, id="the token alone"),
    ],
)
def test_a_token_is_taken_in_many_forms(line, clock, more, life) -> None:
    granted = text(access_token=line.school.tokens.issue(9999), **more)
    line.happens(Fault("auth/token", status=200, body=granted))
    for clock.ahead, expected in ((0, 1), (life - 70, 1), (life, 2)):
        assert line.users() == IDS and logins(line) == expected


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_login_that_fails_for_now_is_tried_again(line, status) -> None:
    line.happens(Fault("auth/token", status=status, times=2))
    assert line.users() == IDS
    assert logins(line) == 3 and len(line.waits) == 2


@pytest.mark.parametrize("kind", ["reset", "cut", "bad_gzip"])
def test_a_login_that_breaks_off_is_tried_again(line, kind) -> None:
    line.happens(Fault("auth/token", kind=kind))
    assert line.users() == IDS and logins(line) == 2


def test_a_renewal_that_fails_for_now_is_tried_again(line) -> None:
    line.users()
    line.school.revoke_tokens()
    line.happens(Fault("auth/token", status=503))
    assert line.users() == IDS and len(line.waits) == 1


# plain OAuth2


def oauth2(dial: Dial, **settings: Any) -> Line:
    line = dial(token_url="https://later.example")
    own = {
        "login": "oauth2",
        "token_url": line.simulator.oauth_url,
        "client_id": f"partner-rp|{ESTAB}",
        "client_secret": SECRET,
    }
    return Line(line.simulator, line.school, **own | settings)


def test_oauth2_credentials_go_in_the_header_with_the_grant_in_the_form(dial) -> None:
    line = oauth2(dial, scope="roster.read core")
    assert line.users() == IDS
    login = line.received("oauth/token")[0]
    assert login.headers["authorization"] == VENDORS_HEADER
    assert login.headers["content-type"] == "application/x-www-form-urlencoded"
    form = "grant_type=client_credentials&scope=roster.read+core"
    assert login.headers["content-length"] == str(len(form)) and not login.query
    line.server.close()


def test_oauth2_credentials_go_in_the_body_and_there_alone(dial) -> None:
    line = oauth2(dial, scope="roster.read", client_auth="body")
    assert line.users() == IDS
    login = line.received("oauth/token")[0]
    assert "authorization" not in login.headers and not login.query
    line.server.close()


@pytest.mark.parametrize("place", ["header", "body"])
def test_a_refused_oauth2_login_names_its_own_settings(dial, place) -> None:
    line = oauth2(dial, client_auth=place, client_secret="wrong")
    error = line.fails(LoginError)
    assert "invalid client ID or secret" in error.words
    assert "client_secret" in error.todo and "shared_secret" not in error.todo
    line.server.close()


# what each failure becomes

FOR_GOOD: dict[str, tuple[Fault, type[OneRosterError]]] = {
    "400": (Fault("users", status=400), RequestRefused),
    "401": (Fault("users", status=401, times=2), AccessDenied),
    "403": (Fault("users", status=403), AccessDenied),
    "404": (Fault("users", status=404), EndpointNotFound),
    "405": (Fault("users", status=405), EndpointNotFound),
    "410": (Fault("users", status=410), EndpointNotFound),
    "422": (Fault("users", status=422), RequestRefused),
    "a redirect": (Fault("users", kind="redirect"), EndpointNotFound),
    "a permanent redirect": (Fault("users", kind="redirect", status=308), EndpointNotFound),
}
FOR_NOW: dict[str, tuple[Fault, type[OneRosterError], str]] = {
    "408": (Fault("users", status=408), ServerUnavailable, "408"),
    "425": (Fault("users", status=425), ServerUnavailable, "425"),
    "429": (Fault("users", status=429), ServerUnavailable, "429"),
    "500": (Fault("users", status=500), ServerUnavailable, "could not be completed"),
    "502": (Fault("users", status=502), ServerUnavailable, "502"),
    "503": (Fault("users", status=503), ServerUnavailable, "503"),
    "504": (Fault("users", status=504), ServerUnavailable, "504"),
    "an HTML page with 503": (Fault("users", kind="html", status=503), ServerUnavailable, "503"),
    "a reset": (Fault("users", kind="reset"), ServerUnavailable, "connection"),
    "half an answer": (Fault("users", kind="cut"), ServerUnavailable, "broke off"),
    "an HTML page with 200": (Fault("users", kind="html"), BadResponse, "JSON"),
    "half a JSON text": (Fault("users", kind="bad_json"), BadResponse, "JSON"),
    "broken gzip": (Fault("users", kind="bad_gzip"), BadResponse, "compression"),
    "another object": (Fault("users", kind="no_envelope"), BadResponse, "'users'"),
}


def lasting(fault: Fault) -> Fault:
    return Fault(fault.path, times=99, status=fault.status, body=fault.body, kind=fault.kind)


@pytest.mark.parametrize(("fault", "kind"), FOR_GOOD.values(), ids=FOR_GOOD)
def test_what_will_not_pass_is_an_error_at_once(line, fault, kind) -> None:
    line.happens(fault)
    error = line.fails()
    assert type(error) is kind and line.waits == []
    assert f"school {ESTAB}, users at offset 0: " in str(error)
    assert "What to do: " in str(error) and str(fault.status or 302) in error.what


@pytest.mark.parametrize("times", [1, TRIES - 1])
@pytest.mark.parametrize(("fault", "kind", "said"), FOR_NOW.values(), ids=FOR_NOW)
def test_what_passes_heals(line, fault, kind, said, times) -> None:
    line.happens(
        *[Fault(fault.path, status=fault.status, body=fault.body, kind=fault.kind)] * times
    )
    assert line.users() == IDS
    assert len(line.waits) == times and len(line.received("users")) == times + 1
    assert logins(line) == 1


@pytest.mark.parametrize(("fault", "kind", "said"), FOR_NOW.values(), ids=FOR_NOW)
def test_what_does_not_pass_becomes_its_own_error(line, fault, kind, said) -> None:
    line.happens(lasting(fault))
    error = line.fails()
    assert type(error) is kind and said in error.what + error.words and error.todo
    assert f"school {ESTAB}, users at offset 0: " in str(error)
    if fault.status != 429:  # which is a pause: see below
        assert len(line.received("users")) == TRIES


@pytest.mark.slow
def test_a_server_that_hangs_is_left_and_asked_again(dial) -> None:
    line = dial(request_timeout=1.5)
    line.happens(Fault("users", kind="hang", seconds=4))
    assert line.users() == IDS and len(line.waits) == 1
    line = dial(request_timeout=1.5, retry_budget=0)
    line.happens(Fault("users", kind="hang", seconds=4, times=99))
    assert "did not answer in time" in line.fails(ServerUnavailable).what


@pytest.mark.slow
def test_a_server_that_drips_is_left(dial) -> None:
    line = dial(request_timeout=0.6, retry_budget=0)
    line.users()
    line.happens(Fault("users", kind="drip", seconds=0.05))
    assert "did not finish" in line.fails(ServerUnavailable).what


def test_a_server_that_is_not_there_is_said_to_be_away(line) -> None:
    line.users()
    line.simulator.stop()
    error = line.fails(ServerUnavailable)
    assert "refuses the connection" in error.what and ESTAB in error.where


def test_a_server_that_comes_back_is_asked_again(line) -> None:
    line.users()
    line.simulator.stop()
    line.client._sleep = lambda seconds: line.simulator.start()
    assert line.users() == IDS


def test_the_servers_own_words_are_one_line_and_not_too_long(line) -> None:
    words = "bad\r\n  filter\x1b[31m \u202e" + "x" * 999
    line.happens(Fault("users", status=400, body=text(error_description=words)))
    error = line.fails(RequestRefused)
    assert "bad filter [31m xxx" in error.words and len(error.words) < 300
    assert clean(error.words, limit=999) == error.words
    # they may quote rows, and a run writes its errors down
    assert "bad" not in str(error) and "oneroster check-connection" in error.todo


WORDS = "it is\u2066\x1b[31m full"
TOLD = {
    "OAuth": {"error": "no", "error_description": WORDS},
    "imsx": {"imsx_codeMajor": "failure", "imsx_description": WORDS},
    "a set of imsx": {"statusInfoSet": [{"imsx_severity": "error", "imsx_description": WORDS}]},
    "an object of imsx": {"imsx_StatusInfo": {"imsx_codeMinor": {"a": [1]}, "description": WORDS}},
    "a list": [{"message": WORDS}],
    "a null before it": {"error": None, "errors": [], "message": WORDS},
}


@pytest.mark.parametrize("path", ["users", "auth/token"])
@pytest.mark.parametrize("told", TOLD.values(), ids=TOLD)
def test_the_servers_own_words_are_found_in_every_form_of_error(line, path, told) -> None:
    line.happens(Fault(path, status=400, body=json.dumps(told).encode()))
    error = line.fails()
    assert error.words == "it is [31m full" and error.words not in str(error)


def test_a_huge_error_is_cut(line) -> None:
    line.happens(Fault("users", status=400, body=text(message="x" * 5_000_000)))
    assert len(str(line.fails(RequestRefused))) < 500


@pytest.mark.parametrize(
    "body",
    [b"", b"no JSON", b"[1]", b'{"error":{"a":1}}', b'{"error":7}', b"\xff\xfe", b"[" * 9999],
)
def test_an_error_without_words_is_an_error_still(line, body) -> None:
    line.happens(Fault("users", status=400, body=body))
    assert line.fails(RequestRefused).what == "the server answered 400"


def test_an_endpoint_without_paging_is_named_without_an_offset(line) -> None:
    line.happens(Fault("version", status=404))
    with pytest.raises(EndpointNotFound, match=f"^school {ESTAB}, version: "):
        line.client.get("/version", {}, bytes)


# waiting


def test_the_waits_double_and_are_never_quite_the_same(line) -> None:
    line.happens(Fault("users", status=503, times=99))
    for _ in range(2):
        line.fails(ServerUnavailable)
    first, second = line.waits[: TRIES - 1], line.waits[TRIES - 1 :]
    for waits in (first, second):
        assert (
            all(0.25 * 2**n <= wait <= 0.5 * 2**n for n, wait in enumerate(waits))
            and len(waits) == TRIES - 1
        )
    assert first != second


@pytest.mark.parametrize(
    ("said", "low", "high"),
    [
        pytest.param("0", 0, 0.2, id="now"),
        pytest.param("1.5", 1.5, 1.7, id="a fraction"),
        pytest.param(" 7 ", 7, 7.2, id="seconds"),
        pytest.param("120", 120, 120.2, id="longer than we would wait"),
        pytest.param("-5", 0.25, 0.5, id="less than nothing"),
        pytest.param("soon", 0.25, 0.5, id="no time at all"),
        pytest.param("", 0.25, 0.5, id="empty"),
        pytest.param("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0.2, id="a date that has passed"),
    ],
)
def test_the_wait_that_a_server_asks_for_is_kept(line, said, low, high) -> None:
    line.happens(Fault("users", status=429, headers=(("Retry-After", said),)))
    assert line.users() == IDS
    assert len(line.waits) == 1 and low <= line.waits[0] <= high


def test_a_date_to_come_back_at_is_kept(line) -> None:
    then = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    line.happens(Fault("users", status=503, headers=(("Retry-After", then),)))
    assert line.users() == IDS and 50 <= line.waits[0] <= 60.2


@pytest.mark.parametrize("days", [-1, 1])
def test_a_date_to_come_back_at_is_by_the_servers_clock(line, days) -> None:
    line.school.skew = timedelta(days=days)
    then = format_datetime(datetime.now(UTC) + timedelta(days=days, seconds=60), usegmt=True)
    line.happens(Fault("users", status=429, headers=(("Retry-After", then),)))
    assert line.users() == IDS and 50 <= line.waits[0] <= 60.2


@pytest.mark.parametrize("said", ["3600", "Fri, 31 Dec 9999 23:59:59 GMT", "999999999"])
def test_a_wait_beyond_the_budget_is_an_error_at_once(line, said) -> None:
    line.happens(Fault("users", status=429, headers=(("Retry-After", said),)))
    error = line.fails(ServerUnavailable)
    assert line.waits == [] and len(line.received("users")) == 1
    assert "429 and asks for a pause of" in error.what and "pause_budget" in error.todo
    assert "of the pause_budget of 900 s, 900 s are left" in error.what
    # nor is anything else sent to it, by whomever, until that time
    with pytest.raises(ServerUnavailable, match="asks for a pause of") as caught:
        line.client.get("/orgs", PAGE, bytes)
    assert f"school {ESTAB}, orgs" in caught.value.where
    assert line.waits == [] and len(line.statuses) == 2


@pytest.mark.parametrize("header", ["Retry-After", "X-Total-Count"])
@pytest.mark.parametrize(
    "value", ["Fri, 31 Dec 9999 23:59:59 -0100", "99999999999999999999", "Mon, 99 Foo", "²", "-1"]
)
def test_a_header_that_cannot_be_read_is_as_if_not_there(line, header, value) -> None:
    line.happens(Fault("users", status=503, headers=((header, value),)))
    assert line.users() == IDS


def test_the_error_still_knows_how_long_the_server_asked_to_wait(line) -> None:
    line.happens(Fault("users", status=429, headers=(("Retry-After", "3600"),)))
    assert line.fails(ServerUnavailable).retry_after == 3600


def test_all_requests_of_a_school_share_one_budget(dial) -> None:
    line = dial(retry_budget=10)
    line.happens(Fault("users", status=503, times=99))
    for _ in range(4):
        line.fails(ServerUnavailable)
        assert sum(line.waits) <= 10
    assert sum(line.waits) > 9


PAUSES = {
    "429 that says how long": (429, (("Retry-After", "4"),)),
    "429 that does not say": (429, ()),
    "429 that says now": (429, (("Retry-After", "0"),)),
    "503 that says how long": (503, (("Retry-After", "4"),)),
    "500 that says how long": (500, (("Retry-After", "4"),)),
}


@pytest.mark.parametrize(("status", "headers"), PAUSES.values(), ids=PAUSES)
def test_pauses_have_a_limit_of_their_own(dial, status, headers) -> None:
    line = dial(retry_budget=0, pause_budget=20)
    line.happens(Fault("users", status=status, headers=headers, times=99))
    error = line.fails(ServerUnavailable)
    assert 8 < sum(line.waits) <= 20 and len(line.received("users")) == len(line.waits) + 1 < 20
    # the longer one of what the server asks for, where it names a time, and of our own
    told = "asks for|needs" if ("Retry-After", "4") in headers else "needs"
    assert re.search(f"answered {status} and ({told}) a pause of", error.what)
    assert "of the pause_budget of 20 s" in error.what


@pytest.mark.parametrize(("status", "headers"), PAUSES.values(), ids=PAUSES)
def test_a_pause_is_kept_however_often_it_is_asked_for(line, status, headers) -> None:
    line.happens(Fault("users", status=status, headers=headers, times=TRIES + 3))
    assert line.users() == IDS and len(line.received("users")) == TRIES + 4


def test_a_server_that_only_ever_says_later_is_left(dial) -> None:
    line = dial(retry_budget=0)
    line.happens(Fault("users", status=503, headers=(("Retry-After", "1"),), times=99))
    assert line.fails(ServerUnavailable).status == 503
    assert len(line.received("users")) == TRIES + 1 and len(line.waits) == TRIES


def test_a_pause_is_one_for_all_schools_and_logins_of_a_server(serve, caplog) -> None:
    schools = [School(estab, collections={"users": USERS}) for estab in "123456"]
    server = serve(*schools)
    lines = [Line(server, school, concurrency=4) for school in schools]
    gates, told = lines[0].gates, []
    for line in lines:
        # one run, one server
        line.client.server, line.client._token._server = lines[0].server, lines[0].server
    lines[0].server._gates = gates = Gates(60, tell=lambda *what: told.append(what))
    began = time.monotonic()
    schools[0].faults.append(Fault("users", status=429, headers=(("Retry-After", "2"),)))
    with pytest.raises(BaseException, match="stop"):
        lines[0].client._sleep = stop
        lines[0].users()
    seen = len(server.requests)
    with caplog.at_level(logging.INFO), ThreadPoolExecutor(12) as pool:
        for line in lines:
            line.client._sleep = time.sleep
        asked = [pool.submit(line.users) for line in lines for _ in range(2)]
        time.sleep(0.3)
        assert len(server.requests) == seen or time.monotonic() - began > 1.5
        assert [future.result(PATIENCE) for future in asked] == [IDS] * 12
    assert time.monotonic() - began > 2
    # once, though twelve requests waited for it
    ((host, until),) = told
    assert host == server.base_url.split("/")[2] and until > datetime.now(UTC) - timedelta(60)
    assert 57 < gates.of(host)._left < 58.1
    for line in lines:
        line.server.close()


def stop(seconds: float) -> None:
    raise OneRosterError("stop")


def test_a_pause_of_a_token_endpoint_elsewhere_keeps_data_coming(dial) -> None:
    line, elsewhere = dial(), dial()
    own = {
        "login": "oauth2",
        "token_url": elsewhere.simulator.oauth_url,
        "client_id": f"partner-rp|{ESTAB}",
        "client_secret": SECRET,
    }
    line.users()
    other = Line(line.simulator, line.school, **own)
    other.gates = line.gates
    other.server._gates = line.server._gates
    elsewhere.happens(Fault("oauth/token", status=429, headers=(("Retry-After", "30"),)))
    other.client._sleep = stop
    other.fails()
    assert line.users() == IDS and line.waits == []
    other.server.close()


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 60)), max_size=20), st.integers(0, 300)
)
@hypothesis_settings(deadline=None)
def test_pauses_cost_the_time_that_the_server_is_left_alone_and_no_more(asked, budget) -> None:
    now, closed = 0, set()
    gate = Gates(budget, clock=lambda: 1000.0 + now).of("a")
    for passed, seconds in asked:
        now += passed
        wanted = closed | set(range(now, now + seconds))
        if len(wanted) > budget:
            with pytest.raises(ServerUnavailable, match=f"a pause of {seconds} s; .* {budget} s, "):
                gate.pause(seconds)
            with pytest.raises(ServerUnavailable, match=f"{budget - len(closed)} s are left"):
                gate.check()
            return
        assert gate.pause(seconds) == (now not in closed)
        closed = wanted
        with pytest.raises(Paused):
            gate.check()
    assert gate._left == budget - len(closed)


def test_a_pause_is_told_of_once(line, caplog) -> None:
    line.happens(Fault("users", status=429, headers=(("Retry-After", "30"),)))
    with caplog.at_level(logging.INFO, logger="oneroster_source"):
        assert line.users() == IDS
    (told,) = [r for r in caplog.records if getattr(r, "event", "") == "pause"]
    host = line.simulator.base_url.split("/")[2]
    assert told.getMessage().startswith(f"{host} asked for a pause of 30 s; waiting until ")
    assert told.fields["server"] == host and 30 <= told.fields["seconds"] <= 30.1


def test_a_pause_of_which_the_server_named_no_time_is_told_as_ours(line, caplog) -> None:
    line.happens(Fault("users", status=429, times=4))
    with caplog.at_level(logging.INFO, logger="oneroster_source"):
        assert line.users() == IDS
    (*_, told) = [r for r in caplog.records if getattr(r, "event", "") == "pause"]
    host = line.simulator.base_url.split("/")[2]
    said = rf"too many requests at {host}: waiting \d+ s, until \d\d:\d\d:\d\dZ"
    assert re.fullmatch(said, told.getMessage())


def test_fewer_requests_at_once_follow_a_pause_and_more_follow_good_answers(dial) -> None:
    line = dial(concurrency=8)
    line.users()
    limiter = line.server.request_limit
    for limit in (4, 2, 1, 1):
        line.happens(Fault("users", status=429, headers=(("Retry-After", "1"),)))
        assert line.users() == IDS and limiter.limit == limit
    for limit in (2, 3, 4):
        for _ in range(RequestLimit.GOOD):
            line.users()
        assert limiter.limit == limit
    for _ in range(RequestLimit.GOOD * 6):
        line.users()
    assert limiter.limit == 8


@given(st.lists(st.sampled_from(["good", "fewer"]), max_size=60), st.integers(1, 9))
@hypothesis_settings(max_examples=20, deadline=None)
def test_there_are_never_more_turns_than_the_limit_of_the_moment(events, most) -> None:
    limiter, under_way, lock, seen = RequestLimit(most), [0], threading.Lock(), []

    def work(event: str) -> None:
        with limiter:
            with lock:
                under_way[0] += 1
                seen.append(under_way[0])
            getattr(limiter, event)()
            with lock:
                under_way[0] -= 1

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(work, events, timeout=PATIENCE))
    assert max(seen, default=0) <= most and 1 <= limiter.limit <= most
    with limiter:
        pass


def test_threads_share_the_budget_too(dial) -> None:
    line = dial(retry_budget=20, concurrency=4)
    line.happens(Fault("users", status=503, times=999))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: line.fails(ServerUnavailable), range(8)))
    assert sum(line.waits) <= 20


def test_without_a_budget_nothing_is_tried_again(dial) -> None:
    line = dial(retry_budget=0)
    line.happens(Fault("users", status=503))
    line.fails(ServerUnavailable)
    assert line.waits == [] and len(line.received("users")) == 1


# what is sent, and to whom


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip that unpacks to more"])
def test_an_answer_that_is_too_large_is_refused(dial, packed) -> None:
    line = dial(max_page_mb=1, pause_budget=60)
    body = b'{"users":[' + b" " * (1 << 20) + b"]}"
    headers = (("content-encoding", "gzip"),) if packed else ()
    body = gzip.compress(body) if packed else body
    line.happens(Fault("users", status=200, body=body, headers=headers, times=99))
    error = line.fails(ResponseTooLarge)
    assert "larger than 1 MiB" in error.what and ESTAB in error.where
    assert "page_size" in error.todo and "max_page_mb" in error.todo
    assert len(line.received("users")) == 1


def test_an_answer_just_small_enough_is_taken(dial) -> None:
    line = dial(max_page_mb=1, pause_budget=60)
    start, end = b'{"users":[', b"]}"
    body = start + b" " * ((1 << 20) - len(start) - len(end)) + end
    line.happens(Fault("users", status=200, body=body))
    assert line.users() == []


@pytest.mark.parametrize(
    ("packing", "packed"),
    [
        ("gzip", gzip.compress),
        ("GZip", gzip.compress),
        ("x-gzip", lambda body: gzip.compress(body[:9]) + gzip.compress(body[9:])),
        ("deflate", zlib.compress),
        ("identity", bytes),
    ],
    ids=["gzip", "in other letters", "in two parts", "deflate", "not at all"],
)
def test_an_answer_may_be_packed(line, packing, packed) -> None:
    body = packed(text(users=USERS))
    line.happens(Fault("users", status=200, body=body, headers=(("content-encoding", packing),)))
    assert line.users() == IDS


def test_an_answer_whose_packing_breaks_off_is_asked_for_again(line) -> None:
    body = gzip.compress(text(users=USERS))[:-8]
    headers = (("content-encoding", "gzip"),)
    line.happens(Fault("users", status=200, body=body, headers=headers, times=TRIES))
    assert "compression" in line.fails(BadResponse).what


def test_an_empty_answer_that_says_it_is_packed_keeps_its_status(line) -> None:
    headers = (("content-encoding", "gzip"),)
    line.happens(Fault("users", status=403, body=b"", headers=headers))
    line.fails(AccessDenied)


@pytest.mark.parametrize("location", ["http://[::1", "http://\xff\xfe", "//", "http://"])
def test_a_redirect_to_nowhere_is_an_error_as_any_other(line, location) -> None:
    line.happens(Fault("users", kind="redirect", headers=(("location", location),)))
    assert "302" in line.fails(EndpointNotFound).what


@pytest.mark.parametrize("path", ["users", "auth/token"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_never_followed_to_another_server(dial, path, status) -> None:
    line, other = dial(), dial()
    target = (("location", f"{other.simulator.base_url}/{path}"),)
    line.happens(Fault(path, kind="redirect", status=status, headers=target))
    error = line.fails(LoginError if path == "auth/token" else EndpointNotFound)
    assert str(status) in error.what and other.simulator.requests == []
    assert [r.path for r in line.simulator.requests][-1] == path
    assert f"redirects to {other.simulator.base_url}/{path}" in error.what


@pytest.mark.parametrize("path", ["users", "auth/token"])
@pytest.mark.parametrize(
    ("location", "named"),
    [
        pytest.param("https://u:p@b.example:8/x?code=1#y", "https://b.example:8/x", id="all parts"),
        pytest.param("//b.example/x", "http://b.example/x", id="without a scheme"),
        pytest.param("/login;session=1?next=/a", "http://{own}/login", id="on the same server"),
        pytest.param("HTTPS://[::1]:8/x", "https://[::1]:8/x", id="an address"),
        pytest.param("https://b.example", "https://b.example", id="a host alone"),
        pytest.param("https://b.example/a\x9b31m", "https://b.example/a 31m", id="a control"),
        pytest.param("https://b.example/" + "x" * 5000, "https://b.example/xxx", id="a long one"),
        pytest.param(f"https://b.example/{SECRET}/x", "https://b.example/***/x", id="the secret"),
        pytest.param("javascript:alert(1)", None, id="no address"),
        pytest.param("https://b.example:port/x", None, id="no port"),
        pytest.param("http://[::1", None, id="half an address"),
        pytest.param("", None, id="nothing"),
    ],
)
def test_a_redirect_names_its_target_and_nothing_else_of_it(line, path, location, named) -> None:
    line.happens(Fault(path, kind="redirect", headers=(("location", location),)))
    error = line.fails()
    own = line.simulator.base_url.split("/")[2]
    said = error.what.replace(" (302)", "").partition(" redirects to ")[2]
    assert said.startswith((named or "").format(own=own)) and bool(said) == bool(named)
    assert len(said) < 200 and "302" in error.what and clean(error.what, limit=999) == error.what
    assert not any(part in str(error) for part in ("u:p", "code", "session", "next", "alert"))


def test_cookies_are_not_sent_back(line) -> None:
    cookie = (("set-cookie", "session=canary; Path=/"),)
    line.happens(
        Fault("auth/token", status=503, headers=cookie), Fault("users", status=503, headers=cookie)
    )
    assert line.users() == IDS
    assert all("cookie" not in request.headers for request in line.simulator.requests)


def test_a_netrc_file_is_not_read(line, tmp_path, monkeypatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert line.users() == IDS
    assert line.received("auth/token")[0].headers["authorization"] == VENDORS_HEADER


@pytest.mark.parametrize("limit", [1, 3])
def test_there_are_never_more_requests_at_once_than_allowed(dial, limit) -> None:
    line = dial(concurrency=limit, latency=0.02)
    asked = [line.server.pool.submit(line.users) for _ in range(12)]
    assert [future.result() for future in asked] == [IDS] * 12
    assert line.simulator.most_at_once == limit


def test_who_waits_for_another_try_keeps_nobody_else_waiting(dial) -> None:
    line = dial(concurrency=1)
    waiting, served = Event(), Event()

    def wait(seconds: float) -> None:
        waiting.set()
        assert served.wait(PATIENCE)

    line.client._sleep = wait
    line.happens(Fault("users", status=503))
    first = line.server.pool.submit(line.users)
    assert waiting.wait(PATIENCE)
    try:
        assert line.server.pool.submit(line.users).result(PATIENCE) == IDS
    finally:
        served.set()
    assert first.result(PATIENCE) == IDS


def test_what_waits_for_its_turn_when_the_run_ends_is_not_asked(dial) -> None:
    line = dial(concurrency=1)
    line.users()
    come, go = Event(), Event()

    def hold(*page: object) -> None:
        come.set()
        assert go.wait(PATIENCE)

    line.school.on_page = hold
    asked = [line.server.pool.submit(line.users) for _ in range(5)]
    assert come.wait(PATIENCE)
    with ThreadPoolExecutor(1) as other:
        closing = other.submit(line.server.close)
        while not line.server.pool._shutdown:
            time.sleep(0.001)
        go.set()
        closing.result(PATIENCE)
    # the one that had begun has its answer, unless that came in pieces
    stopped = [error for future in asked if (error := future.exception())]
    assert len(stopped) in (4, 5)
    assert all(str(error).endswith("the run was stopped") for error in stopped)
    assert len(line.received("users")) == 2


class Kept(list[str]):
    """Takes the rows of a reading."""

    def add(self, content: list[str], start: int) -> None:
        self.extend(content[start:])

    def keys(self) -> set[str]:
        return set(self)

    def keys_of(self, content: list[str]) -> list[str]:
        return content


def test_a_server_that_ignores_offset_is_asked_no_more_at_once(dial) -> None:
    line = dial(concurrency=1, latency=0.02)
    line.school.quirks = Quirks(ignore_offset=True, total="none")
    kept = [Kept() for _ in range(4)]

    def fetch(offset: int | None, limit: int | None) -> Page[list[str]]:
        params = {} if limit is None else {"limit": str(limit), "offset": str(offset)}
        found = line.client.get("/users", params, ids).value
        return Page(found, found)

    with ThreadPoolExecutor(4) as pool:
        descending = lambda offset, rows: IDS[::-1][offset:]  # noqa: E731
        source = PageSource(fetch, 3, descending, executor=line.server.pool)
        list(pool.map(partial(read, source), kept))
    assert kept == [IDS] * 4 and line.simulator.most_at_once == 1


def test_what_the_headers_say_comes_with_the_rows(line) -> None:
    line.school.skew = timedelta(days=2)
    reply = line.client.get("/users", {"limit": "2", "offset": "1"}, ids)
    assert (reply.value, reply.total) == (IDS[1:3], len(IDS))
    assert timedelta(days=1) < reply.date - datetime.now(UTC) < timedelta(days=3)


@pytest.mark.parametrize("status", [503, 429])
def test_every_request_for_data_is_counted(line, status) -> None:
    counted: list[int] = []
    line.happens(Fault("users", status=status, times=2))
    line.client.get("/users", PAGE, ids, sent=lambda: counted.append(1))
    assert len(counted) == 3 == len(line.received("users"))


# secrets stay secret

CANARY = "cänary:|'\"\\-secret"
TOKEN = "canary.token~+/=="
BASIC = b64encode(f"partner-rp|{ESTAB}:{CANARY}".encode()).decode()
ECHO = f"you sent {CANARY}, that is, Basic {BASIC}"


def shown(error: BaseException | None) -> str:
    """All that an exception holds, and those that led to it; not the traceback's frames."""
    if error is None:
        return ""
    own = [str(error), repr(error), *map(str, error.args), *map(repr, error.args)]
    own += [str(part) for item in vars(error).items() for part in item]
    return "\n".join(own) + shown(error.__cause__) + shown(error.__context__)


def spelled(secret: str) -> set[str]:
    """A secret in every way that a request, or who repeats one, spells it."""
    raw = secret.encode()
    return {
        secret,
        repr(secret)[1:-1],
        b64encode(raw).decode(),
        b64encode(raw).decode().rstrip("="),
        quote(secret),
        quote(secret, safe=""),
        quote(secret, safe="").lower(),
        quote_plus(secret),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        json.dumps(secret)[1:-1].replace("/", "\\/"),
        html.escape(secret),
        quote_plus(secret, safe="*").replace("~", "%7E"),
        quote(secret, safe="!'()*"),
        secret.encode().decode("latin-1"),
        quote(secret.encode().decode("latin-1")),
        json.dumps(secret)[1:-1].replace("u00e4", "u00E4"),
    }


def holds_no_secret(seen: str) -> bool:
    return not any(way in seen for way in (BASIC, *spelled(CANARY), *spelled(TOKEN)))


LEAKS = {
    "a refused login": Fault("auth/token", status=401),
    "a refused login that repeats what was sent": Fault(
        "auth/token", status=401, body=text(error_description=ECHO)
    ),
    "a login that fails and repeats what was sent": Fault(
        "auth/token", status=503, body=text(message=ECHO), times=99
    ),
    "a token of another type": Fault(
        "auth/token", status=200, body=text(access_token=TOKEN, token_type=TOKEN)
    ),
    "a 200 without a token that repeats what was sent": Fault(
        "auth/token", status=200, body=text(error=ECHO)
    ),
    **{name: lasting(fault) for name, (fault, _) in FOR_GOOD.items()},
    **{name: lasting(fault) for name, (fault, _, _) in FOR_NOW.items()},
    **{
        f"{status} that repeats what was sent": Fault(
            "users", status=status, body=text(error_description=f"{ECHO}, and {TOKEN}"), times=99
        )
        for status in (400, 401, 403, 404, 500)
    },
}


@pytest.mark.parametrize("fault", LEAKS.values(), ids=LEAKS)
def test_no_secret_is_in_an_error_or_a_log(dial, caplog, fault) -> None:
    line = dial(CANARY)
    granted = text(access_token=TOKEN, expires_in=3600)
    line.school.tokens._ends[TOKEN] = time.monotonic() + 3600
    line.happens(fault, Fault("auth/token", status=200, body=granted, times=99))
    with caplog.at_level(logging.DEBUG):
        error = line.fails()
    logged = "\n".join(f"{r.getMessage()} {r.args!r} {r.exc_text}" for r in caplog.records)
    assert any(r.name.startswith("urllib3") for r in caplog.records)
    assert holds_no_secret(shown(error) + logged)


def test_a_refused_token_is_not_shown_after_it_was_renewed(line) -> None:
    first = line.school.tokens.issue(3600)
    granted = text(access_token=first, expires_in=3600)
    line.happens(
        Fault("auth/token", status=200, body=granted),
        Fault("users", status=401),
        Fault("users", status=403, body=text(error_description=f"{first} is no good")),
    )
    assert first not in shown(line.fails(AccessDenied))


@pytest.mark.parametrize("way", ["xporter", "header", "body"])
@pytest.mark.parametrize("path", ["token", "users"])
def test_no_secret_is_in_the_servers_own_words_however_it_is_spelled(dial, way, path) -> None:
    line = dial(CANARY)
    if way != "xporter":
        line = oauth2(dial, client_auth=way, client_secret=CANARY)
        line.school.shared_secret = CANARY
    line.school.tokens._ends[TOKEN] = time.monotonic() + 3600
    token = "auth/token" if way == "xporter" else "oauth/token"
    own, others = sorted(spelled(CANARY)), sorted(spelled(TOKEN) if path == "users" else [])
    for said in (*own, *others, f"Basic {BASIC}", f"it is {BASIC.rstrip('=')}!"):
        line = Line(line.simulator, line.school, **line.given)
        granted = text(access_token=TOKEN, expires_in=3600)
        if path == "users":
            line.happens(Fault(token, status=200, body=granted))
        line.happens(
            Fault(token if path == "token" else path, status=400, body=text(message=f"<{said}>"))
        )
        error = line.fails()
        line.server.close()
        assert "***" in error.words and "***" not in str(error), said
        assert holds_no_secret(shown(error)), said


@pytest.mark.parametrize("show", [repr, str])
def test_no_object_shows_its_secrets(dial, show) -> None:
    line = dial(CANARY)
    line.users()
    request = auth.xporter(line.settings.schools[0], line.settings)
    everything = (line.client, line.client._token, line.server, request, line.settings)
    assert holds_no_secret("".join(map(show, everything)))
