"""All errors of this package, and how external text is made safe to display.

    OneRosterError
    ├── ConfigurationError        a setting is missing or wrong
    │   └── FilterError           an invalid filter expression
    ├── LoginError                the token endpoint refused, or its answer holds no token
    ├── RequestRefused            400: the server does not accept the query
    ├── AccessDenied              401 with a fresh token, or 403
    ├── InsecureServer            its TLS certificate cannot be verified
    ├── EndpointNotFound          404, or a redirect
    ├── ServerUnavailable         no usable answer within the retries
    │   └── BadResponse           an answer that is not the JSON that OneRoster describes
    ├── ResponseTooLarge          an answer larger than max_page_mb
    ├── IncompleteRead            the server's pages do not add up to one collection
    ├── MassDeletion              more deletions than max_delete_share allows wait for a decision
    └── DestinationError          the warehouse cannot be opened or written
        └── DestinationBusy       another run is loading into it

A message says what happened, where (school, endpoint, offset), and what to do. None holds a
secret, a token or a record; none keeps a request or response that would.
"""

from __future__ import annotations

import html
import json
import re
from base64 import b64encode
from collections.abc import Collection, Iterator
from functools import lru_cache
from urllib.parse import quote

_UNSEEN = (
    "\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
)
_CONTROL = re.compile(f"[{_UNSEEN}\ud800-\udfff\U000e0000-\U000e007f]+")
# user:password@host in an address, whatever the password holds; then what is left of one, or an
# e-mail address; then what an address or a driver's settings name as secret
_LOGIN = re.compile(r"(://)\S*@(?=\S)")
_FILES = r"\S*\.(?:duckdb|ddb|db|csv|tsv|parquet|jsonl?|pem|crt)\b"
_BEFORE_AT = re.compile(rf"[^\s/\"'`@<>()=,;:&]+@(?=[\w\[])(?!{_FILES})")
_NAMED = re.compile(
    r"(\w*(?:password|passwd|passphrase|pwd|secret|token|credential|api_?key|private_?key|signature"
    r"|\bsig)\w*=)('[^']*'|\"[^\"]*\"|[^\s&,;'\"`)\]]+)",
    re.IGNORECASE,
)
_NAME = re.compile(r"[A-Za-z_@$][A-Za-z0-9_:$-]{0,39}")
_TODO = "\n  What to do: "
HIDDEN = "***"
MOST_LETTERS = 2_000
"""Longest part of a message, in characters."""
MOST_ITEMS = 20
"""Most items of a list in a message."""


def clean(text: object, *, secrets: tuple[str, ...] = (), limit: int = 200) -> str:
    """Makes text from elsewhere safe for a message.

    It becomes one line, shortened, without control characters, `secrets`, logins in URLs, and
    e-mail addresses.
    """
    line = str(text)
    if any(secrets):
        line = _forms(tuple(filter(None, secrets))).sub(HIDDEN, line)
    line = masked(" ".join(_CONTROL.sub(" ", line).split()))
    return line if len(line) <= limit else line[: limit - 1] + "…"


def masked(text: str) -> str:
    """Hides the passwords in URLs and in drivers' settings."""
    if "@" in text:
        text = _BEFORE_AT.sub(f"{HIDDEN}@", _LOGIN.sub(rf"\1{HIDDEN}@", text))
    return _NAMED.sub(rf"\1{HIDDEN}", text) if "=" in text else text


def told(message: object) -> str:
    """Makes a message safe to print, each part on one line: no text in it can forge a line."""
    return _TODO.join(clean(part, limit=MOST_LETTERS) for part in str(message).split(_TODO))


def shown(value: object) -> object:
    """Makes each text in a value as safe as `told` makes a message."""
    if isinstance(value, str):
        return told(value)
    if isinstance(value, dict):
        return {told(key): shown(each) for key, each in value.items()}
    return [shown(each) for each in value] if isinstance(value, list | tuple) else value


def to_json(value: object) -> str:
    """Writes exact values as JSON that is safe to show on a terminal."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    # line breaks stand between the values alone
    return re.sub(f"(?!\n){_CONTROL.pattern[:-1]}", _escaped, text)


def _escaped(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1]


def label(name: str) -> str:
    """Returns the name of an attribute, or only its length where it may be personal data."""
    if _NAME.fullmatch(name) and sum(map(str.isdigit, name)) <= 4:
        return name
    return f"(a name of {len(name):,} characters)"


def listed(items: Collection[str]) -> str:
    """Joins the first items of a list for a message, and counts the others."""
    first = [item for item, _ in zip(items, range(MOST_ITEMS), strict=False)]
    more = len(items) - len(first)
    return ", ".join(first) + (f" and {more:,} more" if more else "")


@lru_cache(maxsize=64)
def _forms(secrets: tuple[str, ...]) -> re.Pattern[str]:
    """Returns a pattern for secrets in every form in which they are sent or may be echoed.

    Longer forms come first, since one may be a part of another.
    """
    # some servers take UTF-8 for Latin-1
    taken = {secret.encode("utf-8", "surrogatepass").decode("latin-1") for secret in secrets}
    patterns = {form for secret in {*secrets, *taken} for form in _encoded(secret)}
    return re.compile("|".join(sorted(patterns, key=len, reverse=True)))


def _encoded(secret: str) -> Iterator[str]:
    octets = secret.encode("utf-8", "surrogatepass")
    yield from map(re.escape, (secret, html.escape(secret), secret.replace("'", "&#39;")))
    yield re.escape(repr(secret)[1:-1])
    for is_ascii in (True, False):
        escaped = json.dumps(secret, ensure_ascii=is_ascii)[1:-1]
        upper = re.sub(r"\\u....", lambda code: r"\u" + code[0][2:].upper(), escaped)
        yield from map(re.escape, (escaped, upper, escaped.replace("/", r"\/")))
    # languages differ in the characters that they leave as they are
    for percent in (quote(octets, safe=safe) for safe in ("/", "", "*", "!'()*")):
        for form in (percent, percent.replace("%20", "+"), percent.replace("~", "%7E")):
            # percent signs may be followed by small letters
            yield f"(?i:{re.escape(form)})" if "%" in form else re.escape(form)
    # as a part of what is encoded whole, such as user:secret, which begins at any bit
    for start in range(3):
        encoded = b64encode(bytes(start) + octets).decode()
        # letters in which bits of what stands before or behind are
        inner = encoded[-(-start * 8 // 6) : (start + len(octets)) * 8 // 6]
        for core in {inner, inner.translate({43: "-", 47: "_"})} if len(inner) >= 6 else ():
            yield rf"{re.escape(core)}[\w+/=-]*"


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what led to it, the first cause last."""
    item: BaseException | None = error
    while item is not None:
        yield item
        item = item.__cause__ or item.__context__


class OneRosterError(Exception):
    """Base of all errors of this package.

    Args:
        what: What happened.
        where: School, endpoint and offset, as far as known.
        todo: What the reader of the message can do.
    """

    words = ""
    """What the server said, which may quote rows: for `oneroster check-connection`, never for a
    log."""
    status = 0
    """The HTTP status of the server's answer, if that is the error."""

    def __init__(self, what: str, *, where: str = "", todo: str = "") -> None:
        # here, so that text from elsewhere is always cleaned
        self.what = clean(what, limit=MOST_LETTERS)
        self.where = clean(where)
        self.todo = clean(todo, limit=MOST_LETTERS)
        super().__init__(
            (f"{self.where}: " if where else "")
            + self.what
            + (f"{_TODO}{self.todo}" if todo else "")
        )


class ConfigurationError(OneRosterError):
    """A setting is missing or invalid."""


class FilterError(ConfigurationError):
    """A filter expression has a field, operator or value that the grammar does not know."""


class LoginError(OneRosterError):
    """The token endpoint refused the credentials or gave no token."""


class RequestRefused(OneRosterError):
    """The server answered 400: it does not accept this filter, sort or paging."""


class AccessDenied(OneRosterError):
    """The token is valid, or freshly renewed, and the server still denies the data."""


class InsecureServer(OneRosterError):
    """The server's TLS certificate cannot be verified; nothing was sent to it."""


class EndpointNotFound(OneRosterError):
    """There is nothing at this address: 404, or a redirect, which is never followed."""


class ServerUnavailable(OneRosterError):
    """The server gave no usable answer within the retries."""

    retry_after: float | None = None
    """Seconds that the server asked to wait."""
    pausing = ""
    """The server that is to get no requests for a while; empty if none is."""
    tries: int | None = None
    """The number of tries for a request that fails like this, where it is smaller than usual."""


class BadResponse(ServerUnavailable):
    """The answer is not JSON, or not the collection that was asked for."""


class ResponseTooLarge(OneRosterError):
    """The answer is larger than what may be kept in memory; a retry would not help."""


class IncompleteRead(OneRosterError):
    """The pages do not add up to a complete collection."""


class MassDeletion(OneRosterError):
    """More rows would be deleted than `max_delete_share` allows, or no live row would be left."""


class DestinationError(OneRosterError):
    """The destination cannot be opened, read or written."""


class DestinationBusy(DestinationError):
    """Another run is loading into the destination; nothing was done."""
