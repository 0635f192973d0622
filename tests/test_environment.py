"""What somebody else has in the environment steers no run: settings have names of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dlt
import pytest
from conftest import purge, settings
from truth import Truth, differences

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
    assert [outcome.endpoint for outcome in guarded.failed] == ["users"]
    assert "max_delete_share" in guarded.failed[0].error


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
