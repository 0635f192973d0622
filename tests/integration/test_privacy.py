"""What is kept of people: whole tables, and marked values searched wherever a run writes."""

from __future__ import annotations

import hashlib
import hmac
import logging
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from dlt.common.versioned_state import decompress_state
from dlt.destinations.job_client_impl import SqlJobClientBase
from support import later
from support.changes import change
from support.settings import settings
from support.small_school import small_school
from support.traces import files, found, parts
from support.truth import Truth, columns, differences, opened

from oneroster_source import Report, oneroster
from oneroster_source.config.options import Options
from oneroster_source.config.privacy import privacy
from oneroster_source.errors import ConfigurationError
from oneroster_source.model import V1P1
from oneroster_source.simulator import Fault, School, Simulator, secondary_school
from oneroster_source.warehouse import Warehouse

SOME = ("users", "enrollments")
KEY = "a key that is long enough, and of these tests alone"
OTHER_KEY = "another key that is long enough, and of these tests too"
CONTACT = {"users.email", "users.sms", "users.phone", "users.password"}
OPEN = {"users.metadata", "users.extra", "enrollments.metadata", "enrollments.extra"}
NAMES = {"users.given_name", "users.middle_name", "users.family_name"}
USER_IDS = {
    "users.sourced_id",
    "users__orgs.user_sourced_id",
    "users__user_ids.user_sourced_id",
    "users__grades.user_sourced_id",
    "users__agents.user_sourced_id",
    "users__agents.sourced_id",
    "enrollments.user_sourced_id",
    "enrollments__user.sourced_id",
}
ENROLLMENT_IDS = {
    "enrollments.sourced_id",
    "enrollments__user.enrollment_sourced_id",
    "enrollments__class.enrollment_sourced_id",
    "enrollments__school.enrollment_sourced_id",
}
IDENTIFIERS = {"users.username", "users.identifier", "users__user_ids.identifier"}
HREFS = {"users__agents.href", "enrollments__user.href"}
PSEUDONYMS = USER_IDS | ENROLLMENT_IDS | IDENTIFIERS


class Killed(BaseException):
    """Stands for the end of the process."""


def pseudonym(value: Any, key: str = KEY) -> Any:
    if value is None:
        return None
    return hmac.new(key.encode(), value.encode(), hashlib.sha256).hexdigest()


def as_kept(truth: Truth, left_out: set[str], hashed: set[str] = frozenset()) -> Truth:  # type: ignore[assignment]
    """The truth, of which some columns are left out, and some are pseudonyms."""
    for table, rows in truth.tables.items():
        named = [f"{table}.{column}" for column in columns(table)]
        truth.tables[table] = [
            tuple(
                None if name in left_out else pseudonym(cell) if name in hashed else cell
                for name, cell in zip(named, row, strict=True)
            )
            for row in rows
        ]
    return truth


def values(database: str, column: str) -> list[Any]:
    """What is in a column, NULL aside."""
    table, _, name = column.partition(".")
    with opened(database) as ask:
        return [v for (v,) in ask(f"SELECT {name} FROM oneroster.{table}") if v is not None]


@pytest.fixture(params=["duckdb", "postgres"])
def warehouse(request: pytest.FixtureRequest, tmp_path: Path) -> Warehouse:
    """Where all of this holds."""
    if request.param == "postgres":
        return Warehouse(request.getfixturevalue("postgres"))
    return Warehouse(str(tmp_path / "roster.duckdb"))


@pytest.fixture
def load(warehouse: Warehouse) -> Callable[..., Report]:
    def run(server: Simulator, *schools: School, **options: Any) -> Report:
        report = Report()
        warehouse.load(report, **{**settings(server, *schools), **options})
        assert report.good, (report.failed, report.problems)
        return report

    return run


def rich(school: School) -> School:
    """With something in every attribute of a person."""
    first, second, *_ = [u for u in school.rows("users") if u["role"] == "student"]
    school.change(
        "users",
        first["sourcedId"],
        middleName="Quill",
        sms="07700900001",
        phone="07700900002",
        password="letmein",
        identifier="ID-77",
        userIds=[{"type": "UPN", "identifier": "H801200001001"}],
        agents=[{"sourcedId": second["sourcedId"], "type": "user"}],
        metadata={"note": "private"},
        favourite="green",
    )
    enrollment = school.rows("enrollments")[0]["sourcedId"]
    school.change("enrollments", enrollment, metadata={"note": "x"}, seat=3)
    return school


@pytest.mark.parametrize(
    ("count", "chosen", "left_out", "hashed"),
    [
        (2, {"privacy": None}, CONTACT | OPEN, set()),
        (
            20,
            {"privacy": "pseudonymous", "privacy_key": KEY},
            CONTACT | NAMES | HREFS,
            PSEUDONYMS,
        ),
    ],
    ids=["the default", "pseudonymous, of twenty schools"],
)
@pytest.mark.sample(2)
def test_each_profile_keeps_what_it_says(
    serve, load, warehouse, count, chosen, left_out, hashed
) -> None:
    schools = [rich(secondary_school(n, f"{n:03}", pupils=4)) for n in range(count)]
    server = serve(*schools)
    place = str(warehouse.place)
    for night in range(2):
        if night:
            change(schools[0])
        load(server, *schools, **chosen, endpoints=SOME)
        truth = Truth(server.base_url, schools, endpoints=SOME)
        assert differences(place, as_kept(truth, left_out, hashed)) == {}
        assert [column for column in sorted(OPEN) if values(place, column)] == []
    if hashed:
        with opened(place) as ask:
            ((rows, joined),) = ask(
                "SELECT count(*), count(u.sourced_id) FROM oneroster.enrollments e"
                " LEFT JOIN oneroster.users u"
                " ON u.estab = e.estab AND u.sourced_id = e.user_sourced_id"
            )
        assert rows == joined > 0


@pytest.mark.parametrize("warehouse", ["duckdb", later("postgres")], indirect=True)
def test_columns_are_included_or_left_out_table_by_table(serve, load, warehouse) -> None:
    school = rich(secondary_school(3, "3281110", pupils=6))
    server = serve(school)
    chosen = {
        "users": {"exclude": ["family_name"]},
        "users__user_ids": {"include": ["type"]},
        "enrollments": {"exclude": ["class_sourced_id", "begin_date"]},
        "orgs": {"include": ["sourced_id", "name"]},
    }
    load(server, school, privacy="no-contact", columns=chosen)
    left_out = CONTACT | OPEN | {"users.family_name", "users__user_ids.identifier"}
    left_out |= {"enrollments.class_sourced_id", "enrollments.begin_date"}
    left_out |= {"orgs.type", "orgs.identifier", "orgs.parent_sourced_id"}
    truth = as_kept(Truth(server.base_url, [school]), left_out)
    # what a column says, the table of the reference says too
    truth.tables["enrollments__class"] = truth.tables["orgs__parent"] = []
    assert differences(str(warehouse.place), truth) == {}


@pytest.mark.parametrize("warehouse", ["duckdb", later("postgres")], indirect=True)
def test_chosen_columns_are_pseudonyms_of_their_own(serve, load, warehouse) -> None:
    school = rich(secondary_school(3, "3281110", pupils=6))
    server = serve(school)
    load(server, school, pseudonymize=["users.username", "classes.sourced_id"], privacy_key=KEY)
    hashed = {"users.username", "classes.sourced_id", "enrollments.class_sourced_id"}
    hashed |= {"enrollments__class.sourced_id"}
    hashed |= {f"{t.name}.class_sourced_id" for t in V1P1["classes"].child_tables()}
    truth = as_kept(Truth(server.base_url, [school]), {"enrollments__class.href"}, hashed)
    assert differences(str(warehouse.place), truth) == {}


@pytest.mark.slow
@pytest.mark.parametrize("warehouse", ["duckdb", later("postgres")], indirect=True)
def test_rows_with_other_pseudonyms_are_refused_until_they_are_forgotten(
    serve, load, warehouse
) -> None:
    schools = [secondary_school(3, estab, pupils=6) for estab in ("1", "2")]
    server = serve(*schools)
    place = str(warehouse.place)
    load(server, *schools, privacy="no-contact", endpoints=["users"], only=["1"])
    names = values(place, "users.given_name")
    chosen = {"privacy": "pseudonymous", "privacy_key": KEY, "endpoints": ["users"]}
    asked = len(server.requests)
    with pytest.raises(ConfigurationError, match="school 1, users: was loaded with other pseud"):
        load(server, *schools, **chosen)
    # neither read nor taken away is anything before
    assert len(server.requests) == asked
    assert values(place, "users.given_name") == names
    warehouse.forget(["1"])
    load(server, *schools, **chosen, only=["1"])
    before = values(place, "users.sourced_id")
    asked = len(server.requests)
    for other in (
        {"privacy_key": OTHER_KEY},
        {"privacy_key": OTHER_KEY, "endpoints": ["enrollments"]},
        {"privacy_key": OTHER_KEY, "only": ["2"]},
        {"privacy": "full"},
        {"pseudonymize": ["users.role"]},
    ):
        with pytest.raises(ConfigurationError, match="other pseudonyms") as refused:
            load(server, *schools, **{**chosen, **other})
        assert "remove-school --school 1" in refused.value.todo
    assert len(server.requests) == asked
    assert values(place, "users.sourced_id") == before
    warehouse.forget(["1"])
    load(server, *schools, **{**chosen, "privacy_key": OTHER_KEY, "only": ["2"]})
    after = set(values(place, "users.sourced_id"))
    assert after == {pseudonym(u["sourcedId"], OTHER_KEY) for u in schools[1].rows("users")}
    assert after.isdisjoint(before)


@pytest.mark.slow
@pytest.mark.parametrize("warehouse", ["duckdb", later("postgres")], indirect=True)
def test_what_is_left_out_later_goes_also_from_rows_that_are_not_read_again(
    serve, load, warehouse, tmp_path
) -> None:
    school = rich(secondary_school(3, "3281110", pupils=4))
    server = serve(school)
    load(server, school, endpoints=SOME)
    gone = [u for u in school.rows("users") if u["role"] == "student"][-1]
    school.purge("users", gone["sourcedId"])
    load(server, school, full=True, endpoints=["users"])
    place = str(warehouse.place)
    assert gone["email"] in values(place, "users.email")
    assert values(place, "users.extra") and values(place, "enrollments.metadata")
    report = load(server, school, privacy="no-contact", endpoints=SOME)
    assert {o.endpoint: o.mode for o in report.outcomes}["users"] == "full"
    for column in sorted(CONTACT | OPEN):
        assert values(place, column) == []
    assert found(files(tmp_path), [gone["email"].encode(), b"letmein", b"07700900001"]) == []
    assert gone["givenName"] in values(place, "users.given_name")


@pytest.mark.slow
@pytest.mark.parametrize("warehouse", ["duckdb", later("postgres")], indirect=True)
def test_what_a_run_that_dies_has_brought_goes_too(
    serve, load, warehouse, tmp_path, monkeypatch
) -> None:
    school = rich(secondary_school(3, "3281110", pupils=6))
    server = serve(school)
    chosen = {"endpoints": ["users"], "history": True}
    load(server, school, **chosen, privacy="no-contact")
    # when all is merged; the load before that notes that it may be
    complete, left = SqlJobClientBase.complete_load, [1]

    def dies(*args: Any) -> None:
        if not left:
            raise Killed
        left.pop()
        complete(*args)

    with monkeypatch.context() as patched:
        patched.setattr(SqlJobClientBase, "complete_load", dies)
        with pytest.raises(Killed):
            load(server, school, **chosen, privacy="full")
    place = str(warehouse.place)
    assert values(place, "users.email")
    load(server, school, **chosen, privacy="no-contact")
    assert values(place, "users.email") == values(place, "users_history.email") == []
    assert found(files(tmp_path), [b"letmein", b"07700900001"]) == []


@pytest.mark.slow
def test_columns_that_are_wanted_again_come_back_whoever_took_them_away(serve, tmp_path) -> None:
    schools = [rich(secondary_school(n, str(n), pupils=2)) for n in (1, 2)]
    server = serve(*schools)
    warehouse = Warehouse(str(tmp_path / "roster.duckdb"))

    def load(**options: Any) -> dict[tuple[str, str], str]:
        report = Report()
        warehouse.load(report, **{**settings(server, *schools), **options})
        assert not report.problems
        return {(o.estab, o.endpoint): o.mode for o in report.outcomes}

    load(endpoints=SOME)
    # of one school, one table, and one that cannot be read
    load(endpoints=["enrollments"], only=["1"], privacy="no-contact")
    schools[1].forbidden = {"users"}
    load(endpoints=["users"], only=["2"], privacy="no-contact")
    for column in sorted(CONTACT | OPEN):
        assert values(warehouse.name, column) == []
    schools[1].forbidden = set()
    assert set(load(endpoints=SOME).values()) == {"full"}
    truth = Truth(server.base_url, schools, endpoints=SOME)
    assert differences(warehouse.name, truth) == {}
    assert set(load(endpoints=SOME).values()) == {"delta"}


@pytest.mark.slow
def test_an_attribute_in_an_odd_form_goes_with_its_column(serve, tmp_path) -> None:
    school = small_school()
    deep = "[" * 900 + "]" * 900
    of = {"p1": "gone", "p2": "there"}
    rows = ", ".join(
        f'{{"sourcedId": "{user}", "status": "active", "givenName": "{what}", "email": "{MARK}",'
        f' "EMAIL": "{MARK}", "sms": ["{MARK}", {{"a": "}}"}}],'
        f' "big": 1e400, "long": 0.5, "deep": {deep}}}'
        for user, what in of.items()
    )
    body = f'{{"users": [{rows}]}}'.encode()
    school.faults.append(Fault("users", status=200, body=body, times=99))
    server, place = serve(school), str(tmp_path / "roster.duckdb")

    def load(**options: Any) -> dict[str, str | None]:
        report = Report()
        chosen = {**settings(server, school), "endpoints": ["users"], "allow_deletes": True}
        Warehouse(place).load(report, **{**chosen, **options})
        assert not report.problems and not report.failed
        with opened(place) as ask:
            return dict(ask("SELECT sourced_id, extra FROM oneroster.users"))

    assert MARK in str(load())
    body = body.replace(b"p1", b"p3")
    school.faults[:] = [Fault("users", status=200, body=body, times=99)]
    load(full=True)
    rest = f'{{"big":1e400,"long":0.5,"deep":{deep}}}'
    kept = load(columns={"users": {"exclude": ["email", "sms"]}})
    # of what is gone nobody can say any more what else it had
    assert kept == {"p1": None, "p2": rest, "p3": rest}
    assert found(files(tmp_path), [MARK.encode()]) == []


WRONG = {
    "no profile": ({"privacy": "none"}, "the setting 'privacy' is 'none'"),
    "no table": ({"columns": {"pupils": {"exclude": []}}}, "names 'pupils', which is not a table"),
    "no way": ({"columns": {"users": ["email"]}}, "needs either include or exclude"),
    "both ways": ({"columns": {"users": {"include": [], "exclude": []}}}, "needs either include"),
    "no column": (
        {"columns": {"users": {"exclude": ["mail"]}}},
        "users.mail, which is not a column",
    ),
    "a key column": ({"columns": {"users": {"exclude": ["sourced_id"]}}}, "identifies rows"),
    "no list": ({"columns": {"users": {"exclude": "email"}}}, "needs a list of columns"),
    "a wrong pseudonym": ({"pseudonymize": ["users.mail"]}, "which is not a table.column"),
    "a date": ({"pseudonymize": ["enrollments.begin_date"]}, "which cannot be a pseudonym"),
    "a reference": ({"pseudonymize": ["enrollments.user_sourced_id"]}, "follows users.sourced_id"),
    "a parent": ({"pseudonymize": ["users__grades.user_sourced_id"]}, "follows users.sourced_id"),
    "no key": ({"privacy": "pseudonymous"}, "'privacy_key' is missing"),
    "a short key": ({"privacy_key": "canary"}, "is shorter than 32"),
    "a key that is easy": ({"privacy_key": "canary" * 9}, "fewer than 8 different characters"),
    "a key of bytes": ({"privacy_key": b"canary" * 9}, "is not text"),
    "a list of profiles": ({"privacy": ["full"]}, "the setting 'privacy' is ['full']"),
    "a list of lists": (
        {"columns": {"users": {"exclude": [["email"]]}}},
        "needs a list of columns",
    ),
    "a list of tables": ({"columns": []}, "the setting 'columns' is []"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_choice_is_an_error_that_names_it(case: str) -> None:
    given, message = WRONG[case]
    with pytest.raises(ConfigurationError) as refused:
        privacy(Options(**given), V1P1)
    assert message in str(refused.value)
    assert "canary" not in str(refused.value)


def test_what_stands_outside_the_settings_section_chooses_nothing(
    serve, tmp_path, monkeypatch
) -> None:
    school = small_school()
    # the first is how wide a terminal is
    for name, value in {"COLUMNS": "80", "PRIVACY": "full", "SOURCES__HISTORY": "true"}.items():
        monkeypatch.setenv(name, value)
    chosen = '{"users": {"exclude": ["given_name"]}}'
    monkeypatch.setenv("SOURCES__ONEROSTER__COLUMNS", chosen)
    place = str(tmp_path / "roster.duckdb")
    reach = settings(serve(school), school)
    del reach["privacy"]
    Warehouse(place).load(Report(), **reach, endpoints=["users"])
    assert values(place, "users.given_name") == [] != values(place, "users.family_name")
    assert values(place, "users.email") == []
    with opened(place) as ask:
        assert ask("SELECT 1 FROM duckdb_tables() WHERE table_name LIKE '%history'") == []


# marked values, wherever they may come


MARK = "zq7canary"
ANOTHER = "zq8canary"


def marked() -> tuple[School, list[bytes]]:
    """A school with a pupil whose every value is marked, in the standard's form and in odd ones,
    and the marks."""
    school = secondary_school(5, "3281110", pupils=12)
    of = {name: f"{MARK}{name}" for name in ("email", "sms", "phone", "password", "note", "given")}
    of |= {name: f"{MARK}{name}" for name in ("family", "user", "upn", "id", "agent", "odd")}
    school.add(
        "users",
        {
            "sourcedId": of["id"],
            "status": "active",
            "username": of["user"],
            "givenName": of["given"],
            "familyName": of["family"],
            "role": "student",
            "email": of["email"],
            "sms": of["sms"],
            "phone": of["phone"],
            "password": of["password"],
            "enabledUser": of["odd"],
            "userIds": [{"type": "UPN", "identifier": of["upn"], "secret": of["odd"]}],
            "agents": [{"sourcedId": of["agent"], "type": "user", "name": of["odd"]}],
            "metadata": {"home": of["note"]},
            "nickname": of["odd"],
        },
    )
    school.add("users", {"sourcedId": of["agent"], "givenName": of["given"], "email": of["email"]})
    pupil = {"sourcedId": of["id"], "type": "user", "name": of["odd"]}
    taught = school.rows("enrollments")[0]
    school.add("enrollments", {**taught, "sourcedId": f"{of['id']}-1", "user": pupil})
    return school, [mark.encode() for mark in of.values()]


def dumped(place: str) -> Iterator[tuple[str, bytes]]:
    """Every table of a database, as text."""
    with opened(place) as ask:
        for schema, table in ask(
            "SELECT table_schema, table_name FROM information_schema.tables"
            " WHERE table_schema LIKE 'oneroster%'"
        ):
            yield f"{schema}.{table}", repr(ask(f'SELECT * FROM "{schema}"."{table}"')).encode()
        states = ask("SELECT state FROM oneroster._dlt_pipeline_state")
        yield "states", repr([decompress_state(packed) for (packed,) in states]).encode()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("warehouse", "fault"),
    [
        pytest.param("duckdb", None, id="a good run"),
        pytest.param("postgres", None, id="a good run, Postgres"),
        pytest.param(
            *("duckdb", Fault("users", at=2, kind="html", times=9)),
            id="pages that end in another form",
        ),
        pytest.param(
            "duckdb",
            Fault(
                *("enrollments", 1, 99, 403),
                body=b'{"imsx_description": "not zq7canarygiven"}',
            ),
            id="a denied endpoint",
        ),
    ],
    indirect=["warehouse"],
)
def test_nothing_of_a_marked_pupil_is_anywhere_but_as_pseudonyms(
    serve, warehouse, tmp_path, caplog, fault
) -> None:
    school, marks = marked()
    server = serve(school)
    if fault:
        school.faults.append(fault)
    report = Report()
    with caplog.at_level(logging.DEBUG):
        warehouse.load(
            report,
            **{**settings(server, school), "privacy": "pseudonymous"},
            privacy_key=KEY,
            retry_budget=0,
            page_size=20,
            filters={"enrollments": f"user.sourcedId!='{ANOTHER}'"},
        )
    assert bool(report.failed) == bool(fault)
    texts = {
        "report": repr(report.as_dict()).encode() + repr(report).encode(),
        "log": caplog.text.encode(),
        **files(tmp_path),
        **dict(dumped(str(warehouse.place))),
    }
    assert found(texts, [MARK.encode(), *marks, KEY.encode()]) == []
    # the log of what is sent has it, if somebody asks for that
    del texts["log"]
    assert found(texts, [ANOTHER.encode()]) == []
    if fault is None:
        assert pseudonym(f"{MARK}id") in values(str(warehouse.place), "users.sourced_id")
        assert "rejected_rows" in repr([*texts]) and pseudonym(f"{MARK}id") in repr(texts)


@pytest.mark.slow
def test_what_is_left_out_is_in_no_kept_folder_of_dlt_nor_on_an_error(
    serve, tmp_path, pipeline, caplog
) -> None:
    """In a pipeline of a user's own, whose working folder keeps what a load has brought."""
    school, marks = marked()
    server = serve(school)
    options = {**settings(server, school), "privacy": "pseudonymous", "privacy_key": KEY}
    with caplog.at_level(logging.DEBUG):
        pipeline.run(oneroster(**options))
    school.faults.append(Fault("users", status=403, times=99))
    with pytest.raises(Exception, match="3281110") as caught:
        pipeline.run(oneroster(**options, full=True))
    texts = {
        "log": caplog.text.encode(),
        "trace": pickle.dumps(pipeline.last_trace) + repr(pipeline.last_trace.asdict()).encode(),
        "state": repr(pipeline.state).encode(),
        "source": repr(vars(oneroster(**options))).encode(),
        "error": parts(caught.value).encode(),
        **files(tmp_path),
    }
    assert found(texts, [MARK.encode(), *marks, KEY.encode()]) == []
    assert any("work" in name for name in texts)


@pytest.mark.slow
def test_the_contacts_of_a_marked_pupil_are_nowhere_by_default(serve, tmp_path) -> None:
    school, marks = marked()
    server = serve(school)
    reach = settings(server, school)
    del reach["privacy"]
    report = Report()
    Warehouse(str(tmp_path / "roster.duckdb")).load(report, **reach)
    assert report.good
    never = [f"{MARK}{name}".encode() for name in ("email", "sms", "phone", "password", "note")]
    assert set(never) <= set(marks)
    texts = {"report": repr(report.as_dict()).encode(), **files(tmp_path)}
    assert found(texts, [*never, f"{MARK}odd".encode()]) == []
    with duckdb.connect(str(tmp_path / "roster.duckdb"), read_only=True) as connection:
        query = f"SELECT count(*) FROM oneroster.users WHERE sourced_id = '{MARK}id'"
        assert connection.execute(query).fetchall() == [(1,)]
