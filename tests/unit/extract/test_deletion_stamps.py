"""When a row was deleted, if that can be true."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow as pa

from oneroster_source.extract.deletions import SKEW, credible, credibly

NOW = datetime(2026, 9, 1, 12, tzinfo=UTC)


def test_stamps_that_cannot_be_true_are_taken_for_nothing() -> None:
    first, last = credible(NOW)
    assert last == NOW + SKEW
    sent = [
        *(datetime(1, 1, 1, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC), first),
        *(NOW, last, last + timedelta(seconds=1), None),
    ]
    stamps = pa.chunked_array([pa.array(sent, pa.timestamp("us", "UTC"))])
    assert credibly(stamps, NOW).to_pylist() == [None, None, first, NOW, last, None, None]
