"""What servers and files say, on screens, in logs, reports and pages: seen, and never obeyed."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.program import TIME, Run, on_terminal
from support.settings import environment

from oneroster_source import log
from oneroster_source.config.schools import School as Configured
from oneroster_source.errors import OneRosterError, clean, label, listed, to_json, told
from oneroster_source.run_report import Outcome, Report
from oneroster_source.simulator import School, secondary_school

FORGED = "2026-01-01T00:00:00.000Z INFO    run_ended: all is well"
RED, LEFT, NOTHING, SUNK = "\x1b[31m", "\u202e", "\u200b", "\x9b2J"
HOSTILE = f"x\n{FORGED}\r\n{RED}[red]{LEFT}pay{NOTHING}load{SUNK}[/red]:smile:"
NAMES = [HOSTILE, "A" * 200_000, "12 High Street, Anytown", "jane@example.org", "07700900123"]
UNSEEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f]")


@pytest.fixture
def hostile() -> School:
    """A school whose server says what it should not, in names of attributes, ids and names."""
    school = secondary_school(5, "3281110", pupils=10)
    org = next(o["sourcedId"] for o in school.rows("orgs") if o["type"] == "school")
    school.change("orgs", org, **dict.fromkeys(NAMES, "a value"), mascot="owl", name=HOSTILE)
    school.change("orgs", org, **{f"more{chr(97 + n)}": 1 for n in range(26)})
    twin = school.rows("enrollments")[0] | {"sourcedId": HOSTILE}
    twin["user"] = {"sourcedId": "nobody", "type": "user"}
    school.add("enrollments", {k: v for k, v in twin.items() if k != "dateLastModified"})
    return school


def fit(text: str) -> None:
    """Fails for what a terminal would obey, for lines that were forged, and for long ones."""
    assert not UNSEEN.search(text)
    assert not any(line.startswith(FORGED) for line in text.splitlines())
    assert max(map(len, text.splitlines()), default=0) < 20_000
    for name in NAMES[2:]:
        assert name not in text


@pytest.mark.slow
def test_no_command_shows_what_a_server_says_as_it_is(
    run: Run,
    serve,
    hostile: School,
    tmp_path: Path,
) -> None:
    env = environment(serve(hostile), hostile)
    done = run("sync", "--report", "report.json", "--log-format", "text", env=env)
    assert done.returncode == 0
    fit(done.stdout + done.stderr)
    assert all(re.match(TIME, line) for line in done.stderr.splitlines())
    assert "mascot" in done.stdout and " and 12 more" in done.stdout
    assert "(a name of 200,000 characters)" in done.stdout
    report = (tmp_path / "report.json").read_text("utf-8")
    fit(report)
    (orgs,) = (c for c in json.loads(report)["collections"] if c["endpoint"] == "orgs")
    assert len(orgs["undeclared"]) == 32
    fit(run("status").stdout)
    found = run("quality").stdout
    fit(found)
    # markup is shown, and means nothing
    assert "[red]" in found.replace("\n", "")
    assert run("report").returncode == 0
    page = (tmp_path / "roster.html").read_text("utf-8")
    assert "all is well" in page and not UNSEEN.search(page)
    json_lines = run("sync", "--full", "--log-format", "json").stderr
    for line in json_lines.splitlines():
        fit("\n".join(_texts(json.loads(line))))


def _texts(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for pair in value.items() for each in pair for text in _texts(each)]
    if isinstance(value, list):
        return [text for each in value for text in _texts(each)]
    return [value] if isinstance(value, str) else []


def test_a_terminal_is_told_nothing_by_a_server(serve, hostile: School, tmp_path: Path) -> None:
    env = {**os.environ, **environment(serve(hostile), hostile), "TERM": "xterm"}
    code, text = on_terminal("sync", "--endpoints", "orgs", env=env)
    assert code == 0
    # what the program says itself is no such thing
    own = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\x07]", "", text)
    assert "mascot" in own and not UNSEEN.search(own)
    assert RED not in text and FORGED not in text


@pytest.mark.parametrize("name", ["roster@school.duckdb", "data/a@b.csv", "keys/me@host.pem"])
def test_names_of_files_are_shown_whole(name: str) -> None:
    assert clean(f"{name} is locked by another run") == f"{name} is locked by another run"


def test_an_error_is_one_line_for_each_of_its_parts() -> None:
    error = OneRosterError(HOSTILE, where=HOSTILE, todo=HOSTILE + "x" * 10_000)
    first, second = str(error).split("\n")
    assert second.startswith("  What to do: ") and not UNSEEN.search(first + second)
    assert len(second) < 3_000
    assert told(error) == str(error)


def test_another_programs_handler_gets_clean_records(caplog: pytest.LogCaptureFixture) -> None:
    log.event("school_failed", HOSTILE, level=logging.ERROR, reasons={"orgs": [HOSTILE]})
    logging.getLogger("oneroster_source").warning("%s", HOSTILE)
    outcome = Outcome("1", "orgs")
    outcome.warn(HOSTILE)
    texts = [record.getMessage() for record in caplog.records]
    texts += [repr(vars(record).get("fields")) for record in caplog.records]
    assert len(texts) == 4
    assert not any(UNSEEN.search(text) or "\n" in text for text in texts + outcome.warnings)
    report = Report(problems=[HOSTILE], error=HOSTILE)
    assert not UNSEEN.search(to_json(report.as_dict()))


@pytest.mark.parametrize("form", ["plain", "text", "json"])
def test_a_traceback_holds_no_password_and_forges_no_line(
    form: log.Format, capsys: pytest.CaptureFixture[str]
) -> None:
    log.use(form)
    try:
        try:
            raise ValueError(f"bad\n{FORGED}\n{RED}postgresql://loader:hunter2@db/x")
        except ValueError as error:
            sys.excepthook(ValueError, error, error.__traceback__)
        logging.getLogger("urllib3").error("postgresql://loader:hunter2@db/x\n%s", FORGED)
    finally:
        log.use("plain")
    said = capsys.readouterr().err
    assert "ValueError: bad" in said and "hunter2" not in said and "***@db/x" in said
    assert not UNSEEN.search(said)
    if form != "plain":
        assert not any(line.startswith(FORGED) for line in said.splitlines())


@given(st.text(min_size=6, max_size=40), st.text(max_size=12), st.text(max_size=12))
def test_a_secret_is_masked_in_every_form(secret: str, user: str, more: str) -> None:
    from base64 import b64encode, urlsafe_b64encode

    basic = f"{user}:{secret}".encode("utf-8", "surrogatepass")
    forms = [
        secret,
        json.dumps(secret),
        json.dumps(secret, ensure_ascii=False),
        quote(secret, safe=""),
        quote(secret),
        quote_plus(secret),
        quote_plus(secret).replace("%2F", "%2f").replace("%3A", "%3a"),
        b64encode(basic).decode(),
        urlsafe_b64encode(basic).decode(),
    ]
    for form in forms:
        said = clean(f"it says {form}. {more}", secrets=(secret,), limit=10_000)
        assert "***" in said
        core = form.strip('"')[4:-4]
        assert len(core) < 8 or core not in said or core in f"it says . {more}"


@given(st.text())
def test_clean_text_stays_as_it_is_and_is_on_one_line(text: str) -> None:
    once = clean(text)
    assert clean(once) == once and len(once) <= 200
    assert not UNSEEN.search(once) and "\n" not in once


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.lists(st.text())))
def test_json_is_exact_and_a_terminal_may_show_it(value: dict[str, object]) -> None:
    text = to_json(value)
    assert json.loads(text) == value
    assert not UNSEEN.search(text)


@pytest.mark.parametrize("name", ["mascot", "houseGroup", "ext_upn", "@type", "sis:id", "line-2"])
def test_a_name_is_shown(name: str) -> None:
    assert label(name) == name


@pytest.mark.parametrize(
    "name",
    [*NAMES, "Zoë Nowak", "", "jane.doe", "a1b2c3d4e5f6", "SW1A 2AA"],
    ids=lambda name: ascii(name[:12]),
)
def test_what_may_be_a_value_is_told_by_its_length(name: str) -> None:
    assert label(name) == f"(a name of {len(name):,} characters)"


def test_long_lists_are_cut() -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed([str(n) for n in range(1_057)]).endswith("18, 19 and 1,037 more")


def test_a_configured_school_shows_no_secret() -> None:
    assert "hush" not in repr(Configured("1", "r", "hush"))
