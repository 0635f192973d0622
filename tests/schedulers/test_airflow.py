"""The DAG of `pipelines/`, run by Airflow itself, in an environment that has it.

Airflow brings a hundred packages, and pins of its own, so that it is in no extra:

    uv run --isolated --no-project --python 3.11 --with 'apache-airflow>=3.1,<4' \
        --with pytest --with hypothesis --with '.[postgres,demo]' \
        pytest -c /dev/null --rootdir . tests/schedulers/test_airflow.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.postgres import query
from support.settings import environment
from support.truth import Truth, differences

from oneroster_source.simulator import School, Simulator, secondary_school

if find_spec("airflow") is None:
    pytest.skip("Airflow is not here: the command is in this file", allow_module_level=True)

DAG = Path(__file__).parents[2] / "pipelines/airflow_dag.py"
SECRET = "Zx9-s3cr3t-canary"
# as a scheduler would run it, but one task after the other, and none a second time
RUN = """
import json, sys
sys.path.insert(0, sys.argv[1])
from airflow_dag import nightly
for task in nightly.tasks:
    task.retries = 0
done = nightly.test()
found = {"state": str(done.state)}
for task in done.get_task_instances():
    found.setdefault(task.task_id, []).append(str(task.state))
print("FOUND " + json.dumps(found))
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where Airflow keeps its database, made once."""
    folder = tmp_path_factory.mktemp("airflow")
    (folder / "dags").mkdir()
    (folder / "dags" / DAG.name).write_bytes(DAG.read_bytes())
    airflow("-m", "airflow", "db", "migrate", home=folder)
    return folder


def airflow(*words: str, home: Path, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=home,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")},
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
            "AIRFLOW__CORE__UNIT_TEST_MODE": "false",
            "PYTHONWARNINGS": "ignore",
            **env,
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def night(
    home: Path, url: str, server: Simulator, schools: list[School]
) -> tuple[dict[str, object], str]:
    """The states of a run and of its tasks, and all that was said."""
    said = airflow(
        *("-c", RUN, str(home / "dags")),
        home=home,
        ONEROSTER_DESTINATION="postgres",
        ONEROSTER_SHARDS="3",
        DESTINATION__POSTGRES__CREDENTIALS=url,
        **environment(server, *schools),
        SOURCES__ONEROSTER__RETRY_BUDGET="0",
    )
    (found,) = [line for line in said.splitlines() if line.startswith("FOUND ")]
    return json.loads(found.removeprefix("FOUND ")), said


def test_nights_load_all_shards_and_a_school_that_fails_stops_no_other(
    home: Path, serve, postgres: str
) -> None:
    schools = [secondary_school(n, str(n), pupils=n, shared_secret=SECRET) for n in range(1, 8)]
    server = serve(*schools)
    states, said = night(home, postgres, server, schools)
    good = {"state": "success", "divide": ["success"], "load": ["success"] * 3}
    assert states == {**good, "finish": ["success"], "tell": ["skipped"]}, said[-3000:]
    assert differences(postgres, Truth(server.base_url, schools)) == {}
    assert query(postgres, "SELECT count(*) FROM oneroster.school_summary") == [(7,)]

    for each in schools:
        user = each.rows("users")[0]
        each.change("users", user["sourcedId"], givenName="Ada", grades=None)
    schools[2].forbidden.add("users")
    states, said = night(home, postgres, server, schools)
    loads = sorted(states.pop("load"))  # type: ignore[call-overload]
    assert loads == ["failed", "success", "success"]
    assert states == {
        **{"state": "failed", "divide": ["success"], "finish": ["success"], "tell": ["failed"]}
    }
    assert "school 3, users at offset 0: the server answered 403" in said
    # all but what failed is there
    changed = "SELECT estab FROM oneroster.users WHERE given_name = 'Ada' ORDER BY estab"
    assert [estab for (estab,) in query(postgres, changed)] == list("124567")
    for each in schools[:2] + schools[3:]:
        truth = Truth(server.base_url, [each])
        assert differences(postgres, truth, estab=each.estab) == {}

    used = {r.headers.get("authorization", "").partition(" ")[2] for r in server.requests} - {""}
    kept = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())
    kept += said.encode()
    # what tasks hand over is in there
    assert b"estabs" in kept
    assert [text for text in (SECRET, "hunter2", *used) if text.encode() in kept] == []
