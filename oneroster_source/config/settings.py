"""Resolves and checks the settings of a run; the result is frozen."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from oneroster_source.config.options import OPTIONS, Deleted, Login, Options, look_up, wrong
from oneroster_source.config.privacy import SETTINGS as PRIVACY
from oneroster_source.config.privacy import Privacy, privacy
from oneroster_source.config.rollover import Rollover, rollover
from oneroster_source.config.schools import WAYS, School, configured
from oneroster_source.errors import ConfigurationError, FilterError
from oneroster_source.model import V1P1, Dialect
from oneroster_source.model.filters import Filter, parse


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a run, checked."""

    schools: tuple[School, ...]
    endpoints: tuple[str, ...]
    filters: Mapping[str, Filter]
    page_size: int
    time_zone: str
    deleted: Deleted
    privacy: Privacy
    history: bool
    reference_tables: bool
    concurrency: int
    request_timeout: float
    retry_budget: float
    pause_budget: float
    max_page_mb: int
    max_rows: int
    lag: int
    full_refresh_days: float
    max_delete_share: float
    rollover: Rollover
    lock_timeout: float
    login: Login
    client_auth: Literal["header", "body"]
    scope: str
    ca_bundle: str = ""
    """The path of a PEM file; empty for public authorities."""
    dialect: Dialect = field(default=V1P1, repr=False)

    def only(self, estabs: Sequence[str] | None) -> Settings:
        """Returns these settings for some of the schools.

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


def resolve(**given: Any) -> Settings:
    """Returns the settings of a run: `given` first, the rest from dlt's configuration.

    Raises:
        ConfigurationError: A setting is missing, invalid or unknown; the message names it, the
            places it is read from, and the legal values.

    Example:
        >>> resolve(estab="3281110", rp="partner", shared_secret="...").page_size
        1000
    """
    options = look_up(given)
    # schools that are given replace schools that are configured in another way
    ways = [way for way in WAYS if given.get(way) is not None]
    if ways:
        for way in set(WAYS) - set(ways):
            setattr(options, way, None)
    return _settings(options)


def lock_timeout(given: float | None = None) -> float:
    """Returns this one setting, for commands that need no school.

    Raises:
        ConfigurationError: It is invalid, or the configuration cannot be read.
    """
    return _lock_timeout(look_up({"lock_timeout": given}))


def chosen_privacy(*, to_load: bool = True, **given: Any) -> Privacy:
    """Returns the privacy settings, for commands that need no school; ignores others in `given`.

    Raises:
        ConfigurationError: One is missing or invalid, or the configuration cannot be read. The key
            of pseudonyms is needed only `to_load`.
    """
    return privacy(look_up({key: given.get(key) for key in PRIVACY}), V1P1, to_load=to_load)


def keeps_history(given: bool | None = None) -> bool:
    """Returns whether versions are kept, for commands that need no school.

    Raises:
        ConfigurationError: The setting is invalid, or the configuration cannot be read.
    """
    return _history(look_up({"history": given}))


def _history(options: Options) -> bool:
    if options.history not in (True, False):
        raise wrong("history", f"is {options.history!r}")
    return options.history


def _within(options: Options, key: str, low: float, high: float) -> Any:
    value = getattr(options, key)
    # arguments are not converted, as values from dlt's providers are
    if (
        isinstance(value, bool)
        or not isinstance(value, int if OPTIONS[key].type in (int, "int") else int | float)
        or not low <= value <= high
    ):
        raise wrong(key, f"is {value!r}")
    return value


def _lock_timeout(options: Options) -> float:
    return float(_within(options, "lock_timeout", 0, 86_400))


def _settings(options: Options) -> Settings:
    within = partial(_within, options)

    def one_of(key: str, *legal: object) -> Any:
        value = getattr(options, key)
        if value not in legal:
            raise wrong(key, f"is {value!r}")
        return value

    names = list(V1P1.names) if options.endpoints is None else options.endpoints
    if not isinstance(names, list | tuple) or not names:
        raise wrong("endpoints", f"is {names!r}")
    for name in names:
        if name not in V1P1.names:
            raise wrong("endpoints", f"names {name!r}, which is not an endpoint")
    filters = {}
    if not isinstance(options.filters or {}, Mapping):
        raise wrong("filters", f"is {options.filters!r}")
    for name, text in (options.filters or {}).items():
        if name not in V1P1.names:
            raise wrong("filters", f"names {name!r}, which is not an endpoint")
        filters[name] = _filter(name, text)
    login = one_of("login", "xporter", "oauth2")
    one_of("allow_http", True, False)
    return Settings(
        schools=configured(options, login),
        # in the order of the model
        endpoints=tuple(name for name in V1P1.names if name in names),
        filters=filters,
        page_size=within("page_size", 1, 100_000),
        time_zone=_time_zone(options.time_zone, login),
        deleted=one_of("deleted", "keep", "remove"),
        privacy=privacy(options, V1P1),
        history=_history(options),
        reference_tables=one_of("reference_tables", True, False),
        concurrency=within("concurrency", 1, 64),
        request_timeout=within("request_timeout", 0.001, 86_400),
        retry_budget=within("retry_budget", 0, 86_400),
        pause_budget=within("pause_budget", 0, 86_400),
        max_page_mb=within("max_page_mb", 1, 1024),
        max_rows=within("max_rows", 1, 10**9),
        lag=within("lag", 0, 10 * 365 * 86_400),
        full_refresh_days=within("full_refresh_days", 0, 3650),
        max_delete_share=within("max_delete_share", 0, 1),
        rollover=_rollover(options.rollover),
        lock_timeout=_lock_timeout(options),
        login=login,
        client_auth=one_of("client_auth", "header", "body"),
        scope=_scope(options.scope),
        ca_bundle=_ca_bundle(options.ca_bundle),
    )


def _time_zone(name: object, login: str) -> str:
    if name is None:
        return "Europe/London" if login == "xporter" else "UTC"
    # some machines have other files beside those of the zones
    if isinstance(name, str) and not name.startswith(("posix", "right/", "localtime")):
        with suppress(ZoneInfoNotFoundError, ValueError, OSError):
            return ZoneInfo(name).key
    raise wrong("time_zone", f"is {name!r}, which is not a time zone")


def _rollover(text: object) -> Rollover:
    if text is None:
        return Rollover()
    if not isinstance(text, str):
        raise wrong("rollover", f"is {text!r}")
    try:
        return rollover(text)
    except ValueError as error:
        said = str(error)
    raise wrong("rollover", said)


def _scope(scope: object) -> str:
    if not isinstance(scope or "", str):
        raise wrong("scope", f"is {scope!r}")
    return str(scope or "")


def _ca_bundle(path: object) -> str:
    if path is None:
        return ""
    if not isinstance(path, str) or not os.access(path, os.R_OK) or not Path(path).is_file():
        raise wrong("ca_bundle", f"is {path!r}, which is not a readable file")
    return path


def _filter(name: str, text: object) -> Filter:
    try:
        return parse(str(text)).checked_for(V1P1[name])
    except FilterError as error:
        named = wrong("filters", f"for {name}: {error.what}")
        problem = FilterError(named.what, todo=f"{error.todo}. {named.todo}")
    raise problem
