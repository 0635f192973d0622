"""School rosters from OneRoster 1.1 APIs, as a dlt source.

import dlt
from oneroster_source import oneroster

dlt.pipeline("oneroster", destination="duckdb", dataset_name="oneroster").run(oneroster())
"""

from __future__ import annotations

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
    from oneroster_source.run_report import Outcome, Report
    from oneroster_source.source import oneroster
    from oneroster_source.warehouse import Warehouse

__version__ = "0.1.0"

__all__ = [
    "AccessDenied",
    "BadResponse",
    "ConfigurationError",
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
    "Warehouse",
    "oneroster",
]


def __getattr__(name: str) -> Any:
    # dlt takes a second to import, which `oneroster --help` need not wait for
    if name == "oneroster":
        from oneroster_source.source import oneroster

        return oneroster
    if name in ("Report", "Outcome"):
        from oneroster_source import run_report

        return getattr(run_report, name)
    if name == "Warehouse":
        from oneroster_source.warehouse import Warehouse

        return Warehouse
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
