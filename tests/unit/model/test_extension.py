"""A new attribute is one line of the declaration, a new endpoint at most ten, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import duckdb
import pytest

STAMP = "2026-09-01T12:00:00.000Z"
ROWS: dict[str, list[dict[str, Any]]] = {
    "orgs": [
        {"sourcedId": "o1", "status": "active", "dateLastModified": STAMP, "phase": "secondary"},
        {"sourcedId": "o2", "status": "active", "dateLastModified": STAMP},
    ],
    "lineItems": [
        {
            "sourcedId": "l1",
            "status": "active",
            "dateLastModified": STAMP,
            "title": "Essay",
            "dueDate": "2026-10-01",
            "org": {"sourcedId": "o1", "type": "org", "href": "https://a/orgs/o1"},
            "categories": ["written", "graded"],
        },
    ],
}

FIELD = 'Field("phase", about="Phase of education"),'
ENDPOINT = """
Endpoint(
    name="line_items",
    singular="line_item",
    path="/lineItems",
    fields=(Field("title", about="Title"), Field("dueDate", "date", about="When it is due")),
    refs=(Ref("org", "orgs", about="the org that set it"),),
    lists=(ChildList("categories", about="a category that it is in"),),
),
"""

LOAD = f"""
import dataclasses, json, sys
import oneroster_source.model as model, oneroster_source.model.v1p1 as v1p1
from oneroster_source.model import ChildList, Endpoint, Field, Ref

orgs, *others = v1p1.V1P1.endpoints
orgs = dataclasses.replace(orgs, fields=(*orgs.fields, {FIELD}))
v1p1.V1P1 = model.V1P1 = dataclasses.replace(v1p1.V1P1, endpoints=(orgs, *others, {ENDPOINT}))

from oneroster_source import Report, Warehouse
report = Report()
Warehouse("roster.duckdb").load(report, **json.loads(sys.argv[1]))
assert not report.failed, [str(outcome) for outcome in report.failed]
"""


class _Provider(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        self._answer({"access_token": "token", "token_type": "Bearer", "expires_in": 3600})

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(url.query).items()}
        name, begin = url.path.rpartition("/")[2], int(asked.get("offset", 0))
        rows = ROWS[name][:: -1 if asked.get("orderBy") == "desc" else 1]
        self._answer({name: rows[begin : begin + int(asked.get("limit", 100))]}, len(rows))

    def _answer(self, payload: Any, total: int | None = None) -> None:
        body = json.dumps(payload).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if total is not None:
            self.send_header("X-Total-Count", str(total))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Provider)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.sample(1)
def test_a_new_attribute_and_a_new_endpoint_are_loaded(address: str, tmp_path: Path) -> None:
    assert len(FIELD.strip().splitlines()) == 1
    assert len(ENDPOINT.strip().splitlines()) <= 10
    settings = {
        "base_url": address,
        "schools": [{"estab": "1", "rp": "rp", "shared_secret": "secret"}],
        "endpoints": ["orgs", "line_items"],
        "privacy": "full",
    }
    command = [sys.executable, "-c", LOAD, json.dumps(settings)]
    done = subprocess.run(
        command, cwd=tmp_path, check=False, timeout=120, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    with duckdb.connect(str(tmp_path / "roster.duckdb"), read_only=True) as connection:

        def rows(query: str) -> list[tuple[Any, ...]]:
            return connection.execute(query).fetchall()

        assert rows("SELECT sourced_id, phase, extra FROM oneroster.orgs ORDER BY 1") == [
            ("o1", "secondary", None),
            ("o2", None, None),
        ]
        assert rows(
            "SELECT sourced_id, title, due_date::VARCHAR, org_sourced_id FROM oneroster.line_items"
        ) == [("l1", "Essay", "2026-10-01", "o1")]
        assert rows(
            "SELECT line_item_sourced_id, position, value FROM oneroster.line_items__categories"
            " WHERE position >= 0 ORDER BY position"
        ) == [("l1", 0, "written"), ("l1", 1, "graded")]
        assert rows("SELECT sourced_id, type FROM oneroster.line_items__org") == [("o1", "org")]
