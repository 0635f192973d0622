"""Each notebook runs on schools other than those it was kept with, and is kept fit to be shown."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from datetime import timedelta
from itertools import chain, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from support.postgres import execute
from support.settings import settings
from support.small_school import TODAY
from traitlets.config import Config

from oneroster_source import Report, Warehouse
from oneroster_source.reporting.quality import CHECKS
from oneroster_source.simulator import School, Simulator, live, secondary_school, spoil

NOTEBOOKS = sorted(Path(__file__).parents[2].glob("notebooks/*.ipynb"))
QUALITY = next(path for path in NOTEBOOKS if "quality" in path.name)
SECONDS, MOST_BYTES, WIDEST = 120, 600_000, 110
OPEN = 'duckdb.connect("../roster.duckdb", read_only=True)'

# they share what is loaded
pytestmark = pytest.mark.xdist_group("notebooks")
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two schools in the middle of a term, one of which has faults; a week later; two checks."""
    days = [TODAY - timedelta(weeks=weeks) for weeks in (10, 2, 1)]
    schools = [secondary_school(n, str(n), pupils=60, first_day=days[0]) for n in (1, 2)]
    path = tmp_path_factory.mktemp("notebooks") / "roster.duckdb"
    warehouse = Warehouse(str(path))
    with Simulator(schools) as server:
        for since, until in pairwise(days):
            live(schools[0], since, until)
            if since == days[0]:
                live(schools[1], since, until)
                spoil(schools[1])
            load(warehouse, server, *schools)
    warehouse.check_quality()
    warehouse.check_quality()
    return path


@pytest.fixture(scope="module")
def nothing(database: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All tables, and no row in them."""
    path = Path(shutil.copy(database, tmp_path_factory.mktemp("notebooks") / "roster.duckdb"))
    with duckdb.connect(str(path)) as connection:
        tables = "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'oneroster'"
        for (name,) in connection.execute(tables).fetchall():
            connection.execute(f"DELETE FROM oneroster.{name}")
    return path


def load(warehouse: Warehouse, server: Simulator, *schools: School) -> None:
    report = Report()
    warehouse.load(report, **settings(server, *schools))
    report.raise_for_failures()


@pytest.fixture
def jupyter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Config]:
    """Kernels that leave nothing at home, and take no port that another test may want."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    # the path of a socket must be short
    with TemporaryDirectory(prefix="nb", dir="/tmp") as folder:
        monkeypatch.setenv("JUPYTER_RUNTIME_DIR", folder)
        yield Config({"KernelManager": {"transport": "ipc", "ip": f"{folder}/kernel"}})


def kept(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def run(path: Path, database: Path, folder: Path, jupyter: Config) -> NotebookNode:
    """A notebook, executed in a folder beside which the database lies."""
    (folder / "notebooks").mkdir()
    (folder / "roster.duckdb").symlink_to(database)
    notebook = kept(Path(shutil.copy(path, folder / "notebooks")))
    place = {"metadata": {"path": str(folder / "notebooks")}}
    NotebookClient(notebook, timeout=SECONDS, resources=place, config=jupyter).execute()
    return notebook


def shown(notebook: NotebookNode) -> dict[str, set[str]]:
    """What kinds of output each code cell has, by its id."""
    return {
        cell.id: {
            kind
            for output in cell.outputs
            for kind in output.get("data", {output.get("name", output.output_type): ""})
        }
        for cell in notebook.cells
        if cell.cell_type == "code"
    }


def words(notebook: NotebookNode) -> str:
    """All that a person reads in it."""
    texts = [cell.source for cell in notebook.cells]
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            texts.append(output.get("text", ""))
            texts += (t for kind, t in output.get("data", {}).items() if kind != "image/png")
    return "\n".join(texts)


def test_there_are_some() -> None:
    assert NOTEBOOKS


@pytest.mark.slow
@every_notebook
def test_it_shows_what_it_is_kept_with(path, database, tmp_path, jupyter) -> None:
    assert shown(run(path, database, tmp_path, jupyter)) == shown(kept(path))


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[] if path == QUALITY else pytest.mark.campaign)
        for path in NOTEBOOKS
    ],
)
@pytest.mark.slow
def test_it_runs_where_nothing_is(path, nothing, tmp_path, jupyter) -> None:
    assert shown(run(path, nothing, tmp_path, jupyter)) == shown(kept(path))


@pytest.mark.slow
def test_without_a_check_it_says_what_to_run(nothing, tmp_path, jupyter) -> None:
    unchecked = Path(shutil.copy(nothing, tmp_path / "unchecked.duckdb"))
    execute(str(unchecked), "DROP TABLE oneroster.quality_results")
    with pytest.raises(CellExecutionError, match="run `uv run oneroster quality"):
        run(QUALITY, unchecked, tmp_path, jupyter)


def test_it_says_what_to_do_about_every_check() -> None:
    (advice,) = (cell.source for cell in kept(QUALITY).cells if cell.id == "what-to-do")
    named = [
        name
        for line in advice.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`(\w+)`", line.split("|")[1])
    ]
    assert sorted(named) == sorted(check.name for check in CHECKS)


@every_notebook
def test_it_reads_only(path) -> None:
    code = [cell.source for cell in kept(path).cells if cell.cell_type == "code"]
    assert OPEN in code[0]
    assert "\n".join(code).count("connect(") == 1


@every_notebook
def test_its_outputs_are_charts_and_tables(path) -> None:
    kinds = set().union(*shown(kept(path)).values())
    assert kinds == {"image/png", "text/plain"}


@every_notebook
def test_it_tells_nothing_of_the_machine_that_made_it(path) -> None:
    notebook = kept(path)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) >= (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.metadata.keys() <= {"kernelspec", "language_info"}
    assert not [cell.id for cell in notebook.cells if cell.metadata]
    assert not re.findall(r"/(?:home|root|work|tmp|Users)/", words(notebook))


@every_notebook
def test_it_is_small_and_narrow(path) -> None:
    assert path.stat().st_size < MOST_BYTES
    outputs = [cell.outputs for cell in kept(path).cells if cell.cell_type == "code"]
    tables = [output.data["text/plain"] for output in chain(*outputs)]
    assert max(len(line) for table in tables for line in table.splitlines()) <= WIDEST
