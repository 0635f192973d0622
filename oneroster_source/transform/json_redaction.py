"""Divides JSON of any form into what names a person and what does not.

It works on the text, without parsing: what is not about the person must stay as it was sent, byte
by byte, and Python cannot parse all JSON, such as numbers of 5,000 digits or 1,000 nested lists.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from itertools import accumulate
from typing import Any
from urllib.parse import unquote

_LITERAL = r'"[^"\\]*(?:\\.[^"\\]*)*"|[^\s"{}\[\]:,]+'
_LITERALS = re.compile(_LITERAL)
_TOKENS = re.compile(_LITERAL + r"|[{}\[\]]")
_NESTING = {"[": 1, "{": 1, "]": -1, "}": -1}
_DEEPEST = 100
"""Levels of lists and objects: with more, Python can parse what it cannot write."""

_UNMISTAKABLE = re.compile(r"(?=\S*\d)(?=\S*[^\W\d_])\S{8,}|\S{16,}")
_OWN = frozenset({"sourcedid", "sourceid", "id", "href"})
"""The members that identify an object."""
_REFERS = re.compile(
    r"(.*?)[ _-]?(?:sourced?[ _-]?)?ids?|users?|agents?", re.IGNORECASE | re.DOTALL
)
"""Names of ids, and OneRoster's of references to people. Everybody writes them in another way
(`userId`, `USER_IDS`, `userid`); that `paid` matches too does little harm, as it holds no id."""
_THING = re.compile(
    r"(?:session|period|semester|year|term|class|course|org|school|enrollment|item|category|result"
    r"|resource|group|form|house|room)(?:e?s)?\Z",
    re.IGNORECASE,
)
"""Other things that have ids, by the end of their names: many providers number each kind from 1."""
_PEOPLE = frozenset({"users", "students", "teachers"})
"""The collections of people in OneRoster's addresses."""


def unmistakable(text: str) -> bool:
    """Whether an id is unmistakable wherever it stands, unlike 7, 7A or red: it has 8 characters or
    more, with letters and digits, or 16 of any kind; and no space.
    """
    return _UNMISTAKABLE.fullmatch(text) is not None


def divided(
    text: str, theirs: Callable[[str], bool], *, ids: bool = False
) -> tuple[str | None, str | None]:
    """Divides JSON into the part without what names a person, and that part alone.

    An id names them as the value of a member with the name of an id (but not of another thing's),
    as an item of a list there, or at the end of a OneRoster address; an `unmistakable` one does
    wherever it stands. What names them is that member or item. An object with their id as its own
    is theirs completely, unless it is the outermost. Containers that become empty are removed.

    Args:
        text: The JSON.
        theirs: Whether a text is an id of the person.
        ids: Whether the JSON is known to be a list of ids.

    Returns:
        Both parts, each None if it is empty. The first is `text` itself if nothing names them.

    >>> divided('{"siblingIds": ["p1", "p2"], "house": "red"}', {"p2"}.__contains__)
    ('{"siblingIds": ["p1"], "house": "red"}', '{"siblingIds": ["p2"]}')
    """
    found = map(_text, _LITERALS.findall(text))
    if not any(theirs(t) or ("/" in t and theirs(_address(t)[1])) for t in found):
        return text, None
    return _Division(text, theirs, ids=ids).parts


def members(text: str) -> Iterator[tuple[str, str]]:
    """Gives the names of an object's members, and each member as it was written."""
    depth, begin, name = 0, 0, None
    for found in _TOKENS.finditer(text):
        before, depth = depth, depth + _NESTING.get(found[0], 0)
        if before == depth == 1 and name is None:
            name, begin = _text(found[0]), found.start()
        elif depth == 1 and name is not None:
            yield name, text[begin : found.end()]
            name = None


def readable(text: str) -> Any:
    """Parses JSON; numbers that Python cannot hold stay text, as does all JSON that is too deep."""
    nesting = (_NESTING.get(token, 0) for token in _TOKENS.findall(text))
    if max(accumulate(nesting), default=0) > _DEEPEST:
        return text
    return json.loads(text, parse_int=_integer, parse_float=_real)


class _Whose(Enum):
    OTHERS = "others"
    THEIRS = "theirs"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class _Piece:
    """A member of an object, or an item of a list: where it stands, and whom it is about."""

    start: int
    end: int
    whose: _Whose


@dataclass(slots=True)
class _Container:
    """An object or a list that has begun."""

    start: int
    mixed: int
    """How many containers about both were found before."""
    is_object: bool = False
    nested: bool = False
    refers: bool = False
    """Whether the value that comes next stands where an id of a person does."""
    thing: bool = False
    """Whether it is not a person, by its name or type."""
    own: str = ""
    """The person's id, if it is the object's own."""
    name: str | None = None
    """The name of the member whose value comes next."""
    begun: int = 0
    """Where that member begins."""
    pieces: list[_Piece] = field(default_factory=list)


class _Division:
    """Scans a JSON text once, whatever its depth."""

    def __init__(self, text: str, theirs: Callable[[str], bool], *, ids: bool) -> None:
        self._text = text
        self._theirs = theirs
        self._mixed: list[list[_Piece]] = []
        """The pieces of each container that is about the person and about others."""
        self._open = [_Container(0, 0, refers=ids)]
        for token in _TOKENS.finditer(text):
            self._take(token[0], token.start(), token.end())

    @property
    def parts(self) -> tuple[str | None, str | None]:
        """The part that is not about the person, and the part that is."""
        (outermost,) = self._open[0].pieces
        if outermost.whose is _Whose.BOTH:
            return self._without(_Whose.THEIRS), self._without(_Whose.OTHERS)
        return (None, self._text) if outermost.whose is _Whose.THEIRS else (self._text, None)

    def _take(self, token: str, start: int, end: int) -> None:
        place = self._open[-1]
        if token in ("{", "["):
            inner = _Container(start, len(self._mixed), token == "{", len(self._open) > 1)  # noqa: S105 - JSON's, no secret
            inner.refers = place.refers
            inner.thing = place.thing if place.name is None else _is_thing(place.name)
            self._open.append(inner)
        elif token in ("}", "]"):
            self._open.pop()
            self._put(place.start, end, self._whose(place), place.mixed)
        elif place.is_object and place.name is None:
            place.name, place.begun = _text(token), start
            place.refers = _refers(place.name)
        else:
            self._put(start, end, self._whose_value(place, _text(token)), len(self._mixed))

    def _put(self, start: int, end: int, whose: _Whose, mixed: int) -> None:
        """Ends a piece; those of both that it contains came after `mixed` others."""
        place = self._open[-1]
        if place.is_object:
            start = place.begun
            if self._names(place.name or "", refers=False):
                whose = _Whose.THEIRS
            place.name = None
        if whose is _Whose.THEIRS:
            # it is not divided any further
            del self._mixed[mixed:]
        place.pieces.append(_Piece(start, end, whose))

    def _whose_value(self, place: _Container, text: str) -> _Whose:
        name = (place.name or "").lower()
        if name == "type":
            place.thing = _is_thing(text)
        if not self._names(text, refers=place.refers):
            return _Whose.OTHERS
        if place.nested and name in _OWN:
            # it identifies the object, which is judged at its end
            place.own = text
            return _Whose.OTHERS
        return _Whose.THEIRS

    def _whose(self, container: _Container) -> _Whose:
        if container.own and (unmistakable(container.own) or not container.thing):
            return _Whose.THEIRS
        found = {piece.whose for piece in container.pieces} or {_Whose.OTHERS}
        if len(found) == 1 and _Whose.BOTH not in found:
            return found.pop()
        self._mixed.append(container.pieces)
        return _Whose.BOTH

    def _names(self, text: str, *, refers: bool) -> bool:
        if self._theirs(text):
            return refers or unmistakable(text)
        if "/" not in text:
            return False
        collection, last = _address(text)
        return self._theirs(last) and (collection in _PEOPLE or unmistakable(last))

    def _without(self, whose: _Whose) -> str:
        spans = sorted(span for pieces in self._mixed for span in _spans(pieces, whose))
        edges = [0, *(edge for span in spans for edge in span), len(self._text)]
        return "".join(
            self._text[begin:end] for begin, end in zip(edges[::2], edges[1::2], strict=True)
        )


def _spans(pieces: list[_Piece], whose: _Whose) -> Iterator[tuple[int, int]]:
    """Gives where some of the pieces stand, each with one comma."""
    last = max(i for i, piece in enumerate(pieces) if piece.whose is not whose)
    for i, piece in enumerate(pieces[:last]):
        if piece.whose is whose:
            yield piece.start, pieces[i + 1].start
    if pieces[last] is not pieces[-1]:
        yield pieces[last].end, pieces[-1].end


def _refers(name: str) -> bool:
    found = _REFERS.fullmatch(name)
    return found is not None and not _is_thing(found[1] or "")


def _is_thing(name: str) -> bool:
    return _THING.search(name) is not None


def _address(text: str) -> tuple[str, str]:
    """Returns the last two parts of an address, a collection and an id."""
    collection, last = text.rsplit("/", 2)[-2:]
    return collection.lower(), unquote(last)


def _text(literal: str) -> str:
    if not literal.startswith('"'):
        return literal
    return str(json.loads(literal, strict=False)) if "\\" in literal else literal[1:-1]


def _integer(digits: str) -> int | str:
    try:
        return int(digits)
    except ValueError:
        return digits


def _real(digits: str) -> float | str:
    number = float(digits)
    return number if math.isfinite(number) else digits
