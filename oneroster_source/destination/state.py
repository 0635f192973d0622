"""Reads and changes dlt's pipeline state: the cursors of schools, and what goes with them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import dlt
from dlt.common.destination.client import WithStateSync
from dlt.pipeline.state_sync import load_pipeline_state_from_destination

from oneroster_source.config.privacy import Privacy, of_endpoint
from oneroster_source.destination.shards import Shard
from oneroster_source.errors import ConfigurationError, DestinationError
from oneroster_source.model import V1P1

PIPELINE = "oneroster"


def pipeline_name(shard: Shard | None) -> str:
    """The name of the pipeline that loads the whole dataset, or a shard of it."""
    return f"{PIPELINE}_{shard.name}" if shard else PIPELINE


def source_of(state: Any) -> dict[str, Any]:
    """The source's part of a pipeline's state, which holds that of its resources."""
    found: dict[str, Any] = state.setdefault("sources", {}).setdefault("oneroster", {})
    return found


def resources(state: Any) -> dict[str, Any]:
    """The resources' parts of a pipeline's state, by name."""
    found: dict[str, Any] = source_of(state).setdefault("resources", {})
    return found


def prunes(source: Any) -> dict[str, dict[str, str]]:
    """What was pruned, by estab: the instant `before` which deleted rows are unwanted, and the
    instant `at` which they were last removed, in ISO 8601, UTC.

    Args:
        source: The source's part of a pipeline's state.
    """
    found: dict[str, dict[str, str]] = source.get("prunes", {})
    return found


@contextmanager
def changed(pipeline: dlt.Pipeline) -> Iterator[Any]:
    """Opens the state of a pipeline; then loads its changes, and all that was extracted."""
    with pipeline.managed_state(extract_state=True) as state:
        yield state
    pipeline.normalize()
    pipeline.load()


def cursors(state: Any) -> dict[str, dict[str, Any]]:
    """The cursors in a pipeline's state, by endpoint and estab; see `extract.cursors`."""
    return cursors_of(source_of(state))


def cursors_of(source: Any) -> dict[str, dict[str, Any]]:
    """The same, from the source's part of the state."""
    return {name: kept.get("schools", {}) for name, kept in source.get("resources", {}).items()}


def _of_pipeline(pipeline: dlt.Pipeline, name: str) -> dict[str, Any]:
    """The state of another pipeline of the same dataset; empty if there was none."""
    with pipeline.destination_client() as client:
        if not isinstance(client, WithStateSync):
            return {}
        return dict(load_pipeline_state_from_destination(name, client) or {})


def divided_by(state: Any) -> str:
    """The run that divided the schools; empty if something was loaded or removed since."""
    return str(state.get("sources", {}).get("oneroster", {}).get("run_id", ""))


def divide_by(state: Any, run_id: str) -> None:
    """Notes the run that divided the schools, or with an empty text that none did: then shards of
    earlier runs may not be loaded, nor their cursors be taken over.
    """
    resources(state)
    if run_id:
        state["sources"]["oneroster"]["run_id"] = run_id
    else:
        state["sources"]["oneroster"].pop("run_id", None)


def left_out(state: Any) -> frozenset[str] | None:
    """The columns that are left out of everything loaded, as `table.column`; None if not known."""
    kept = state.get("sources", {}).get("oneroster", {}).get("left_out")
    return None if kept is None else frozenset(kept)


def leave_out(state: Any, columns: Iterable[str]) -> None:
    """Notes the columns that are left out of everything loaded."""
    source_of(state)["left_out"] = sorted(columns)


def forget_left_out(state: Any, columns: Collection[str]) -> None:
    """Makes the next run, of whichever school, read the tables of some columns completely.

    Args:
        state: A pipeline's state.
        columns: The columns, as `table.column`.
    """
    for name, schools in cursors(state).items():
        if of_endpoint(name, columns):
            for entry in schools.values():
                entry.get("read_as", {}).pop("left_out", None)


def keep_as(state: Any, privacy: Privacy) -> None:
    """Notes the privacy settings of a load."""
    leave_out(state, privacy.columns_left_out)
    source_of(state)["pseudonyms"] = _pseudonyms(privacy)


def _pseudonyms(privacy: Privacy) -> dict[str, Any]:
    found = {endpoint.name: privacy.pseudonyms(endpoint) for endpoint in V1P1.endpoints}
    return {name: columns for name, columns in found.items() if columns}


def take_up(pipeline: dlt.Pipeline, shard: Shard, privacy: Privacy) -> None:
    """Gives a shard's pipeline the cursors of the whole dataset: its own are of another division.

    Raises:
        ConfigurationError: The privacy settings here are not those with which schools were divided.
        DestinationError: The schools were divided again meanwhile.
    """
    whole = _of_pipeline(pipeline, PIPELINE)
    require_current(whole, shard)
    pseudonyms = source_of(whole).get("pseudonyms", {})
    if (left_out(whole), pseudonyms) != (privacy.columns_left_out, _pseudonyms(privacy)):
        raise ConfigurationError(
            "the settings of privacy are not the same here as where the run began",
            todo="give all workers the same privacy, columns, pseudonymize and privacy_key",
        )
    with pipeline.managed_state() as state:
        state.setdefault("sources", {})["oneroster"] = {
            "run_id": shard.run_id,
            "prunes": prunes(source_of(whole)),
            "resources": {
                name: {"schools": {e: v for e, v in schools.items() if e in shard.estabs}}
                for name, schools in cursors(whole).items()
            },
        }


def require_current(whole: Any, shard: Shard) -> None:
    """Checks that a shard belongs to the current division.

    Args:
        whole: The state of the pipeline of the whole dataset.
        shard: The shard.

    Raises:
        DestinationError: Another run has divided or loaded the schools since, or some were
            forgotten: they may be in another shard by now, or have newer cursors.
    """
    if divided_by(whole) != shard.run_id:
        raise DestinationError(
            "another run has loaded, divided or forgotten schools since this one divided them",
            todo="nothing was lost: the next run reads again what this one has not finished",
        )


def entries_of(pipeline: dlt.Pipeline, shard: Shard) -> dict[str, dict[str, Any]]:
    """The cursors that a shard has left in the destination, by endpoint and estab; none if it was
    not loaded in this run.
    """
    state = _of_pipeline(pipeline, pipeline_name(shard))
    return cursors(state) if divided_by(state) == shard.run_id else {}
