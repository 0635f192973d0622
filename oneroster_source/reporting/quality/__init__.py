"""Data-quality checks: questions about the rosters to which there should be no answer.

Each `.sql` file is a check of its own name: a SELECT of `estab` and `sourced_id` of the rows at
fault. At its head stand its `question`, its `severity`, `of` which relations its rows are, whose
`ids` these rows show if not those of the relations, and the columns that it `asks` for through
views, if it means nothing without them.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeAlias, cast

import pyarrow as pa

from oneroster_source.destination.queries import DatabaseClient, SqlClient, existing_tables
from oneroster_source.model import QUALITY_RESULTS, V1P1
from oneroster_source.model.type_map import arrow_schema
from oneroster_source.reporting.sql_files import Statement, statements
from oneroster_source.run_report import new_run_id

Severity: TypeAlias = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
CHECKS = tuple(statements(__name__))
_ABOUT = {check.name: check.about for check in CHECKS}
EXAMPLES = 5
"""Most ids to show of the rows at fault."""

_WITH_DELETED = frozenset(endpoint.name for endpoint in V1P1.endpoints)
_FOUND = """
SELECT estab, sourced_id, found FROM (
    SELECT estab, sourced_id, COUNT(*) OVER (PARTITION BY estab) AS found,
        ROW_NUMBER() OVER (PARTITION BY estab ORDER BY sourced_id) AS place
    FROM ({check}) AS faults
) AS numbered WHERE place <= {examples} ORDER BY estab, place
"""


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a check for a school; holds no personal data but ids.

    Args:
        check: The check.
        estab: The school.
        found: Rows at fault.
        checked: Rows that were checked.
        examples: The first ids of the rows at fault, at most `EXAMPLES`.
    """

    check: Statement
    estab: str
    found: int
    checked: int
    examples: tuple[str, ...] = ()

    @property
    def severity(self) -> Severity:
        return cast(Severity, self.check.about["severity"])


def run_checks(client: DatabaseClient, left_out: Collection[str] = ()) -> Iterator[Result]:
    """Runs every check whose tables exist; yields a result for each school, good or not.

    Args:
        client: dlt's client of the destination, in which the views exist.
        left_out: Columns that are left out of what is loaded, as `table.column`: no check is run
            that reads one.

    Raises:
        DatabaseException: dlt's, if the destination refuses a query.
    """
    needed = {table for check in CHECKS for table in (*check.tables, *_relations(check))}
    there = set(existing_tables(client, needed))
    sql = client.sql_client
    counts = {name: _counts(sql, name) for name in there}
    estabs = sorted({estab for found in counts.values() for estab in found})
    for check in CHECKS:
        if not there.issuperset((*check.tables, *_relations(check))):
            continue
        if not _reads(check).isdisjoint(left_out):
            continue
        faults: dict[str, tuple[int, list[str]]] = {}
        query = _FOUND.format(check=check.written(sql), examples=EXAMPLES)
        for estab, sourced_id, found in sql.execute_sql(query) or ():
            faults.setdefault(str(estab), (int(found), []))[1].append(str(sourced_id))
        for estab in estabs:
            checked = sum(counts[name].get(estab, 0) for name in _relations(check))
            found, examples = faults.get(estab, (0, []))
            yield Result(check, estab, found, checked, tuple(examples))


def table(results: Iterable[Result]) -> pa.Table:
    """The rows of `quality_results`, with an id of this run of the checks."""
    now = datetime.now(UTC)
    run_id = new_run_id(now)
    rows = [
        {
            "run_id": run_id,
            "checked_at": now,
            "estab": result.estab,
            "check_id": result.check.name,
            "severity": result.severity,
            "question": result.check.about["question"],
            "relation": result.check.about["of"],
            "rows_checked": result.checked,
            "rows_found": result.found,
            "examples": json.dumps(result.examples),
        }
        for result in results
    ]
    return pa.Table.from_pylist(rows, schema=arrow_schema(QUALITY_RESULTS))


def ids_shown(check_id: str) -> tuple[str, ...]:
    """The endpoints whose ids a check shows as examples; none if it shows other names.

    For a check of another version, which is unknown here, these are all endpoints.

    Args:
        check_id: The name of the check.
    """
    about = _ABOUT.get(check_id)
    if about is None:
        return V1P1.names
    return tuple(n for n in about.get("ids", about["of"]).split(", ") if n in V1P1.names)


def worst(results: Iterable[Result]) -> Severity | None:
    """The worst severity of what was found; None if nothing was found."""
    found = {result.severity for result in results if result.found}
    return next((severity for severity in SEVERITIES if severity in found), None)


def _relations(check: Statement) -> list[str]:
    return check.about["of"].split(", ")


def _reads(check: Statement) -> set[str]:
    """The columns that a check reads, as `table.column`: its own, and those that its head names
    because it reads them through a view.
    """
    named = check.about.get("asks", "").split(", ")
    return {*named, *(f"{table}.{name}" for table in check.tables for name in check.columns)}


def _counts(sql: SqlClient, name: str) -> dict[str, int]:
    """Rows by estab; those that are not deleted, where some may be."""
    query = f"SELECT estab, COUNT(*) FROM {sql.make_qualified_table_name(name)}"
    if name in _WITH_DELETED:
        query += " WHERE NOT _deleted"
    return {str(estab): int(n) for estab, n in sql.execute_sql(query + " GROUP BY estab") or ()}
