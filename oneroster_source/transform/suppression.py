"""Keeps erased people out of later loads.

The destination lists them, each as a digest under the setting `privacy_key`, so that nobody can
learn from it who they were. Without that key, no load can either: it ends before the first request.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from oneroster_source.config.options import places
from oneroster_source.config.privacy import Key
from oneroster_source.errors import ConfigurationError
from oneroster_source.model import ChildList, Dialect, Endpoint
from oneroster_source.transform.json_redaction import divided
from oneroster_source.transform.redaction import replaced

MAKE_A_KEY = "python -c 'import secrets; print(secrets.token_hex(32))'"
"""A command that prints a new key."""


def digest(key: Key, estab: str, user: str) -> str:
    """Returns the digest under which the list holds a person.

    Args:
        key: The key.
        estab: The school.
        user: The person's id, as the provider gives it, or as a pseudonym.
    """
    # of the pseudonym, so that it still matches once ids become pseudonyms, or are no longer:
    # see `Suppression`
    return key.digest("suppressed", estab, key.digest(user))


def keyless(problem: str) -> ConfigurationError:
    """Makes the error for a missing or different key, where people were erased."""
    return ConfigurationError(
        problem,
        todo="set 'privacy_key' to the key under which they were erased: under no other one can a"
        f" load tell who they were, and it would bring them back. Looked for in"
        f" {places('privacy_key')}",
    )


def suppressions(
    listed: Iterable[tuple[str, str, str]],
    estabs: Collection[str],
    key: Key | None,
    dialect: Dialect,
) -> dict[str, Suppression]:
    """Returns the erased people of those schools that have any, by estab.

    Args:
        listed: The list: estab, digest, and the name of the key under which it was made.
        estabs: The schools of a run.
        key: The key that is set.
        dialect: What the schools send.

    Raises:
        ConfigurationError: There is no key, or another one.
    """
    found: dict[str, set[str]] = {}
    for estab, user_digest, key_name in listed:
        if estab not in estabs:
            continue
        if key is None:
            raise keyless(
                f"people of school {estab} were erased, and the setting 'privacy_key' is missing"
            )
        if key.name != key_name:
            raise keyless(
                f"people of school {estab} were erased under another key than that of the setting"
                " 'privacy_key'"
            )
        found.setdefault(estab, set()).add(user_digest)
    return {
        estab: Suppression(key, estab, digests, dialect)
        for estab, digests in found.items()
        if key is not None
    }


class Suppression:
    """The erased people of a school.

    An id is recognised in each form that it may have now, and may have had when it was erased: as
    the provider gives it, and as a pseudonym.

    Args:
        key: The key of the list.
        estab: The school.
        digests: What the list holds.
        dialect: What the school sends.
    """

    def __init__(self, key: Key, estab: str, digests: Collection[str], dialect: Dialect) -> None:
        self._key = key
        self._estab = estab
        self._digests = frozenset(digests)
        self._dialect = dialect
        self._known: dict[str, bool] = {}

    def __contains__(self, text: str) -> bool:
        known = self._known.get(text)
        if known is None:
            pseudonym = self._key.digest(text)
            # the list has the pseudonym of what was named, which may have been one already
            forms = (text, pseudonym, self._key.digest(pseudonym))
            listed = (self._key.digest("suppressed", self._estab, form) for form in forms)
            known = self._known[text] = not self._digests.isdisjoint(listed)
        return known

    def theirs(self, endpoint: Endpoint, wide: pa.Table) -> pa.Array:
        """Returns which of some wide rows are about these people."""
        columns = [name for name, _ in self._dialect.refers_to_people(endpoint)]
        if endpoint.name == self._dialect.people:
            columns.append("sourced_id")
        found = pa.repeat(False, len(wide))
        for name in columns:
            ids = wide.column(name).combine_chunks()
            known = [text for text in _unique(ids) if text in self]
            found = pc.or_(found, pc.is_in(ids, value_set=pa.array(known, pa.string())))
        return found

    def without(self, endpoint: Endpoint, wide: pa.Table) -> pa.Table:
        """Removes the wide rows about these people, and what names them in others."""
        theirs = self.theirs(endpoint, wide)
        if theirs.true_count:
            wide = wide.filter(pc.invert(theirs))
        for attribute in endpoint.nested:
            if isinstance(attribute, ChildList) and attribute.target == self._dialect.people:
                wide = self._shorter(wide, endpoint.child_name(attribute))
        for column in endpoint.table.columns:
            if column.kind == "json":
                wide = self._silent(wide, column.name)
        return wide

    def _shorter(self, wide: pa.Table, name: str) -> pa.Table:
        lists = wide.column(name)
        ids = pc.struct_field(pc.list_flatten(lists), "sourced_id")
        if not any(text in self for text in _unique(ids)):
            return wide
        kept = [
            items and [item for item in items if item["sourced_id"] not in self]
            for items in lists.to_pylist()
        ]
        return replaced(wide, name, pa.array(kept, lists.type))

    def _silent(self, wide: pa.Table, name: str) -> pa.Table:
        texts = wide.column(name)
        if texts.null_count == len(texts):
            return wide
        shorter = {text: divided(text, self.__contains__)[0] for text in _unique(texts)}
        if all(text == short for text, short in shorter.items()):
            return wide
        kept = [text and shorter[text] for text in texts.to_pylist()]
        return replaced(wide, name, pa.array(kept, texts.type))


def _unique(texts: Any) -> list[str]:
    return [text for text in pc.unique(texts).to_pylist() if text is not None]
