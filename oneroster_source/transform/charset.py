"""Decodes answers: they become UTF-8, whatever charset they were sent in."""

from __future__ import annotations

import codecs
import json
import re
import struct

import pyarrow as pa

from oneroster_source.errors import BadResponse, clean

Body = bytes | bytearray

_FALLBACK = "cp1252"
_NAMED = re.compile(r""";\s*charset\s*=\s*["']?([^\s"';,]+)""", re.I)
_TEXT = re.compile(
    r"ascii|utf-(8|8-sig|16|16-le|16-be|32|32-le|32-be)|iso8859-\d+|cp\d+|koi8-\w+|mac-\w+"
    r"|gb2312|gbk|gb18030|big5\w*|shift_jis\w*|euc_\w+|iso2022_\w+|tis-620"
)
"""The accepted codecs; others of Python change the meaning of escapes, or unpack."""
_SINGLE = re.compile(r"ascii|iso8859-\d+|cp(125\d|437|8\d\d)|koi8-\w+|mac-\w+")
"""Charsets of one byte for each character, in which no text with accents is UTF-8 by chance.
Servers name them by default, whatever they send."""
_OTHERWISE = re.compile(r"utf-(16|32).*|iso2022.*")
"""Charsets in which ASCII is not sent as its own bytes."""


def is_utf8(body: Body) -> bool:
    """Whether a body is valid UTF-8; makes no copy."""
    if body.isascii():
        return True
    offsets = pa.py_buffer(struct.pack("qq", 0, len(body)))
    text = pa.Array.from_buffers(pa.large_string(), 1, [None, offsets, pa.py_buffer(body)])
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def as_utf8(body: Body, content_type: str) -> tuple[Body, str]:
    """Makes UTF-8 of a JSON text; returns the same object if it is UTF-8 already.

    Args:
        body: As it was sent.
        content_type: The header, which may name a charset.

    Returns:
        The text, and a warning if its charset had to be guessed; empty if not.

    Raises:
        BadResponse: The charset is unknown, or the text is not valid in it.

    >>> as_utf8('"Zoë"'.encode("latin-1"), "application/json; charset=latin-1")[0].decode()
    '"Zoë"'
    """
    # a byte order mark and the zeros of UTF-16 are certain signs: no other JSON text has them
    sign = json.detect_encoding(bytes(body[:4]))
    if not sign.startswith("utf-8"):
        return _decoded(body, sign), ""
    found = _NAMED.search(content_type)
    name = _codec(found[1]) if found else ""
    if sign == "utf-8-sig":
        body, name = body[len(codecs.BOM_UTF8) :], "utf-8"
    if _OTHERWISE.fullmatch(name):
        return _decoded(body, name), ""
    if body.isascii():
        return body, ""
    utf8 = is_utf8(body)
    if utf8 and (not name or name.startswith("utf-8")):
        return body, ""
    said = clean(found[1], limit=20) if found else ""
    if utf8 and _SINGLE.fullmatch(name):
        return body, f"the server says that its answer is {said}; it is UTF-8, and was read as that"
    if utf8:
        warning = f"the answer may be UTF-8, though the server says {said}; it was read as {said}"
        return _decoded(body, name), warning
    if not name:
        warning = f"the answer is not UTF-8; it was read as {_FALLBACK}"
        return _decoded(body, _FALLBACK), warning
    if name == "iso8859-1" and re.search(rb"[\x80-\x9f]", body):
        # where ISO 8859-1 has control characters, Windows has quotes and dashes
        warning = f"the answer is not ISO 8859-1, as the server says; it was read as {_FALLBACK}"
        return _decoded(body, _FALLBACK), warning
    return _decoded(body, name), ""


def _codec(name: str) -> str:
    """Returns Python's own name of a charset."""
    try:
        codec = codecs.lookup(name).name
    except (LookupError, ValueError):
        codec = ""
    if not _TEXT.fullmatch(codec):
        raise BadResponse(
            f"the answer is in the charset {clean(name, limit=20)!r}, which is unknown",
            todo="ask the provider to send UTF-8",
        )
    return codec


def _decoded(body: Body, codec: str) -> bytes:
    try:
        return body.decode(codec).encode()
    except UnicodeError:
        problem = BadResponse(f"the answer is not {codec} text", todo="ask the provider")
    # raised here: the decoder's error holds the body
    raise problem
