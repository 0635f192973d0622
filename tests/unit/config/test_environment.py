"""What somebody else has in the environment steers no run: settings have names of their own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import dlt
import duckdb
import pytest
from support.changes import purge
from support.settings import settings
from support.truth import Truth, differences

from oneroster_source import ConfigurationError, Report, oneroster
from oneroster_source.simulator import School

STEERS = {
    "since": "2030-01-01T00:00:00Z",
    "until": "2001-01-01T00:00:00Z",
    "full": "true",
    "allow_deletes": "true",
    "only": '["nobody"]',
    "report": "anything",
    "alone": "true",
}
"""What a bare name in somebody's environment could do to a sync."""


@pytest.fixture
def settings_file(tmp_path: Path) -> Iterator[Path]:
    """Where dlt reads settings after `reload`, for this test alone."""
    folder = tmp_path / ".dlt"
    folder.mkdir()
    yield folder / "config.toml"
    (folder / "config.toml").unlink(missing_ok=True)
    dlt.current.run_context().reload()


@pytest.mark.sample(1)
@pytest.mark.parametrize("where", ["", "SOURCES__", "SOURCES__ONEROSTER__", "config.toml"])
def test_nothing_but_an_argument_steers_a_run(
    serve,
    school: School,
    sync,
    settings_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
) -> None:
    server = serve(school)
    elsewhere = {"ENDPOINTS": '["orgs"]', "PAGE_SIZE": "3", "DESTINATION": "filesystem"}
    others = {**elsewhere, "DATASET_NAME": "other", "PIPELINE_NAME": "other", "DELETED": "remove"}
    if where == "config.toml":
        lines = [f"{name} = '{value}'" for name, value in {**STEERS, **elsewhere}.items()]
        settings_file.write_text("\n".join(lines).lower(), "utf-8")
        dlt.current.run_context().reload()
    elif where == "SOURCES__ONEROSTER__":
        # there is no such setting, and that is said
        monkeypatch.setenv(f"{where}SINCE", STEERS["since"])
        with pytest.raises(ConfigurationError, match="no setting 'since'"):
            sync(server, school)
        return
    else:
        for name, value in STEERS.items():
            monkeypatch.setenv(f"{where}{name.upper()}", value)
        for name, value in others.items():
            monkeypatch.setenv(f"{where}{name}", value)
    first = sync(server, school)
    assert {outcome.mode for outcome in first.outcomes} == {"full"} and len(first.outcomes) == 6
    assert differences(str(tmp_path / "roster.duckdb"), Truth(server.base_url, [school])) == {}
    assert {outcome.mode for outcome in sync(server, school).outcomes} == {"delta"}
    # the guard is on
    purge(school, "users", 40)
    guarded = sync(server, school, full_refresh_days=0)
    held = [outcome for outcome in guarded.outcomes if outcome.state == "held"]
    assert [outcome.endpoint for outcome in held] == ["users"]
    assert "max_delete_share" in held[0].error


def test_the_source_is_dlts_own_with_arguments_and_a_clone(
    serve, school: School, pipeline: dlt.Pipeline
) -> None:
    given = {**settings(serve(school), school), "endpoints": ["orgs"]}
    for make in (
        oneroster.with_args(name="trust"),
        oneroster.clone(name="trust"),
    ):
        source = make(report=Report(), **given)
        assert list(source.resources) == ["orgs"]
        pipeline.run(source)
        assert pipeline.last_trace.last_normalize_info.row_counts["sync_run_details"] == 1


BARE = {
    "DEV_MODE": "true",
    "REFRESH": "drop_sources",
    "RESTORE_FROM_DESTINATION": "false",
    "DATASET_NAME_LAYOUT": "other_%s",
    "STAGING_DATASET_NAME_LAYOUT": "%s_other",
    "ADD_DLT_LOAD_ID": "true",
    "EXPORT_SCHEMA_PATH": "schemas",
    "IMPORT_SCHEMA_PATH": "schemas",
    "CREDENTIALS": "elsewhere.duckdb",
}
"""Options of dlt's own, which it takes from bare names too."""


def test_no_bare_name_steers_dlt(
    serve, school: School, sync, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in BARE.items():
        monkeypatch.setenv(name, value)
    server = serve(school)
    sync(server, school)
    assert {outcome.mode for outcome in sync(server, school).outcomes} == {"delta"}
    truth = Truth(server.base_url, [school])
    assert differences(str(tmp_path / "roster.duckdb"), truth) == {}
    with duckdb.connect(str(tmp_path / "roster.duckdb"), read_only=True) as connection:
        schemas = connection.sql(
            "SELECT DISTINCT schema_name FROM duckdb_schemas() WHERE database_name = 'roster'"
            " AND NOT internal"
        ).fetchall()
        columns = connection.sql("DESCRIBE oneroster.users").fetchall()
    assert not [name for (name,) in schemas if re.search(r"other|\d{6}", name)]
    assert "_dlt_load_id" not in {name for name, *_ in columns}
    assert [path.name for path in tmp_path.iterdir()] == ["roster.duckdb"]
    # other pipelines of the process go by dlt's rules
    assert dlt.config.get("refresh") == "drop_sources"
