"""Where a secret could be left: in files, and on exceptions."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def found(texts: dict[str, bytes], secrets: list[bytes]) -> list[str]:
    return [name for name, text in texts.items() if any(secret in text for secret in secrets)]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def parts(value: Any, seen: set[int] | None = None) -> str:
    """Everything that hangs on an exception: arguments, attributes, causes, contexts."""
    seen = set() if seen is None else seen
    if id(value) in seen or value is None:
        return ""
    seen.add(id(value))
    text = repr(value) + str(value)
    if isinstance(value, BaseException):
        inner = [*value.args, *vars(value).values(), value.__cause__, value.__context__]
        text += "".join(parts(item, seen) for item in inner)
    return text


def everything(error: BaseException | None) -> str:
    """All that an exception holds, and those that led to it, as one text."""
    if error is None:
        return ""
    own = f"{error!s} {error!r} {error.args!r} {vars(error)!r}"
    return own + everything(error.__cause__) + everything(error.__context__)
