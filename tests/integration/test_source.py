"""The source in other people's pipelines: selection, configuration, windows, failures."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from inspect import signature

import pytest
from dlt.extract import DltResource
from support import later
from support.settings import settings
from support.truth import Truth, differences, held

from oneroster_source import (
    ConfigurationError,
    LoginError,
    OneRosterError,
    Report,
    oneroster,
)
from oneroster_source.cli.render import warnings
from oneroster_source.config.settings import resolve
from oneroster_source.model import V1P1
from oneroster_source.simulator import Fault, Quirks, School, secondary_school

ENDPOINTS = ("orgs", "academic_sessions", "courses", "classes", "users", "enrollments")


def test_there_is_one_resource_for_each_endpoint_of_the_vendors_text() -> None:
    source = oneroster(rp="r", estab="1", shared_secret="s")
    assert tuple(source.resources) == ENDPOINTS
    assert source.name == "oneroster"


def test_only_the_endpoints_that_were_asked_for_are_there() -> None:
    source = oneroster(rp="r", estab="1", shared_secret="s", endpoints=["users", "orgs"])
    assert tuple(source.resources) == ("orgs", "users")


def test_the_common_settings_have_types_and_every_other_goes_by_its_name() -> None:
    one, several = {"base_url", "rp", "estab", "shared_secret"}, {"schools", "endpoints"}
    assert set(signature(oneroster).parameters) >= one | several | {
        *("page_size", "privacy", "history", "deleted"),
    }
    school = {"rp": "r", "estab": "1", "shared_secret": "s"}
    assert oneroster(**school, concurrency=2, retry_budget=1)
    # a promise that only our own pipeline can keep
    with pytest.raises(ConfigurationError, match="there is no setting 'alone'"):
        oneroster(**school, alone=True)


def test_it_runs_in_anybodys_pipeline_with_a_selection_of_resources(
    serve, school: School, pipeline, tmp_path
) -> None:
    server = serve(school)
    source = oneroster(**settings(server, school)).with_resources("users", "orgs")
    pipeline.run(source)
    assert {r.path for r in server.requests} == {"auth/token", "users", "orgs"}
    truth = Truth(server.base_url, [school])
    database = str(tmp_path / "any.duckdb")
    truth.tables = {t: r for t, r in truth.tables.items() if t.split("__")[0] in ("users", "orgs")}
    assert differences(database, truth) == {}
    assert set(pipeline.default_schema.data_table_names()) == {
        *truth.tables,
        "rejected_rows",
        "sync_run_details",
    }


def test_settings_come_by_dlts_own_injection(serve, school, pipeline, monkeypatch) -> None:
    server = serve(school)
    for key, value in {
        "BASE_URL": server.base_url,
        "RP": school.rp,
        "ESTAB": school.estab,
        "SHARED_SECRET": school.shared_secret,
        "ENDPOINTS": '["orgs"]',
    }.items():
        monkeypatch.setenv(f"SOURCES__ONEROSTER__{key}", value)
    pipeline.run(oneroster())
    assert len(pipeline.dataset().orgs.fetchall()) == len(school.rows("orgs"))


@pytest.mark.slow
def test_a_kept_working_folder_does_as_well(serve, school, pipeline, tmp_path) -> None:
    server = serve(school)
    for _ in range(2):
        pipeline.run(oneroster(**settings(server, school)))
        school.change("users", school.rows("users")[0]["sourcedId"], grades=["12"])
    pipeline.run(oneroster(**settings(server, school)))
    truth = Truth(server.base_url, [school])
    assert differences(str(tmp_path / "any.duckdb"), truth) == {}


def test_without_a_report_a_failure_raises_and_nothing_is_loaded(serve, school, pipeline) -> None:
    server = serve(school)
    school.forbidden.add("classes")
    with pytest.raises(Exception, match="school 3281110, classes at offset 0") as caught:
        pipeline.run(oneroster(**settings(server, school)))
    assert isinstance(_root(caught.value), OneRosterError)
    assert not pipeline.default_schema_name or not pipeline.dataset().tables


def test_a_refused_login_is_tried_once_for_all_endpoints(serve, school, pipeline) -> None:
    server = serve(school)
    entry = settings(server, school)
    entry["schools"][0]["shared_secret"] = "wrong"  # type: ignore[index]
    with pytest.raises(Exception, match="the login was refused with 401") as caught:
        pipeline.run(oneroster(**entry))
    assert isinstance(_root(caught.value), LoginError)
    assert [r.path for r in server.requests] == ["auth/token"]


def test_with_a_report_the_others_go_on_and_the_report_can_raise(serve, school, pipeline) -> None:
    server = serve(school)
    school.forbidden.add("classes")
    report = Report()
    pipeline.run(oneroster(report=report, **settings(server, school)))
    assert [o.endpoint for o in report.failed] == ["classes"]
    assert len(pipeline.dataset().users.fetchall()) == len(school.rows("users"))
    with pytest.raises(OneRosterError, match="1 of 6 collections failed"):
        report.raise_for_failures()


def test_a_window_reads_what_changed_within_it_and_leaves_the_cursors(
    serve, school, sync, warehouse
) -> None:
    server = serve(school)
    sync(server, school)
    before = warehouse.status().cursors
    stamps = sorted(u["dateLastModified"] for u in school.rows("users"))
    since, until = (datetime.fromisoformat(stamps[i]) for i in (5, 20))
    server.requests.clear()
    report = sync(server, school, since=since, until=until, endpoints=["users"])
    asked = [r.params["filter"] for r in server.requests if r.path == "users"]
    assert {o.mode for o in report.outcomes} == {"window"}
    assert all(
        f.count("dateLastModified") == 2 and stamps[5][:19] in f and stamps[20][:19] in f
        for f in asked
    )
    expected = [
        u
        for u in school.rows("users")
        if since < datetime.fromisoformat(u["dateLastModified"]) < until
    ]
    assert report.outcomes[0].rows == len(expected)
    assert warehouse.status().cursors == before
    assert differences(warehouse.name, Truth(server.base_url, [school])) == {}


def test_a_window_needs_time_zones_and_no_full_read() -> None:
    options = {"rp": "r", "estab": "1", "shared_secret": "s"}
    with pytest.raises(ConfigurationError, match="time zone"):
        oneroster(since=datetime(2026, 1, 1), **options)  # noqa: DTZ001
    with pytest.raises(ConfigurationError, match="exclude"):
        oneroster(since=datetime(2026, 1, 1, tzinfo=UTC), full=True, **options)


def test_the_delta_asks_from_the_cursor_less_the_lag(serve, school, sync, warehouse) -> None:
    server = serve(school)
    sync(server, school, endpoints=["users"])
    newest = max(datetime.fromisoformat(u["dateLastModified"]) for u in school.rows("users"))
    assert warehouse.status().cursors["users"]["3281110"]["cursor"] == newest.isoformat()
    server.requests.clear()
    sync(server, school, endpoints=["users"], lag=3600)
    asked = {r.params["filter"] for r in server.requests if r.path == "users"}
    since = (newest - timedelta(hours=1)).replace(microsecond=0) - timedelta(seconds=1)
    assert asked == {f"dateLastModified>'{since:%Y-%m-%dT%H:%M:%S}Z'"}
    assert all("+" not in r.query and "%20" not in r.query for r in server.requests)


def test_a_row_from_the_future_does_not_blind_the_next_deltas(
    serve, school, sync, warehouse
) -> None:
    server = serve(school)
    first, second = (u["sourcedId"] for u in school.rows("users")[:2])
    school.change("users", first, dateLastModified="2999-01-01T00:00:00.000Z")
    sync(server, school, endpoints=["users"])
    school.change("users", second, familyName="Changed")
    sync(server, school, endpoints=["users"])
    assert "Changed" in {row[7] for row in held(warehouse.name, "users")}


@pytest.mark.slow
def test_rejected_values_leave_the_table_when_the_provider_mends_them(
    serve, school, sync, warehouse
) -> None:
    server = serve(school)
    victim, other = (e["sourcedId"] for e in school.rows("enrollments")[:2])
    school.change("enrollments", victim, beginDate="soon")
    school.change("enrollments", other, beginDate="later")
    report = sync(server, school, endpoints=["enrollments"])
    assert report.outcomes[0].rejected == 2
    for _ in range(2):
        sync(server, school, endpoints=["enrollments"])
        assert sorted(held(warehouse.name, "rejected_rows")) == sorted(
            ("3281110", "enrollments", i, "beginDate: not a date") for i in (victim, other)
        )
    school.change("enrollments", victim, beginDate="2026-09-01")
    sync(server, school, endpoints=["enrollments"])
    assert [row[2] for row in held(warehouse.name, "rejected_rows")] == [other]
    school.change("enrollments", other, beginDate=None)
    sync(server, school, endpoints=["enrollments"], full=True)
    assert held(warehouse.name, "rejected_rows") == []


@pytest.mark.slow
def test_attributes_that_nobody_declared_are_kept_and_named(serve, school, sync, warehouse) -> None:
    server = serve(school)
    school.change("users", school.rows("users")[0]["sourcedId"], upn="A123", houseGroup={"id": 1})
    report = sync(server, school, endpoints=["users"])
    assert report.outcomes[0].undeclared == ["houseGroup", "upn"]
    assert "kept in the column extra: houseGroup, upn" in repr(list(warnings(report)))
    report = sync(server, school, endpoints=["users"], privacy="no-contact")
    assert "left out along with the column extra: houseGroup, upn" in repr(list(warnings(report)))


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    "fault",
    [
        Fault("users", at=2, status=500),
        later(Fault("users", at=2, status=429, headers=(("Retry-After", "0"),))),
        later(Fault("users", at=1, kind="reset")),
        Fault("users", at=2, kind="cut"),
        later(Fault("users", at=2, kind="html")),
        Fault("users", at=3, kind="bad_json"),
        later(Fault("users", at=2, kind="no_envelope")),
        Fault("users", at=2, status=401),
        later(Fault("auth/token", at=1, status=503)),
    ],
    ids=lambda fault: f"{fault.path} {fault.kind} {fault.status or ''}",
)
def test_a_fault_that_passes_leaves_no_trace(serve, school, sync, warehouse, fault) -> None:
    school.faults.append(fault)
    server = serve(school)
    report = sync(server, school, page_size=20, endpoints=["users"])
    assert report.good
    assert school.faults == []
    truth = Truth(server.base_url, [school])
    truth.tables = {t: r for t, r in truth.tables.items() if t.startswith("users")}
    assert differences(warehouse.name, truth) == {}


def test_a_collection_that_fails_halfway_is_not_loaded_in_part(
    serve, school, sync, warehouse
) -> None:
    server = serve(school)
    school.faults.append(Fault("users", at=3, times=50, status=404))
    report = sync(server, school, page_size=10, endpoints=["users"])
    assert "users at offset" in report.failed[0].error
    assert held(warehouse.name, "users") == []


def test_the_spec_names_every_table_once() -> None:
    names = [t.name for e in V1P1.endpoints for t in e.tables()]
    assert len(names) == len(set(names)) == 31


def _root(error: BaseException) -> BaseException:
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return error


@pytest.mark.slow
def test_rows_of_the_year_1_do_not_stop_later_runs(serve, school, sync, warehouse) -> None:
    server = serve(school)
    for org in school.rows("orgs"):
        school.change("orgs", org["sourcedId"], dateLastModified="0001-01-01T00:00:00Z")
    for _ in range(2):
        report = sync(server, school, endpoints=["orgs"])
        assert report.good and report.outcomes[0].mode == "full"
    assert len(held(warehouse.name, "orgs")) == len(school.rows("orgs"))


def test_a_filter_of_ones_own_that_the_server_ignores_is_told(serve, school, sync) -> None:
    school.quirks = Quirks(ignore_filter=True)
    filters = {
        "users": "role='student'",
        "enrollments": "class.sourcedId='none'",
        "orgs": "status='active'",
    }
    report = sync(serve(school), school, endpoints=list(filters), filters=filters)
    warned = {o.endpoint: o.warnings for o in report.outcomes}
    assert warned == {
        "orgs": [],
        "users": ["the server ignores the filter by role"],
        "enrollments": ["the server ignores the filter by class.sourcedId"],
    }


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    "text",
    ["dateLastModified>'2001-01-01'", "beginDate!='soon'", "primary>='false'"],
)
def test_a_filter_that_only_the_server_can_judge_does_not_stop_the_run(
    serve, school, sync, text
) -> None:
    report = sync(serve(school), school, endpoints=["enrollments"], filters={"enrollments": text})
    assert report.good
    assert report.outcomes[0].warnings == []


def test_a_server_with_nothing_beyond_the_end_but_404_is_read(
    serve, school, sync, warehouse
) -> None:
    server = serve(school)
    for org in school.rows("orgs")[1:]:
        school.purge("orgs", org["sourcedId"])
    school.faults.append(Fault("orgs", at=2, times=5, status=404))
    report = sync(server, school, endpoints=["orgs"])
    assert report.good
    assert len(held(warehouse.name, "orgs")) == 1


def test_a_school_that_is_given_takes_the_place_of_a_list_that_is_configured(monkeypatch) -> None:
    monkeypatch.setenv("SOURCES__ONEROSTER__SCHOOLS", '[{"estab": "1", "shared_secret": "s"}]')
    monkeypatch.setenv("SOURCES__ONEROSTER__RP", "r")
    assert resolve(estab="2", shared_secret="t").schools[0].estab == "2"
    monkeypatch.setenv("SOURCES__ONEROSTER__ESTAB", "3")
    given = [{"estab": "4", "shared_secret": "u"}]
    assert [s.estab for s in resolve(schools=given).schools] == ["4"]


@pytest.mark.slow
def test_dlt_is_given_no_more_tables_for_many_schools_than_for_one(serve, pipeline) -> None:
    """Each takes dlt some milliseconds, however few rows are in it."""
    schools = [secondary_school(n, str(n), pupils=5) for n in range(3)]
    server = serve(*schools)
    given = []
    for some in (schools[:1], schools):
        source = oneroster(**settings(server, *some), endpoints=["users", "classes"], full=True)
        found = [counted(resource) for resource in source.resources.values()]
        pipeline.run(source)
        given.append([len(tables) for tables in found])
    assert given[0] == given[1]


def counted(resource: DltResource) -> list[object]:
    """All that a resource gives out, as it does."""
    found: list[object] = []

    def count(rows: object) -> object:
        found.append(rows)
        return rows

    resource.add_map(count)
    return found
