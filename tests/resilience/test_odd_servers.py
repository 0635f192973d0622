"""Whole loads from servers that are odd in one way: over HTTP, into DuckDB, each row compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random

import duckdb
import pytest
from support.provider import DAY, Habits, Provider, School, add, answered, serving, spelled, update

from oneroster_source.config.settings import resolve
from oneroster_source.extract.check import check
from oneroster_source.run_report import Outcome, Report
from oneroster_source.warehouse import Warehouse

Serve = Callable[..., Provider]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serves so many users in a way."""
    with ExitStack() as stack:

        def start(rows: int, *, alike: bool = True, **habits: object) -> Provider:
            made = Habits(**habits)  # type: ignore[arg-type]
            random = Random(1)
            spell = spelled(made.collation) if alike else "{:05}".format
            # two of three numbers are used, so that most ids have one that is equal to a collation
            numbers = max(1, 3 * rows // 2)
            school = School(random, rows, (update,), spell=spell, numbers=numbers)
            return stack.enter_context(serving(Provider(school, made, random)))

        yield start


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Outcome]:
    """Loads the users; returns what became of them."""

    def run(provider: Provider, **options: object) -> Outcome:
        report = Report()
        entry = {"estab": "1", "rp": "rp", "shared_secret": "secret"}
        given = {"base_url": provider.base_url, "schools": [entry], "privacy": "full"}
        Warehouse(str(tmp_path / "roster.duckdb")).load(
            report, **{**given, "endpoints": ["users"], "retry_budget": 0, **options}
        )
        (outcome,) = report.outcomes
        return outcome

    return run


def loaded(folder: Path) -> dict[str, str]:
    with duckdb.connect(str(folder / "roster.duckdb"), read_only=True) as database:
        rows = database.execute(
            "SELECT sourced_id, username FROM oneroster.users WHERE NOT _deleted"
        )
        return dict(rows.fetchall())


@pytest.mark.sample(1)
@pytest.mark.parametrize("ties", ["request", "connection"])
@pytest.mark.parametrize("collation", ["case", "accents", "punctuation", "numbers"])
def test_ids_that_are_equal_to_a_collation_are_all_read(
    serve, load, tmp_path, collation, ties
) -> None:
    provider = serve(240, collation=collation, ties=ties)
    for _ in range(3):
        assert load(provider, page_size=50, full=True).state == "read"
        assert loaded(tmp_path) == provider.truth()


@pytest.mark.slow
@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("total", ["right", "none"])
@pytest.mark.parametrize("page_size", [50, 100, 1000])
def test_a_window_is_an_error(serve, load, total, counted, page_size) -> None:
    provider = serve(300, window=100, counts_window=counted, total=total)
    outcome = load(provider, page_size=page_size)
    assert outcome.state == "failed" and "nothing beyond the first 100" in outcome.error


@pytest.mark.sample(1)
@pytest.mark.parametrize("down", ["right", "ignored", "400"])
@pytest.mark.parametrize("total", ["right", "none"])
def test_offsets_that_are_clamped_cost_few_requests(serve, load, tmp_path, total, down) -> None:
    provider = serve(240, clamps=True, total=total, down=down)
    assert load(provider, page_size=50).state == "read"
    assert loaded(tmp_path) == provider.truth()
    assert provider.requests <= 20


@pytest.mark.sample(1)
@pytest.mark.parametrize("total", ["right", "page"])
def test_a_page_that_holds_all_wherever_it_begins_is_taken_if_its_total_is_a_count(
    serve, load, tmp_path, total
) -> None:
    # it gives the same page for any offset, and wants a limit, so that nothing else shows the end
    provider = serve(31, clamps=True, most=60, down="400", total=total)
    outcome = load(provider, page_size=50)
    if total == "right":
        assert outcome.state == "read" and loaded(tmp_path) == provider.truth()
    else:
        assert outcome.state == "failed" and "cannot be shown to be all" in outcome.error


def test_a_window_over_a_page_that_comes_wherever_it_begins_is_an_error(serve, load) -> None:
    provider = serve(100, clamps=True, most=60, window=31, counts_window=True)
    assert load(provider, page_size=50).state == "failed"


NOTHING = {
    "an empty list": ("[]", 200),
    "an object without members": ("{}", 200),
    "null": ('{"users": null}', 200),
    "no content": ("", 204),
    "an empty body": ("", 200),
    "not found": ("{}", 404),
    "bad request": ("{}", 400),
}


@pytest.mark.sample(3)
@pytest.mark.parametrize(("body", "status"), NOTHING.values(), ids=NOTHING)
@pytest.mark.parametrize("total", ["right", "none"])
@pytest.mark.parametrize("rows", [0, 1, 2, 60])
def test_the_end_is_said_in_many_ways(serve, load, tmp_path, rows, total, body, status) -> None:
    # where no first row is there, only what is no error says so
    first = status if status < 300 else 200
    provider = serve(
        rows, total=total, nothing=body, nothing_status=first, end_status=status, down="400"
    )
    outcome = load(provider, page_size=20)
    assert outcome.state == "read", outcome.error
    assert loaded(tmp_path) == provider.truth()


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    "body", ['{"data": []}', '{"users": [], "imsx_codeMajor": "failure"}', '{"error": "x"}', "3"]
)
def test_what_says_something_else_is_no_empty_collection(serve, load, body) -> None:
    assert load(serve(0, nothing=body)).state == "failed"


@pytest.mark.sample(1)
@pytest.mark.parametrize("filters", ["nothing", "upper", "day"])
def test_a_filter_that_leaves_out_what_is_known_is_not_believed(
    serve, load, tmp_path, filters
) -> None:
    provider = serve(60, filters=filters)
    options = {"filters": {"users": "role!='parent'"}} if filters == "upper" else {"lag": 0}
    assert load(provider, **options).state == "read"
    provider.school.wait(DAY / 100, 0)
    update(provider.school)
    add(provider.school)
    outcome = load(provider, **options)
    assert outcome.mode == "full" and any("leaves out rows" in w for w in outcome.warnings)
    assert loaded(tmp_path) == provider.truth()


@pytest.mark.sample(1)
@pytest.mark.parametrize("rows", [40, 130])
def test_the_first_id_may_come_again_from_a_server_that_does_not_sort(
    serve, load, tmp_path, rows
) -> None:
    provider = serve(rows, sorts="ignored", down="ignored", first_again=True)
    assert load(provider, page_size=30).state == "read"
    assert loaded(tmp_path).keys() == provider.truth().keys()


def test_more_rows_with_one_id_than_a_page_holds_are_read(serve, load, tmp_path) -> None:
    provider = serve(9, alike=False, repeats=1.0, copies=70)
    assert load(provider, page_size=50).state == "read"
    assert loaded(tmp_path).keys() == provider.truth().keys()


def test_nothing_is_asked_in_vain_where_no_total_is_stated(serve, load, tmp_path) -> None:
    provider = serve(837, total="none")
    assert load(provider, page_size=500, concurrency=4).state == "read"
    assert loaded(tmp_path) == provider.truth()
    assert provider.requests <= 4


@pytest.mark.sample(1)
@pytest.mark.parametrize("most", [50, 99, 100, 700])
def test_a_refused_limit_is_halved(serve, load, tmp_path, most) -> None:
    provider = serve(120, most=most)
    outcome = load(provider)
    assert outcome.state == "read" and loaded(tmp_path) == provider.truth()
    assert any("1,000 rows at once" in warning for warning in outcome.warnings)


def test_a_limit_of_less_than_fifty_is_not_tried(serve, load) -> None:
    outcome = load(serve(120, most=40))
    assert outcome.state == "failed" and "400" in outcome.error


@pytest.mark.sample(1)
@pytest.mark.parametrize("status", ["400", "422", "403", "404", "500", "501"])
def test_a_sort_that_is_refused_in_any_way_is_done_without(serve, load, tmp_path, status) -> None:
    provider = serve(120, sorts=status, down=status)
    outcome = load(provider, page_size=50)
    assert outcome.state == "read" and loaded(tmp_path) == provider.truth()
    assert any("refuses to sort" in warning for warning in outcome.warnings)


@pytest.mark.sample(1)
@pytest.mark.parametrize("total", ["right", "none"])
@pytest.mark.parametrize("status", ["502", "503", "504"])
def test_a_server_that_fails_to_sort_from_the_end_is_read(
    serve, load, tmp_path, status, total
) -> None:
    provider = serve(120, down=status, total=total)
    assert load(provider, page_size=50).state == "read"
    assert loaded(tmp_path) == provider.truth()


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("habits", "said"),
    [
        ({"most": 100}, ["62 rows in a page: more are refused", "sort accepted"]),
        ({"sorts": "403"}, ["sort refused", "filter accepted"]),
        ({"most": 100, "sorts": "500"}, ["62 rows in a page", "sort refused"]),
        ({"most": 40}, ["400"]),
        ({}, ["120 rows, sort accepted, filter accepted"]),
    ],
    ids=["limit", "sort", "both", "everything", "nothing"],
)
def test_check_asks_as_a_sync_does(serve, load, habits, said) -> None:
    provider = serve(120, **habits)
    settings = resolve(
        base_url=provider.base_url,
        schools=[{"estab": "1", "rp": "rp", "shared_secret": "secret"}],
        endpoints=["users"],
        retry_budget=0,
    )
    finding = list(check(settings))[-1]
    assert finding.subject == "users" and all(words in finding.detail for words in said)
    assert finding.good == (load(provider).state == "read")


def test_a_filter_of_ones_own_that_is_refused_is_no_matter_of_the_page_size(serve, load) -> None:
    provider = serve(30)
    answer = provider._page
    provider._page = lambda params: answered(400, b"{}") if "filter" in params else answer(params)
    outcome = load(provider, filters={"users": "role='student'"})
    assert outcome.state == "failed" and "400" in outcome.error
    assert outcome.warnings == [] and outcome.requests <= 4
