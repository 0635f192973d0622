"""Settings: read once, by dlt's own rules, checked, and frozen.

`Options` is the one declaration of every setting; README's table and `.dlt/config.toml` are tested
against it. Values come from arguments, environment variables (`SOURCES__ONEROSTER__…`),
`.dlt/secrets.toml` and `.dlt/config.toml`, in that order.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import dlt
import orjson
from dlt.common.configuration import configspec, resolve_configuration
from dlt.common.configuration.container import Container
from dlt.common.configuration.exceptions import ConfigurationException, ValueNotSecretException
from dlt.common.configuration.providers.toml import TomlProviderReadException
from dlt.common.configuration.specs import BaseConfiguration, PluggableRunContext
from dlt.common.typing import SecretSentinel

from oneroster_source.errors import ConfigurationError, FilterError
from oneroster_source.filters import Filter, parse
from oneroster_source.spec import V1P1, Dialect

SECTIONS = ("sources", "oneroster")
XPORTER = "https://xporter.groupcall.com/api/ims/oneroster/v1p1/school"

Deleted = Literal["keep", "remove"]
Login = Literal["xporter", "oauth2"]


def _option(default: Any, about: str, legal: str, *, hidden: bool = False) -> Any:
    return field(default=default, metadata={"about": about, "legal": legal, "secret": hidden})


@configspec
class Options(BaseConfiguration):
    """Every setting, with its default, its meaning and its legal values."""

    base_url: str = _option(XPORTER, "Address of the API, up to the collections.", "an https URL")
    ca_bundle: str | None = _option(
        None,
        "Certificates of a private authority that signed the server's: a PEM file.",
        "the path of a file",
    )
    allow_http: bool = _option(
        False,
        "Whether to send tokens and records over plain http to other machines than this one.",
        "true or false",
    )
    rp: str | None = _option(None, "Relying party identifier.", "text without '|' and ':'")
    estab: str | None = _option(None, "Establishment identifier of the school.", "text without ':'")
    shared_secret: Annotated[str | None, SecretSentinel] = _option(
        None, "The school's shared secret.", "any text", hidden=True
    )
    schools: Annotated[list[Any] | None, SecretSentinel] = _option(
        None,
        "Many schools instead of one: each with `estab` and `shared_secret`, and, where they"
        " differ, `rp`, `base_url`, `client_id`, `client_secret`, `token_url`.",
        "a list of tables, or its JSON text",
        hidden=True,
    )
    endpoints: list[str] | None = _option(
        None, "Endpoints to load; all when not set.", "a list of: " + ", ".join(V1P1.names)
    )
    filters: dict[str, str] | None = _option(
        None,
        "A filter expression for an endpoint, such as `users = \"role='student'\"`.",
        "OneRoster filter expressions by endpoint",
    )
    page_size: int = _option(1000, "Rows to ask for in one request.", "1 to 100000")
    deleted: str = _option(
        "keep", "What becomes of rows that are marked `tobedeleted`, or gone.", "keep or remove"
    )
    reference_tables: bool = _option(
        True, "Whether single references get a child table each.", "true or false"
    )
    concurrency: int = _option(4, "Requests under way at once, for each server.", "1 to 64")
    request_timeout: float = _option(
        60.0, "Seconds to wait for a server to answer.", "above 0, to 86400"
    )
    retry_budget: float = _option(
        300.0, "Seconds that one school's retries may wait in a run, in all.", "0 to 86400"
    )
    max_page_mb: int = _option(64, "Largest answer to accept, in MiB when unpacked.", "1 to 1024")
    max_rows: int = _option(
        10_000_000,
        "Most rows of one collection; a server that gives more is taken for one without an end.",
        "1 to 1000000000",
    )
    lag: int = _option(
        86400, "Seconds that a delta reaches back before the cursor.", "0 to 315360000"
    )
    full_refresh_days: float = _option(
        7.0,
        "Days after which a collection is read whole again, to find what no delta tells;"
        " 0 for every run.",
        "0 to 3650",
    )
    max_delete_share: float = _option(
        0.2,
        "Largest share of a school's rows in a table that a full read may find gone; more, if more"
        " than 20 rows, is an error, and deletes nothing.",
        "0 to 1",
    )
    lock_timeout: float = _option(
        60.0,
        "Seconds to wait for others that hold a DuckDB file open, or write to a Postgres dataset.",
        "0 to 86400",
    )
    login: str = _option("xporter", "How to log in.", "xporter or oauth2")
    token_url: str | None = _option(None, "oauth2: address of the token endpoint.", "an https URL")
    client_id: str | None = _option(None, "oauth2: client identifier.", "any text")
    client_secret: Annotated[str | None, SecretSentinel] = _option(
        None, "oauth2: client secret.", "any text", hidden=True
    )
    client_auth: str = _option("header", "oauth2: where the credentials go.", "header or body")
    scope: str | None = _option(None, "oauth2: scopes to ask for.", "scopes, space between")


OPTIONS = {option.name: option for option in fields(Options) if "about" in option.metadata}


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


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run needs to know, checked."""

    schools: tuple[School, ...]
    endpoints: tuple[str, ...]
    filters: Mapping[str, Filter]
    page_size: int
    deleted: Deleted
    reference_tables: bool
    concurrency: int
    request_timeout: float
    retry_budget: float
    max_page_mb: int
    max_rows: int
    lag: int
    full_refresh_days: float
    max_delete_share: float
    lock_timeout: float
    login: Login
    client_auth: Literal["header", "body"]
    scope: str
    ca_bundle: str = ""
    """The path of a PEM file; empty for the authorities that everyone trusts."""
    dialect: Dialect = field(default=V1P1, repr=False)

    def only(self, estabs: Sequence[str] | None) -> Settings:
        """These settings for some of the schools.

        Raises:
            ConfigurationError: An estab is not among the configured schools.
        """
        if estabs is None:
            return self
        known = {school.estab for school in self.schools}
        for estab in estabs:
            if estab not in known:
                raise ConfigurationError(
                    f"no school {estab!r} is configured",
                    todo=f"use one of the {len(known)} that are: {', '.join(sorted(known)[:20])}",
                )
        return replace(self, schools=tuple(s for s in self.schools if s.estab in estabs))


def places(key: str) -> str:
    """Where a setting is looked for, for people."""
    context = dlt.current.run_context()
    folder, shared = Path(context.settings_dir).resolve(), Path(context.global_dir).resolve()
    variable = "__".join((*SECTIONS, key)).upper()
    return (
        f"the argument {key}=, the environment variable {variable}, and '{key}' in"
        f" [{'.'.join(SECTIONS)}] of {folder / 'secrets.toml'} and {folder / 'config.toml'}, or of"
        f" the same files in {shared}"
    )


def _wrong(key: str, problem: str) -> ConfigurationError:
    return ConfigurationError(
        f"the setting {key!r} {problem}",
        todo=f"set it to {OPTIONS[key].metadata['legal']}. It is looked for in {places(key)}",
    )


def _missing(key: str, why: str = "") -> ConfigurationError:
    return ConfigurationError(
        f"the setting {key!r} is missing{why}",
        todo=f"give it: {OPTIONS[key].metadata['about']} Looked for in {places(key)}",
    )


def resolve(**given: Any) -> Settings:
    """The settings of a run: `given` first, the rest by dlt's configuration providers.

    Raises:
        ConfigurationError: A setting is missing, wrong, or unknown; the message names the key, the
            places it was looked for, and the legal values.
    """
    options = _options(given)
    # one school that is given leaves no place for a list that is configured, and the other way
    if given.get("estab") is not None and given.get("schools") is None:
        options.schools = None
    elif given.get("schools") is not None and given.get("estab") is None:
        options.estab = None
    return _settings(options)


def lock_timeout(given: float | None = None) -> float:
    """This one setting, which a look into the destination needs without any school.

    Raises:
        ConfigurationError: It is wrong, or the configuration cannot be read.
    """
    return _lock_timeout(_options({"lock_timeout": given}))


def _options(given: Mapping[str, Any]) -> Options:
    problem: ConfigurationError | None = None
    try:
        _refuse_unknown(given)
        return resolve_configuration(
            Options(), sections=SECTIONS, explicit_value=_without_none(given)
        )
    except ValueNotSecretException as error:
        key = error.key.rpartition(".")[2]
        problem = ConfigurationError(
            f"the setting {key!r} is a secret, and {error.provider_name} holds it",
            todo="move it to secrets.toml or to the environment",
        )
    except TomlProviderReadException as error:
        # the cause says where; the message may not quote a value
        problem = ConfigurationError(
            f"{error.file_name} is not valid TOML", todo=f"correct it: {error.full_paths[0]}"
        )
    except ConfigurationException as error:
        key = str(getattr(error, "field_name", ""))
        problem = _wrong(key, "has a value of the wrong type") if key in OPTIONS else None
        if problem is None:
            problem = ConfigurationError("the configuration cannot be read")
    raise problem


def _without_none(given: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in given.items() if value is not None}


def _refuse_unknown(given: Mapping[str, Any]) -> None:
    found = [(key, "an argument") for key in given]
    prefix = "__".join(SECTIONS).upper() + "__"
    found += [
        (name[len(prefix) :].lower(), f"the environment variable {name}")
        for name in os.environ
        if name.startswith(prefix)
    ]
    for provider in Container()[PluggableRunContext].providers.providers:
        section: Any = getattr(provider, "_config_doc", {})
        for part in SECTIONS:
            section = section.get(part, {}) if isinstance(section, Mapping) else {}
        if isinstance(section, Mapping):
            found += [(str(key), provider.name) for key in section]
    for key, place in found:
        if key not in OPTIONS:
            raise ConfigurationError(
                f"there is no setting {key!r} (found as {place})",
                todo=f"use one of: {', '.join(OPTIONS)}",
            )


def _within(options: Options, key: str, low: float, high: float) -> Any:
    value = getattr(options, key)
    # dlt converts what it looks up, but takes arguments as they are
    if (
        isinstance(value, bool)
        or not isinstance(value, int if OPTIONS[key].type in (int, "int") else int | float)
        or not low <= value <= high
    ):
        raise _wrong(key, f"is {value!r}")
    return value


def _lock_timeout(options: Options) -> float:
    return float(_within(options, "lock_timeout", 0, 86_400))


def _settings(options: Options) -> Settings:
    within = partial(_within, options)

    def one_of(key: str, *legal: object) -> Any:
        value = getattr(options, key)
        if value not in legal:
            raise _wrong(key, f"is {value!r}")
        return value

    names = list(V1P1.names) if options.endpoints is None else options.endpoints
    if not isinstance(names, list | tuple) or not names:
        raise _wrong("endpoints", f"is {names!r}")
    for name in names:
        if name not in V1P1.names:
            raise _wrong("endpoints", f"names {name!r}, which is no endpoint")
    filters = {}
    if not isinstance(options.filters or {}, Mapping):
        raise _wrong("filters", f"is {options.filters!r}")
    for name, text in (options.filters or {}).items():
        if name not in V1P1.names:
            raise _wrong("filters", f"names {name!r}, which is no endpoint")
        filters[name] = _filter(name, text)
    login = one_of("login", "xporter", "oauth2")
    one_of("allow_http", True, False)
    return Settings(
        schools=_schools(options, login),
        # the order of the spec, whatever the order they were asked in
        endpoints=tuple(name for name in V1P1.names if name in names),
        filters=filters,
        page_size=within("page_size", 1, 100_000),
        deleted=one_of("deleted", "keep", "remove"),
        reference_tables=one_of("reference_tables", True, False),
        concurrency=within("concurrency", 1, 64),
        request_timeout=within("request_timeout", 0.001, 86_400),
        retry_budget=within("retry_budget", 0, 86_400),
        max_page_mb=within("max_page_mb", 1, 1024),
        max_rows=within("max_rows", 1, 10**9),
        lag=within("lag", 0, 10 * 365 * 86_400),
        full_refresh_days=within("full_refresh_days", 0, 3650),
        max_delete_share=within("max_delete_share", 0, 1),
        lock_timeout=_lock_timeout(options),
        login=login,
        client_auth=one_of("client_auth", "header", "body"),
        scope=_scope(options.scope),
        ca_bundle=_ca_bundle(options.ca_bundle),
    )


def _scope(scope: object) -> str:
    if not isinstance(scope or "", str):
        raise _wrong("scope", f"is {scope!r}")
    return str(scope or "")


def _ca_bundle(path: object) -> str:
    if path is None:
        return ""
    if not isinstance(path, str) or not os.access(path, os.R_OK) or not Path(path).is_file():
        raise _wrong("ca_bundle", f"is {path!r}, which is no file that can be read")
    return path


def _filter(name: str, text: object) -> Filter:
    try:
        return parse(str(text)).checked_for(V1P1[name])
    except FilterError as error:
        wrong = _wrong("filters", f"for {name}: {error.what}")
        problem = FilterError(wrong.what, todo=f"{error.todo}. {wrong.todo}")
    raise problem


_SCHOOL_KEYS = tuple(f.name for f in fields(School))


def _schools(options: Options, login: Login) -> tuple[School, ...]:
    if options.schools is None:
        if options.estab is None:
            raise _missing("estab", " (and there is no list of 'schools')")
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
        raise _wrong("schools", "is not a list")
    if not entries:
        raise _wrong("schools", "is an empty list")
    schools = []
    for number, entry in enumerate(entries, 1):
        where = f" in entry {number} of 'schools'"
        if not isinstance(entry, Mapping):
            raise _wrong("schools", f"has an entry {number} that is no table of settings")
        unknown = [key for key in entry if key not in _SCHOOL_KEYS]
        if unknown:
            raise ConfigurationError(
                f"there is no setting {unknown[0]!r}{where}",
                todo=f"use one of: {', '.join(_SCHOOL_KEYS)}",
            )
        schools.append(_school(entry, options, login, where))
    twice = {s.estab for s in schools if sum(o.estab == s.estab for o in schools) > 1}
    if twice:
        raise _wrong("schools", f"names the estab {min(twice)!r} twice")
    return tuple(schools)


def _school(entry: Mapping[str, Any], options: Options, login: Login, where: str) -> School:
    def value(key: str, *, needed: bool) -> str:
        found = entry.get(key)
        if found is None and (key != "shared_secret" or not entry):
            found = getattr(options, key)
        if found is None or str(found) == "":
            if needed:
                raise _missing(key, where)
            return ""
        if not isinstance(found, str | int) or isinstance(found, bool):
            raise _wrong(key, f"is no text{where}")
        text = str(found)
        if any("\ud800" <= c <= "\udfff" for c in text):
            raise _wrong(key, f"holds a character that UTF-8 cannot write{where}")
        if any(ord(c) < 32 or ord(c) == 127 for c in text):
            raise _wrong(key, f"holds a line break or another control character{where}")
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
        raise _wrong("estab", f"holds ':'{where}")
    if xporter and set(":|") & set(school.rp):
        raise _wrong("rp", f"holds ':' or '|'{where}")
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
        raise _wrong(key, "is no address like https://host/path")
    if parts.scheme == "http" and not local and not options.allow_http:
        raise _wrong(
            key,
            "is plain http: tokens and children's records need https (allow_http = true sends them"
            " in the clear)",
        )
    if parts.query or parts.fragment:
        raise _wrong(key, "has a query or a fragment")
    return text.rstrip("/")
