"""The documents against the program: README, the other Markdown at the top, `docs/`, notebooks."""

from __future__ import annotations

import ast
import importlib
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unicodedata import category

import duckdb
import pytest
import yaml
from support.documents import (
    DOCUMENTS,
    README,
    ROOT,
    Block,
    blocks,
    commands,
    name_of,
    prose,
    queries,
)
from support.generated import GENERATED, generated, part
from support.program import PATIENCE
from support.settings import settings
from typer.main import get_command

from oneroster_source.cli.app import app
from oneroster_source.config.options import OPTIONS
from oneroster_source.simulator import School, Simulator

EVERYTHING = "\n".join(path.read_text("utf-8") for path in DOCUMENTS)


def test_readme_is_an_entrance() -> None:
    assert len(README.read_text("utf-8").splitlines()) <= 200


# --- generated parts ---


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_generated_parts_are_current(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text == generated(text), "run: uv run --directory tests python -m support.generated"


@pytest.mark.parametrize("made", GENERATED)
def test_every_generated_part_stands_once_and_contributors_are_told_how_to_write_it(
    made: str,
) -> None:
    assert len(part(made).findall(EVERYTHING)) == 1
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    assert "python -m support.generated" in text
    (page,) = re.findall(rf"^\| `{made}` \| `([^`]*)`", text, re.M)
    assert part(made).search((ROOT / page).read_text("utf-8"))


def test_every_setting_stands_in_the_configuration_file() -> None:
    text = (ROOT / ".dlt/config.toml").read_text("utf-8")
    text += (ROOT / ".dlt/secrets.toml.example").read_text("utf-8")
    for name, option in OPTIONS.items():
        assert re.search(rf"^(# )?\[*(sources\.oneroster\.)?{name}\b", text, re.M), name
        if isinstance(option.default, bool | int | float | str):
            shown = f'"{option.default}"' if isinstance(option.default, str) else option.default
            assert f"{name} = {str(shown).lower()}" in text, name


# --- commands ---


def test_every_documented_command_and_option_exists_and_every_command_is_documented() -> None:
    program = get_command(app).commands  # type: ignore[attr-defined]
    named = set()
    for line in commands():
        words = shlex.split(line.partition("oneroster ")[2])
        if not words or words[0] not in program:
            continue
        named.add(words[0])
        known = {opt for param in program[words[0]].params for opt in param.opts}
        assert {w.partition("=")[0] for w in words if w.startswith("--")} <= known, line
    assert named == set(program)


SHORT = {
    "test_fifty_times_two_runs_at_once": (
        "test_of_two_runs_at_once_one_works_and_the_other_says_who_does"
    ),
    "test_two_hundred_random_kills": "test_some_random_kills",
    "test_a_disk_of_any_size": "test_a_disk_that_is_full_is_told_and_harms_nothing",
    "test_a_worker_that_is_killed_and_a_broken_school_cost_the_others_nothing": (
        "test_shards_side_by_side_are_one_run"
    ),
}
"""Of campaigns that have no short form of their own: tests of the suite that do the same once."""
ELSEWHERE = {
    "cp .dlt/secrets.toml.example": "the test of the configuration file reads the example",
    "pip install uv && uv run oneroster demo": "the demo",
    "pip install 'oneroster-source[dask]'": "an installation",
    "uv sync": ".ci/run",
    "uv run pytest": ".ci/run",
    "uv run ruff check . && uv run mypy": ".ci/run",
    "uv run python benchmarks": "test_benchmarks.py",
    "uv run --group docs mkdocs": ".ci/run",
    "uv run --directory tests python -m support.generated": "the test of generated parts",
    "uv run --extra notebooks jupyter lab notebooks": "test_notebooks.py runs the notebooks",
    "uv run --extra notebooks jupyter nbconvert": "test_notebooks.py runs the notebooks",
    "dask ": "test_dask_cluster.py starts both",
    "export ": "settings",
    "#": "a comment",
    "python -c": "plain Python",
}
"""How a line of a shell block begins that is no test run of its own, and who runs it."""


def _lines() -> list[str]:
    """The command lines of all shell blocks, those of the table of campaigns, and test runs that
    are named in a sentence."""
    lines = commands()
    lines += [
        f"uv run pytest -m campaign {args}"
        for args in re.findall(r"\| `(tests/[^`]*)` \|", EVERYTHING)
    ]
    lines += re.findall(r"`(uv run pytest -m [^`]*)`", EVERYTHING)
    return [line for line in dict.fromkeys(lines) if line != "uv run pytest -m campaign"]


def _of_tests(line: str) -> bool:
    return "pytest -" in line


@pytest.fixture(scope="module")
def collected() -> dict[str, bool]:
    """Every test by its id, and whether it is a campaign."""
    program = (
        "import json, sys, pytest\n"
        "class Ids:\n"
        "    def pytest_collection_modifyitems(self, items):\n"
        "        found = {i.nodeid: bool(i.get_closest_marker('campaign')) for i in items}\n"
        "        print('\\n' + json.dumps(found), file=sys.stderr)\n"
        "words = ['--collect-only', '-qq', '-n0', '-m', 'campaign or not campaign', 'tests']\n"
        "sys.exit(pytest.main(words, [Ids()]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    found: dict[str, bool] = json.loads(done.stderr.splitlines()[-1])
    return found


def _function(test: str) -> str:
    return test.partition("::")[2].partition("[")[0]


# what is collected for it is collected once
@pytest.mark.slow
@pytest.mark.xdist_group("campaigns")
@pytest.mark.parametrize(
    "line", [line for line in _lines() if "pytest -" in line or "tests/test_" in line]
)
def test_every_documented_campaign_has_a_short_form_in_the_suite(
    collected: dict[str, bool], line: str
) -> None:
    if "schedulers" in line:
        # in environments of their own; without these the files are skipped, and say so
        assert (ROOT / line.rsplit(maxsplit=1)[-1]).is_file()
        return
    words = shlex.split(line)
    args = words[words.index("pytest") + 1 :]
    if {"needs_data", "slow and not campaign"} & set(args):
        return
    (paths,) = [word for word in args if word.startswith("tests/")] or ["tests"]
    head, brace, rest = paths.partition("{")
    names, _, tail = rest.partition("}")
    files = [head + name + tail for name in names.split(",")] if brace else [paths]
    wanted = args[args.index("-k") + 1] if "-k" in args else ""
    for file in files:
        assert (ROOT / file).is_file(), file
        chosen = [
            test
            for test, campaign in collected.items()
            if (campaign or "campaign or not campaign" in args)
            and test.startswith(f"{file}::")
            and (wanted.startswith("not ") or wanted in test.lower())
        ]
        assert chosen, f"{line} selects no test of {file}"
        suite = {_function(t) for t, campaign in collected.items() if not campaign}
        of_file = {_function(t) for t in chosen}
        short = of_file & suite | {name for name in of_file if SHORT.get(name) in suite}
        # of several databases and faults, each test of the file stands for the others
        same_file = any(t.startswith(f"{file}::") and not c for t, c in collected.items())
        assert short or (brace and same_file), f"{line}: nothing in the suite runs {of_file}"


def test_every_documented_command_is_run_by_something() -> None:
    tests = "".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    benchmarks = (ROOT / "tests/repository/test_benchmarks.py").read_text("utf-8")
    for line in _lines():
        words = line.removeprefix("uv run ").split()
        if _of_tests(line):
            # the test above
            continue
        if "oneroster" in words and line.startswith(("uv run", "oneroster")):
            command = words[words.index("oneroster") + 1]
            assert re.search(rf'\(\s*\*?\(?"{command}"', tests), f"no test runs {line}"
        elif found := re.search(r"python benchmarks (\w+)", line):
            assert re.search(rf'"{found[1]} --', benchmarks), f"no test runs {line}"
        else:
            assert any(line.startswith(known) for known in ELSEWHERE), f"nothing runs {line}"


# --- SQL ---


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> str:
    from oneroster_source.run_report import Report
    from oneroster_source.simulator import Simulator, secondary_school, spoil
    from oneroster_source.warehouse import Warehouse

    warehouse = Warehouse(str(tmp_path_factory.mktemp("docs") / "roster.duckdb"))
    school = secondary_school(1, pupils=100)
    spoil(school)
    with Simulator([school]) as server:
        warehouse.load(Report(), **settings(server, school), history=True)
    warehouse.check_quality()
    with duckdb.connect(warehouse.name) as connection:
        # nights before: a school that fails, and one that had more rows
        connection.execute(
            "INSERT INTO oneroster.sync_run_details BY NAME SELECT '0' AS run_id, '2' AS estab,"
            " 'users' AS endpoint, now() - INTERVAL '3' DAY AS started, 'failed' AS outcome"
        )
        connection.execute(
            "INSERT INTO oneroster.sync_run_details BY NAME SELECT * REPLACE ('0' AS run_id,"
            " started - INTERVAL '7' DAY AS started, 2 * rows_read AS rows_read)"
            f" FROM oneroster.sync_run_details WHERE estab = '{school.estab}'"
        )
    return warehouse.name


@pytest.mark.parametrize("query", list(blocks("sql")), ids=str)
def test_every_query_runs_and_finds_something(loaded: str, query: Block) -> None:
    with duckdb.connect(loaded, read_only=True) as connection:
        assert connection.execute(query.text).fetchall()


def test_there_are_five_queries_worth_running() -> None:
    assert len(queries()) >= 5


# --- Python ---


@pytest.mark.parametrize("example", list(blocks("python")), ids=str)
def test_every_python_example_compiles_and_what_it_imports_is_there(example: Block) -> None:
    tree = ast.parse(example.text, name_of(example.path))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    exec(compile(ast.Module(imports, []), name_of(example.path), "exec"), {})


def test_the_python_examples_of_the_guide_run_one_after_another(
    serve: Callable[..., Simulator], school: School, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(school)
    (only,) = settings(server, school)["schools"]
    some = json.dumps(["classes", "users", "enrollments"])
    shared = {"base_url": server.base_url, "history": "true", "endpoints": some}
    for key, value in {**only, **shared}.items():
        monkeypatch.setenv(f"SOURCES__ONEROSTER__{key.upper()}", value)
    given: dict[str, Any] = {}
    for example in blocks("python"):
        if name_of(example.path) != "docs/guides/dlt.md" or "s3://" in example.text:
            # which takes a bucket
            continue
        text = example.text.replace("3281110", school.estab)
        text = text.replace('destination="snowflake"', 'destination="duckdb", pipelines_dir="work"')
        exec(compile(text, name_of(example.path), "exec"), given)
    assert given["report"].good
    for file in ("rosters.duckdb", "schools.duckdb"):
        with duckdb.connect(file, read_only=True) as connection:
            assert connection.sql("FROM oneroster.enrollments_as_of").fetchall()


def test_the_python_examples_name_nothing_that_is_not_given() -> None:
    """All of a page together, since one goes on from another."""
    for path in {block.path for block in blocks("python")}:
        text = "".join(block.text for block in blocks("python") if block.path == path)
        names = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)]
        given = {node.id for node in names if isinstance(node.ctx, ast.Store)} | {"print"}
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                given |= {alias.asname or alias.name for alias in node.names}
        assert {node.id for node in names} <= given


@pytest.mark.parametrize(
    "dotted", sorted(set(re.findall(r"`(oneroster_source(?:\.\w+)+)`", EVERYTHING)))
)
def test_every_dotted_name_is_there(dotted: str) -> None:
    module, _, attribute = dotted.rpartition(".")
    try:
        importlib.import_module(dotted)
    except ModuleNotFoundError:
        assert hasattr(importlib.import_module(module), attribute)


# --- links and paths ---


def _anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, as code hosts and MkDocs make them."""
    headings = re.findall(r"^#+ (.*)$", prose(path), re.M)
    texts = [re.sub(r"[`*]", "", heading).strip().lower() for heading in headings]
    kept = [
        "".join(letter for letter in text if category(letter)[0] in "LN" or letter in "-_ ")
        for text in texts
    ]
    return {text.replace(" ", "-") for text in kept}


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_link_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if target.startswith("https://"):
            continue
        place, _, anchor = target.partition("#")
        found = (path.parent / place).resolve() if place else path
        assert found.is_file() and found.is_relative_to(ROOT), target
        if anchor:
            assert anchor in _anchors(found), target
        if (ROOT / "docs") in path.parents:
            # the site has these files alone
            assert (ROOT / "docs") in found.parents, target


YOURS = {".dlt/secrets.toml", "path/to/oneroster-csv-folder"}
"""Paths that are a user's own."""
_PATH = re.compile(r"`((?:[\w.-]+/)+(?:[\w-]*\.\w+)?|\.ci/run|[a-z_]+\.py)`")


def _exists(path: str) -> bool:
    return any((root / path).exists() for root in (ROOT, ROOT / "oneroster_source"))


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_path_that_is_named_exists(path: Path) -> None:
    named = set(_PATH.findall(prose(path))) - YOURS
    # what the data sets, and the site, bring with them; and parts of addresses
    named -= {"generated/", "lms-toolkit/", "site/", "/users/", ".dlt/"}
    # files to copy, which are named as such
    named = {n for n in named if not (ROOT / "pipelines" / n).exists()}
    assert not [n for n in named if not _exists(n)]


def test_every_name_in_a_file_is_there() -> None:
    """The architecture says `file.py`: `name`, which moves when the code does."""
    text = (ROOT / "docs/concepts/architecture.md").read_text("utf-8")
    found = re.findall(r"`([\w/]+\.py)`: (`[\w.]+`(?:,\s`[\w.]+`)*)", text)
    assert len(found) > 20
    for file, names in found:
        code = (ROOT / "oneroster_source" / file).read_text("utf-8")
        for dotted in re.findall(r"`([\w.]+)`", names):
            for word in dotted.split("."):
                assert re.search(rf"^\s*(def |class )?{word}\b", code, re.M), (file, dotted)


def test_every_page_is_in_the_site_and_nothing_of_it_comes_from_the_network() -> None:
    # the tags of Python's own are none of YAML's
    text = re.sub(r"!!python\S*", "", (ROOT / "mkdocs.yml").read_text("utf-8"))
    site = yaml.safe_load(text)
    listed = re.findall(r"[\w/-]+\.md", json.dumps(site["nav"]))
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert sorted(listed) == sorted(pages)
    assert site["theme"]["font"] is False
    # which the theme would fetch a program for
    assert "```mermaid" not in EVERYTHING
    for key in ("extra_css", "extra_javascript"):
        assert key not in site
    assert "--only-group docs mkdocs build --strict" in (ROOT / ".ci/run").read_text("utf-8")


def test_no_path_of_a_developers_machine_is_in_the_documents() -> None:
    for path in (*DOCUMENTS, ROOT / ".dlt/config.toml", ROOT / "pyproject.toml"):
        assert not re.search(r"/(home|root|work|Users)/", path.read_text("utf-8")), path


def test_nothing_reads_what_lies_beside_the_checkout() -> None:
    beside = "/".join(("..", "shared"))  # noqa: FLY002 - this file is read too
    folders = ("oneroster_source", "tests", "pipelines", "notebooks", "docs", ".dlt")
    files = [path for name in folders for path in (ROOT / name).rglob("*") if path.is_file()]
    for path in (*DOCUMENTS, ROOT / "pyproject.toml", *files):
        assert beside not in path.read_bytes().decode("utf-8", "ignore"), path
