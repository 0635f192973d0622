"""A OneRoster v1.1 provider to test against: Groupcall Xporter's API, served from made-up schools.

It is an independent witness: written from the vendor's text alone, it imports nothing from the
rest of `oneroster_source`, so that a mistake on one side cannot hide behind the same mistake on
the other.

    with Simulator([secondary_school()]) as server:
        requests.get(f"{server.base_url}/users", ...)
"""

from oneroster_source.simulator.attributes import COLLECTIONS
from oneroster_source.simulator.csv_folder import csv_school
from oneroster_source.simulator.faults import Fault
from oneroster_source.simulator.flaws import spoil
from oneroster_source.simulator.quirks import Quirks
from oneroster_source.simulator.recorder import Request
from oneroster_source.simulator.school import School
from oneroster_source.simulator.school_data import secondary_school
from oneroster_source.simulator.school_life import live
from oneroster_source.simulator.server import Simulator

__all__ = [
    "COLLECTIONS",
    "Fault",
    "Quirks",
    "Request",
    "School",
    "Simulator",
    "csv_school",
    "live",
    "secondary_school",
    "spoil",
]
