"""Reads the schools of a run, and what it takes to log in for each, from the settings."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dlt
import orjson

from oneroster_source.config import schools_file
from oneroster_source.config.options import XPORTER, Login, Options, missing, wrong
from oneroster_source.errors import ConfigurationError

WAYS = ("estab", "schools", "schools_from")
"""The settings that name the schools; exactly one of them is set."""
_log = logging.getLogger("oneroster_source")
_NAME = re.compile(r"[\w/-]+(\.[\w/-]+)*")


@dataclass(frozen=True, slots=True)
class School:
    """A school, and what it takes to log in for it. Its `repr` shows no secret."""

    estab: str
    rp: str
    shared_secret: str = field(repr=False)
    base_url: str = XPORTER
    token_url: str = ""
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    problem: ConfigurationError | None = None
    """Why the school cannot be loaded; the others are."""

    @property
    def server(self) -> str:
        """The host and port: all schools of a server share its limit of parallel requests."""
        return urlsplit(self.base_url).netloc


_SCHOOL_KEYS = tuple(f.name for f in fields(School) if f.name != "problem")


def configured(options: Options, login: Login) -> tuple[School, ...]:
    """Returns the schools of a run.

    Raises:
        ConfigurationError: There are none, or one lacks what it takes to log in.
    """
    ways = [way for way in WAYS if getattr(options, way) is not None]
    if not ways:
        raise missing("estab", " (and there is neither 'schools' nor 'schools_from')")
    if len(ways) > 1:
        raise ConfigurationError(
            f"both {ways[0]!r} and {ways[1]!r} are set",
            todo="keep one: one school, a list of them, or a file",
        )
    if options.schools_from is not None:
        return _of_file(options.schools_from, options, login)
    if options.schools is None:
        return (_school({}, options, login, ""),)
    return _of_list(options, login)


def _of_list(options: Options, login: Login) -> tuple[School, ...]:
    entries: Any = options.schools
    if isinstance(entries, str):
        try:
            entries = orjson.loads(entries)
        except orjson.JSONDecodeError:
            entries = None
    if not isinstance(entries, list | tuple):
        raise wrong("schools", "is not a list")
    if not entries:
        raise wrong("schools", "is an empty list")
    schools = []
    for number, entry in enumerate(entries, 1):
        where = f" in entry {number} of 'schools'"
        if not isinstance(entry, Mapping):
            raise wrong("schools", f"has an entry {number} that is not a table of settings")
        unknown = [key for key in entry if key not in _SCHOOL_KEYS]
        if unknown:
            raise ConfigurationError(
                f"there is no setting {unknown[0]!r}{where}",
                todo=f"use one of: {', '.join(_SCHOOL_KEYS)}",
            )
        schools.append(_school(entry, options, login, where))
    twice = {s.estab for s in schools if sum(o.estab == s.estab for o in schools) > 1}
    if twice:
        raise wrong("schools", f"names the estab {min(twice)!r} twice")
    return tuple(schools)


def _of_file(place: object, options: Options, login: Login) -> tuple[School, ...]:
    if not isinstance(place, str | Path):
        raise wrong("schools_from", "is not text")
    pattern: object = options.secret_from
    if (
        not isinstance(pattern, str)
        or "{estab}" not in pattern
        or not _NAME.fullmatch(pattern.replace("{estab}", "1"))
    ):
        raise wrong("secret_from", f"is {pattern!r}")
    schools: dict[str, School] = {}
    for row in schools_file.read(str(place)):
        where = f"row {row.number} of {place}"
        found = row.cells.get("estab")
        if found is None:
            raise ConfigurationError(f"{where} has no estab", todo="give it one, or remove the row")
        if unfit := _unfit(found):
            raise ConfigurationError(f"the estab in {where} {unfit}", todo="write it as text")
        estab = str(found)
        if estab in schools:
            raise ConfigurationError(f"{where} names the estab {estab!r} again", todo="keep one")
        schools[estab] = _of_row(estab, row.cells, options, login, f" in {where}")
    _tell_of_problems(str(place), schools)
    return tuple(schools.values())


def _tell_of_problems(place: str, schools: Mapping[str, School]) -> None:
    """Warns of the schools that will fail.

    Raises:
        ConfigurationError: All of them would.
    """
    problems = [school.problem for school in schools.values() if school.problem]
    if not problems:
        return
    said = "; ".join(f"{problem.where}: {problem.what}" for problem in problems[:3])
    if len(problems) > 3:
        said += f"; and {len(problems) - 3:,} more"
    if len(problems) == len(schools):
        raise ConfigurationError(
            f"no school in {place} can be loaded: {said}", todo=problems[0].todo
        )
    count = f"{len(problems):,} of the {len(schools):,}"
    _log.warning("%s schools in %s cannot be loaded and will fail: %s", count, place, said)


def _of_row(
    estab: str, cells: Mapping[str, Any], options: Options, login: Login, where: str
) -> School:
    """Makes the school of a row, with a problem if the row is invalid or the secret missing."""
    key = "shared_secret" if login == "xporter" else "client_secret"
    entry = {key: cell for key, cell in cells.items() if key in _SCHOOL_KEYS}
    name = cells.get(f"{key}_from")
    # schools may share a client, but never the shared secret of one of them
    if name is None and not (login == "oauth2" and options.client_secret):
        name = options.secret_from.replace("{estab}", estab)
    problem = None
    try:
        if name is not None:
            entry[key] = _secret(name)
    except ConfigurationError as error:
        problem = _of_school(estab, error)
    try:
        return _school(entry, options, login, where, problem)
    except ConfigurationError as error:
        problem = _of_school(estab, error)
    return School(estab, "", "", problem=problem)


def _of_school(estab: str, error: ConfigurationError) -> ConfigurationError:
    """Makes a new error, since one that was raised holds local variables, secrets too."""
    return ConfigurationError(error.what, where=f"school {estab}", todo=error.todo)


def _secret(name: object) -> str:
    """Returns the environment variable of this name, or dlt's secret with this key.

    Raises:
        ConfigurationError: There is none, or it cannot be a secret.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        # not shown: it may be the secret itself
        raise ConfigurationError(
            "the name of its secret is not a valid name",
            todo="let the column shared_secret_from or client_secret_from, or secret_from, name an"
            " environment variable or a key of dlt's secrets: letters, digits, '_', '-', '/', with"
            " '.' between the parts of a key",
        )
    found = os.environ.get(name) or dlt.secrets.get(name)
    # dlt keeps the line break at the end of a file with a secret
    text = found.rstrip("\r\n") if isinstance(found, str) else found
    if text is None or str(text).strip() == "":
        variable = name if "." not in name else name.replace(".", "__").upper()
        raise ConfigurationError(
            f"there is no secret {name!r}",
            todo=f"set the environment variable {variable}, or {name} in dlt's secrets, such as"
            " .dlt/secrets.toml",
        )
    if unfit := _unfit(text):
        raise ConfigurationError(f"the secret {name!r} {unfit}", todo="fix it")
    return str(text)


def _unfit(value: object) -> str:
    """Returns why a value cannot be sent as text; empty if it can."""
    if not isinstance(value, str | int) or isinstance(value, bool):
        return "is not text"
    text = str(value)
    if any("\ud800" <= c <= "\udfff" for c in text):
        return "contains a character that UTF-8 cannot encode"
    if any(ord(c) < 32 or ord(c) == 127 for c in text):
        return "contains a line break or another control character"
    return ""


def _school(
    entry: Mapping[str, Any],
    options: Options,
    login: Login,
    where: str,
    problem: ConfigurationError | None = None,
) -> School:
    """Makes the school of an entry, which needs no secret if it has a `problem`."""

    def value(key: str, *, needed: bool) -> str:
        found = entry.get(key)
        if found is None and (key != "shared_secret" or not entry):
            found = getattr(options, key)
        if found is None or str(found) == "":
            if needed:
                raise missing(key, where)
            return ""
        if unfit := _unfit(found):
            raise wrong(key, f"{unfit}{where}")
        return str(found)

    xporter = login == "xporter"
    school = School(
        estab=value("estab", needed=True),
        rp=value("rp", needed=xporter),
        shared_secret=value("shared_secret", needed=xporter and problem is None),
        base_url=_url("base_url", value("base_url", needed=True), options),
        token_url=_url("token_url", value("token_url", needed=not xporter), options),
        client_id=value("client_id", needed=not xporter),
        client_secret=value("client_secret", needed=not xporter and problem is None),
        problem=problem,
    )
    # the server splits user and password at the first ':', and rp and estab at the first '|'
    if xporter and ":" in school.estab:
        raise wrong("estab", f"contains ':'{where}")
    if xporter and set(":|") & set(school.rp):
        raise wrong("rp", f"contains ':' or '|'{where}")
    return school


def _url(key: str, text: str, options: Options) -> str:
    if not text:
        return ""
    try:
        parts = urlsplit(text)
        # read for its own check
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.username is not None:
        raise wrong(key, "is not a URL like https://host/path")
    if parts.scheme == "http" and not local and not options.allow_http:
        raise wrong(
            key,
            "is plain http: tokens and children's records need https (allow_http = true sends them"
            " in the clear)",
        )
    if parts.query or parts.fragment:
        raise wrong(key, "has a query or a fragment")
    return text.rstrip("/")
