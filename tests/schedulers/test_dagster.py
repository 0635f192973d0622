"""The assets of `pipelines/`, made by Dagster itself, in an environment that has it.

It is in no extra, for the same reason as Airflow:

    uv run --isolated --no-project --python 3.11 --with 'dagster>=1.13,<2' \
        --with pytest --with hypothesis --with '.[postgres,demo]' \
        pytest -c /dev/null --rootdir . tests/schedulers/test_dagster.py
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from support.settings import environment
from support.truth import Truth, differences

from oneroster_source.simulator import secondary_school

if find_spec("dagster") is None:
    pytest.skip("Dagster is not here: the command is in this file", allow_module_level=True)

import dagster as dg

SECRET = "Zx9-s3cr3t-canary"


def test_each_table_is_an_asset_and_a_school_that_fails_fails_the_run(
    serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    schools = [secondary_school(n, str(n), pupils=10, shared_secret=SECRET) for n in (1, 2)]
    server = serve(*schools)
    for name, value in environment(server, *schools).items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "pipelines")
    from dagster_definitions import defs

    dg.Definitions.validate_loadable(defs)
    (schedule,) = defs.schedules or ()
    assert (schedule.job_name, schedule.cron_schedule) == ("oneroster_nightly", "30 4 * * *")
    (tmp_path / "home").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "home")) as instance:
        job = defs.resolve_job_def("oneroster_nightly")
        done = job.execute_in_process(instance=instance, raise_on_error=False)
        assert done.success
        truth = Truth(server.base_url, schools)
        assert differences("roster.duckdb", truth) == {}
        made = {
            event.asset_key.path[-1]: event.materialization.metadata
            for event in done.get_asset_materialization_events()
        }
        rows = {name: metadata["dagster/row_count"].value for name, metadata in made.items()}
        assert rows == {name: len(found) for name, found in truth.tables.items()}
        assert made["users__grades"]["schools"].value == 2

        schools[0].forbidden.add("users")
        schools[1].change("users", schools[1].rows("users")[0]["sourcedId"], givenName="Ada")
        done = job.execute_in_process(instance=instance, raise_on_error=False)
        assert not done.success
        (failure,) = done.get_step_failure_events()
        assert "school 1, users at offset 0: the server answered 403" in str(
            failure.event_specific_data
        )
        made = {
            event.asset_key.path[-1]: event.materialization.metadata
            for event in done.get_asset_materialization_events()
        }
        assert [made["users"][key].value for key in ("changed", "schools_failed")] == [1, 1]
        assert differences("roster.duckdb", Truth(server.base_url, schools[1:]), estab="2") == {}
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    kept += "".join(capfd.readouterr()).encode()
    used = {r.headers.get("authorization", "").partition(" ")[2] for r in server.requests} - {""}
    assert [text for text in (SECRET, *used) if text.encode() in kept] == []
