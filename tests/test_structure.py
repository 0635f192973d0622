"""Promises about the code itself."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import oneroster_source

PACKAGE = Path(oneroster_source.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# each module may import only what stands before it: nothing points upward
ORDER = (
    "errors",
    "private",
    "lock",
    "log",
    "stop",
    "memory",
    "spec",
    "filters",
    "options",
    "json_text",
    "privacy",
    "suppression",
    "schools_file",
    "schools",
    "config",
    "http",
    "auth",
    "client",
    "shape",
    "reader",
    "report",
    "spool",
    "deletion",
    "collection",
    "cursor",
    "merge",
    "delta",
    "postgres_client",
    "postgres",
    "fleet",
    "state",
    "access",
    "staging",
    "dlt_columns",
    "rewrite",
    "held",
    "source",
    "verify",
    "statement",
    "views",
    "quality",
    "page",
    "clear",
    "holdings",
    "history",
    "retention",
    "destination",
    "person",
    "warehouse",
    "cluster",
    "check",
    "register",
    "screen",
    "simulator",
    "demo",
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


@pytest.mark.parametrize("path", sorted((PACKAGE / "simulator").glob("*.py")), ids=lambda p: p.name)
def test_the_simulator_is_an_independent_witness(path: Path) -> None:
    assert _imported(path) <= {"simulator"}


def test_the_front_door_is_small() -> None:
    assert set(oneroster_source.__all__) == {
        "AccessDenied",
        "BadResponse",
        "ConfigurationError",
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
        "Warehouse",
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
        if _part(path) in ("spec", "simulator", "cli"):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Compare):
                values = {c.value for c in node.comparators if isinstance(c, ast.Constant)}
                assert not values & names, f"{path.name}:{node.lineno}"
