"""The simulator against the vendor's text: hand-written requests, values from the text."""

# ruff: noqa: RUF001 - a right quotation mark is how some names are written

from __future__ import annotations

import ast
import base64
import json
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from datetime import UTC, date, datetime, timedelta
from email.utils import parsedate_to_datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import requests

from oneroster_source import simulator
from oneroster_source.simulator import (
    COLLECTIONS,
    Fault,
    Quirks,
    School,
    Simulator,
    csv_school,
    live,
    secondary_school,
    spoil,
)

ESTAB = "3281110"
VENDORS_BASIC = "Basic cGFydG5lci1ycHwzMjgxMTEwOnN1cGVyLXNlY3JldA=="
CSV_FOLDERS = [
    "generated/district-medium",
    "generated/school-small",
    "lms-toolkit/oneroster-1.0",
    "lms-toolkit/oneroster-1.1",
]


def reference(kind: str, sourced_id: str) -> dict[str, str]:
    return {"sourcedId": sourced_id, "type": kind}


def user(sourced_id: str, modified: str, **more: Any) -> dict[str, Any]:
    row = {"sourcedId": sourced_id, "status": "active", "dateLastModified": modified}
    names = {"username": sourced_id, "givenName": "Zoë", "familyName": "Smith"}
    return row | names | {"identifier": "1", "role": "student"} | more


def enrollment(sourced_id: str, class_: str, role: str, **more: Any) -> dict[str, Any]:
    row = {"sourcedId": sourced_id, "status": "active", "role": role}
    row["dateLastModified"] = "2026-03-21T03:35:42.017Z"
    return row | {
        "user": reference("user", "u1"),
        "class": reference("class", class_),
        "school": reference("org", "s1"),
        **more,
    }


COLLECTION_ROWS: dict[str, list[dict[str, Any]]] = {
    "orgs": [{"sourcedId": "s1", "status": "active", "name": "Oakfield", "type": "school"}],
    "users": [
        user("u3", "2026-01-01T00:00:00.000Z", familyName="Rock and Roll", enabledUser=True),
        user("u1", "2026-03-21T03:35:42.017Z", familyName="O’Connor", email="a%20b@x.example"),
        user("u2", "2026-02-01T12:00:00.500Z", status="tobedeleted", grades=["8"]),
        user("u4", "2026-01-01T00:00:00.001Z", familyName="O'Connor", role="teacher"),
    ],
    "classes": [
        {
            "sourcedId": "x11BSAT6S",
            "status": "active",
            "dateLastModified": "2026-03-21T03:35:42.017Z",
            "title": "10X/Ma1",
            "school": reference("org", "s1"),
            "terms": [reference("academicSession", "t1"), reference("academicSession", "t2")],
        }
    ],
    "enrollments": [
        enrollment("e1", "x11BSAT6S", "student", beginDate="2026-09-01", primary=False),
        enrollment("e2", "x11BSAT6S", "teacher", primary=True),
        enrollment("e3", "other", "student"),
    ],
}


class Caller:
    """Someone with a token for one school."""

    def __init__(self, server: Simulator, estab: str = ESTAB) -> None:
        self.server = server
        school = server[estab]
        self.token = token(server, f"{school.rp}|{estab}:{school.shared_secret}").json()[
            "access_token"
        ]

    def get(self, path: str, /, **params: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.token}"}
        url = f"{self.server.base_url}/{path}"
        return requests.get(url, params=params, headers=headers, timeout=60, allow_redirects=False)

    def ids(self, path: str, /, **params: Any) -> list[str]:
        answer = self.get(path, **params)
        assert answer.status_code == 200, answer.text
        return [row["sourcedId"] for row in answer.json()[path]]


def token(server: Simulator, credentials: str) -> requests.Response:
    basic = base64.b64encode(credentials.encode()).decode()
    return requests.post(
        f"{server.base_url}/auth/token", headers={"Authorization": f"Basic {basic}"}, timeout=60
    )


@pytest.fixture
def school() -> School:
    return School(ESTAB, collections=COLLECTION_ROWS)


@pytest.fixture
def server(school: School) -> Iterator[Simulator]:
    with Simulator([school]) as running:
        yield running


@pytest.fixture
def caller(server: Simulator) -> Caller:
    return Caller(server)


# authentication


def test_the_vendors_example_credentials_get_a_bearer_token_for_an_hour(server: Simulator) -> None:
    url, headers = f"{server.base_url}/auth/token", {"Authorization": VENDORS_BASIC}
    answer = requests.post(url, headers=headers, timeout=60)
    assert answer.status_code == 200
    granted = answer.json()
    assert granted.pop("access_token")
    assert granted == {"token_type": "Bearer", "expires_in": 3600}


@pytest.mark.parametrize(
    "credentials",
    [
        "partner-rp|3281110:wrong",
        "partner-rp|9999999:super-secret",
        "other-rp|3281110:super-secret",
        "partner-rp%7C3281110:super-secret",
        "partner-rp|3281110",
        "",
    ],
)
def test_wrong_credentials_are_an_invalid_client(server: Simulator, credentials: str) -> None:
    answer = token(server, credentials)
    assert answer.status_code == 401
    assert answer.json() == {
        "error": "invalid_client",
        "error_description": "Request contains an invalid client ID or secret",
    }


@pytest.mark.parametrize("header", ["", "Basic", "Basic not base64!", "Bearer x", "Basic /w=="])
def test_an_unreadable_authorization_is_an_invalid_client(server: Simulator, header: str) -> None:
    url = f"{server.base_url}/auth/token"
    answer = requests.post(url, headers={"Authorization": header}, timeout=60)
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


@pytest.mark.parametrize("secret", ["a:b", "a|b:c|", "päss wörd", "%7C+%20"])
def test_a_secret_may_hold_any_character(secret: str) -> None:
    with Simulator([School(ESTAB, shared_secret=secret)]) as server:
        assert token(server, f"partner-rp|{ESTAB}:{secret}").status_code == 200
        assert token(server, f"partner-rp|{ESTAB}:{secret}x").status_code == 401


def test_tokens_are_only_given_to_post(caller: Caller) -> None:
    answer = caller.get("auth/token")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize("path", COLLECTIONS)
@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer unknown"}], ids=["no", "unknown"])
def test_no_collection_is_given_without_a_valid_token(
    server: Simulator, path: str, header: dict[str, str]
) -> None:
    answer = requests.get(f"{server.base_url}/{path}", headers=header, timeout=60)
    assert answer.status_code == 401
    assert answer.json()["error"] == "invalid_token"
    assert "unknown" not in answer.json()["error"]


def test_credentials_are_no_bearer_token(server: Simulator) -> None:
    headers = {"Authorization": VENDORS_BASIC}
    assert requests.get(f"{server.base_url}/users", headers=headers, timeout=60).status_code == 401


@pytest.mark.slow
def test_a_token_expires_when_its_life_is_over(server: Simulator) -> None:
    server[ESTAB].token_life = 1.5
    caller = Caller(server)
    assert caller.get("users").status_code == 200
    time.sleep(1.6)
    assert caller.get("users").status_code == 401
    assert server.requests[-1].estab == ESTAB


def test_revoked_tokens_are_refused_and_new_ones_work(server: Simulator) -> None:
    before = Caller(server)
    server[ESTAB].revoke_tokens()
    assert before.get("users").status_code == 401
    assert Caller(server).get("users").status_code == 200


def test_a_token_can_be_good_for_a_few_requests(server: Simulator, school: School) -> None:
    school.token_uses = 2
    caller = Caller(server)
    assert [caller.get("users").status_code for _ in range(3)] == [200, 200, 401]
    assert Caller(server).get("users").status_code == 200


def test_a_token_answer_can_say_otherwise(server: Simulator, school: School) -> None:
    school.token_answer = {"expires_in": None, "token_type": "mac"}
    answer = token(server, f"{school.rp}|{school.estab}:{school.shared_secret}").json()
    assert answer == {"access_token": answer["access_token"]} | school.token_answer
    assert Caller(server).get("users").status_code == 200


def test_the_token_decides_which_school_is_read() -> None:
    schools = [School(e, collections={"users": [user(f"u{e}", "")]}) for e in ("1", "2")]
    with Simulator(schools) as server:
        assert Caller(server, "1").ids("users") == ["u1"]
        assert Caller(server, "2").ids("users") == ["u2"]


def test_a_forbidden_collection_is_403_and_others_are_not(caller: Caller, school: School) -> None:
    school.forbidden.add("users")
    assert caller.get("users").status_code == 403
    assert caller.get("orgs").status_code == 200


@pytest.mark.parametrize("way", ["header", "encoded header", "body"])
def test_plain_oauth2_gives_a_token_that_works(server: Simulator, way: str) -> None:
    form = {"grant_type": "client_credentials", "scope": "roster-core.readonly"}
    basic = None
    if way == "body":
        form |= {"client_id": f"partner-rp|{ESTAB}", "client_secret": "super-secret"}
    else:
        bar = "|" if way == "header" else "%7C"
        basic = (f"partner-rp{bar}{ESTAB}", "super-secret")
    answer = requests.post(server.oauth_url, data=form, auth=basic, timeout=60)
    assert answer.json()["scope"] == "roster-core.readonly"
    assert server.requests[-1].estab == ESTAB
    headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    assert requests.get(f"{server.base_url}/users", headers=headers, timeout=60).status_code == 200


@pytest.mark.parametrize(
    ("form", "status", "error"),
    [
        ({}, 400, "unsupported_grant_type"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ({"grant_type": "client_credentials"}, 401, "invalid_client"),
    ],
)
def test_plain_oauth2_refuses_the_way_rfc_6749_says(
    server: Simulator, form: dict[str, str], status: int, error: str
) -> None:
    answer = requests.post(server.oauth_url, data=form, timeout=60)
    assert (answer.status_code, answer.json()["error"]) == (status, error)


@pytest.mark.parametrize("path", ["version", "auth/version"])
def test_versions_are_told_without_a_token(server: Simulator, path: str) -> None:
    answer = requests.get(f"{server.base_url}/{path}", timeout=60)
    assert (answer.status_code, answer.json()["version"]) == (200, "1.1")


def test_nothing_secret_comes_back_in_an_error(server: Simulator, caller: Caller) -> None:
    answers = [
        token(server, f"partner-rp|{ESTAB}:WRONGSECRET"),
        caller.get("nowhere"),
        caller.get("users", filter="x"),
    ]
    for answer in answers:
        assert answer.status_code >= 400
        assert "WRONGSECRET" not in answer.text
        assert caller.token not in answer.text


# collections


@pytest.mark.parametrize("path", COLLECTIONS)
def test_every_collection_is_an_object_with_its_own_name(
    caller: Caller, school: School, path: str
) -> None:
    body = caller.get(path).json()
    assert list(body) == [path]
    assert len(body[path]) == len(school.rows(path))


def test_the_collections_are_the_six_of_the_vendor() -> None:
    names = {"orgs", "users", "academicSessions", "classes", "courses", "enrollments"}
    assert set(COLLECTIONS) == names


def test_an_unknown_path_is_404_in_json(caller: Caller) -> None:
    answer = caller.get("demographics")
    assert (answer.status_code, answer.json()["error"]) == (404, "invalid_request")


def test_a_missing_value_is_left_out(caller: Caller) -> None:
    rows = {row["sourcedId"]: row for row in caller.get("users").json()["users"]}
    assert rows["u1"] == COLLECTION_ROWS["users"][1]
    assert "email" not in rows["u2"]


def test_enrollments_refer_to_user_class_and_school(caller: Caller, server: Simulator) -> None:
    row = caller.get("enrollments", filter="sourcedId='e1'").json()["enrollments"][0]
    assert row["user"] == reference("user", "u1") | {"href": f"{server.base_url}/users/u1"}
    assert row["class"]["href"] == f"{server.base_url}/classes/x11BSAT6S"
    assert row["school"]["href"] == f"{server.base_url}/orgs/s1"
    assert row["beginDate"] == "2026-09-01"


def test_classes_refer_to_their_terms_as_academic_sessions(caller: Caller) -> None:
    terms = caller.get("classes").json()["classes"][0]["terms"]
    assert [(t["sourcedId"], t["type"]) for t in terms] == [
        ("t1", "academicSession"),
        ("t2", "academicSession"),
    ]


# paging


def test_limit_and_offset_give_a_slice(caller: Caller) -> None:
    assert caller.ids("users", limit=2) == ["u1", "u2"]
    assert caller.ids("users", limit=2, offset=2) == ["u3", "u4"]
    assert caller.ids("users", limit=2, offset=3) == ["u4"]
    assert caller.ids("users", limit=2, offset=4) == []


def test_without_a_limit_all_rows_come() -> None:
    many = School(ESTAB, collections={"users": [user(f"u{i:04}", "") for i in range(1500)]})
    with Simulator([many]) as server:
        assert len(Caller(server).ids("users")) == 1500


def test_the_total_counts_all_rows_that_pass_the_filter(caller: Caller) -> None:
    assert caller.get("users", limit=1).headers["X-Total-Count"] == "4"
    filtered = caller.get("users", limit=1, filter="role='teacher'")
    assert filtered.headers["X-Total-Count"] == "1"


@pytest.mark.parametrize(
    "params",
    [
        {"limit": "0"},
        {"limit": "-1"},
        {"limit": "ten"},
        {"limit": "1.5"},
        {"limit": ""},
        {"limit": "1_0"},
        {"offset": "-1"},
        {"offset": "x"},
        {"sort": "nothing"},
        {"sort": "sourcedId", "orderBy": "up"},
        {"orderBy": "DESC"},
        {"filter": ""},
        {"filter": "status"},
        {"filter": "status=active"},
        {"filter": "status='active"},
        {"filter": "status='active' or role='student'"},
        {"filter": "status='active' and"},
        {"filter": "status='active'and role='student'"},
        {"filter": "status='active' role='student'"},
        {"filter": "shoeSize='44'"},
        {"filter": "status~'act'"},
        {"filter": "status=='active'"},
        {"filter": "class.sourcedId='x'"},
        {"filter": "userIds='x'"},
        {"filter": "dateLastModified>'yesterday'"},
        {"filter": "familyName='O'Connor'"},
    ],
    ids=str,
)
def test_wrong_query_options_are_400_with_a_description(
    caller: Caller, params: dict[str, str]
) -> None:
    answer = caller.get("users", **params)
    assert answer.status_code == 400
    option = "orderBy" if "orderBy" in params else next(iter(params))
    assert answer.json()["error_description"].startswith(f"{option}:")


# filters


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("status='active'", ["u1", "u3", "u4"]),
        ("status='tobedeleted'", ["u2"]),
        ("sourcedId='u2'", ["u2"]),
        ("sourcedId='nobody'", []),
        ("sourcedId!='u2'", ["u1", "u3", "u4"]),
        ("sourcedId>'u2'", ["u3", "u4"]),
        ("sourcedId>='u2'", ["u2", "u3", "u4"]),
        ("sourcedId<'u2'", ["u1"]),
        ("sourcedId<='u2'", ["u1", "u2"]),
        ("  status = 'active'   AnD  role='teacher' ", ["u4"]),
        ("status='active' and role='student' and sourcedId>'u1'", ["u3"]),
        ("familyName='Rock and Roll'", ["u3"]),
        ("familyName='Rock and Roll' and status='active'", ["u3"]),
        ("familyName='O’Connor'", ["u1"]),
        ("familyName='O''Connor'", ["u4"]),
        ("email='a%20b@x.example'", ["u1"]),
        ("email!='nobody@x.example'", ["u1", "u2", "u3", "u4"]),
        ("email>''", ["u1"]),
        ("email=''", []),
        ("enabledUser='true'", ["u3"]),
        ("grades='8'", ["u2"]),
    ],
)
def test_a_filter_gives_the_rows_it_says(caller: Caller, text: str, expected: list[str]) -> None:
    assert caller.ids("users", filter=text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dateLastModified>'2026-01-01T00:00:00Z'", ["u1", "u2", "u4"]),
        ("dateLastModified>='2026-01-01T00:00:00Z'", ["u1", "u2", "u3", "u4"]),
        ("dateLastModified='2026-01-01T01:00:00+01:00'", ["u3"]),
        ("dateLastModified>'2026-02-01T12:00:00.4999999Z'", ["u1", "u2"]),
        ("dateLastModified>'2026-02-01T13:30:00+01:00'", ["u1"]),
        ("dateLastModified<'2026-01-02'", ["u3", "u4"]),
    ],
)
def test_time_is_compared_as_time(caller: Caller, text: str, expected: list[str]) -> None:
    assert caller.ids("users", filter=text) == expected


@pytest.mark.parametrize(
    ("collection", "text", "expected"),
    [
        ("enrollments", "class.sourcedId='x11BSAT6S' and role='student'", ["e1"]),
        ("enrollments", "user.sourcedId='u1'", ["e1", "e2", "e3"]),
        ("enrollments", "school.sourcedId='s2'", []),
        ("classes", "school.sourcedId='s1'", ["x11BSAT6S"]),
    ],
)
def test_nested_references_can_be_filtered_on(
    caller: Caller, collection: str, text: str, expected: list[str]
) -> None:
    assert caller.ids(collection, filter=text) == expected


def test_the_vendors_sorted_and_filtered_example_works(server: Simulator, school: School) -> None:
    school.change("enrollments", "e2", role="student", dateLastModified="2026-04-01T00:00:00.000Z")
    query = (
        "filter=class.sourcedId='x11BSAT6S' and role='student'"
        "&sort=dateLastModified&orderBy=desc&limit=100&offset=0"
    )
    headers = {"Authorization": f"Bearer {Caller(server).token}"}
    url = f"{server.base_url}/enrollments?{query}"
    rows = requests.get(url, headers=headers, timeout=60).json()["enrollments"]
    assert [row["sourcedId"] for row in rows] == ["e2", "e1"]


# sorting


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"sort": "sourcedId"}, ["u1", "u2", "u3", "u4"]),
        ({"sort": "sourcedId", "orderBy": "desc"}, ["u4", "u3", "u2", "u1"]),
        ({"sort": "dateLastModified", "orderBy": "asc"}, ["u3", "u4", "u2", "u1"]),
        ({"sort": "dateLastModified", "orderBy": "desc"}, ["u1", "u2", "u4", "u3"]),
        ({"sort": "role", "orderBy": "desc"}, ["u4", "u1", "u2", "u3"]),
        ({"sort": "email"}, ["u2", "u3", "u4", "u1"]),
    ],
    ids=str,
)
def test_rows_come_in_the_order_asked_for(
    caller: Caller, params: dict[str, str], expected: list[str]
) -> None:
    assert caller.ids("users", **params) == expected


# changing data


def test_a_change_is_served_at_once_and_stamped(caller: Caller, school: School) -> None:
    caller.ids("users", filter="role='aide'", sort="dateLastModified")
    before, start = school.version, datetime.now(UTC)
    school.change("users", "u1", role="aide", email=None)
    assert caller.ids("users", filter="role='aide'", sort="dateLastModified") == ["u1"]
    row = caller.get("users").json()["users"][0]
    assert "email" not in row
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", row["dateLastModified"])
    stamp = datetime.fromisoformat(row["dateLastModified"])
    assert abs(stamp - start) < timedelta(seconds=60)
    assert school.version > before


def test_a_change_keeps_the_stamp_it_is_given(school: School) -> None:
    school.change("users", "u1", dateLastModified="2020-01-01T00:00:00.000Z")
    assert school.get("users", "u1")["dateLastModified"] == "2020-01-01T00:00:00.000Z"


def test_rows_are_added_deleted_and_purged(caller: Caller, school: School) -> None:
    school.add("users", {"sourcedId": "u0", "role": "student"})
    assert caller.ids("users")[0] == "u0"
    assert school.get("users", "u0")["status"] == "active"
    school.delete("users", "u0")
    assert caller.ids("users", filter="status='tobedeleted'") == ["u0", "u2"]
    school.purge("users", "u0")
    assert caller.ids("users", filter="status='tobedeleted'") == ["u2"]
    assert caller.ids("users") == ["u1", "u2", "u3", "u4"]
    with pytest.raises(KeyError):
        school.get("users", "u0")


def test_the_rows_of_a_school_are_copies_without_hrefs(school: School) -> None:
    rows = school.rows("enrollments")
    assert rows == COLLECTION_ROWS["enrollments"]
    rows[0]["user"]["sourcedId"] = "changed"
    assert school.rows("enrollments") == COLLECTION_ROWS["enrollments"]


def test_a_sourced_id_is_needed_and_unique(school: School) -> None:
    with pytest.raises(ValueError, match="already"):
        school.add("users", {"sourcedId": "u1"})
    with pytest.raises(ValueError, match="needs a sourcedId"):
        school.add("users", {})
    with pytest.raises(ValueError, match="never changes"):
        school.change("users", "u1", sourcedId="u9")


def test_the_clock_of_the_provider_can_be_wrong(caller: Caller, school: School) -> None:
    school.skew = timedelta(days=-3)
    date = parsedate_to_datetime(caller.get("users").headers["Date"])
    school.change("users", "u1", role="aide")
    stamp = datetime.fromisoformat(school.get("users", "u1")["dateLastModified"])
    for moment in (date, stamp):
        assert abs(datetime.now(UTC) - moment - timedelta(days=3)) < timedelta(seconds=60)


def test_a_hook_can_change_data_between_two_pages(caller: Caller, school: School) -> None:
    pages: list[tuple[str, int, int]] = []

    def on_page(collection: str, offset: int, limit: int) -> None:
        pages.append((collection, offset, limit))
        if offset == 0:
            school.purge("users", "u1")

    school.on_page = on_page
    assert caller.ids("users", limit=2) == ["u1", "u2"]
    assert caller.ids("users", limit=2, offset=2) == ["u4"]
    assert pages == [("users", 0, 2), ("users", 2, 2)]


def test_a_hook_that_fails_is_a_500_and_is_kept(
    caller: Caller, school: School, server: Simulator
) -> None:
    failure = RuntimeError("from the hook")

    def on_page(collection: str, offset: int, limit: int) -> None:
        raise failure

    school.on_page = on_page
    answer = caller.get("users")
    assert (answer.status_code, answer.json()["error"]) == (500, "server_error")
    assert server.errors == [failure]


def test_a_change_is_served_when_the_row_was_served_with_quirks_before(
    caller: Caller, school: School
) -> None:
    school.quirks = Quirks(flags="text")
    assert caller.get("enrollments").json()["enrollments"][0]["primary"] == "false"
    school.change("enrollments", "e1", primary=True)
    assert caller.get("enrollments").json()["enrollments"][0]["primary"] == "true"


def test_data_can_change_in_one_thread_while_another_reads(
    caller: Caller, school: School, server: Simulator
) -> None:
    done = threading.Event()

    def churn() -> None:
        while not done.is_set():
            school.add("users", {"sourcedId": "u5", "role": "student"})
            school.purge("users", "u5")

    thread = threading.Thread(target=churn)
    thread.start()
    for _ in range(50):
        ids = caller.ids("users", sort="dateLastModified", filter="role='student'")
        assert set(ids) - {"u5"} == {"u1", "u2", "u3"}
    done.set()
    thread.join()
    assert server.errors == []


# quirks


def test_quirks_are_frozen_and_the_text_by_default() -> None:
    assert School(ESTAB).quirks == Quirks()
    with pytest.raises(FrozenInstanceError):
        Quirks().cap = 5  # type: ignore[misc]


def test_a_cap_wins_over_the_limit_and_over_none(caller: Caller, school: School) -> None:
    school.quirks = Quirks(cap=3)
    assert len(caller.ids("users", limit=100)) == 3
    assert len(caller.ids("users", limit=2)) == 2
    assert len(caller.ids("users")) == 3


@pytest.mark.parametrize(
    ("total", "expected"),
    [
        ("right", "3"),
        ("none", None),
        ("page", "2"),
        ("unfiltered", "4"),
        ("zero", "0"),
        ("low", "1"),
        ("high", "11"),
        ("text", "many"),
    ],
)
def test_the_total_can_be_wrong(
    caller: Caller, school: School, total: Any, expected: str | None
) -> None:
    school.quirks = Quirks(total=total)
    answer = caller.get("users", limit=2, filter="status='active'")
    assert answer.headers.get("X-Total-Count") == expected


def test_references_can_be_bare_ids(caller: Caller, school: School) -> None:
    school.quirks = Quirks(refs="string")
    assert caller.get("classes").json()["classes"][0]["terms"] == ["t1", "t2"]
    assert caller.get("enrollments").json()["enrollments"][0]["user"] == "u1"


def test_references_can_spell_source_id(caller: Caller, school: School, server: Simulator) -> None:
    school.quirks = Quirks(refs="sourceId")
    assert caller.get("enrollments").json()["enrollments"][0]["user"] == {
        "sourceId": "u1",
        "type": "user",
        "href": f"{server.base_url}/users/u1",
    }


@pytest.mark.parametrize(
    ("empty", "scalar", "items"), [("null", None, None), ("blank", "", [])], ids=["null", "blank"]
)
def test_missing_values_can_be_sent(
    caller: Caller, school: School, empty: Any, scalar: Any, items: Any
) -> None:
    school.quirks = Quirks(empty=empty)
    row = caller.get("users", filter="sourcedId='u4'").json()["users"][0]
    assert (row["email"], row["enabledUser"], row["grades"]) == (scalar, scalar, items)
    assert row["familyName"] == "O'Connor"
    class_ = caller.get("classes").json()["classes"][0]
    assert class_["course"] is None
    assert school.get("users", "u4") == COLLECTION_ROWS["users"][3]


def test_booleans_can_be_text(caller: Caller, school: School) -> None:
    school.quirks = Quirks(flags="text")
    rows = caller.get("enrollments").json()["enrollments"]
    assert [row.get("primary") for row in rows] == ["false", "true", None]


@pytest.mark.parametrize(
    ("stamps", "expected"),
    [
        ("millis", "2026-03-21T03:35:42.017Z"),
        ("seconds", "2026-03-21T03:35:42Z"),
        ("offset", "2026-03-21T04:35:42.017+01:00"),
        ("seven", "2026-03-21T03:35:42.0170000Z"),
    ],
)
def test_time_can_be_written_in_other_ways(
    caller: Caller, school: School, stamps: Any, expected: str
) -> None:
    school.quirks = Quirks(stamps=stamps)
    assert caller.get("users").json()["users"][0]["dateLastModified"] == expected


def test_the_envelope_can_be_missing_or_in_lower_case(caller: Caller, school: School) -> None:
    school.quirks = Quirks(envelope="bare")
    assert [row["sourcedId"] for row in caller.get("orgs").json()] == ["s1"]
    school.quirks = Quirks(envelope="lower")
    assert caller.get("academicSessions").json() == {"academicsessions": []}


@pytest.mark.parametrize(
    ("quirks", "params", "expected"),
    [
        (Quirks(ignore_limit=True), {"limit": 1, "offset": 2}, ["u3", "u4"]),
        (Quirks(ignore_offset=True), {"limit": 2, "offset": 2}, ["u1", "u2"]),
        (
            Quirks(ignore_sort=True, order="inserted"),
            {"sort": "sourcedId"},
            ["u3", "u1", "u2", "u4"],
        ),
        (Quirks(ignore_filter=True), {"filter": "role='teacher'"}, ["u1", "u2", "u3", "u4"]),
        (Quirks(order="inserted"), {}, ["u3", "u1", "u2", "u4"]),
        (Quirks(order="inserted"), {"filter": "status='active'"}, ["u3", "u1", "u4"]),
        (Quirks(order="modified"), {}, ["u3", "u4", "u2", "u1"]),
        (Quirks(order="modified"), {"sort": "sourcedId"}, ["u1", "u2", "u3", "u4"]),
        (Quirks(refuse_sort=True, refuse_filter=True), {"limit": 1}, ["u1"]),
        (Quirks(single_filter=True), {"filter": "role='teacher'"}, ["u4"]),
    ],
    ids=str,
)
def test_options_can_be_ignored(
    caller: Caller, school: School, quirks: Quirks, params: dict[str, Any], expected: list[str]
) -> None:
    school.quirks = quirks
    assert caller.ids("users", **params) == expected


@pytest.mark.parametrize(
    ("quirks", "params"),
    [
        (Quirks(refuse_sort=True), {"sort": "sourcedId"}),
        (Quirks(refuse_filter=True), {"filter": "role='teacher'"}),
        (Quirks(single_filter=True), {"filter": "role='teacher' and status='active'"}),
    ],
    ids=str,
)
def test_options_can_be_refused(
    caller: Caller, school: School, quirks: Quirks, params: dict[str, str]
) -> None:
    assert caller.get("users", **params).status_code == 200
    school.quirks = quirks
    assert caller.get("users", **params).status_code == 400


def test_a_random_order_is_new_at_every_request() -> None:
    rows = [user(f"u{i:03}", "") for i in range(100)]
    quirks = Quirks(order="random")
    with Simulator([School(ESTAB, collections={"users": rows}, quirks=quirks)]) as server:
        caller = Caller(server)
        first, second = caller.ids("users"), caller.ids("users")
        assert first != second
        assert sorted(first) == sorted(second) == [row["sourcedId"] for row in rows]
        assert caller.ids("users", sort="sourcedId") == sorted(first)


def test_a_stale_cache_gives_every_page_twice(caller: Caller, school: School) -> None:
    school.quirks = Quirks(repeat_page=True)
    offsets = (0, 1, 2, 3)
    pages = [caller.ids("users", limit=1, offset=offset) for offset in offsets]
    assert pages == [["u1"], ["u1"], ["u3"], ["u3"]]


# faults


def test_a_fault_happens_at_its_request_so_many_times_and_is_used_up(
    caller: Caller, school: School
) -> None:
    school.faults.append(Fault("users", at=2, times=2, status=503))
    statuses = [caller.get("users").status_code for _ in range(4)]
    assert statuses == [200, 503, 503, 200]
    assert school.faults == []


def test_a_fault_counts_requests_to_its_own_path_only(caller: Caller, school: School) -> None:
    school.faults.append(Fault("users", at=2))
    paths = ["orgs", "users", "orgs", "users"]
    assert [caller.get(path).status_code for path in paths] == [200, 200, 200, 500]


def test_a_fault_can_be_for_any_path_or_for_tokens(caller: Caller, school: School) -> None:
    school.faults.append(Fault(status=502))
    assert caller.get("orgs").status_code == 502
    school.faults.append(Fault("auth/token", status=500))
    assert caller.get("orgs").status_code == 200
    assert token(caller.server, f"partner-rp|{ESTAB}:super-secret").status_code == 500
    assert token(caller.server, f"partner-rp|{ESTAB}:super-secret").status_code == 200


def test_faults_that_are_due_together_happen_one_after_the_other(
    caller: Caller, school: School
) -> None:
    school.faults += [Fault(status=502), Fault(status=503)]
    assert [caller.get("orgs").status_code for _ in range(3)] == [502, 503, 200]


def test_a_fault_has_the_status_body_and_headers_it_says(caller: Caller, school: School) -> None:
    school.faults.append(
        Fault(status=429, body=b"slow down", headers=(("Retry-After", "7"),)),
    )
    answer = caller.get("users")
    assert (answer.status_code, answer.content) == (429, b"slow down")
    assert answer.headers["Retry-After"] == "7"


def test_a_reset_gives_no_answer(caller: Caller, school: School, server: Simulator) -> None:
    school.faults.append(Fault(kind="reset"))
    with pytest.raises(requests.ConnectionError, match="reset"):
        caller.get("users")
    assert server.requests[-1].status == 0
    assert caller.get("users").status_code == 200


def test_a_cut_answer_is_shorter_than_it_promised(caller: Caller, school: School) -> None:
    school.faults.append(Fault(kind="cut"))
    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="IncompleteRead"):
        caller.get("users")
    assert caller.get("users").status_code == 200


def test_a_dripping_answer_is_whole_in_the_end(caller: Caller, school: School) -> None:
    whole = caller.get("orgs").content
    school.faults.append(Fault("orgs", kind="drip", seconds=0.0001))
    dripped = caller.get("orgs")
    assert (dripped.status_code, dripped.content) == (200, whole)


def test_a_hanging_server_answers_in_the_end(caller: Caller, school: School) -> None:
    school.faults.append(Fault(kind="hang", seconds=0.3))
    start = time.monotonic()
    assert caller.ids("orgs") == ["s1"]
    assert time.monotonic() - start >= 0.3


def test_an_html_page_comes_with_status_200(caller: Caller, school: School) -> None:
    school.faults.append(Fault(kind="html"))
    answer = caller.get("users")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/html")
    assert answer.text.startswith("<!DOCTYPE html>")


def test_bad_json_is_the_answer_broken_off(caller: Caller, school: School) -> None:
    whole = caller.get("users").content
    school.faults.append(Fault(kind="bad_json"))
    answer = caller.get("users")
    assert answer.status_code == 200
    assert answer.content == whole[: len(whole) // 2]


def test_bad_gzip_cannot_be_read(caller: Caller, school: School) -> None:
    school.faults.append(Fault(kind="bad_gzip"))
    with pytest.raises(requests.exceptions.ContentDecodingError):
        caller.get("users")


def test_the_envelope_can_be_wrong_or_null(caller: Caller, school: School) -> None:
    school.faults += [Fault(kind="no_envelope"), Fault(kind="null_envelope")]
    assert "users" not in caller.get("users").json()
    assert caller.get("users").json() == {"users": None}


def test_a_redirect_leads_elsewhere(caller: Caller, school: School) -> None:
    school.faults.append(Fault(kind="redirect"))
    answer = caller.get("users")
    assert (answer.status_code, answer.headers["Location"]) == (302, "/login")


# the server


def test_every_request_is_recorded(caller: Caller, server: Simulator) -> None:
    caller.get("users", filter="role='x y'", limit=1)
    requests.get(f"{server.base_url}/orgs", headers={"X-Mine": "1"}, timeout=60)
    login, read, stranger = server.requests
    assert (login.method, login.path, login.estab, login.status) == (
        "POST",
        "auth/token",
        ESTAB,
        200,
    )
    assert (read.path, read.estab, read.status) == ("users", ESTAB, 200)
    assert read.params == {"filter": "role='x y'", "limit": "1"}
    assert read.query == "filter=role%3D%27x+y%27&limit=1"
    assert read.headers["authorization"] == f"Bearer {caller.token}"
    assert (stranger.estab, stranger.status, stranger.headers["x-mine"]) == (None, 401, "1")


def test_a_recorded_request_shows_no_secret_when_printed(caller: Caller, server: Simulator) -> None:
    caller.get("users")
    assert caller.token not in repr(server.requests)


def test_requests_at_the_same_time_are_counted(school: School) -> None:
    with Simulator([school], latency=0.3) as server:
        caller = Caller(server)
        assert server.most_at_once == 1
        threads = [threading.Thread(target=caller.get, args=("users",)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert server.most_at_once == 3


def test_latency_delays_every_answer(school: School) -> None:
    with Simulator([school], latency=0.2) as server:
        start = time.monotonic()
        requests.get(f"{server.base_url}/version", timeout=60)
        assert time.monotonic() - start >= 0.2


def test_a_stopped_server_is_gone_and_can_come_back_where_it_was(school: School) -> None:
    server = Simulator([school])
    server.start()
    address = server.base_url
    server.stop()
    server.stop()
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{address}/version", timeout=60)
    with server:
        assert server.base_url == address
        assert requests.get(f"{address}/version", timeout=60).status_code == 200


def test_stopping_does_not_wait_for_a_hanging_request(school: School) -> None:
    school.faults.append(Fault(kind="hang", seconds=60))
    failures: list[Exception] = []

    def read(caller: Caller) -> None:
        try:
            caller.get("users")
        except requests.ConnectionError as error:
            failures.append(error)

    with Simulator([school]) as server:
        # the fault is for the first request, the one for the token
        school.faults[0] = Fault("users", kind="hang", seconds=60)
        thread = threading.Thread(target=read, args=(Caller(server),))
        thread.start()
        while len(server.requests) < 2:
            time.sleep(0.01)
        start = time.monotonic()
    thread.join(30)
    assert time.monotonic() - start < 30
    assert len(failures) == 1


def test_a_taken_port_raises(server: Simulator, school: School) -> None:
    port = int(server.base_url.split(":")[2].split("/")[0])
    with pytest.raises(OSError, match="in use"):
        Simulator([school], port=port).start()


def test_two_schools_cannot_have_the_same_estab() -> None:
    with pytest.raises(ValueError, match="same estab"):
        Simulator([School("1"), School("1")])


def test_the_front_door_is_what_it_says() -> None:
    assert simulator.__all__ == [
        "COLLECTIONS",
        "Fault",
        "Quirks",
        "Request",
        "School",
        "Simulator",
        "csv_school",
        "live",
        "secondary_school",
        "spoil",
    ]


def test_the_witness_is_independent_of_what_it_tests() -> None:
    own, allowed = "oneroster_source.simulator", {"orjson", "starlette", "uvicorn"}
    for path in Path(simulator.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                root = name.split(".")[0]
                assert name.startswith(own) or root in allowed | sys.stdlib_module_names, path


# made-up schools


@pytest.fixture(scope="module")
def secondary() -> School:
    return secondary_school()


def everything(school: School) -> str:
    return json.dumps({name: school.rows(name) for name in COLLECTIONS})


def test_a_seed_always_makes_the_same_school() -> None:
    first = everything(secondary_school(1, pupils=50))
    assert everything(secondary_school(1, pupils=50)) == first
    assert everything(secondary_school(2, pupils=50)) != first
    assert everything(secondary_school(1, "3281111", pupils=50)) != first


def unresolved(school: School) -> set[tuple[str, str]]:
    """References that lead nowhere, as (attribute, id)."""
    targets = {"org": "orgs", "user": "users", "class": "classes", "course": "courses"}
    targets["academicSession"] = "academicSessions"
    ids = {name: {row["sourcedId"] for row in school.rows(name)} for name in COLLECTIONS}
    lost = set()
    for name in COLLECTIONS:
        for row in school.rows(name):
            for attribute, value in row.items():
                for item in value if isinstance(value, list) else [value]:
                    if isinstance(item, dict) and "sourcedId" in item:
                        if item["sourcedId"] not in ids[targets[item["type"]]]:
                            lost.add((attribute, item["sourcedId"]))
                    elif attribute == "orgSourcedIds" and item not in ids["orgs"]:
                        lost.add((attribute, item))
    return lost


@pytest.mark.parametrize("pupils", [0, 1, 40, 300])
def test_every_reference_of_a_made_up_school_resolves(pupils: int) -> None:
    school = secondary_school(3, pupils=pupils)
    assert unresolved(school) == set()
    roles = Counter(row["role"] for row in school.rows("users"))
    assert roles["student"] == pupils
    assert roles["administrator"] >= 2


def test_a_made_up_school_looks_like_a_secondary_school(secondary: School) -> None:
    users = {row["sourcedId"]: row for row in secondary.rows("users")}
    roles = Counter(row["role"] for row in users.values())
    assert (roles["student"], roles["teacher"]) == (900, 60)
    years = Counter(row["grades"][0] for row in users.values() if "grades" in row)
    assert years == {"7": 180, "8": 180, "9": 180, "10": 180, "11": 180}
    classes = secondary.rows("classes")
    assert {row["classType"] for row in classes} == {"homeroom", "scheduled"}
    assert {"7A", "10X/Ma1"} <= {row["title"] for row in classes}
    assert [row["type"] for row in secondary.rows("academicSessions")].count("term") == 3
    taken = Counter(row["user"]["sourcedId"] for row in secondary.rows("enrollments"))
    pupils = [taken[i] for i, row in users.items() if row["role"] == "student"]
    assert 10 <= sum(pupils) / len(pupils) <= 12
    taught = {row["user"]["sourcedId"] for row in secondary.rows("enrollments")}
    assert {i for i, row in users.items() if row["role"] == "teacher"} <= taught


def test_ids_stamps_and_names_of_a_made_up_school_are_believable(secondary: School) -> None:
    for name in COLLECTIONS:
        for row in secondary.rows(name):
            assert re.fullmatch(r"x[0-9A-Z]{8}", row["sourcedId"])
            assert row["dateLastModified"] >= "2025-09-01T00:00:00.000Z"
            assert row["dateLastModified"] < "2026-09-01T00:00:00.000Z"
    users = secondary.rows("users")
    assert len({row["username"] for row in users}) == len(users)
    assert any(not row["familyName"].isascii() for row in users)
    for optional in ("email", "middleName", "phone", "sms"):
        assert 0 < sum(optional in row for row in users) < len(users)


def test_leavers_and_their_enrollments_are_to_be_deleted(secondary: School) -> None:
    gone = {r["sourcedId"] for r in secondary.rows("users") if r["status"] == "tobedeleted"}
    assert len(gone) == 27
    for row in secondary.rows("enrollments"):
        left = row["user"]["sourcedId"] in gone
        assert row["status"] == ("tobedeleted" if left else "active")


@pytest.mark.parametrize(
    ("first_day", "year", "days"),
    [
        (
            date(2026, 9, 1),
            ("2026/2027", "2027", "26"),
            ["2026-12-18", "2027-01-04", "2027-03-25", "2027-04-12", "2027-07-21"],
        ),
        (
            date(2025, 1, 6),
            ("2025/2026", "2026", "25"),
            ["2025-04-24", "2025-05-11", "2025-07-30", "2025-08-17", "2025-11-25"],
        ),
    ],
    ids=str,
)
def test_all_dates_of_a_made_up_school_follow_its_first_day(
    first_day: date, year: tuple[str, str, str], days: list[str]
) -> None:
    title, ends, entered = year
    school, first, *_, last = (
        secondary_school(pupils=50, first_day=first_day),
        str(first_day),
        *days,
    )
    sessions = sorted(school.rows("academicSessions"), key=lambda row: row["startDate"])
    found = {row["title"]: (row["startDate"], row["endDate"]) for row in sessions}
    assert found == {
        title: (first, last),
        "Autumn Term": (first, days[0]),
        "Spring Term": (days[1], days[2]),
        "Summer Term": (days[3], last),
    }
    assert {row["schoolYear"] for row in sessions} == {ends}
    enrollments = school.rows("enrollments")
    assert {row["beginDate"] for row in enrollments} == {first}
    assert {row.get("endDate") for row in enrollments} == {None, last}
    sevens = [row for row in school.rows("users") if row.get("grades") == ["7"]]
    assert {row["username"][:2] for row in sevens} == {entered}
    stamps = [row["dateLastModified"] for name in COLLECTIONS for row in school.rows(name)]
    assert str(first_day - timedelta(days=365)) < min(stamps) < max(stamps) < first


# the life of made-up schools

BEGIN, END = date(2026, 9, 1), date(2026, 11, 24)


@pytest.fixture(scope="module")
def alive() -> School:
    """A school in November."""
    school = secondary_school(pupils=600)
    live(school, BEGIN, END)
    return school


def changed(school: School, collection: str) -> list[dict[str, Any]]:
    """The rows that were made or changed since the first day."""
    return [row for row in school.rows(collection) if row["dateLastModified"] > str(BEGIN)]


def new(school: School, role: str) -> list[dict[str, Any]]:
    return [
        row
        for row in changed(school, "enrollments")
        if row["role"] == role and row["beginDate"] > str(BEGIN)
    ]


def who(row: dict[str, Any]) -> str:
    return str(row["user"]["sourcedId"])


@pytest.mark.parametrize("days", [5, 7, 30])
def test_a_span_lived_in_pieces_is_the_same_as_lived_at_once(days: int) -> None:
    school, whole, other = (secondary_school(pupils=120) for _ in range(3))
    live(whole, BEGIN, END)
    live(other, BEGIN, END, seed=2)
    day = BEGIN
    while day < END:
        day, since = min(day + timedelta(days=days), END), day
        live(school, since, day)
    assert everything(school) == everything(whole) != everything(other)


@pytest.mark.parametrize(
    ("since", "until"),
    [
        (BEGIN, BEGIN),
        (date(2026, 9, 9), date(2026, 9, 9)),
        (END, BEGIN),
        (date(2026, 12, 18), date(2027, 1, 4)),
        (date(2026, 8, 1), BEGIN),
        (date(2027, 7, 21), date(2027, 8, 31)),
    ],
    ids=["no day", "no day, a Wednesday", "backwards", "holidays", "before", "after"],
)
def test_outside_the_terms_and_in_no_time_nothing_happens(since: date, until: date) -> None:
    school = secondary_school(pupils=120)
    before, version = everything(school), school.version
    live(school, since, until)
    assert (everything(school), school.version) == (before, version)


@pytest.mark.parametrize("pupils", [0, 1, 5, 120])
def test_a_school_of_any_size_lives(pupils: int) -> None:
    school = secondary_school(2, pupils=pupils)
    live(school, BEGIN, date(2027, 7, 21))
    assert unresolved(school) == set()


@pytest.mark.parametrize("pupils", [1, 7, 8, 40, 100])
def test_a_school_with_faults_lives_too(pupils: int) -> None:
    for seed in range(6):
        school = secondary_school(seed, pupils=pupils)
        before = everything(school)
        spoil(school)
        assert (everything(school) != before) == (pupils >= 8)
        live(school, BEGIN, END)


def test_faults_are_those_that_rosters_have() -> None:
    school = secondary_school(pupils=100)
    before = {row["sourcedId"]: row for row in school.rows("users")}
    spoil(school)
    users = {row["sourcedId"]: row for row in school.rows("users")}
    (gone,) = before.keys() - users.keys()
    assert unresolved(school) == {("user", gone)}
    assert sum("grades" in before[i] and "grades" not in users[i] for i in users) == 4
    assert {users[i]["role"] for i in users if users[i]["role"] != before[i]["role"]} == {
        "governor"
    }
    names = Counter(user["username"] for user in users.values())
    assert sorted(names.values())[-2:] == [1, 2]
    active = [row for row in school.rows("enrollments") if row["status"] == "active"]
    held = Counter((row["class"]["sourcedId"], row["role"]) for row in active)
    classes = [row["sourcedId"] for row in school.rows("classes")]
    assert [sum(not held[i, role] for i in classes) for role in ("teacher", "student")] == [1, 1]
    # no row says that it changed
    assert all(users[i]["dateLastModified"] == before[i]["dateLastModified"] for i in users)


def test_what_happens_is_stamped_in_school_hours_of_the_span(alive: School) -> None:
    for name in COLLECTIONS:
        for row in changed(alive, name):
            stamp = row["dateLastModified"]
            assert re.fullmatch(r"2026-\d\d-\d\dT(0[89]|1[0-5]):\d\d:\d\d\.\d{3}Z", stamp)
            assert str(BEGIN) < stamp[:10] <= str(END)
    assert {name for name in COLLECTIONS if changed(alive, name)} == {"users", "enrollments"}


def test_a_school_that_lived_holds_together(alive: School) -> None:
    assert unresolved(alive) == set()
    users = alive.rows("users")
    numbers = [i["identifier"] for row in users for i in row.get("userIds", [])]
    for unique in (
        [row["username"] for row in users],
        [row["identifier"] for row in users],
        numbers,
    ):
        assert len(set(unique)) == len(unique)
    for row in alive.rows("enrollments"):
        assert row["beginDate"] <= row.get("endDate", "9999")


def test_a_pupil_is_in_one_class_of_a_course_at_a_time(alive: School) -> None:
    courses = {row["sourcedId"]: row.get("course") for row in alive.rows("classes")}
    spans: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for row in alive.rows("enrollments"):
        if row["role"] == "student" and (course := courses[row["class"]["sourcedId"]]):
            span = (row["beginDate"], row.get("endDate", "9999"))
            spans.setdefault((who(row), course["sourcedId"]), []).append(span)
    several = [sorted(found) for found in spans.values() if len(found) > 1]
    assert len(several) > 20
    for found in several:
        for (_, end), (begin, _) in pairwise(found):
            assert date.fromisoformat(end) + timedelta(days=1) == date.fromisoformat(begin)


def test_pupils_join_the_classes_of_a_classmate(alive: School) -> None:
    old = {row["sourcedId"]: row for row in secondary_school(pupils=600).rows("users")}
    joined = [row for row in alive.rows("users") if row["sourcedId"] not in old]
    assert 10 <= len(joined) <= 30
    members: dict[str, set[str]] = {}
    for row in alive.rows("enrollments"):
        members.setdefault(row["class"]["sourcedId"], set()).add(who(row))
    for pupil in joined:
        mine = [row for row in new(alive, "student") if who(row) == pupil["sourcedId"]]
        assert len(mine) >= 10
        assert all("primary" not in row for row in mine)
        assert set.intersection(*(members[row["class"]["sourcedId"]] for row in mine)) & set(old)
    classmate = next(row for row in old.values() if row["role"] == "student")
    required = {"username", "identifier", "grades", "userIds", "orgSourcedIds", "enabledUser"}
    for pupil in joined:
        assert required <= set(pupil) and pupil["orgSourcedIds"] == classmate["orgSourcedIds"]
        entered = 26 - int(pupil["grades"][0]) + 7
        assert pupil["username"].startswith(str(entered))
    emails = [row["email"].split("@") for row in alive.rows("users") if "email" in row]
    assert len({domain for _, domain in emails}) == 1


def test_pupils_leave_with_all_their_enrollments(alive: School) -> None:
    left = {r["sourcedId"]: r for r in changed(alive, "users") if r["status"] == "tobedeleted"}
    assert 10 <= len(left) <= 30
    assert not any(row["enabledUser"] for row in left.values())
    for row in alive.rows("enrollments"):
        if (pupil := left.get(who(row))) is not None:
            assert row["status"] == "tobedeleted"
            assert row["dateLastModified"] == pupil["dateLastModified"]
            assert row["endDate"] <= pupil["dateLastModified"][:10]


def test_a_class_always_has_one_leading_teacher(alive: School) -> None:
    leading: dict[str, list[dict[str, Any]]] = {}
    for row in alive.rows("enrollments"):
        if row["role"] == "teacher" and row["primary"]:
            leading.setdefault(row["class"]["sourcedId"], []).append(row)
    several = [sorted(r, key=lambda row: row["beginDate"]) for r in leading.values() if len(r) > 1]
    assert several
    for before, after in (pair for rows in several for pair in pairwise(rows)):
        ended = date.fromisoformat(before["endDate"])
        assert str(ended + timedelta(days=1)) == after["beginDate"]
        assert who(before) != who(after)


def test_more_happens_when_a_term_is_young(alive: School) -> None:
    weeks = Counter(row["beginDate"] for row in new(alive, "student"))
    assert len(weeks) == 12
    begun = [weeks[day] for day in sorted(weeks)]
    assert len(set(begun)) > 5
    assert sum(begun[:3]) / 3 > sum(begun[3:]) / 9


# CSV folders


@pytest.mark.parametrize("folder", CSV_FOLDERS)
def test_every_line_of_a_csv_folder_becomes_a_row(data_sets: Path, folder: str) -> None:
    school = csv_school(data_sets / folder, ESTAB)
    for name in COLLECTIONS:
        lines = (data_sets / folder / f"{name}.csv").read_text("utf-8-sig").splitlines()
        assert len(school.rows(name)) == len([line for line in lines if line.strip()]) - 1


@pytest.mark.parametrize("folder", CSV_FOLDERS[:2])
def test_references_of_a_generated_csv_folder_resolve(data_sets: Path, folder: str) -> None:
    assert unresolved(csv_school(data_sets / folder, ESTAB)) == set()


def test_the_users_of_a_csv_folder_are_in_the_apis_form(data_sets: Path) -> None:
    school = csv_school(data_sets / "lms-toolkit/oneroster-1.1", ESTAB)
    assert school.get("users", "604918") == {
        "sourcedId": "604918",
        "status": "active",
        "enabledUser": True,
        "orgSourcedIds": ["255901001"],
        "role": "student",
        "username": "Peter Ivan Nash",
        "userIds": [{"type": "Local", "identifier": "918"}],
        "givenName": "Peter",
        "familyName": "Nash",
        "middleName": "Ivan",
        "email": "Peter.Nash@studentgps.org",
        "phone": "(950) 434 7904",
        "grades": ["09"],
    }


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_the_classes_of_a_csv_folder_are_in_the_apis_form(data_sets: Path, version: str) -> None:
    school = csv_school(data_sets / f"lms-toolkit/oneroster-{version}", ESTAB)
    row = school.get("classes", "25590100101Trad120ENG112011")
    assert row["course"] == reference("course", "ENG-1")
    assert row["school"] == reference("org", "255901001")
    assert row["terms"] == [
        reference("academicSession", "255901001_2021_2020-2021_Fall"),
        reference("academicSession", "255901001_2021_2020-2021_Spring"),
    ]
    assert row["grades"] == (["9"] if version == "1.0" else ["09"])
    year = reference("academicSession", "255901001_2021_2020-2021_SchoolYear")
    assert school.get("courses", "ENG-1")["schoolYear"] == year


def write_csv(folder: Path, name: str, text: str, encoding: str = "utf-8") -> None:
    (folder / f"{name}.csv").write_bytes(text.encode(encoding))


def test_csv_oddities_are_read(tmp_path: Path) -> None:
    write_csv(
        tmp_path,
        "users",
        "sourcedId,enabledUser,userIds,agentSourcedIds,metadata.house,shoe\r\n"
        'u1,FALSE,"{Local:1},{x:y}","u2, u3",Red,44\r\n\r\n',
        "utf-8-sig",
    )
    school = csv_school(tmp_path, ESTAB, shared_secret="other")
    assert school.rows("users") == [
        {
            "sourcedId": "u1",
            "status": "active",
            "enabledUser": False,
            "userIds": [{"type": "Local", "identifier": "1"}, {"type": "x", "identifier": "y"}],
            "agents": [reference("user", "u2"), reference("user", "u3")],
            "metadata": {"house": "Red"},
            "shoe": "44",
        }
    ]
    assert school.rows("orgs") == []
    assert school.shared_secret == "other"


def test_a_csv_line_with_too_many_cells_is_refused(tmp_path: Path) -> None:
    write_csv(tmp_path, "orgs", "sourcedId,name\no1,Oakfield,more\n")
    with pytest.raises(ValueError, match=r"orgs\.csv, line 2"):
        csv_school(tmp_path, ESTAB)
