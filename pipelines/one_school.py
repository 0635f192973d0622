"""One school into a DuckDB file.

Run it with the school's settings in the environment or in .dlt/secrets.toml:

    uv run python pipelines/one_school.py
"""

import dlt

from oneroster_source import oneroster


def load_one_school() -> None:
    pipeline = dlt.pipeline(
        "oneroster", destination=dlt.destinations.duckdb("roster.duckdb"), dataset_name="oneroster"
    )
    # without a report, a collection that cannot be read raises, and nothing is loaded
    pipeline.run(oneroster())
    users = pipeline.dataset().users.select("sourced_id").fetchall()
    print(f"{len(users)} users in roster.duckdb")  # noqa: T201


if __name__ == "__main__":
    load_one_school()
