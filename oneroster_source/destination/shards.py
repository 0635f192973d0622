"""Shards: the schools of a run divided into parts, which machines load side by side.

A shard is loaded as any run is, with a pipeline and a staging dataset of its own: two loads that
share a staging dataset lose rows and double others.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass

NAMES = tuple(f"shard_{number:03}" for number in range(1000))
"""The names of shards, which are the same every night; no run has more."""


@dataclass(frozen=True, slots=True)
class Shard:
    """Some of the schools of a run. Holds nothing that is secret, and turns into JSON as it is.

    Args:
        run_id: The run's, which all its shards share.
        number: From 0.
        estabs: The schools.

    Examples:
        >>> from dataclasses import asdict
        >>> from oneroster_source import Shard
        >>> shard = Shard("20260901T043000Z-12ab34cd", 0, ("3281110", "3281111"))
        >>> Shard(**asdict(shard)) == shard
        True
    """

    run_id: str
    number: int
    estabs: tuple[str, ...]

    @property
    def name(self) -> str:
        """The shard's part of the names of its pipeline and staging dataset."""
        return NAMES[self.number]


def balance(weights: Mapping[str, int], count: int) -> list[list[str]]:
    """Divides schools into parts of about the same weight.

    Each school, the heaviest first, joins the part that is lightest by then, so that no part is
    heavier than 4/3 of the heaviest of the best division.

    Args:
        weights: The rows of each school, by estab. One more is added for the school itself, since
            a school without rows takes requests too.
        count: How many parts, at most: there are no more than schools.
    """
    parts: list[list[str]] = [[] for _ in range(min(count, len(weights), len(NAMES)))]
    lightest = [(0, number) for number in range(len(parts))]
    for estab in sorted(weights, key=lambda estab: (-weights[estab], estab)):
        weight, number = heapq.heappop(lightest)
        parts[number].append(estab)
        heapq.heappush(lightest, (weight + weights[estab] + 1, number))
    return parts
