"""One rule says which rows are deleted: a load and `prune` read a status by it alike."""

from __future__ import annotations

import json

import duckdb
import pytest

from oneroster_source.model import V1P1
from oneroster_source.model.deleted_status import is_deleted_sql
from oneroster_source.transform.duckdb_engine import Engine
from oneroster_source.transform.parser import PageParser

SPELLINGS: dict[str | None, bool] = {
    "tobedeleted": True,
    "toBeDeleted": True,
    "to_be_deleted": True,
    "to-be-deleted": True,
    "To Be Deleted": True,
    "to be\tdeleted": True,
    "tobedeleted\n": True,
    "\r to\fbe\u0020deleted": True,
    "inactive": True,
    "IN-ACTIVE": True,
    "active": False,
    "Active": False,
    "deleted": False,
    "tobedeleted.": False,
    "tobe\u00a0deleted": False,
    "to'be'deleted": False,
    "": False,
    None: False,
}


@pytest.mark.parametrize("status", SPELLINGS)
def test_a_load_and_a_prune_agree(status: str | None) -> None:
    sql = f"SELECT {is_deleted_sql('status')} FROM (SELECT CAST(? AS VARCHAR) AS status)"
    ((pruned,),) = duckdb.execute(sql, [status]).fetchall()
    body = json.dumps({"orgs": [{"sourcedId": "a", "status": status}]}).encode()
    (loaded,) = PageParser(V1P1["orgs"], Engine()).parse(body).column("_deleted").to_pylist()
    assert bool(pruned) is loaded is SPELLINGS[status]


def test_a_page_in_the_standards_form_is_read_alike_by_both_readers() -> None:
    parser = PageParser(V1P1["orgs"], Engine())
    for status in ("active", "tobedeleted"):
        row = {"sourcedId": "a", "status": status}
        strict, tolerant = (
            parser.parse(json.dumps({"orgs": [sent]}).encode()).column("_deleted").to_pylist()
            for sent in (row, {**row, "unknown": 1})
        )
        assert strict == tolerant
