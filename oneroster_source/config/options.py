"""Declares every setting and looks up its value.

Values come from arguments, environment variables (`SOURCES__ONEROSTER__…`), `.dlt/secrets.toml` and
`.dlt/config.toml`, in that order. `docs/reference/settings.md` is generated from `Options`, and
tests compare `.dlt/config.toml` with it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_origin, get_type_hints

import dlt
from dlt.common.configuration.container import Container
from dlt.common.configuration.exceptions import ConfigurationException
from dlt.common.configuration.providers.toml import TomlProviderReadException
from dlt.common.configuration.specs import PluggableRunContext
from dlt.common.configuration.specs.config_section_context import ConfigSectionContext
from dlt.common.configuration.utils import deserialize_value
from dlt.common.typing import TSecretStrValue, extract_inner_type

from oneroster_source.errors import ConfigurationError
from oneroster_source.model import V1P1

SECTIONS = ("sources", "oneroster")
XPORTER = "https://xporter.groupcall.com/api/ims/oneroster/v1p1/school"

Deleted = Literal["keep", "remove"]
Login = Literal["xporter", "oauth2"]


def _option(default: Any, about: str, legal: str, *, hidden: bool = False) -> Any:
    return field(default=default, metadata={"about": about, "legal": legal, "secret": hidden})


# `_option` is called, but makes no more than a field
# ruff: noqa: RUF009
@dataclass(kw_only=True)
class Options:
    """Every setting, with its default, its meaning and its legal values."""

    base_url: str = _option(
        XPORTER, "URL of the API, without the name of a collection.", "an https URL"
    )
    ca_bundle: str | None = _option(
        None,
        "A PEM file with the certificates of the private authority that the server's comes from.",
        "the path of a file",
    )
    allow_http: bool = _option(
        False,
        "Send tokens and records over plain http, unencrypted, to other machines than this one.",
        "true or false",
    )
    rp: str | None = _option(None, "Relying party identifier.", "text without '|' and ':'")
    estab: str | None = _option(None, "Establishment identifier of the school.", "text without ':'")
    shared_secret: str | None = _option(
        None, "The school's shared secret.", "any text", hidden=True
    )
    schools: list[Any] | None = _option(
        None,
        "Several schools instead of one: each with `estab` and `shared_secret`, and, where they"
        " differ, `rp`, `base_url`, `client_id`, `client_secret`, `token_url`.",
        "a list of tables, or its JSON text",
        hidden=True,
    )
    schools_from: str | None = _option(
        None,
        "A file with a row for each school: a column `estab` and, where they differ, `rp`,"
        " `base_url`, `client_id`, `token_url`. See Many schools.",
        "the path of a .csv, .tsv, .parquet, .json or .jsonl file, or file.duckdb#table",
    )
    secret_from: str = _option(
        "oneroster.secrets.{estab}",
        "Where the secrets of `schools_from` are, unless a row names another place: the name of an"
        " environment variable, or a key of dlt's secrets.",
        "a name with {estab} in it",
    )
    endpoints: list[str] | None = _option(
        None, "Endpoints to load; all if not set.", "a list of: " + ", ".join(V1P1.names)
    )
    filters: dict[str, str] | None = _option(
        None,
        "Filter expressions by endpoint, such as `users = \"role='student'\"`.",
        "OneRoster filter expressions by endpoint",
    )
    page_size: int = _option(1000, "Rows per request.", "1 to 100000")
    time_zone: str | None = _option(
        None,
        "Time zone of the schools: where a date comes as an instant, the day that begins then"
        " there. If not set: Europe/London if `login` is xporter, UTC otherwise.",
        "an IANA name, such as Europe/Dublin",
    )
    deleted: str = _option(
        "keep",
        "What to do with rows that are marked `tobedeleted` or missing at the source: keep them,"
        " marked as deleted, or remove them.",
        "keep or remove",
    )
    privacy: str = _option(
        "no-contact",
        "Privacy profile: everything; all but contact details, passwords and what the provider"
        " adds; or no names either, and pseudonyms instead of ids. See Privacy.",
        "full, no-contact or pseudonymous",
    )
    columns: dict[str, Any] | None = _option(
        None,
        "Columns to keep or leave out, by table: `include` keeps only these, whatever the profile"
        " says; `exclude` leaves these out as well. A column that is left out is NULL.",
        "tables, each with a list `include` or `exclude`",
    )
    pseudonymize: list[str] | None = _option(
        None,
        "More columns to store as pseudonyms, such as `users.username`.",
        "a list of text columns, each as table.column",
    )
    privacy_key: str | None = _option(
        None,
        "Key for pseudonyms and for the list of erased people. Keep it: another key gives other"
        " pseudonyms.",
        "at least 32 random characters",
        hidden=True,
    )
    history: bool = _option(
        False, "Keep every version of users, classes and enrollments. See History.", "true or false"
    )
    reference_tables: bool = _option(
        True, "Give single references child tables too.", "true or false"
    )
    concurrency: int = _option(4, "Parallel requests per server.", "1 to 64")
    request_timeout: float = _option(60.0, "Seconds to wait for a response.", "above 0, to 86400")
    retry_budget: float = _option(
        300.0, "Seconds that a school may wait between retries, in total per run.", "0 to 86400"
    )
    pause_budget: float = _option(
        900.0,
        "Seconds that a server may be left alone after too many requests, in total per run.",
        "0 to 86400",
    )
    max_page_mb: int = _option(
        64, "Largest response to accept, in MiB after decompression.", "1 to 1024"
    )
    max_rows: int = _option(
        10_000_000,
        "Most rows to accept of one collection; a server that sends more is taken to be endless.",
        "1 to 1000000000",
    )
    lag: int = _option(
        86400, "Seconds that a delta reaches back before its cursor.", "0 to 315360000"
    )
    full_refresh_days: float = _option(
        7.0,
        "Days between full reads of a collection, which find what deltas cannot; 0 makes every"
        " read a full one.",
        "0 to 3650",
    )
    max_delete_share: float = _option(
        0.2,
        "Largest share of a school's rows in a table that one run may delete. More deletions, if"
        " more than 20 rows, wait for a decision; all else is loaded. See What it promises.",
        "0 to 1",
    )
    rollover: str | None = _option(
        None,
        "Days on which a new school year is expected (UTC, first and last day included, every year"
        " or once): then new classes, enrollments, courses and academic sessions may replace any"
        " number of old ones.",
        "spans with a comma between, such as 08-15..09-15 or 2026-08-15..2026-09-15",
    )
    lock_timeout: float = _option(
        60.0,
        "Seconds to wait while others have a DuckDB file open or write to a Postgres dataset.",
        "0 to 86400",
    )
    login: str = _option("xporter", "How to log in.", "xporter or oauth2")
    token_url: str | None = _option(None, "oauth2: URL of the token endpoint.", "an https URL")
    client_id: str | None = _option(None, "oauth2: client identifier.", "any text")
    client_secret: str | None = _option(None, "oauth2: client secret.", "any text", hidden=True)
    client_auth: str = _option("header", "oauth2: where to send the credentials.", "header or body")
    scope: str | None = _option(None, "oauth2: scopes to request.", "scopes with spaces between")


OPTIONS = {option.name: option for option in fields(Options)}
_KINDS = {key: extract_inner_type(hint) for key, hint in get_type_hints(Options).items()}


def places(key: str) -> str:
    """Names the places where a setting can be set, for messages."""
    context = dlt.current.run_context()
    folder, shared = Path(context.settings_dir).resolve(), Path(context.global_dir).resolve()
    variable = "__".join((*SECTIONS, key)).upper()
    return (
        f"the argument {key}=, the environment variable {variable}, and '{key}' in"
        f" [{'.'.join(SECTIONS)}] of {folder / 'secrets.toml'} and {folder / 'config.toml'}, or of"
        f" the same files in {shared}"
    )


def wrong(key: str, problem: str) -> ConfigurationError:
    """Makes the error for an invalid value."""
    return ConfigurationError(
        f"the setting {key!r} {problem}",
        todo=f"allowed: {OPTIONS[key].metadata['legal']}. It is read from {places(key)}",
    )


def missing(key: str, why: str = "") -> ConfigurationError:
    """Makes the error for a setting that is needed and not set."""
    return ConfigurationError(
        f"the setting {key!r} is missing{why}",
        todo=f"set it. {OPTIONS[key].metadata['about']} It is read from {places(key)}",
    )


def look_up(given: Mapping[str, Any]) -> Options:
    """Returns all settings: `given` first, then dlt's configuration providers, then the defaults.

    Only full names count: a bare `ENDPOINTS`, or `COLUMNS`, which is how wide a terminal is, may
    belong to another program. An empty text that a provider holds is no value: compose files make
    empty environment variables of settings that are not set.

    Raises:
        ConfigurationError: A setting is unknown, of the wrong type, or a secret where none may be;
            or the configuration cannot be read.
    """
    problem: ConfigurationError
    try:
        _require_known(given)
        found = {key: _configured(key) for key in OPTIONS if given.get(key) is None}
        return Options(**_without_none({**given, **found}))
    except TomlProviderReadException as error:
        # the cause says where; the message may not quote a value
        problem = ConfigurationError(
            f"{error.file_name} is not valid TOML", todo=f"correct it: {error.full_paths[0]}"
        )
    except ConfigurationException as error:
        key = str(getattr(error, "field_name", ""))
        if key in OPTIONS:
            problem = wrong(key, "has a value of the wrong type")
        else:
            problem = ConfigurationError("the configuration cannot be read")
    # outside the handler: the error holds the value
    raise problem


def _configured(key: str) -> Any:
    """Returns the value of the first of dlt's providers that has one; None if none has."""
    secret, kind = OPTIONS[key].metadata["secret"], _KINDS[key]
    pipeline = Container()[ConfigSectionContext].pipeline_name
    for name in (pipeline, None) if pipeline else (None,):
        for provider in Container()[PluggableRunContext].providers.providers:
            hint = TSecretStrValue if secret else kind
            value, _ = provider.get_value(key, hint, name, *SECTIONS)
            if value is None or value == "":
                continue
            if secret and not provider.supports_secrets:
                raise ConfigurationError(
                    f"the setting {key!r} is a secret, but it is in {provider.name}",
                    todo="move it to secrets.toml or to the environment",
                )
            return deserialize_value(key, value, get_origin(kind) or kind)
    return None


_lock = threading.Lock()
_sectioned: list[int] = [0]


@contextmanager
def sections_only() -> Iterator[None]:
    """Makes dlt ignore bare names while the context is open.

    DEV_MODE or REFRESH in anybody's environment would load into a new dataset each time, or drop
    the existing one.
    """
    providers = Container()[PluggableRunContext].providers.providers
    with _lock:
        _sectioned[0] += 1
        for provider in providers:
            vars(provider).setdefault("get_value", partial(_in_section, provider.get_value))
    try:
        yield
    finally:
        with _lock:
            _sectioned[0] -= 1
            for provider in () if _sectioned[0] else providers:
                vars(provider).pop("get_value", None)


def _in_section(
    get_value: Callable[..., tuple[Any, str]], key: str, hint: Any, pipeline: str, *sections: str
) -> tuple[Any, str]:
    return get_value(key, hint, pipeline, *sections) if pipeline or sections else (None, key)


def _without_none(given: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in given.items() if value is not None}


def _require_known(given: Mapping[str, Any]) -> None:
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
            close = get_close_matches(key, OPTIONS, n=1)
            meant = f"if you mean {close[0]!r}, correct it; or " if close else ""
            raise ConfigurationError(
                f"there is no setting {key!r} (found as {place})",
                todo=f"{meant}use one of: {', '.join(OPTIONS)}",
            )
