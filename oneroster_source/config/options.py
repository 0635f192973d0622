"""The declaration of every setting, and where dlt's own rules find its value.

README's table and `.dlt/config.toml` are tested against `Options`. Values come from arguments,
environment variables (`SOURCES__ONEROSTER__…`), `.dlt/secrets.toml` and `.dlt/config.toml`, in that
order.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
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
    shared_secret: str | None = _option(
        None, "The school's shared secret.", "any text", hidden=True
    )
    schools: list[Any] | None = _option(
        None,
        "Many schools instead of one: each with `estab` and `shared_secret`, and, where they"
        " differ, `rp`, `base_url`, `client_id`, `client_secret`, `token_url`.",
        "a list of tables, or its JSON text",
        hidden=True,
    )
    schools_from: str | None = _option(
        None,
        "A file with a row for each of many schools: a column `estab` and, where they differ, `rp`,"
        " `base_url`, `client_id`, `token_url`. See Many schools.",
        "the path of a .csv, .tsv, .parquet, .json or .jsonl file, or file.duckdb#table",
    )
    secret_from: str = _option(
        "oneroster.secrets.{estab}",
        "Where `schools_from` has no other name for a school's secret: the name of an environment"
        " variable, or a key of dlt's secrets.",
        "a name with {estab} in it",
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
    time_zone: str | None = _option(
        None,
        "Where the schools are: a date that comes as an instant is the day that begins then there."
        " Europe/London where it is not set and `login` is xporter, UTC where it is another.",
        "an IANA name, such as Europe/Dublin",
    )
    deleted: str = _option(
        "keep", "What becomes of rows that are marked `tobedeleted`, or gone.", "keep or remove"
    )
    privacy: str = _option(
        "no-contact",
        "What is kept of people: everything; all but contact details, passwords and what the"
        " provider adds; or no names either, and pseudonyms for ids. See Privacy.",
        "full, no-contact or pseudonymous",
    )
    columns: dict[str, Any] | None = _option(
        None,
        "Columns to keep, or to leave out, of a table: `include` keeps these alone, whatever the"
        " profile says; `exclude` leaves out these too. What is left out is NULL.",
        "tables, each with a list `include` or `exclude`",
    )
    pseudonymize: list[str] | None = _option(
        None,
        "Columns to keep as pseudonyms, such as `users.username`, beside those of the profile.",
        "a list of text columns, each as table.column",
    )
    privacy_key: str | None = _option(
        None,
        "The key of pseudonyms, and of the list of erased people. Keep it: under another one they"
        " are others.",
        "at least 32 random characters",
        hidden=True,
    )
    history: bool = _option(
        False,
        "Whether to keep every version of users, classes and enrollments. See History.",
        "true or false",
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
    pause_budget: float = _option(
        900.0,
        "Seconds that the pauses which a server asks for may take in a run, in all.",
        "0 to 86400",
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
        "Largest share of a school's rows in a table that one run may delete; more, if more than 20"
        " rows, wait for a decision, while all else is loaded. See What it promises.",
        "0 to 1",
    )
    rollover: str | None = _option(
        None,
        "Days on which a new school year is expected (UTC, both ends included, every year or once):"
        " classes, enrollments, courses and academic sessions may then be replaced by new ones,"
        " however many.",
        "spans with a comma between, such as 08-15..09-15 or 2026-08-15..2026-09-15",
    )
    lock_timeout: float = _option(
        60.0,
        "Seconds to wait for others that hold a DuckDB file open, or write to a Postgres dataset.",
        "0 to 86400",
    )
    login: str = _option("xporter", "How to log in.", "xporter or oauth2")
    token_url: str | None = _option(None, "oauth2: address of the token endpoint.", "an https URL")
    client_id: str | None = _option(None, "oauth2: client identifier.", "any text")
    client_secret: str | None = _option(None, "oauth2: client secret.", "any text", hidden=True)
    client_auth: str = _option("header", "oauth2: where the credentials go.", "header or body")
    scope: str | None = _option(None, "oauth2: scopes to ask for.", "scopes, space between")


OPTIONS = {option.name: option for option in fields(Options)}
_KINDS = {key: extract_inner_type(hint) for key, hint in get_type_hints(Options).items()}


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


def wrong(key: str, problem: str) -> ConfigurationError:
    """The error for a setting with a value that it cannot have."""
    return ConfigurationError(
        f"the setting {key!r} {problem}",
        todo=f"set it to {OPTIONS[key].metadata['legal']}. It is looked for in {places(key)}",
    )


def missing(key: str, why: str = "") -> ConfigurationError:
    """The error for a setting that is needed, and was not found."""
    return ConfigurationError(
        f"the setting {key!r} is missing{why}",
        todo=f"give it: {OPTIONS[key].metadata['about']} Looked for in {places(key)}",
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
    """The value of a setting in the first of dlt's places that has one; None if none has."""
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
                    f"the setting {key!r} is a secret, and {provider.name} holds it",
                    todo="move it to secrets.toml or to the environment",
                )
            return deserialize_value(key, value, get_origin(kind) or kind)
    return None


_lock = threading.Lock()
_sectioned: list[int] = [0]


@contextmanager
def sections_only() -> Iterator[None]:
    """Lets dlt take no option from a bare name while it lasts: DEV_MODE or REFRESH in anybody's
    environment would load into a new dataset each time, or drop what is there."""
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
            raise ConfigurationError(
                f"there is no setting {key!r} (found as {place})",
                todo=f"use one of: {', '.join(OPTIONS)}",
            )
