"""School rosters from OneRoster 1.1 APIs, as a dlt source.

`Warehouse` loads them into a database, and queries and manages it; `oneroster` is the source alone,
for a dlt pipeline of your own, with `make_views` and `keep_history` to call after it has run.

Examples:
    >>> from oneroster_source import ENDPOINTS, Warehouse
    >>> ENDPOINTS
    ('orgs', 'academic_sessions', 'courses', 'classes', 'users', 'enrollments')
    >>> Warehouse("roster.duckdb").load(endpoints=["orgs"]).good
    True
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from oneroster_source.errors import (
    AccessDenied,
    BadResponse,
    ConfigurationError,
    DestinationBusy,
    DestinationError,
    EndpointNotFound,
    FilterError,
    IncompleteRead,
    InsecureServer,
    LoginError,
    MassDeletion,
    OneRosterError,
    RequestRefused,
    ResponseTooLarge,
    ServerUnavailable,
)

if TYPE_CHECKING:
    from oneroster_source.destination.backends.delta import Delta
    from oneroster_source.destination.shards import Shard
    from oneroster_source.model import ENDPOINTS
    from oneroster_source.run_report import Outcome, Report
    from oneroster_source.source import oneroster
    from oneroster_source.sync.after_load import keep_history, make_views
    from oneroster_source.warehouse import Warehouse

__version__ = "0.1.0"

__all__ = [
    "ENDPOINTS",
    "AccessDenied",
    "BadResponse",
    "ConfigurationError",
    "Delta",
    "DestinationBusy",
    "DestinationError",
    "EndpointNotFound",
    "FilterError",
    "IncompleteRead",
    "InsecureServer",
    "LoginError",
    "MassDeletion",
    "OneRosterError",
    "Outcome",
    "Report",
    "RequestRefused",
    "ResponseTooLarge",
    "ServerUnavailable",
    "Shard",
    "Warehouse",
    "keep_history",
    "make_views",
    "oneroster",
]

# dlt takes a second to import, which `oneroster --help` need not wait for
_LATER = {
    "ENDPOINTS": "model",
    "Delta": "destination.backends.delta",
    "Outcome": "run_report",
    "Report": "run_report",
    "Shard": "destination.shards",
    "Warehouse": "warehouse",
    "keep_history": "sync.after_load",
    "make_views": "sync.after_load",
    "oneroster": "source",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
