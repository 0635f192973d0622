"""What tests share: schools, servers, databases, and what their tables must hold."""

from __future__ import annotations

from typing import Any

import pytest


def later(*values: Any) -> Any:
    """A case for which the suite has no time by default: it is a campaign."""
    return pytest.param(*values, marks=pytest.mark.campaign)


def slow(*values: Any) -> Any:
    """A case that `uv run pytest` leaves to `uv run pytest -m slow`, which CI runs too."""
    return pytest.param(*values, marks=pytest.mark.slow)
