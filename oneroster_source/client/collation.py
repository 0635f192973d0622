"""How servers may sort ids, and which ids they may take for equal."""

from __future__ import annotations

import re
from collections.abc import Callable
from operator import le
from typing import Any
from unicodedata import normalize

_SEPARATOR = "\n"
_PUNCTUATION = {ord(c): None for c in map(chr, range(128)) if not c.isalnum() and c != _SEPARATOR}
_MARKS = dict.fromkeys(range(768, 880))
_LIKE = str.maketrans("øđłæœþðħ\u0131", "odlaotdhi")
"""Letters that databases sort as others, and Unicode does not decompose."""
_LEADING_ZEROS = re.compile(r"(?<!\d)0+(?=\d)")


def _plain(text: str) -> str:
    """Removes case and accents."""
    text = text.casefold()
    if text.isascii():
        return text
    return normalize("NFKD", text.translate(_LIKE)).translate(_MARKS)


def coarse(key: str) -> str:
    """Returns what the coarsest collation sees of an id: equal for ids that a server may sort in
    any order.
    """
    return _LEADING_ZEROS.sub("", "".join(c for c in _plain(key) if c.isalnum()))


# one key by one, these would take ten times as long
def _by_letters(keys: list[str]) -> list[str]:
    return _plain(_SEPARATOR.join(keys)).split(_SEPARATOR)


def _by_letters_and_digits(keys: list[str]) -> list[str]:
    # database collations pass over punctuation
    return _plain(_SEPARATOR.join(keys)).translate(_PUNCTUATION).split(_SEPARATOR)


def _by_number(keys: list[str]) -> list[tuple[int, str]]:
    return [(int(key), "") if key.isdecimal() else (-1, key) for key in keys]


Order = Callable[[list[str]], list[Any]]
"""Returns what is compared of each key."""
ORDERS: tuple[Order, ...] = (list, _by_letters, _by_letters_and_digits, _by_number)


def rises(keys: list[str], order: Order) -> bool:
    """Whether ids come in an order."""
    values = order(keys)
    return all(map(le, values, values[1:]))
