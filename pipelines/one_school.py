"""Loads one school into a DuckDB file.

Put the school's settings into the environment or .dlt/secrets.toml:

    uv run python pipelines/one_school.py
"""

from oneroster_source import Warehouse


def load_one_school() -> None:
    warehouse = Warehouse("roster.duckdb")
    report = warehouse.load()
    # after the load, so that the collections that could be read are loaded
    report.raise_for_failures()
    for table, rows in warehouse.status().rows.items():
        print(f"{sum(rows.values()):>8,} rows in {table}")  # noqa: T201


if __name__ == "__main__":
    load_one_school()
