"""The standard as data: what each collection holds and which tables that makes."""

from oneroster_source.model.model import (
    HISTORY_KEPT,
    QUALITY_RESULTS,
    REJECTED_ROWS,
    SUPPRESSED_USERS,
    SYNC_RUN_DETAILS,
    ChildList,
    Column,
    Dialect,
    Endpoint,
    Field,
    Holds,
    Kind,
    Ref,
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
