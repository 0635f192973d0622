"""Files in a folder or a bucket: they become Delta tables, since plain files could only grow."""

from __future__ import annotations

from typing import Any

import dlt

from oneroster_source.destination.backends.base import Backend


class Filesystem(Backend):
    """dlt's filesystem destination. It answers queries, and is no database."""

    @staticmethod
    def adapt(destination: Any) -> Any:
        if not isinstance(destination, dlt.destinations.filesystem) or destination.is_hf:
            return destination
        # imports what reads buckets, which other destinations do without
        from oneroster_source.destination.backends.delta import Delta

        return Delta(destination_name=destination.destination_name)
