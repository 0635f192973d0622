"""Corrects names in another case than the standard's, such as .NET's `SourcedId`.

Only names of a row's attributes, and of the members of its references and list items, are
corrected. What the provider adds stays as it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from oneroster_source.model import Endpoint, Ref

REFERENCE = ("sourcedId", "sourceId", "id", "type", "href")
_TOKENS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[^\s"{}\[\]:,]+|[{}\[\]]')


class _Names:
    """The names that an object's members may have, and those in the objects that they hold."""

    def __init__(self, names: Mapping[str, _Names | None]) -> None:
        self.members = names
        self.proper = {name.lower(): name for name in names}


@dataclass(slots=True)
class _Open:
    """An object or a list that has begun."""

    is_list: bool
    names: _Names | None
    """Those of the object, or of the objects in the list; None for any."""
    key: str | None = None
    """The name of the member whose value comes next."""
    there: set[str] = field(default_factory=set)
    edits: list[tuple[int, int, str]] = field(default_factory=list)
    """Where names stand, with the proper ones."""


class Spelling:
    """Corrects the names in an endpoint's pages."""

    def __init__(self, endpoint: Endpoint) -> None:
        reference = _Names(dict.fromkeys(REFERENCE))
        members: dict[str, _Names | None] = dict.fromkeys(endpoint.attributes)
        for attribute in endpoint.nested:
            if isinstance(attribute, Ref) or attribute.target is not None:
                members |= dict.fromkeys(attribute.names, reference)
            elif attribute.fields:
                inner = _Names({f.name: None for f in attribute.fields})
                members |= dict.fromkeys(attribute.names, inner)
        self._row = _Names(members)
        self._collection = endpoint.collection.lower()
        every = {*members, *REFERENCE}
        every.update(n for names in members.values() if names for n in names.members)
        known = "|".join(sorted(map(re.escape, every)))
        # outside of a text, nothing but a name begins after a quote
        self._wrong = re.compile(
            rf'(?<!\\)"(?!(?-i:{known})")(?:{known})"\s*:', re.IGNORECASE | re.ASCII
        )

    def corrected(self, text: str) -> str:
        """Returns the page with the standard's names; the same object if all are right.

        Where an object has a name in the standard's case too, others of that name stay.
        """
        if self._wrong.search(text) is None:
            return text
        try:
            edits = sorted(self._edits(text))
        except ValueError:
            # not JSON, which is reported elsewhere
            return text
        parts, end = [], 0
        for begin, stop, name in edits:
            parts += [text[end:begin], f'"{name}"']
            end = stop
        return "".join([*parts, text[end:]])

    def _edits(self, text: str) -> list[tuple[int, int, str]]:
        found: list[tuple[int, int, str]] = []
        # a bare list of rows, or an object with one
        place = _Open(is_list=True, names=_Names({}))
        outer = [place]
        for token in _TOKENS.finditer(text):
            sign = token[0][0]
            if sign in "{[":
                place = _Open(sign == "[", self._inside(place, len(outer), sign))
                outer.append(place)
            elif sign in "}]":
                if len(outer) == 1:
                    raise ValueError("more ends than beginnings")
                found += [edit for edit in outer.pop().edits if edit[2] not in place.there]
                place = outer[-1]
                place.key = None
            elif place.is_list:
                pass
            elif place.key is None:
                place.key = self._key(place, token)
            else:
                place.key = None
        return found

    def _inside(self, place: _Open, depth: int, sign: str) -> _Names | None:
        """Returns the names in an object or list that begins."""
        if depth == 1:
            return self._row if sign == "[" else None
        if depth == 2 and not place.is_list:
            whose = place.key or ""
            return self._row if sign == "[" and whose.lower() == self._collection else None
        if place.names is None:
            return None
        if place.is_list:
            return place.names if sign == "{" else None
        return place.names.members.get(place.key or "")

    def _key(self, place: _Open, token: re.Match[str]) -> str:
        name = str(json.loads(token[0], strict=False)) if "\\" in token[0] else token[0][1:-1]
        place.there.add(name)
        if place.names is not None and name not in place.names.members:
            proper = place.names.proper.get(name.lower())
            if proper is not None:
                place.edits.append((token.start(), token.end(), proper))
                return proper
        return name
