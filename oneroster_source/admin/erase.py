"""Erases a person from a dataset for good, or exports what it holds on them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from oneroster_source.admin.person import Person
from oneroster_source.config.privacy import Key
from oneroster_source.config.settings import chosen_privacy
from oneroster_source.destination import staging
from oneroster_source.destination.backends import backend_of
from oneroster_source.destination.queries import DestinationClient, Removed
from oneroster_source.destination.session import Target, require_database
from oneroster_source.errors import ConfigurationError
from oneroster_source.model import V1P1


def trace(
    target: Target, estab: str, user: str, *, to_erase: bool = False, **settings: Any
) -> dict[str, int]:
    """Counts what is held on a person: see `Warehouse.trace`."""
    key = _key(estab, user, settings)
    with target.loaded() as (_, client):
        return _person(target, client, estab, user, key, to_erase=to_erase).counts()


def erase(target: Target, estab: str, user: str, **settings: Any) -> Removed:
    """Removes a person for good: see `Warehouse.erase`."""
    key = _key(estab, user, settings)
    erased = Removed()
    with target.loaded(to_write=True, own=False, removed=erased) as (_, opened_client):
        client = require_database(opened_client, target.name)
        # before anything: an id that was mistyped changes nothing
        person = _person(target, client, estab, user, key, to_erase=True)
        # of runs that were killed
        staging.drop(client)
        backend_of(client).mark_compaction_due()
        # in one transaction: nobody is removed who is not listed
        with client.sql_client.begin_transaction():
            person.suppress()
            erased.rows = person.remove()
    return erased


def export(target: Target, estab: str, user: str, **settings: Any) -> dict[str, Any]:
    """Returns all that is held on a person: see `Warehouse.export`."""
    key = _key(estab, user, settings)
    with target.loaded() as (_, client):
        rows = _person(target, client, estab, user, key).rows()
    return {
        "estab": estab,
        "user": user,
        "destination": target.name,
        "dataset": target.dataset,
        "exported_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "tables": rows,
    }


def _key(estab: str, user: str, settings: dict[str, Any]) -> Key | None:
    """The key of pseudonyms, after a check of the ids, before anything is opened."""
    for what, text in (("estab", estab), ("user", user)):
        problem = "" if text.strip() else "is empty"
        if any(c == "\0" or "\ud800" <= c <= "\udfff" for c in text):
            problem = "holds what is no character"
        if problem:
            raise ConfigurationError(
                f"the {what} {problem}",
                todo="give the school's estab, and the person's sourcedId as the provider or the"
                " table users has it",
            )
    return chosen_privacy(**settings).key


def _person(
    target: Target,
    client: DestinationClient,
    estab: str,
    user: str,
    key: Key | None,
    *,
    to_erase: bool = False,
) -> Person:
    """A person of whom the dataset holds a row, or did.

    Raises:
        ConfigurationError: There is nobody with this id, or `erase` refuses the key.
        DestinationError: The destination takes no SQL.
    """
    person = Person(require_database(client, target.name), V1P1, estab, user, key)
    if to_erase:
        person.require_key()
    if not person.is_known:
        raise ConfigurationError(
            f"{target.name} holds nobody with this id in school {estab}",
            todo="give the person's sourcedId, as the provider or the table users has it; where"
            " ids are pseudonyms, 'privacy_key' must be the key of these",
        )
    return person
