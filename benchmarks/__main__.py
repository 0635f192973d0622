"""What loading costs: each command prints one table, in Markdown.

    uv run python benchmarks compare            # ours against other ways, about 15 minutes
    uv run python benchmarks compare --short    # the same on a tenth of the data, under one
    uv run python benchmarks delta              # nothing changed, and 0.1 %, of 5 M rows
    uv run python benchmarks rows               # how time and memory grow with the rows
    uv run python benchmarks schools            # and with the schools
    uv run python benchmarks latency            # a server that answers after 50 ms
    uv run python benchmarks postgres           # a first load into Postgres, and into DuckDB
    uv run python benchmarks privacy            # what the profiles of privacy cost
    uv run python benchmarks history            # what versions cost, and dlt's own scd2

Every way runs in a process of its own, in turns, against one server, in which all is ready to be
sent. What the ways have loaded is compared, row by row, before any figure is printed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from same import differences
from server import serving

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
SCHOOL = {
    "orgs": 2,
    "academicSessions": 4,
    "courses": 20,
    "classes": 60,
    "users": 300,
    "enrollments": 1200,
}
Cost = dict[str, float]
app = typer.Typer(help=__doc__, no_args_is_help=True, rich_markup_mode=None)
Rounds = Annotated[int, typer.Option(min=1, help="How often each way runs.")]
Rows = Annotated[int, typer.Option(min=1, help="How much data there is, to try it with less.")]


@app.command()
def compare(rounds: Rounds = 5, short: bool = False, rows: Rows = 700_000) -> None:
    """Our first load against dlt's rest_api, and against what can be written by hand."""
    size = _size(rows // 10 if short else rows)
    ways = ["fetch_only", "by_hand", "by_hand_duckdb", "ours", "rest_api_tuned", "rest_api"]
    costs: dict[str, list[Cost]] = {way: [] for way in ways}
    with serving(size) as address, folder() as files:
        for i in range(min(rounds, 2) if short else rounds):
            for way in ways:
                served = f"{address}/tenth" if way == "rest_api" else address
                costs[way].append(load(way, served, files / f"{way}{i}", **ONLY))
            if i == 0:
                check(files, ways[1:])
            for file in files.iterdir():
                if file.is_file():
                    file.unlink()
    total = sum(size.values())
    found = []
    for way in ways:
        part = total / 10 if way == "rest_api" else total
        ratios = [
            a["seconds"] / part * total / b["seconds"]
            for a, b in zip(costs[way], costs["by_hand"], strict=True)
        ]
        found.append((way, f"{part:,.0f}", *figures(costs[way], part), spread(ratios)))
    table(("way", "rows", *FIGURES, "time for each row, by hand = 1"), found)


@app.command()
def delta(rows: Rows = 5_000_000, rounds: Rounds = 5) -> None:
    """Runs over many enrollments that the destination has."""
    costs: dict[str, list[Cost]] = {"nothing changed": [], "0.1% changed": []}
    options = {"endpoints": ["enrollments"]}
    with serving({"enrollments": rows}) as address, folder() as files:
        first = load("ours", address, files / "roster", **options)
        load("ours", address, files / "roster", **options)
        for _ in range(rounds):
            cost = load("ours", address, files / "roster", **options)
            costs["nothing changed"].append(cost)
            post(f"{address}/change/1000")
            costs["0.1% changed"].append(load("ours", address, files / "roster", **options))
            # the changes are less than a day old, and come once more
            load("ours", address, files / "roster", **options)
    pairs = zip(costs["0.1% changed"], costs["nothing changed"], strict=True)
    found = [("first load", *figures([first], rows), "")]
    found.append(("nothing changed", *figures(costs["nothing changed"]), "1"))
    ratios = spread(a["seconds"] / b["seconds"] for a, b in pairs)
    found.append(("0.1% changed", *figures(costs["0.1% changed"]), ratios))
    table((f"{rows:,} enrollments", *FIGURES, "nothing changed = 1"), found)


@app.command()
def rows(rounds: Rounds = 3, most: Rows = 5_000_000) -> None:
    """First loads of more and more rows, two users to five enrollments, in pages of 1,000."""
    found, before = [], (0.0, 0.0)
    for total in [n for n in (10_000, 100_000, 1_000_000, 5_000_000) if n <= most] or [most]:
        with serving(_size(total)) as address, folder() as files:
            costs = [
                load("ours", address, files / f"{i}", page_size=1000, **ONLY)
                for i in range(rounds if total < 5_000_000 else 1)
            ]
        seconds = median(cost["seconds"] for cost in costs)
        slope = (seconds - before[1]) / (total - before[0]) * 1e6
        found.append((f"{total:,}", *figures(costs, total), f"{slope:.1f}"))
        before = float(total), seconds
    table(("rows", *FIGURES, "us for each more row"), found)


@app.command()
def schools(rounds: Rounds = 3, most: Rows = 1000) -> None:
    """Runs over more and more schools of 1,586 rows each, in pages of 1,000."""
    found = []
    before: dict[str, tuple[int, float]] = {}
    with serving(SCHOOL) as address, folder() as files:
        for number in (n for n in (1, 10, 100, 1000) if n <= most):
            runs: dict[str, list[Cost]] = {"first load": [], "nothing changed": []}
            for i in range(rounds if number < 1000 else 1):
                file = files / f"{number}-{i}"
                runs["first load"].append(
                    load("ours", address, file, schools=number, page_size=1000)
                )
                load("ours", address, file, schools=number, page_size=1000)
                again = load("ours", address, file, schools=number, page_size=1000)
                runs["nothing changed"].append(again)
            for run, costs in runs.items():
                seconds = median(cost["seconds"] for cost in costs)
                fewer, less = before.get(run, (0, 0.0))
                more = f"{(seconds - less) / (number - fewer) * 1000:.1f}" if fewer else ""
                requests = f"{costs[-1]['requests']:,.0f}"
                found.append((f"{number:,}", run, *figures(costs), requests, more))
                before[run] = number, seconds
    found.sort(key=lambda row: row[1])
    table(("schools", "run", *FIGURES, "requests", "ms for each more school"), found)


@app.command()
def latency(seconds: float = 0.05, rows: Rows = 100_000, concurrency: int = 4) -> None:
    """A first load in pages of 1,000 from a server that waits before each answer."""
    options = {"endpoints": ["enrollments"], "page_size": 1000, "concurrency": concurrency}
    found = []
    with folder() as files:
        with serving({"enrollments": rows}) as address:
            near = load("ours", address, files / "near", **options)
        with serving({"enrollments": rows}, seconds) as address:
            far = load("ours", address, files / "far", **options)
            most = get(f"{address}/statistics")["most_at_once"]
    waits = far["requests"] * seconds / concurrency
    for name, cost, at_once in (("at once", near, ""), (f"after {seconds * 1000:g} ms", far, most)):
        found.append((name, f"{cost['requests']:,.0f}", at_once, f"{cost['seconds']:.2f}"))
    bound = f"{1.5 * waits + near['seconds']:.2f}"
    found.append(
        (f"1.5 x requests x {seconds * 1000:g} ms / {concurrency} + at once", "", "", bound)
    )
    table(("the server answers", "requests", "most at once", "seconds"), found)


@app.command()
def postgres(rounds: Rounds = 3, rows: Rows = 140_000) -> None:
    """First loads into Postgres 15 and into DuckDB, in turns."""
    from tests.support import postgres as servers

    size = _size(rows)
    costs: dict[str, list[Cost]] = {"DuckDB": [], "Postgres": []}
    with serving(size) as address, folder() as files, servers.server() as url:
        for i in range(rounds):
            costs["DuckDB"].append(load("ours", address, files / f"{i}", **ONLY))
            with servers.fresh(url) as database:
                costs["Postgres"].append(load("ours", address, database, **ONLY))
    total = sum(size.values())
    pairs = zip(costs["Postgres"], costs["DuckDB"], strict=True)
    ratios = spread(a["seconds"] / b["seconds"] for a, b in pairs)
    table(
        ("destination", *FIGURES, "DuckDB = 1"),
        [
            ("DuckDB", *figures(costs["DuckDB"], total), "1"),
            ("Postgres", *figures(costs["Postgres"], total), ratios),
        ],
    )


@app.command()
def privacy(rounds: Rounds = 3, rows: Rows = 350_000) -> None:
    """First loads with each profile, in turns."""
    size = _size(rows)
    profiles = ("full", "no-contact", "pseudonymous")
    costs: dict[str, list[Cost]] = {profile: [] for profile in profiles}
    with serving(size) as address, folder() as files:
        for i in range(rounds):
            for profile in profiles:
                options = {**ONLY, "privacy": profile, "privacy_key": "0123456789abcdef" * 4}
                costs[profile].append(load("ours", address, files / f"{profile}{i}", **options))
    total = sum(size.values())
    found = []
    for profile in profiles:
        pairs = zip(costs[profile], costs["full"], strict=True)
        ratios = spread(a["seconds"] / b["seconds"] for a, b in pairs)
        found.append((profile, *figures(costs[profile], total), ratios))
    table(("privacy", *FIGURES, "full = 1"), found)


@app.command()
def history(rows: Rows = 5_000_000, rounds: Rounds = 3, on_postgres: bool = False) -> None:
    """Runs with and without versions, in turns; then ways to keep versions of a tenth of the rows.

    On Postgres, only the first.
    """
    from tests.support import postgres as servers

    ways = {"without history": False, "with history": True}
    runs = ("first load", "nothing changed", "0.1% changed", "full pass")
    costs: dict[tuple[str, str], list[Cost]] = {(run, way): [] for run in runs for way in ways}
    sizes: dict[str, list[float]] = {way: [] for way in ways}
    with ExitStack() as stack:
        address = stack.enter_context(serving({"enrollments": rows}))
        files = stack.enter_context(folder())
        url = stack.enter_context(servers.server()) if on_postgres else ""
        places = {
            way: stack.enter_context(servers.fresh(url)) if url else files / way.replace(" ", "_")
            for way in ways
        }

        def run(what: str, way: str) -> None:
            options = {"endpoints": ["enrollments"], "history": ways[way]}
            cost = load("ours", address, places[way], full=what == "full pass", **options)
            costs[what, way].append(cost)
            place = places[way]
            if isinstance(place, Path):
                sizes[way].append(Path(f"{place}.duckdb").stat().st_size / 1e6)
            else:
                ((size,),) = servers.query(place, "SELECT pg_database_size(current_database())")
                sizes[way].append(size / 1e6)

        for way, history in ways.items():
            run("first load", way)
            load("ours", address, places[way], endpoints=["enrollments"], history=history)
        for _ in range(rounds):
            for way in ways:
                run("nothing changed", way)
            post(f"{address}/change/1000")
            for way, history in ways.items():
                run("0.1% changed", way)
                # the changes are less than a day old, and come once more
                load("ours", address, places[way], endpoints=["enrollments"], history=history)
        for way in ways:
            run("full pass", way)
        megabytes = {
            way: f"{found[0]:,.0f}, at the end {found[-1]:,.0f}" for way, found in sizes.items()
        }
        found = [
            (run, way, *figures(costs[run, way]), megabytes[way] if run == runs[0] else "")
            for run in runs
            for way in ways
        ]
        table((f"{rows:,} enrollments", "", *FIGURES, "destination MB"), found)
        if not on_postgres:
            _ways_to_keep_versions(rows // 10, rounds, files)


def _ways_to_keep_versions(rows: int, rounds: int, files: Path) -> None:
    with serving({"enrollments": rows}) as address:
        load("ours", address, files / "source", endpoints=["enrollments"])
    ways: dict[str, list[Any]] = {"ours": [], "scd2": [], "both": []}
    for i in range(rounds):
        for way, found in ways.items():
            places = (files / "source.duckdb", files / f"{way}{i}.duckdb")
            found.append(apart("versions.py", way, *places))
    loaded = [f"{n:,} rows" for n in ways["ours"][0]["rows"]]
    found = [
        (way, *(spread(cost["seconds"][step] for cost in costs) for step in range(2)))
        for way, costs in ways.items()
    ]
    table(("way", *loaded), found)


def _size(rows: int) -> dict[str, int]:
    """Two users to five enrollments."""
    return {"users": rows * 2 // 7, "enrollments": rows - rows * 2 // 7}


ONLY: dict[str, Any] = {"endpoints": ["users", "enrollments"]}


def load(way: str, address: str, destination: Path | str, **options: Any) -> Cost:
    """Runs one of the ways."""
    if isinstance(destination, Path):
        destination = f"{destination}.duckdb"
    if way != "ours":
        options = {}
    cost: Cost = apart("contender.py", way, address, destination, json.dumps(options))
    typer.echo(f"{way}: {cost['seconds']:.2f} s", err=True)
    return cost


def apart(script: str, way: str, *words: Path | str) -> Any:
    """Runs one of the ways in a process of its own; returns what it prints last."""
    done = subprocess.run(
        [sys.executable, HERE / script, way, *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
        cwd=HERE,
    )
    if done.returncode:
        raise SystemExit(f"{way} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def check(files: Path, ways: Iterable[str]) -> None:
    """Ends the run where two ways have not loaded the same."""
    for way in ways:
        if way != "ours":
            wrong = differences(
                f"{files}/ours0.duckdb",
                f"{files}/{way}0.duckdb",
                by_rest_api=way.startswith("rest_api"),
            )
            if wrong:
                raise SystemExit(f"ours and {way} have not loaded the same: {wrong}")
    typer.echo("all ways have loaded the same tables", err=True)


FIGURES = ("seconds", "rows/s", "CPU s", "peak MB", "extract", "normalize", "load")


def figures(costs: list[Cost], rows: float = 0) -> tuple[str, ...]:
    """Medians; of the seconds, the least and the most too."""
    seconds = median(cost["seconds"] for cost in costs)
    steps = [[cost[step] for cost in costs if step in cost] for step in FIGURES[-3:]]
    return (
        spread(cost["seconds"] for cost in costs),
        f"{rows / seconds:,.0f}" if rows else "",
        f"{median(cost['cpu'] for cost in costs):.1f}",
        f"{max(cost['memory'] for cost in costs):,.0f}",
        *(f"{median(step):.2f}" if step else "" for step in steps),
    )


def spread(values: Iterable[float]) -> str:
    """The median, and the least and the most."""
    found = sorted(values)
    if len(found) == 1:
        return f"{found[0]:.2f}"
    return f"{median(found):.2f} ({found[0]:.2f}-{found[-1]:.2f})"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    typer.echo(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}\n")
    for row in (head, ["---" for _ in head], *rows):
        typer.echo(f"| {' | '.join(map(str, row))} |")


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        yield Path(name)


def get(url: str) -> Any:
    with urllib.request.urlopen(url) as answer:
        return json.load(answer)


def post(url: str) -> None:
    urllib.request.urlopen(urllib.request.Request(url, method="POST")).close()


if __name__ == "__main__":
    app()
