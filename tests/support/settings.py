"""The settings that reach made-up schools, and what is said of wrong ones."""

from __future__ import annotations

import json
from typing import Any

import pytest

from oneroster_source import ConfigurationError
from oneroster_source.config.settings import resolve
from oneroster_source.simulator import School, Simulator

ESTAB = "3281110"
"""Of the school that most tests load."""


def settings(server: Simulator, *schools: School) -> dict[str, object]:
    """The settings that reach these schools, and keep all that they send."""
    entries = [{"estab": s.estab, "rp": s.rp, "shared_secret": s.shared_secret} for s in schools]
    return {"base_url": server.base_url, "schools": entries, "privacy": "full"}


def environment(server: Simulator, *schools: School) -> dict[str, str]:
    """The settings that reach these schools, as environment variables."""
    found = settings(server, *schools)
    return {
        "SOURCES__ONEROSTER__BASE_URL": str(found["base_url"]),
        "SOURCES__ONEROSTER__SCHOOLS": json.dumps(found["schools"]),
        "SOURCES__ONEROSTER__PRIVACY": "full",
    }


def refused(**given: Any) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        resolve(**given)
    return caught.value
