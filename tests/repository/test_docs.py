"""README against the program. Run as a script, this file writes README's generated parts anew."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import duckdb
import pytest
from support.documents import queries
from support.program import PATIENCE
from typer.main import get_command

from oneroster_source.cli.app import app
from oneroster_source.config.options import OPTIONS, Options
from oneroster_source.config.privacy import Privacy, privacy
from oneroster_source.model import V1P1, Column, Holds
from oneroster_source.model.type_map import KINDS
from oneroster_source.reporting.fields import entries
from oneroster_source.reporting.quality import CHECKS, SEVERITIES
from oneroster_source.reporting.views import VIEWS

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"


def settings_table() -> str:
    """Every setting, as the program declares it."""
    lines = ["| setting | default | legal values | meaning |", "|---|---|---|---|"]
    for name, option in OPTIONS.items():
        about = option.metadata
        default = "" if option.default is None else f"`{str(option.default).lower()}`"
        if name == "base_url":
            default = "Xporter's"
        secret = " Secret." if about["secret"] else ""
        lines.append(f"| `{name}` | {default} | {about['legal']} | {about['about']}{secret} |")
    return "\n".join(lines)


def tables_list() -> str:
    """Every table with its grain and columns, as the program declares them."""
    lines = []
    told: dict[str, tuple[Column, ...]] = {}
    for table in V1P1.tables:
        # a table of versions begins with all columns of its endpoint's
        of = table.name.removesuffix("_history")
        known = told.get(of, ())
        told[table.name] = table.columns
        columns = [f"The columns of `{of}`"] if known else []
        columns += [
            f"`{c.name}`" + ("" if c.kind == "text" else f" {KINDS[c.kind].dlt}")
            for c in table.columns
            if c not in known
        ]
        indent = "  - " if "__" in table.name or known else "- "
        lines.append(f"{indent}**`{table.name}`**: {table.grain}. {', '.join(columns)}")
    return "\n".join(lines)


PROFILES = ("full", "no-contact", "pseudonymous")
IDS, ADDRESSES, ADDED, ADDED_ELSEWHERE, ALL_OTHERS = (
    "ids of people and of their enrollments",
    "addresses that end with such an id",
    "what the provider adds to rows about people",
    "what the provider adds to other rows",
    "all other columns, roles, year groups and dates among them",
)
HOLD: dict[Holds, str] = {
    "name": "names",
    "contact": "contact details",
    "secret": "passwords",
    "identifier": "login names and identifiers",
    "words": "names of classes, in which a teacher's may stand",
    "digest": "who was erased",
    "sourced_id": IDS,
}
ELSE = {
    ("kept", "kept", "pseudonym"): IDS,
    ("kept", "kept", "left out"): ADDRESSES,
    ("kept", "kept", "kept"): ALL_OTHERS,
}
"""Columns of which nothing is declared, by what each profile makes of them."""


def privacy_table() -> str:
    """What each profile keeps of each group of columns, asked of the profiles themselves."""
    groups: dict[str, dict[tuple[str, str], tuple[str, ...]]] = {
        name: {} for name in (*HOLD.values(), ADDRESSES, ADDED, ADDED_ELSEWHERE, ALL_OTHERS)
    }
    registers = [entries(_of_profile(profile)) for profile in PROFILES]
    columns = [(table, column) for table in V1P1.tables for column in table.columns]
    for (table, column), *found in zip(columns, *registers, strict=True):
        kept = tuple(entry.kept for entry in found)
        if column.holds == "open":
            group = ADDED if table.personal else ADDED_ELSEWHERE
        else:
            group = HOLD[column.holds] if column.holds else ELSE[kept]
        groups[group][table.name, column.name] = kept
    lines = [f"| columns | {' | '.join(f'`{p}`' for p in PROFILES)} |", "|---|---|---|---|"]
    for group, places in groups.items():
        # of a group, all or nothing
        (kept,) = set(places.values())
        listed = "" if group == ALL_OTHERS else f": {_listed(places)}"
        lines.append(f"| {group}{listed} | {' | '.join(kept)} |")
    return "\n".join(lines)


def _of_profile(profile: str) -> Privacy:
    return privacy(Options(privacy=profile, privacy_key="any key that is long enough " * 2), V1P1)


def _listed(places: Iterable[tuple[str, str]]) -> str:
    """Columns, with the tables that they are in, but for those of versions."""
    tables: dict[str, list[str]] = {}
    for table, column in places:
        if not table.endswith("_history"):
            tables.setdefault(column, []).append(f"`{table}`")
    same: dict[str, list[str]] = {}
    for column, found in tables.items():
        same.setdefault(", ".join(found), []).append(f"`{column}`")
    return "; ".join(f"{', '.join(found)} of {named}" for named, found in same.items())


def views_list() -> str:
    """Every view with its question, grain and key, as its file states them."""
    return "\n".join(
        f"- **`{v.name}`**: {v.about['question']} O{v.about['grain'].removeprefix('o')};"
        f" {', '.join(f'`{name}`' for name in v.about['key'].split(', '))}."
        for v in VIEWS
    )


def checks_table() -> str:
    """Every check, the gravest first."""
    lines = ["| check | severity | question |", "|---|---|---|"]
    lines += [
        f"| `{check.name}` | {severity} | {check.about['question']} |"
        for severity in SEVERITIES
        for check in CHECKS
        if check.about["severity"] == severity
    ]
    return "\n".join(lines)


GENERATED = {
    "settings": settings_table,
    "tables": tables_list,
    "views": views_list,
    "checks": checks_table,
    "privacy": privacy_table,
}


def generated(text: str) -> str:
    for name, make in GENERATED.items():
        part = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.S)
        assert len(part.findall(text)) == 1, name
        text = part.sub(lambda found, make=make: f"{found[1]}{make()}\n{found[2]}", text)
    return text


def test_the_generated_parts_of_readme_are_current() -> None:
    text = README.read_text("utf-8")
    assert text == generated(text), "run: uv run python tests/repository/test_docs.py"


def test_every_setting_stands_in_the_configuration_file() -> None:
    text = (ROOT / ".dlt/config.toml").read_text("utf-8")
    text += (ROOT / ".dlt/secrets.toml.example").read_text("utf-8")
    for name, option in OPTIONS.items():
        assert re.search(rf"^(# )?\[*(sources\.oneroster\.)?{name}\b", text, re.M), name
        if isinstance(option.default, bool | int | float | str):
            shown = f'"{option.default}"' if isinstance(option.default, str) else option.default
            assert f"{name} = {str(shown).lower()}" in text, name


def _commands() -> list[str]:
    """The commands of README's shell blocks that start with oneroster."""
    blocks = re.findall(r"```bash\n(.*?)```", README.read_text("utf-8"), re.S)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line.removeprefix("uv run ") for line in lines if "oneroster " in line]


def test_every_command_and_option_in_readme_exists_and_every_command_is_there() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    named = set()
    for line in _commands():
        words = shlex.split(line.partition("oneroster ")[2])
        if not words or words[0] not in commands:
            continue
        named.add(words[0])
        known = {opt for param in commands[words[0]].params for opt in param.opts}
        assert {w.partition("=")[0] for w in words if w.startswith("--")} <= known, line
    assert named == set(commands)


# --- every documented command is run ---

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
    "cp .dlt/secrets.toml.example": "the example is read by test_every_setting_stands_in_the_file",
    "pip install uv && uv run oneroster demo": "the demo",
    "pip install 'oneroster-source[dask]'": "an installation",
    "uv sync": ".ci/run",
    "uv run pytest": ".ci/run",
    "uv run ruff check . && uv run mypy": ".ci/run",
    "uv run python benchmarks": "test_benchmarks.py",
    "uv run --extra notebooks jupyter lab notebooks": "test_notebooks.py runs the notebooks",
    "dask ": "test_cluster.py starts both",
    "export ": "settings",
    "#": "a comment",
    "python -c": "plain Python",
}
"""How a line of README's shell blocks begins that is no test run of its own, and who runs it."""


def _lines() -> list[str]:
    """The command lines of README's shell blocks, and those of the table of campaigns."""
    text = README.read_text("utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", text, re.S)
    lines = [
        line.split("  #")[0].strip()
        for block in blocks
        for line in block.replace("\\\n", " ").splitlines()
    ]
    lines += [
        f"uv run pytest -m campaign {args}" for args in re.findall(r"\| `(tests/[^`]*)` \|", text)
    ]
    lines += re.findall(r"`(uv run pytest -m [^`]*)`", text)
    return [line for line in lines if line and line != "uv run pytest -m campaign"]


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


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> str:
    from support.settings import settings

    from oneroster_source.run_report import Report
    from oneroster_source.simulator import Simulator, secondary_school, spoil
    from oneroster_source.warehouse import Warehouse

    warehouse = Warehouse(str(tmp_path_factory.mktemp("docs") / "roster.duckdb"))
    school = secondary_school(1, pupils=100)
    spoil(school)
    with Simulator([school]) as server:
        warehouse.load(Report(), **settings(server, school), history=True)
    warehouse.examine()
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


@pytest.mark.parametrize("query", queries(), ids=lambda query: query.splitlines()[0][:60])
def test_every_query_in_readme_runs_and_finds_something(loaded: str, query: str) -> None:
    with duckdb.connect(loaded, read_only=True) as connection:
        assert connection.sql(query).fetchall()


def test_there_are_five_queries_worth_running() -> None:
    assert len(queries()) >= 5


def test_no_path_of_a_developers_machine_is_in_the_documents() -> None:
    for path in (README, ROOT / ".dlt/config.toml", ROOT / "pyproject.toml"):
        assert not re.search(r"/(home|root|work|Users)/", path.read_text("utf-8"))


def test_nothing_reads_what_lies_beside_the_checkout() -> None:
    beside = "/".join(("..", "shared"))  # noqa: FLY002 - this file is read too
    folders = ("oneroster_source", "tests", "pipelines", "notebooks", ".dlt")
    files = [path for name in folders for path in (ROOT / name).rglob("*") if path.is_file()]
    for path in (README, ROOT / "pyproject.toml", *files):
        assert beside not in path.read_bytes().decode("utf-8", "ignore"), path


if __name__ == "__main__":
    README.write_text(generated(README.read_text("utf-8")), "utf-8")
