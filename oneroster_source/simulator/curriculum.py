"""What is taught in a secondary school, and to which years."""

from __future__ import annotations

from dataclasses import dataclass

YEARS = (7, 8, 9, 10, 11)
LOWER = (7, 8, 9)
UPPER = (10, 11)
OPTION_BLOCKS = ("A", "B", "C", "D")
"""Every pupil of the upper years takes one option from each."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A subject; its code is the one in the titles of classes, as in 10X/Ma1."""

    name: str
    code: str


SETS = (Subject("English", "En"), Subject("Mathematics", "Ma"), Subject("Science", "Sc"))
"""Taught to all years, in sets across half a year."""

FOUNDATION = (
    Subject("History", "Hi"),
    Subject("Geography", "Gg"),
    Subject("French", "Fr"),
    Subject("Art", "Ar"),
    Subject("Music", "Mu"),
    Subject("Computing", "Co"),
    Subject("Physical Education", "Pe"),
)
"""Taught to the lower years in their tutor groups."""

CORE = (Subject("Core PE", "Cp"), Subject("Religious Studies", "Rs"))
"""Taught to the upper years in their tutor groups."""

OPTIONS = (
    Subject("History", "Hi"),
    Subject("Geography", "Gg"),
    Subject("French", "Fr"),
    Subject("Spanish", "Sp"),
    Subject("Art & Design", "Ad"),
    Subject("Computer Science", "Cs"),
    Subject("Business", "Bs"),
    Subject("Food & Nutrition", "Fn"),
)
"""Chosen by the upper years."""


def subjects(year: int) -> tuple[Subject, ...]:
    """Everything that is taught to a year."""
    return SETS + (FOUNDATION if year in LOWER else CORE + OPTIONS)
