"""Many schools into one dataset; one that fails stops no other.

Run it with the list of schools in .dlt/secrets.toml, or as JSON in the environment:

    export SOURCES__ONEROSTER__RP=your-relying-party
    export SOURCES__ONEROSTER__SCHOOLS='[{"estab": "3281110", "shared_secret": "…"}]'
    uv run python pipelines/many_schools.py
"""

from oneroster_source import Warehouse


def load_many_schools() -> None:
    report = Warehouse("roster.duckdb").load()
    for outcome in report.outcomes:
        print(outcome.estab, outcome.endpoint, outcome.mode, outcome.rows, outcome.error)  # noqa: T201
    # after the load, so that the schools that could be read are there
    report.raise_for_failures()


if __name__ == "__main__":
    load_many_schools()
