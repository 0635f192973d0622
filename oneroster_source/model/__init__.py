"""The OneRoster standard as data: the attributes of each collection, and the tables they make."""

from oneroster_source.model.model import ChildList, Dialect, Endpoint, Field, Ref
from oneroster_source.model.tables import (
    HISTORY_KEPT,
    QUALITY_RESULTS,
    REJECTED_ROWS,
    SUPPRESSED_USERS,
    SYNC_RUN_DETAILS,
    Column,
    Holds,
    Kind,
    Table,
)
from oneroster_source.model.v1p1 import V1P1

ENDPOINTS = V1P1.names
"""The names of the endpoints, in the order in which they refer to each other."""

__all__ = [
    "ENDPOINTS",
    "HISTORY_KEPT",
    "QUALITY_RESULTS",
    "REJECTED_ROWS",
    "SUPPRESSED_USERS",
    "SYNC_RUN_DETAILS",
    "V1P1",
    "ChildList",
    "Column",
    "Dialect",
    "Endpoint",
    "Field",
    "Holds",
    "Kind",
    "Ref",
    "Table",
]
