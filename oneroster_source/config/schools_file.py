"""Reads the rows of a file, or a DuckDB table, that lists schools.

CSV and JSON files are parsed here and not by DuckDB: its `read_csv` takes an unclosed quote for
data, a long first row for the header, renames duplicate columns and drops blank rows from the
count; its `read_json` turns long numbers into floats.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any, TypeAlias

import duckdb
import orjson

from oneroster_source.errors import ConfigurationError, clean

COLUMNS = (
    *("estab", "rp", "base_url", "token_url", "client_id"),
    *("shared_secret_from", "client_secret_from"),
)
KINDS = ".csv, .tsv, .parquet, .json, .jsonl, or file.duckdb#table"
# the tab last, since it may also be a space at the end of a name
_DELIMITERS = ",;|\t"
_WORD = re.compile(r"[^\W_]+")
# a column with such a word in its name is an error, and not just another column
_SECRET = {
    *("secret", "secrets", "password", "passwords", "passphrase", "pwd", "token", "tokens"),
    *("sharedsecret", "clientsecret", "accesstoken", "bearertoken", "apikey"),
}

Cells: TypeAlias = list[Any]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a file, not yet checked."""

    number: int
    """As spreadsheets count: the header of a CSV file is row 1."""
    cells: dict[str, Any]
    """What is not blank, by the name in `COLUMNS`; other columns are left out."""


def read(place: str) -> list[Row]:
    """Returns the rows of a file that are not blank.

    Args:
        place: The path of a file, of one of `KINDS`.

    Raises:
        ConfigurationError: It cannot be read, has no row, no column `estab`, or a column that may
            hold secrets.
    """
    path, table = _parted(place)
    if not path.is_file() or not os.access(path, os.R_OK):
        raise ConfigurationError(
            f"the setting 'schools_from' is {place!r}, which is not a readable file",
            todo=f"give it the path of a file: {KINDS}",
        )
    kind = path.suffix.lower()
    if kind in (".csv", ".tsv"):
        first, names, rows = _csv(_text(path, place), place)
    elif kind in (".json", ".jsonl", ".ndjson"):
        first, names, rows = _json(_text(path, place), place)
    elif kind == ".parquet" or table:
        first, names, rows = _duckdb(path, table, place)
    else:
        raise ConfigurationError(
            f"the setting 'schools_from' is {place!r}, which has no known file type",
            todo=f"use a file that ends in {KINDS}",
        )
    known = _known(names, place)
    found = [
        Row(number, {column: row[index] for index, column in known.items() if row[index] != ""})
        for number, row in enumerate(map(_stripped, rows), first)
        if any(cell != "" for cell in row)
    ]
    if not found:
        raise ConfigurationError(
            f"{place} lists no school", todo="add a row for each school, or unset schools_from"
        )
    return found


def _parted(place: str) -> tuple[Path, str]:
    """Splits a place into a file and a table in it, which may be empty."""
    file, mark, table = place.rpartition("#")
    if not mark or Path(place).is_file():
        return Path(place), ""
    return Path(file), table


def _known(names: Iterable[str], place: str) -> dict[int, str]:
    """Returns the columns that are known, by their index."""
    spelled = {"".join(_WORD.findall(name)): name for name in COLUMNS}
    found: dict[int, str] = {}
    secret = ""
    for index, name in enumerate(names):
        words = _WORD.findall(name.casefold())
        column = spelled.get("".join(words))
        if column in found.values():
            raise ConfigurationError(f"{place} has two columns {column!r}", todo="keep one")
        if column is not None:
            found[index] = column
        elif _SECRET & {*words, "".join(words)}:
            secret = name
    # first: without a header, the names are values and must not be shown
    if "estab" not in found.values():
        raise ConfigurationError(
            f"{place} has no column 'estab'",
            todo=f"name its columns, a CSV file in its first line: {', '.join(COLUMNS)}; only estab"
            " is needed",
        )
    if secret:
        raise ConfigurationError(
            f"{place} has a column {clean(secret, limit=60)!r}, but secrets must not be in that"
            " file",
            todo="remove the column; put the secrets into the environment or dlt's secrets, and"
            " their names into a column shared_secret_from or client_secret_from, unless the"
            " setting secret_from names them all",
        )
    return found


def _stripped(row: Cells) -> Cells:
    """Strips spaces around texts, and makes NULL an empty text."""
    return ["" if cell is None else cell.strip() if isinstance(cell, str) else cell for cell in row]


def _text(path: Path, place: str) -> str:
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        problem = "is not UTF-8"
    # outside the handler: the error holds the whole file
    raise ConfigurationError(
        f"{place} {problem}", todo="save it as UTF-8: in Excel, as 'CSV UTF-8'"
    )


def _csv(text: str, place: str) -> tuple[int, list[str], list[Cells]]:
    """Returns the number of the first row, the names of the columns, and all rows, as text."""
    first = text.partition("\n")[0]
    delimiter = next((d for d in _DELIMITERS if "estab" in _cells(first, d)), ",")
    lines: list[list[str]] = []
    wrong = ""
    try:
        reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
        lines = [_stripped(row) for row in reader]
    except csv.Error as error:
        # its message quotes no value
        wrong = str(error)
    if wrong:
        raise ConfigurationError(f"{place} is not valid CSV: {wrong}", todo="fix it")
    names, *rows = lines or [[]]
    for number, row in enumerate(rows, 2):
        if len(row) != len(names) and any(row):
            raise ConfigurationError(
                f"row {number} of {place} has {len(row)} cells, but its first line has"
                f" {len(names)}",
                todo="fix it: a cell that holds the delimiter needs double quotes around it",
            )
    return 2, names, rows


def _cells(line: str, delimiter: str) -> list[str]:
    return [
        cell.strip().casefold() for row in csv.reader([line], delimiter=delimiter) for cell in row
    ]


def _json(text: str, place: str) -> tuple[int, list[str], list[Cells]]:
    """Reads a list of objects, or an object on each line, as `_csv` does."""
    try:
        if text.lstrip().startswith("["):
            rows = orjson.loads(text)
        else:
            rows = [orjson.loads(line) for line in text.split("\n") if line.strip()]
    except orjson.JSONDecodeError:
        rows = [None]
    if not all(isinstance(row, dict) for row in rows):
        raise ConfigurationError(
            f"{place} is not a list of JSON objects, and has no object on each line", todo="fix it"
        )
    names = list(dict.fromkeys(name for row in rows for name in row))
    return 1, names, [[row.get(name) for name in names] for row in rows]


def _duckdb(path: Path, table: str, place: str) -> tuple[int, list[str], list[Cells]]:
    """Reads a Parquet file or a DuckDB table, as `_csv` does."""
    try:
        with duckdb.connect(str(path) if table else ":memory:", read_only=bool(table)) as database:
            found = (
                database.table(table)
                if table
                # a name may look like a pattern
                else database.read_parquet(escape(str(path)))
            )
            return 1, found.columns, [list(row) for row in found.fetchall()]
    except duckdb.CatalogException:
        problem = f"has no table {table!r}"
    except duckdb.IOException as error:
        # its message quotes no value: it is about files and who has them open
        problem = f"cannot be read: {clean(error, limit=400)}"
    except duckdb.Error as error:
        problem = f"cannot be read ({type(error).__name__})"
    raise ConfigurationError(f"{path} {problem}", todo=f"check schools_from: {place!r}")
