"""Loads many schools into one dataset; if one fails, the others are still loaded.

Put the list of schools into .dlt/secrets.toml, or as JSON into the environment:

    export SOURCES__ONEROSTER__RP=your-relying-party
    export SOURCES__ONEROSTER__SCHOOLS='[{"estab": "3281110", "shared_secret": "…"}]'
    uv run python pipelines/many_schools.py
"""

from oneroster_source import Warehouse


def load_many_schools() -> None:
    report = Warehouse("roster.duckdb").load()
    for outcome in report.outcomes:
        print(outcome.estab, outcome.endpoint, outcome.mode, outcome.rows, outcome.error)  # noqa: T201
    # after the load, so that the schools that could be read are loaded
    report.raise_for_failures()


if __name__ == "__main__":
    load_many_schools()
