"""Schools: who they are and what it takes to log in, from the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any
from urllib.parse import urlsplit

import orjson

from oneroster_source.errors import ConfigurationError
from oneroster_source.options import XPORTER, Login, Options, missing, wrong


@dataclass(frozen=True, slots=True)
class School:
    """One establishment of one relying party: what it takes to log in. Never prints its secrets."""

    estab: str
    rp: str
    shared_secret: str = field(repr=False)
    base_url: str = XPORTER
    token_url: str = ""
    client_id: str = ""
    client_secret: str = field(default="", repr=False)

    @property
    def server(self) -> str:
        """The host and port, which share one limit of requests at once."""
        return urlsplit(self.base_url).netloc


_SCHOOL_KEYS = tuple(f.name for f in fields(School))


def configured(options: Options, login: Login) -> tuple[School, ...]:
    """The schools of a run.

    Raises:
        ConfigurationError: There are none, or what it takes to log in is missing or wrong.
    """
    if options.schools is None:
        if options.estab is None:
            raise missing("estab", " (and there is no list of 'schools')")
        return (_school({}, options, login, ""),)
    if options.estab is not None:
        raise ConfigurationError(
            "both 'estab' and 'schools' are set", todo="keep one: one school, or a list of them"
        )
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
            raise wrong("schools", f"has an entry {number} that is no table of settings")
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


def _school(entry: Mapping[str, Any], options: Options, login: Login, where: str) -> School:
    def value(key: str, *, needed: bool) -> str:
        found = entry.get(key)
        if found is None and (key != "shared_secret" or not entry):
            found = getattr(options, key)
        if found is None or str(found) == "":
            if needed:
                raise missing(key, where)
            return ""
        if not isinstance(found, str | int) or isinstance(found, bool):
            raise wrong(key, f"is no text{where}")
        text = str(found)
        if any("\ud800" <= c <= "\udfff" for c in text):
            raise wrong(key, f"holds a character that UTF-8 cannot write{where}")
        if any(ord(c) < 32 or ord(c) == 127 for c in text):
            raise wrong(key, f"holds a line break or another control character{where}")
        return text

    xporter = login == "xporter"
    school = School(
        estab=value("estab", needed=True),
        rp=value("rp", needed=xporter),
        shared_secret=value("shared_secret", needed=xporter),
        base_url=_url("base_url", value("base_url", needed=True), options),
        token_url=_url("token_url", value("token_url", needed=not xporter), options),
        client_id=value("client_id", needed=not xporter),
        client_secret=value("client_secret", needed=not xporter),
    )
    # the server splits user and password at the first ':', and rp and estab at the first '|'
    if xporter and ":" in school.estab:
        raise wrong("estab", f"holds ':'{where}")
    if xporter and set(":|") & set(school.rp):
        raise wrong("rp", f"holds ':' or '|'{where}")
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
        raise wrong(key, "is no address like https://host/path")
    if parts.scheme == "http" and not local and not options.allow_http:
        raise wrong(
            key,
            "is plain http: tokens and children's records need https (allow_http = true sends them"
            " in the clear)",
        )
    if parts.query or parts.fragment:
        raise wrong(key, "has a query or a fragment")
    return text.rstrip("/")
