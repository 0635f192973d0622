"""The documents, as tests read them: the Markdown at the top, in `docs/` and of the notebooks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCUMENTS = (
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "notebooks/README.md",
)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a document."""

    path: Path
    text: str

    def __str__(self) -> str:
        first = self.text.strip().splitlines()[0]
        return f"{name_of(self.path)}: {first.removeprefix('-- ')[:60]}"


def name_of(path: Path) -> str:
    """The path of a document, as people write it."""
    return path.relative_to(ROOT).as_posix()


def blocks(language: str) -> Iterator[Block]:
    """The fenced blocks of a language in all documents."""
    for path in DOCUMENTS:
        for text in re.findall(rf"^```{language}\n(.*?)^```", path.read_text("utf-8"), re.S | re.M):
            yield Block(path, text)


def prose(path: Path) -> str:
    """A document without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", path.read_text("utf-8"), flags=re.S | re.M)


def queries() -> list[str]:
    """The SQL of all documents."""
    return [block.text for block in blocks("sql")]


def commands() -> list[str]:
    """The command lines of all shell blocks, each on one line and without its comment."""
    lines = [
        line.split("  #")[0].strip()
        for block in blocks("bash")
        for line in block.text.replace("\\\n", " ").splitlines()
    ]
    return [line for line in lines if line]
