"""Promises about the code itself."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.program import PATIENCE

import oneroster_source

PACKAGE = Path(oneroster_source.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
OWNERS = packages_distributions()
"""Distributions by the packages that they bring."""

# the stages; each may import only what stands before it: nothing points upward
ORDER = (
    "errors",
    "log",
    "model",
    "config",
    "transform",
    "client",
    "run_report",
    "destination",
    "extract",
    "reporting",
    "admin",
    "source",
    "sync",
    "warehouse",
    "simulator",
    "cli",
    "__main__",
)


def _part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imported(path: Path) -> set[str]:
    """The parts of the package that a module imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            root, _, rest = node.module.partition(".")
            if root == "oneroster_source":
                names |= {rest.split(".")[0]} if rest else {a.name for a in node.names}
    return names


def test_every_part_has_its_place_in_the_order() -> None:
    assert {_part(path) for path in MODULES} - {"__init__"} == set(ORDER)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_points_upward(path: Path) -> None:
    if _part(path) == "__init__":
        return
    place = ORDER.index(_part(path))
    for name in _imported(path) - {_part(path)}:
        assert name in ORDER[:place], f"{_part(path)} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= 450
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[1] if ast.get_docstring(node) and node.body[1:] else node.body[0]
            assert (node.end_lineno or 0) - first.lineno < 60, node.name


def test_few_modules_stand_beside_the_packages() -> None:
    assert len([path for path in PACKAGE.iterdir() if path.suffix == ".py"]) <= 7


def test_no_module_takes_the_name_of_another() -> None:
    """A module that is run, or whose folder is on the path, would stand in its place."""
    others = sys.stdlib_module_names | {
        root for root, owners in OWNERS.items() if "oneroster-source" not in owners
    }
    names = {path.parent.name if path.stem == "__init__" else path.stem for path in MODULES}
    assert names.isdisjoint(others - {"__main__"})


@pytest.mark.parametrize("path", sorted((PACKAGE / "simulator").glob("*.py")), ids=lambda p: p.name)
def test_the_simulator_is_an_independent_witness(path: Path) -> None:
    assert _imported(path) <= {"simulator"}


def test_the_front_door_is_small() -> None:
    assert set(oneroster_source.__all__) == {
        "ENDPOINTS",
        "AccessDenied",
        "BadResponse",
        "ConfigurationError",
        "Delta",
        "DestinationBusy",
        "DestinationError",
        "EndpointNotFound",
        "FilterError",
        "IncompleteRead",
        "InsecureServer",
        "LoginError",
        "MassDeletion",
        "OneRosterError",
        "Outcome",
        "Report",
        "RequestRefused",
        "ResponseTooLarge",
        "ServerUnavailable",
        "Shard",
        "Warehouse",
        "keep_history",
        "make_views",
        "oneroster",
    }
    assert all(getattr(oneroster_source, name) for name in oneroster_source.__all__)


def test_the_drawing_of_the_errors_names_them_all() -> None:
    from oneroster_source import errors

    drawn = errors.__doc__ or ""
    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, Exception):
            assert f" {name} " in drawn or f"    {name}\n" in drawn, name


def test_no_endpoint_is_named_outside_the_spec() -> None:
    """Differences between endpoints are data: no code asks which one it is."""
    names = {"orgs", "users", "classes", "courses", "enrollments", "academic_sessions"}
    for path in MODULES:
        if _part(path) in ("model", "simulator", "cli"):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Compare):
                values = {c.value for c in node.comparators if isinstance(c, ast.Constant)}
                assert not values & names, f"{path.name}:{node.lineno}"


def test_the_kind_of_a_destination_is_asked_in_one_place() -> None:
    """What differs between destinations is in their backends: nothing else asks which it is."""
    asking = []
    for path in MODULES:
        nodes = ast.walk(ast.parse(path.read_text("utf-8")))
        if any(
            isinstance(node, ast.Attribute) and node.attr == "destination_type" for node in nodes
        ):
            asking.append(str(path.relative_to(PACKAGE)))
    assert asking == ["destination/backends/__init__.py"]


INTERNAL = {"destination", "source", "warehouse", "config"}
"""What may import dlt's inner modules; config resolves settings as dlt does."""


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_inner_modules_of_dlt_are_imported_in_few_places(path: Path) -> None:
    if _part(path) in INTERNAL:
        return
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        assert not isinstance(node, ast.ImportFrom) or not str(node.module).startswith("dlt.")


EXTRAS = {"html_report": "report", "dask_cluster": "dask", "simulator": "demo"}
"""Modules and packages that need what is in an extra."""
_PYPROJECT = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text("utf-8"))
PROJECT = _PYPROJECT["project"]
DEV = _PYPROJECT["dependency-groups"]["dev"]


def _declared(requirements: list[str]) -> set[str]:
    names = (re.match(r"[\w.-]+", requirement) for requirement in requirements)
    return {name[0].lower().replace("_", "-") for name in names if name}


def _others(path: Path) -> set[str]:
    """The packages of others that a module imports."""
    roots = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            roots |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            roots.add(node.module.partition(".")[0])
    return roots - sys.stdlib_module_names - {"oneroster_source"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_what_is_imported_is_declared(path: Path) -> None:
    declared = _declared(PROJECT["dependencies"])
    for extra in {EXTRAS[name] for name in (path.stem, path.parent.name) if name in EXTRAS}:
        declared |= _declared(PROJECT["optional-dependencies"][extra])
    owners = OWNERS
    for root in _others(path):
        assert declared & {name.lower().replace("_", "-") for name in owners[root]}, root


def test_what_is_declared_is_imported() -> None:
    owners = OWNERS
    used = {name.lower() for path in MODULES for root in _others(path) for name in owners[root]}
    # uvicorn's parser; a version that dlt can do with is all that matters of the other
    assert _declared(PROJECT["dependencies"]) <= used
    assert _declared(PROJECT["optional-dependencies"]["demo"]) <= used | {"httptools"}


def _installed_with(requirements: list[str]) -> set[str]:
    """The packages that these bring, and all that those bring in turn."""
    found: set[str] = set()
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        wanted = waiting.pop()
        names = {f"{canonicalize_name(wanted.name)}[{extra}]" for extra in wanted.extras or {""}}
        if names <= found:
            continue
        found |= names
        try:
            needed = requires(wanted.name) or []
        except PackageNotFoundError:
            # for another platform or Python
            continue
        for other in map(Requirement, needed):
            extras = wanted.extras | {""}
            if not other.marker or any(other.marker.evaluate({"extra": e}) for e in extras):
                waiting.append(other)
    return {name.partition("[")[0] for name in found}


def test_the_package_alone_brings_no_web_server() -> None:
    servers = _declared(PROJECT["optional-dependencies"]["demo"])
    assert servers >= {"starlette", "uvicorn"}
    base = _installed_with(PROJECT["dependencies"])
    assert {"dlt", "duckdb", "pyarrow", "orjson"} <= base
    assert base.isdisjoint(servers | {"h11", "flask", "werkzeug", "tornado", "aiohttp"})


def test_a_clone_can_run_the_demo() -> None:
    wanted = {requirement.name: requirement for requirement in map(Requirement, DEV)}
    assert "demo" in wanted["oneroster-source"].extras


@pytest.mark.parametrize(
    ("words", "missing", "extra"),
    [
        (["simulate"], "uvicorn", "demo"),
        (["demo"], "starlette", "demo"),
        (["report"], "jinja2", "report"),
    ],
)
def test_a_command_says_which_extra_it_needs(
    tmp_path: Path, words: list[str], missing: str, extra: str
) -> None:
    program = (
        f"import sys; sys.modules[{missing!r}] = None; sys.argv = ['oneroster', *{words!r}];"
        " from oneroster_source.cli.app import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 2
    assert f"needs {missing}" in done.stderr and f"oneroster-source[{extra}]" in done.stderr


def test_all_else_works_without_any_extra(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules |= dict.fromkeys(['starlette', 'uvicorn', 'httptools', 'jinja2',"
        " 'markupsafe', 'altair', 'vl_convert', 'distributed', 'psycopg2']);"
        "import oneroster_source.warehouse, oneroster_source.cli.render;"
        "import oneroster_source.extract.check;"
        "sys.argv = ['oneroster', 'fields']; from oneroster_source.cli.app import main; main()"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=PATIENCE)


def test_no_test_imports_another_test() -> None:
    for path in sorted(Path(__file__).parents[1].rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            named = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            named += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert not [n for n in named if n.split(".")[0].startswith(("test_", "conftest"))], path
