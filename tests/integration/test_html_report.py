"""The page to look at: what it says, that it needs nothing else, and how a browser shows it."""

from __future__ import annotations

import re
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path

import pytest
from support.faulty_rosters import FAULTS
from support.postgres import execute
from support.program import PATIENCE
from support.small_school import PUPILS, STAFF, load, moved, small_school
from typer.testing import CliRunner

from oneroster_source import Warehouse
from oneroster_source.cli.app import app
from oneroster_source.reporting.html_report import MOST_SCHOOLS, QUERIES, page

# they share what is loaded
pytestmark = pytest.mark.xdist_group("page")
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


class Page(HTMLParser):
    """What a page shows: its text, the rows of its tables, its pictures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.addresses: list[str] = []
        self._shown, self._in_cell = True, False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._shown = tag not in ("style", "script", "title")
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._in_cell = True
        self.addresses += [v or "" for k, v in attributes if k in ("src", "href", "data", "action")]

    def handle_endtag(self, tag: str) -> None:
        self._shown = True
        if tag in ("td", "th"):
            self._in_cell = False

    def handle_data(self, data: str) -> None:
        if not self._shown:
            return
        self.words += data.split()
        if self._in_cell:
            self.tables[-1][-1][-1] = " ".join([*self.tables[-1][-1][-1].split(), *data.split()])

    @property
    def text(self) -> str:
        return " ".join(self.words)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two schools, of which the second has changed and has two faults, loaded and checked."""
    path = str(tmp_path_factory.mktemp("page") / "roster.duckdb")
    load(path, small_school("1"), moved(small_school("2")))
    for fault in ("duplicate_username", "user_without_name"):
        for statement in FAULTS[fault][0]:
            execute(path, f"USE oneroster; {statement}")
    Warehouse(path).check_quality()
    return path


def written(*words: str, folder: Path) -> str:
    file = folder / "roster.html"
    done = CliRunner().invoke(app, ["report", "--output", str(file), *words])
    assert done.exit_code == 0, done.output
    assert str(file) in done.output
    return file.read_text("utf-8")


def test_it_says_what_the_dataset_holds(database: str, tmp_path: Path) -> None:
    shown = Page(written("--destination", database, folder=tmp_path))
    schools, faults, runs = shown.tables
    assert "Rosters of 2 schools" in shown.text
    assert "2 schools 7 pupils 8 staff 7 classes with pupils" in shown.text
    # what needs a person comes first
    assert [row[:5] for row in schools[1:]] == [
        ["School 2 2", "3", "4", "3", "2.0"],
        ["School 1 1", "4", "4", "4", "2.3"],
    ]
    assert [row[-1] for row in schools[1:]] == ["1 error", "good"]
    assert faults[1:3] == [
        ["error", "Which users of a school have the same username?", "2", "2"],
        ["warning", "Which classes have nobody to teach them?", "1", "2 Art"],
    ]
    assert [row[2:5] + row[-1:] for row in runs[1:]] == [["2", "72", "72", "good"]]


def test_it_is_one_file_that_asks_no_network(database: str, tmp_path: Path) -> None:
    text = written("--destination", database, folder=tmp_path)
    shown = Page(text)
    assert len(shown.addresses) == 3
    assert all(a.startswith("data:image/svg+xml;base64,") for a in shown.addresses)
    assert "<script" not in text and "@import" not in text and "url(" not in text
    assert "default-src 'none'" in text
    assert len(text) < 300_000


def test_it_names_nobody(database: str, tmp_path: Path) -> None:
    shown = Page(written("--destination", database, folder=tmp_path)).text
    people = STAFF | PUPILS
    names = {word for _, given, family in people.values() for word in (given, family)}
    # nor does it show whose row is at fault
    assert not {*names, *people} & set(re.findall(r"\w+", shown))


def test_text_of_the_server_is_text(tmp_path: Path) -> None:
    school = small_school("1")
    school.change("orgs", "school", name="<script>alert('1')</script> & Co")
    path = str(tmp_path / "roster.duckdb")
    load(path, school)
    text = written("--destination", path, folder=tmp_path)
    assert "<script" not in text
    assert "Rosters of <script>alert('1')</script> & Co" in Page(text).text
    assert "Nothing was checked yet" in text and "not checked" in text


def test_a_fleet_is_cut_where_nobody_would_read_on() -> None:
    schools = [
        {
            "estab": f"{n:04}",
            "school_name": None,
            "students": 1000,
            "staff": 100,
            "classes": 50,
            "average_class_size": Decimal("20.0") if n else None,
            "last_change": None,
            "last_load": NOW - timedelta(days=n),
        }
        for n in range(2000)
    ]
    fault = {"check_id": "unknown_type", "severity": "warning", "question": "?"}
    faults = [fault | {"estab": "1999", "rows_found": 1500, "examples": ["x", "y"]}]
    answers = {query.name: [] for query in QUERIES}
    answers |= {
        "schools": schools,
        "faults": faults,
        "checks": [{"checked_at": NOW, "checks": 39}],
    }
    shown = Page(page(answers, source="somewhere", now=NOW))
    assert "2,000 schools 2,000,000 pupils" in shown.text
    table, found, runs = shown.tables
    assert len(table) == 1 + MOST_SCHOOLS and f"the first {MOST_SCHOOLS} of 2,000" in shown.text
    assert table[1][0] == "1999 1999" and table[1][-1] == "1 warning"
    assert found[1:] == [["warning", "?", "1,500", "1999 x"]]
    assert runs[1:] == []


@pytest.mark.parametrize("what", ["never loaded", "no view", "no folder"])
def test_what_cannot_be_done_is_told(tmp_path: Path, what: str) -> None:
    database = str(tmp_path / "roster.duckdb")
    if what == "no view":
        load(database, small_school())
        execute(database, "DROP VIEW oneroster.school_summary")
    words = {
        "no view": ["--destination", database, "--output", str(tmp_path / "page.html")],
        "never loaded": ["--destination", str(tmp_path / "none.duckdb")],
        "no folder": ["--output", str(tmp_path / "no" / "page.html")],
    }
    done = CliRunner().invoke(app, ["report", *words[what]])
    assert done.exit_code == 1 and done.exception is not None
    told = {
        "never loaded": "holds no dataset",
        "no view": "run `oneroster views`",
        "no folder": "cannot be written",
    }
    assert told[what] in str(done.exception)
    assert not (tmp_path / "none.duckdb").exists()


def browser() -> str:
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("there is no Chromium on this machine")
    return found


ASKS = """<script>onload = () => parent.postMessage([innerWidth,
    document.documentElement.scrollWidth,
    [...document.querySelectorAll('*')].filter(
        e => !e.closest('.scroll') && e.getBoundingClientRect().right > innerWidth + 1).length,
    [...document.images].filter(i => i.complete && i.naturalWidth > 100).length], '*')</script>"""
FRAME = """<script>onmessage = e => document.body.setAttribute('data-found', e.data.join())</script>
<body><iframe src="asked.html" width="{width}" height="900" style="border: 0"></iframe></body>"""


@pytest.mark.sample(1)
@pytest.mark.parametrize("width", [360, 1200])
def test_a_browser_shows_it_within_the_width_of_the_screen(
    database: str, tmp_path: Path, width: int
) -> None:
    """Nothing is wider than a phone, and every picture is there."""
    text = written("--destination", database, folder=tmp_path)
    # the page itself allows no script; a frame is as narrow as no window of a browser
    asked = re.sub(r"<meta http-equiv[^>]*>", "", text).replace("</body>", f"{ASKS}</body>")
    (tmp_path / "asked.html").write_text(asked, "utf-8")
    (tmp_path / "frame.html").write_text(FRAME.format(width=width), "utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    options += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    options += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000"]
    done = subprocess.run(
        [browser(), *options, "--dump-dom", (tmp_path / "frame.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    found = re.search(r'data-found="(\d+),(\d+),(\d+),(\d+)"', done.stdout)
    assert found is not None, done.stdout[:500]
    inner, scrolled, too_wide, pictures = map(int, found.groups())
    # a bar to scroll by may take some of it
    assert (inner, scrolled <= width, too_wide, pictures) == (width, True, 0, 3)
