"""Schools from a file of the user's: what it may look like, and where their secrets are found."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dlt
import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from support.program import PATIENCE
from support.settings import refused
from support.traces import everything
from support.truth import Truth, differences

from oneroster_source import Report, Warehouse
from oneroster_source.config.schools_file import COLUMNS, read
from oneroster_source.config.settings import resolve
from oneroster_source.extract.check import Finding, check
from oneroster_source.simulator import School, Simulator, secondary_school

Rows = list[dict[str, Any]]
FAILED = 1
SOME = ["orgs", "users"]


def write_csv(path: Path, rows: Rows, table: str = "") -> str:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def write_parquet(path: Path, rows: Rows, table: str = "") -> str:
    parquet.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


def write_json(path: Path, rows: Rows, table: str = "") -> str:
    path.write_text(json.dumps(rows), "utf-8")
    return str(path)


def write_lines(path: Path, rows: Rows, table: str = "") -> str:
    path.write_text("\n".join(map(json.dumps, rows)) + "\n", "utf-8")
    return str(path)


def write_table(path: Path, rows: Rows, table: str = "schools") -> str:
    with duckdb.connect(str(path)) as database:
        database.register("given", pa.Table.from_pylist(rows))
        database.execute(f"CREATE TABLE {table} AS SELECT *, now() AS entered FROM given")
    return f"{path}#{table}"


WRITERS = {
    "schools.csv": write_csv,
    "schools.parquet": write_parquet,
    "schools.json": write_json,
    "schools.jsonl": write_lines,
    "schools.duckdb": write_table,
    # no patterns, though they look like some, and no table
    "s[1].PARQUET": write_parquet,
    "a#b.csv": write_csv,
}


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets environment variables."""

    def write(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return write


@pytest.fixture
def three(serve: Callable[..., Simulator]) -> tuple[Simulator, list[School]]:
    """A server of three schools, each with a secret of its own."""
    schools = [
        secondary_school(n, f"00{n}", pupils=15, shared_secret=f"canary-{n}") for n in (1, 2, 3)
    ]
    return serve(*schools), schools


def given_schools(path: str, **more: Any) -> tuple[tuple[str, str, str], ...]:
    found = resolve(schools_from=path, **{"rp": "rp"} | more).schools
    return tuple((s.estab, s.rp, s.shared_secret) for s in found)


# a run


@pytest.mark.slow
@pytest.mark.parametrize("name", ["schools.csv", "schools.parquet"])
def test_schools_of_a_file_are_loaded_as_their_server_has_them(
    three, tmp_path, warehouse, secrets, name
) -> None:
    server, schools = three
    secrets(
        ONEROSTER__SECRETS__001="canary-1", SECOND="canary-2", ONEROSTER__SECRETS__003="canary-3"
    )
    rows = [
        {"estab": s.estab, "name": f"Nr. {s.estab}, “Élan”", "rp": s.rp, "shared_secret_from": of}
        for s, of in zip(schools, ("", "SECOND", ""), strict=True)
    ]
    place = WRITERS[name](tmp_path / name, rows)
    report = Report()
    warehouse.load(report, base_url=server.base_url, schools_from=place, privacy="full")
    assert report.good and {outcome.estab for outcome in report.outcomes} == {"001", "002", "003"}
    assert differences(warehouse.name, Truth(server.base_url, schools)) == {}


def test_a_table_may_be_in_the_file_that_is_loaded_into_and_is_read_at_each_run(
    three, secrets, tmp_path
) -> None:
    server, schools = three
    secrets(**{f"ONEROSTER__SECRETS__{s.estab}": s.shared_secret for s in schools})
    warehouse = Warehouse(str(tmp_path / "roster.duckdb"))
    place = write_table(tmp_path / "roster.duckdb", [{"estab": "001"}], "main.schools")
    for loaded in (schools[:1], schools[:2]):
        report = Report()
        warehouse.load(
            report,
            base_url=server.base_url,
            rp="partner-rp",
            schools_from=place,
            endpoints=SOME,
            privacy="full",
        )
        assert report.good and len(report.outcomes) == 2 * len(loaded)
        assert differences(warehouse.name, Truth(server.base_url, loaded, endpoints=SOME)) == {}
        with duckdb.connect(warehouse.name) as database:
            database.execute("INSERT INTO schools VALUES ('002', now())")


@pytest.mark.slow
def test_a_school_without_a_secret_fails_and_stops_no_other(three, tmp_path, warehouse) -> None:
    server, schools = three
    write_csv(tmp_path / "schools.csv", [{"estab": s.estab} for s in schools])
    env = {
        "SOURCES__ONEROSTER__BASE_URL": server.base_url,
        "SOURCES__ONEROSTER__RP": schools[0].rp,
        "SOURCES__ONEROSTER__ENDPOINTS": json.dumps(SOME),
        "SOURCES__ONEROSTER__SCHOOLS_FROM": "schools.csv",
        "SOURCES__ONEROSTER__SECRET_FROM": "XPORTER_{estab}",
        "SOURCES__ONEROSTER__PRIVACY": "full",
    }
    env |= {"XPORTER_001": "canary-1", "XPORTER_003": "canary-3"}

    def run(*words: str, **more: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "oneroster_source", *words],
            cwd=tmp_path,
            env={**os.environ, **env, **more},
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )

    done = run("sync", "--report", "report.json")
    assert done.returncode == FAILED
    failed = b"Failed: orgs, users: school 002: there is no secret 'XPORTER_002'\n"
    assert failed in done.stdout
    assert b"What to do: set the environment variable XPORTER_002, or XPORTER_002 in" in done.stdout
    warned, *_ = [line for line in done.stderr.splitlines() if b" WARNING " in line]
    assert b": 1 of the 3 schools in schools.csv cannot be loaded and will" in warned
    report = json.loads((tmp_path / "report.json").read_text())
    assert {c["estab"] for c in report["collections"] if c["state"] == "failed"} == {"002"}
    assert not any(r.path == "auth/token" and r.estab == "002" for r in server.requests)
    others = [schools[0], schools[2]]
    assert differences(warehouse.name, Truth(server.base_url, others, endpoints=SOME)) == {}
    left = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"canary" not in done.stdout + done.stderr + left

    # a secret that is there from then on, and one that the provider has changed
    schools[0].shared_secret = "canary-new"
    done = run("sync", XPORTER_001="canary-new", XPORTER_002="canary-2")
    assert done.returncode == 0 and b" WARNING " not in done.stderr
    assert differences(warehouse.name, Truth(server.base_url, schools, endpoints=SOME)) == {}


def test_check_tells_of_a_school_without_a_secret_and_asks_the_others(
    three, tmp_path, secrets
) -> None:
    server, _ = three
    secrets(ONEROSTER__SECRETS__002="canary-2")
    place = write_csv(tmp_path / "schools.csv", [{"estab": "001"}, {"estab": "002"}])
    found = list(
        check(
            resolve(
                base_url=server.base_url, rp="partner-rp", schools_from=place, endpoints=["users"]
            )
        )
    )
    said = "there is no secret 'oneroster.secrets.001'"
    assert [f for f in found if f.estab == "001"] == [Finding("001", "login", False, said)]
    assert [f.subject for f in found if f.estab == "002" and f.good][-1] == "users"


def test_a_run_without_a_report_raises_what_is_wrong_with_a_school(
    three, tmp_path, secrets, pipeline
) -> None:
    from oneroster_source import oneroster

    server, _ = three
    secrets(ONEROSTER__SECRETS__002="canary-2")
    place = write_csv(tmp_path / "schools.csv", [{"estab": "001"}, {"estab": "002"}])
    source = oneroster(base_url=server.base_url, rp="partner-rp", schools_from=place)
    with pytest.raises(
        Exception, match=r"school 001: there is no secret 'oneroster\.secrets\.001'"
    ):
        pipeline.run(source)


# what a file may look like


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_says_the_same(tmp_path, secrets, name) -> None:
    rows = [
        {"estab": "0123", "rp": "", "phase": "primary", "shared_secret_from": "ONE"},
        {"estab": "456", "rp": "own", "phase": "", "shared_secret_from": "two.three"},
    ]
    secrets(ONE="canary-1", TWO__THREE="canary-2")
    write_parquet(tmp_path / "s1.PARQUET", [{"estab": "of another file"}])
    place = WRITERS[name](tmp_path / name, rows)
    assert given_schools(place) == (("0123", "rp", "canary-1"), ("456", "own", "canary-2"))


def test_a_folder_that_names_a_column_adds_none(tmp_path) -> None:
    (tmp_path / "rp=hive").mkdir()
    place = write_parquet(tmp_path / "rp=hive" / "schools.parquet", [{"estab": "1"}])
    assert [row.cells for row in read(place)] == [{"estab": "1"}]


@pytest.mark.parametrize(("estab", "said"), [(123, "123"), (123.0, None), (True, None)])
def test_an_estab_may_be_a_whole_number(tmp_path, secrets, estab, said) -> None:
    secrets(ONEROSTER__SECRETS__123="canary")
    place = write_parquet(tmp_path / "schools.parquet", [{"estab": estab}])
    if said:
        assert given_schools(place) == ((said, "rp", "canary"),)
    else:
        assert "the estab in row 1 of" in str(refused(schools_from=place, rp="rp"))


# a lone CR Python itself writes without quotes, so that it looks like the end of a row
cells = st.text(st.characters(codec="utf-8", exclude_characters="\x00\r"), max_size=8)
spelled = st.sampled_from([str, str.upper, str.title, " {} ".format, "{}\t".format])
spaces = st.sampled_from(["", "", " ", "  "])


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_csv_file_is_read_however_a_program_writes_it(tmp_path_factory, data) -> None:
    digits = st.text("0123456789", min_size=1, max_size=7)
    estabs = data.draw(st.lists(digits, min_size=1))
    extra = data.draw(st.lists(st.sampled_from(COLUMNS[1:]), unique=True, max_size=3))
    names = data.draw(st.permutations(["estab", "name", *extra]))
    rows = [
        {"estab": estab, "name": data.draw(cells)} | {key: f"{key}-{estab}" for key in extra}
        for estab in estabs
    ]
    delimiter = data.draw(st.sampled_from(",;\t|"))
    text = io.StringIO()
    writer = csv.writer(
        text,
        delimiter=delimiter,
        quoting=data.draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
        lineterminator=data.draw(st.sampled_from(["\n", "\r\n"])),
    )
    spell = data.draw(spelled)
    writer.writerow([spell(name) for name in names])
    expected = []
    for row in rows:
        for _ in range(data.draw(st.integers(0, 1))):
            writer.writerow([""] * len(names))
        pad = data.draw(spaces)
        writer.writerow([row[name] if name == "name" else row[name] + pad for name in names])
        expected.append({key: row[key] for key in row if key != "name"})
    path = tmp_path_factory.getbasetemp() / "drawn.csv"
    mark = data.draw(st.sampled_from(["", "\ufeff"]))
    path.write_bytes((mark + text.getvalue()).encode())
    assert [row.cells for row in read(str(path))] == expected


def test_a_row_is_called_as_a_spreadsheet_calls_it(tmp_path) -> None:
    path = tmp_path / "schools.csv"
    path.write_bytes(b'Estab;"name"\r\n1;"A\r\nB"\r\n\r\n;\r\n2;C\r\n')
    assert [(row.number, row.cells) for row in read(str(path))] == [
        (2, {"estab": "1"}),
        (5, {"estab": "2"}),
    ]


@pytest.mark.parametrize("name", ["base url", "Base_URL", "BaseUrl", " base-url "])
def test_a_column_is_known_however_it_is_spelled(tmp_path, secrets, name) -> None:
    # to pass it over would send the school's secret to another server
    secrets(ONEROSTER__SECRETS__1="canary")
    place = write_csv(tmp_path / "s.csv", [{"estab": "1", name: "https://own.example/x"}])
    assert resolve(schools_from=place, rp="rp").schools[0].base_url == "https://own.example/x"


def test_two_thousand_schools_of_which_some_have_no_secret(tmp_path, secrets, caplog) -> None:
    estabs = [f"{n:07}" for n in range(2000)]
    secrets(**{f"XPORTER_SECRET_{estab}": f"canary-{estab}" for estab in estabs[:1990]})
    place = write_csv(tmp_path / "schools.csv", [{"estab": estab} for estab in estabs])
    how = {"schools_from": place, "rp": "rp", "secret_from": "XPORTER_SECRET_{estab}"}
    with caplog.at_level(logging.WARNING):
        schools = resolve(**how).schools
    assert [s.estab for s in schools] == estabs
    assert [s.shared_secret for s in schools if not s.problem] == [
        f"canary-{estab}" for estab in estabs[:1990]
    ]
    assert "10 of the 2,000 schools in" in caplog.text
    assert "school 0001990: there is no secret 'XPORTER_SECRET_0001990';" in caplog.text
    assert "; and 7 more" in caplog.text and "canary" not in caplog.text
    assert [s.estab for s in resolve(**how).only(["0000007"]).schools] == ["0000007"]


def test_the_example_of_the_guide_works(tmp_path, secrets) -> None:
    guide = (Path(__file__).parents[3] / "docs/guides/many-schools.md").read_text("utf-8")
    (listed,) = re.findall(r"```\n(estab,.*?)```", guide, re.S)
    (held,) = re.findall(r"```toml\n(.*?)```", guide, re.S)
    place = tmp_path / "schools.csv"
    place.write_text(listed, "utf-8")
    secrets(THE_SECRET_OF_ANY_COLLEGE="canary", XPORTER_SECRET_3281110="of a variable")
    found = given_schools(str(place), secret_from="XPORTER_SECRET_{estab}")
    assert found == (("3281110", "rp", "of a variable"), ("0123456", "rp", "canary"))
    with dlt.secrets.values(tomllib.loads(held)):
        assert given_schools(str(place))[0] == ("3281110", "rp", "…")


# where secrets are found


def test_a_secret_is_a_variable_of_just_that_name_or_a_key_of_dlts_secrets(
    tmp_path, secrets
) -> None:
    rows = [
        {"estab": "1", "shared_secret_from": "aMixedName"},
        {"estab": "2", "shared_secret_from": "vault.of-school/2"},
        {"estab": "3", "shared_secret_from": ""},
        {"estab": "4", "shared_secret_from": "plain"},
        {"estab": "5", "shared_secret_from": "number"},
    ]
    place = write_csv(tmp_path / "schools.csv", rows)
    secrets(aMixedName="00123", PLAIN="upper", EMPTY="")
    held = {
        "vault.of-school/2": "of a file\n",
        "oneroster.secrets.3": '{"a": 1}',
        "plain": "the environment is first",
        "number": 77,
    }
    with dlt.secrets.values(held):
        found = [secret for _, _, secret in given_schools(place)]
    assert found == ["00123", "of a file", '{"a": 1}', "upper", "77"]


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ("", "there is no secret 'of.it'"),
        (" \n", "there is no secret 'of.it'"),
        ({"of": "others"}, "the secret 'of.it' is not text"),
        (True, "the secret 'of.it' is not text"),
        ("canary\n!", "the secret 'of.it' contains a line break or another control character"),
    ],
)
def test_what_is_no_secret_is_the_problem_of_its_school(tmp_path, secrets, held, said) -> None:
    secrets(ONEROSTER__SECRETS__1="canary")
    rows = [
        {"estab": "1", "shared_secret_from": ""},
        {"estab": "2", "shared_secret_from": "of.it"},
    ]
    place = write_csv(tmp_path / "schools.csv", rows)
    with dlt.secrets.values({"of.it": held}):
        good, wrong = resolve(schools_from=place, rp="rp").schools
    assert good.problem is None and wrong.problem is not None
    assert said in str(wrong.problem) and "canary" not in everything(wrong.problem)
    assert wrong.shared_secret == ""


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"base_url": "http://own.example"}, "'base_url' is plain http"),
        ({"rp": "a:b"}, "'rp' contains ':' or '|' in row 3 of"),
        ({"rp": "a\nb"}, "'rp' contains a line break"),
        ({"estab": "2:3"}, "'estab' contains ':' in row 3 of"),
        ({"shared_secret_from": "canary canary"}, "the name of its secret is not a valid name"),
        ({"estab": "2 3"}, "the name of its secret is not a valid name"),
    ],
)
def test_what_is_wrong_in_a_row_is_the_problem_of_its_school(tmp_path, secrets, row, said) -> None:
    secrets(ONEROSTER__SECRETS__1="canary", ONEROSTER__SECRETS__2="canary", FOUND="canary")
    secrets(**{"ONEROSTER__SECRETS__2:3": "canary"})
    rows = [{"estab": "1", **dict.fromkeys(row, "")} | {"estab": "1"}, {"estab": "2"} | row]
    place = write_csv(tmp_path / "schools.csv", rows)
    good, wrong = resolve(schools_from=place, rp="rp").schools
    assert good.problem is None and wrong.problem is not None
    assert said in str(wrong.problem) and f"school {wrong.estab}" in str(wrong.problem)
    assert "canary" not in everything(wrong.problem)


def test_the_secret_of_one_school_is_never_taken_for_one_of_a_file(tmp_path, secrets) -> None:
    place = write_csv(tmp_path / "schools.csv", [{"estab": "1"}])
    error = refused(schools_from=place, rp="rp", shared_secret="of-one-school")
    assert "no school in" in str(error) and "there is no secret 'oneroster.secrets.1'" in str(error)


def test_a_client_secret_may_be_one_for_all_or_one_for_each(tmp_path, secrets) -> None:
    rows = [
        {"estab": "1", "client_id": "", "client_secret_from": ""},
        {"estab": "2", "client_id": "own", "client_secret_from": "OWN"},
    ]
    place = write_csv(tmp_path / "schools.csv", rows)
    secrets(OWN="canary-own", ONEROSTER__SECRETS__1="canary-1")
    how = {"login": "oauth2", "schools_from": place, "token_url": "https://x.example/token"}
    for setting, secret in ((None, "canary-1"), ("canary-all", "canary-all")):
        found = resolve(**how, client_id="shared", client_secret=setting).schools
        assert [(s.client_id, s.client_secret) for s in found] == [
            ("shared", secret),
            ("own", "canary-own"),
        ]


# what is wrong


@pytest.mark.parametrize(
    "name",
    [
        "shared_secret",
        "Shared Secret",
        "sharedSecret",
        "client-secret",
        "PASSWORD",
        "token",
        "client_secret_ref",
        "xporter secret",
        "API key",
    ],
)
@pytest.mark.parametrize("kind", ["schools.csv", "schools.parquet", "schools.json"])
def test_a_column_for_secrets_is_refused(tmp_path, name, kind) -> None:
    place = WRITERS[kind](tmp_path / kind, [{"estab": "1", name: "canary"}])
    error = refused(schools_from=place, rp="rp")
    assert f"{place} has a column {name!r}, but secrets must not be in that file" in str(error)
    assert "shared_secret_from" in str(error) and "canary" not in everything(error)


@pytest.mark.parametrize("name", ["secretary", "key stage", "Phase", "status", "name", "shared"])
def test_other_columns_are_passed_over(tmp_path, name) -> None:
    place = write_csv(tmp_path / "schools.csv", [{"estab": "1", name: "any"}])
    assert [row.cells for row in read(place)] == [{"estab": "1"}]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("s.csv", b"", "has no column 'estab'"),
        ("s.csv", b"1,canary-secret\n2,canary\n", "has no column 'estab'"),
        ("s.csv", b"establishment,name\n1,canary\n", "has no column 'estab'"),
        ("s.csv", b"estab\n", "lists no school"),
        ("s.csv", b"estab,name\n,\n\n , \n", "lists no school"),
        ("s.csv", b"estab,name\n1,canary\n,canary\n", "row 3 of PLACE has no estab"),
        ("s.csv", b"estab\n1\n2\n 1 \n", "row 4 of PLACE names the estab '1' again"),
        ("s.csv", b"estab,Estab\n1,canary\n", "has two columns 'estab'"),
        ("s.csv", b"estab,name\n1,St canary, Leeds\n", "row 2 of PLACE has 3 cells, but its first"),
        ("s.csv", b"estab,name\n1\n", "row 2 of PLACE has 1 cells, but its first line has 2"),
        ("s.csv", b'estab,name\n1,"canary\n', "is not valid CSV: unexpected end of data"),
        ("s.csv", b'estab,name\n1,"can"ary\n', "is not valid CSV: ',' expected after"),
        ("s.csv", "estab,name\n1,canaré\n".encode("latin-1"), "is not UTF-8"),
        ("s.csv", "estab,name\n1,canary\n".encode("utf-16"), "is not UTF-8"),
        (
            "s.csv",
            b"estab,name\n1\x00,canary\n",
            "the estab in row 2 of PLACE contains a line break",
        ),
        ("s.json", b'{"estab": "canary"', "is not a list of JSON objects"),
        ("s.json", b'["canary"]', "is not a list of JSON objects"),
        ("s.jsonl", b'{"estab": "1"}\ncanary\n', "is not a list of JSON objects"),
        ("s.json", b"[]", "has no column 'estab'"),
        ("s.json", b'[{"estab": ["canary"]}]', "the estab in row 1 of PLACE is not text"),
        ("s.parquet", b"canary" * 99, "cannot be read (InvalidInputException)"),
        ("s.duckdb#t", b"canary" * 999, "not a valid DuckDB database file"),
        ("s.duckdb", b"canary", "has no known file type"),
        ("s.xlsx", b"canary", "has no known file type"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, name, content, said) -> None:
    place = str(tmp_path / name)
    (tmp_path / name.partition("#")[0]).write_bytes(content)
    error = refused(schools_from=place, rp="rp")
    assert said.replace("PLACE", place) in str(error) and str(tmp_path) in str(error)
    assert "What to do: " in str(error) and "canary" not in everything(error)


@pytest.mark.parametrize("place", ["nowhere.csv", ".", "", "https://x.example/s.csv", "s.duckdb#t"])
def test_what_is_no_file_is_said(place) -> None:
    error = refused(schools_from=place, rp="rp")
    assert f"is {place!r}, which is not a readable file" in str(error)
    assert "file.duckdb#table" in str(error)


@pytest.mark.parametrize("table", ["nothing", "main.nothing", "read_csv('x')", 'a"b', "t; DROP"])
def test_a_table_that_is_not_there_is_said(tmp_path, table) -> None:
    place = write_table(tmp_path / "s.duckdb", [{"estab": "1"}], "t").partition("#")[0]
    assert f"{place}#{table}" in str(refused(schools_from=f"{place}#{table}", rp="rp"))
    assert read(f"{place}#t")


@pytest.mark.parametrize("value", ["XPORTER", "{school}", "a {estab}", "", 7])
def test_where_secrets_are_found_must_be_a_name_for_each_school(tmp_path, value) -> None:
    place = write_csv(tmp_path / "schools.csv", [{"estab": "1"}])
    assert "'secret_from' is " in str(refused(schools_from=place, secret_from=value, rp="rp"))


@pytest.mark.parametrize("other", ["estab", "schools"])
def test_a_file_excludes_other_ways_to_say_which_schools(tmp_path, secrets, other) -> None:
    place = write_csv(tmp_path / "schools.csv", [{"estab": "1"}])
    ways = {"estab": "7", "schools": json.dumps([{"estab": "7", "shared_secret": "s"}])}
    secrets(ONEROSTER__SECRETS__1="canary")
    own = {"rp": "rp", "shared_secret": "s"}
    error = refused(schools_from=place, **own, **{other: ways[other]})
    assert f"both {other!r} and 'schools_from' are set" in str(error)


@pytest.mark.parametrize("other", ["estab", "schools"])
def test_what_is_given_comes_before_another_way_that_is_configured(
    tmp_path, secrets, monkeypatch, other
) -> None:
    place = write_csv(tmp_path / "schools.csv", [{"estab": "1"}])
    ways = {"estab": "7", "schools": json.dumps([{"estab": "7", "shared_secret": "s"}])}
    secrets(ONEROSTER__SECRETS__1="canary", SOURCES__ONEROSTER__RP="rp")
    with monkeypatch.context() as configured:
        configured.setenv(f"SOURCES__ONEROSTER__{other.upper()}", ways[other])
        assert [s.estab for s in resolve(schools_from=place).schools] == ["1"]
    secrets(SOURCES__ONEROSTER__SCHOOLS_FROM=place)
    found = resolve(shared_secret="s", **{other: ways[other]}).schools
    assert [s.estab for s in found] == ["7"]
