"""The parts of the documents that are generated from the program.

Run `uv run --directory tests python -m support.generated` to write all of them again.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import get_args

import typer
from typer.main import get_command

from oneroster_source import errors
from oneroster_source.cli.app import app
from oneroster_source.config.options import OPTIONS, Options
from oneroster_source.config.privacy import Privacy, privacy
from oneroster_source.errors import OneRosterError
from oneroster_source.model import V1P1, Column, Holds
from oneroster_source.model.type_map import KINDS
from oneroster_source.reporting.fields import entries
from oneroster_source.reporting.quality import CHECKS, SEVERITIES
from oneroster_source.reporting.views import VIEWS
from support.documents import DOCUMENTS

PAGES = {
    "Many schools": "../guides/many-schools.md",
    "Privacy": "../guides/privacy-and-dpo.md",
    "History": "../concepts/history.md",
    "What it promises": "../concepts/promises.md#deletions",
}
"""The pages that the descriptions of settings refer to, as seen from the page of settings."""


def settings_table() -> str:
    """Every setting, as the program declares it."""
    lines = ["| setting | default | legal values | meaning |", "|---|---|---|---|"]
    for name, option in OPTIONS.items():
        about = option.metadata
        default = "" if option.default is None else f"`{str(option.default).lower()}`"
        if name == "base_url":
            default = "Xporter's"
        secret = " Secret." if about["secret"] else ""
        meaning = re.sub(r"See ([A-Z][\w ]*)\.", _page, about["about"])
        lines.append(f"| `{name}` | {default} | {_cell(about['legal'])} | {meaning}{secret} |")
    return "\n".join(lines)


def _page(found: re.Match[str]) -> str:
    """A reference to another page, as a link."""
    return f"See [{found[1]}]({PAGES[found[1]]})."


def tables_list() -> str:
    """Every table with its grain and columns, as the program declares them."""
    lines = []
    told: dict[str, tuple[Column, ...]] = {}
    for table in V1P1.tables:
        # a table of versions begins with all columns of its endpoint's
        of = table.name.removesuffix("_history")
        known = told.get(of, ())
        told[table.name] = table.columns
        columns = [f"The columns of `{of}`"] if known else []
        columns += [
            f"`{c.name}`" + ("" if c.kind == "text" else f" {KINDS[c.kind].dlt}")
            for c in table.columns
            if c not in known
        ]
        indent = "  - " if "__" in table.name or known else "- "
        lines.append(f"{indent}**`{table.name}`**: {table.grain}. {', '.join(columns)}")
    return "\n".join(lines)


PROFILES = ("full", "no-contact", "pseudonymous")
IDS, ADDRESSES, ADDED, ADDED_ELSEWHERE, ALL_OTHERS = (
    "ids of people and of their enrollments",
    "addresses that end with such an id",
    "what the provider adds to rows about people",
    "what the provider adds to other rows",
    "all other columns, roles, year groups and dates among them",
)
HOLD: dict[Holds, str] = {
    "name": "names",
    "contact": "contact details",
    "secret": "passwords",
    "identifier": "login names and identifiers",
    "words": "names of classes, in which a teacher's may stand",
    "digest": "who was erased",
    "sourced_id": IDS,
}
ELSE = {
    ("kept", "kept", "pseudonym"): IDS,
    ("kept", "kept", "left out"): ADDRESSES,
    ("kept", "kept", "kept"): ALL_OTHERS,
}
"""Columns of which nothing is declared, by what each profile makes of them."""


def privacy_table() -> str:
    """What each profile keeps of each group of columns, as the profiles themselves say."""
    groups: dict[str, dict[tuple[str, str], tuple[str, ...]]] = {
        name: {} for name in (*HOLD.values(), ADDRESSES, ADDED, ADDED_ELSEWHERE, ALL_OTHERS)
    }
    registers = [entries(_of_profile(profile)) for profile in PROFILES]
    columns = [(table, column) for table in V1P1.tables for column in table.columns]
    for (table, column), *found in zip(columns, *registers, strict=True):
        kept = tuple(entry.kept for entry in found)
        if column.holds == "open":
            group = ADDED if table.personal else ADDED_ELSEWHERE
        else:
            group = HOLD[column.holds] if column.holds else ELSE[kept]
        groups[group][table.name, column.name] = kept
    lines = [f"| columns | {' | '.join(f'`{p}`' for p in PROFILES)} |", "|---|---|---|---|"]
    for group, places in groups.items():
        # of a group, all or nothing
        (kept,) = set(places.values())
        listed = "" if group == ALL_OTHERS else f": {_listed(places)}"
        lines.append(f"| {group}{listed} | {' | '.join(kept)} |")
    return "\n".join(lines)


def _of_profile(profile: str) -> Privacy:
    return privacy(Options(privacy=profile, privacy_key="any key that is long enough " * 2), V1P1)


def _listed(places: Iterable[tuple[str, str]]) -> str:
    """Columns, with the tables that they are in, but for those of versions."""
    tables: dict[str, list[str]] = {}
    for table, column in places:
        if not table.endswith("_history"):
            tables.setdefault(column, []).append(f"`{table}`")
    same: dict[str, list[str]] = {}
    for column, found in tables.items():
        same.setdefault(", ".join(found), []).append(f"`{column}`")
    return "; ".join(f"{', '.join(found)} of {named}" for named, found in same.items())


def views_list() -> str:
    """Every view with its question, grain and key, as its file states them."""
    return "\n".join(
        f"- **`{v.name}`**: {v.about['question']} O{v.about['grain'].removeprefix('o')};"
        f" {', '.join(f'`{name}`' for name in v.about['key'].split(', '))}."
        for v in VIEWS
    )


def checks_table() -> str:
    """Every check, the most severe first."""
    lines = ["| check | severity | question |", "|---|---|---|"]
    lines += [
        f"| `{check.name}` | {severity} | {check.about['question']} |"
        for severity in SEVERITIES
        for check in CHECKS
        if check.about["severity"] == severity
    ]
    return "\n".join(lines)


def commands_list() -> str:
    """Every command with its options, as `--help` shows them."""
    return "\n\n".join(_command(name, command) for name, command in _commands().items())


def _commands() -> dict[str, typer.core.TyperCommand]:
    return get_command(app).commands  # type: ignore[attr-defined,no-any-return]


def _command(name: str, command: typer.core.TyperCommand) -> str:
    lines = [f"## {name}", "", _cell(command.help or ""), ""]
    lines += ["| option | default | meaning |", "|---|---|---|"]
    return "\n".join([*lines, *_options(command)])


def _options(command: typer.core.TyperCommand) -> Iterator[str]:
    for param in command.params:
        if getattr(param, "hidden", False) or not isinstance(param, typer.core.TyperOption):
            continue
        value = "" if param.is_flag else f" {_value(param)}"
        variable = f" Also `{param.envvar}` in the environment." if param.envvar else ""
        meaning = _cell(param.help or "") + variable
        yield f"| `{param.opts[0]}{value}` | {_default(param)} | {meaning} |"


def _value(param: typer.core.TyperOption) -> str:
    """What stands for the value of an option."""
    choices = get_args(param.type_descriptor.annotation)
    if choices and all(isinstance(choice, str) for choice in choices):
        return r"\|".join(choices)
    return param.metavar or (param.name or "").upper()


def _default(param: typer.core.TyperOption) -> str:
    if param.required:
        return "required"
    if isinstance(param.show_default, str):
        return f"`{param.show_default}`" if " " not in param.show_default else param.show_default
    return "" if param.default in (None, False) else f"`{param.default}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def errors_list() -> str:
    """Every error, below the one that it is a kind of."""
    return "\n".join(_errors(OneRosterError, ""))


def _errors(error: type[OneRosterError], indent: str) -> Iterator[str]:
    assert getattr(errors, error.__name__) is error
    yield f"{indent}- **`{error.__name__}`**: {_first_sentence(error)}"
    for kind in error.__subclasses__():
        # but for those of other modules, which no user sees
        if kind.__module__ == errors.__name__:
            yield from _errors(kind, indent + "  ")


def _first_sentence(error: type[OneRosterError]) -> str:
    paragraph = (inspect.getdoc(error) or "").partition("\n\n")[0]
    return " ".join(paragraph.split())


GENERATED = {
    "settings": settings_table,
    "tables": tables_list,
    "views": views_list,
    "checks": checks_table,
    "privacy": privacy_table,
    "commands": commands_list,
    "errors": errors_list,
}


def part(name: str) -> re.Pattern[str]:
    """Where a generated part stands."""
    return re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.S)


def generated(text: str) -> str:
    """A document, with its generated parts as the program makes them."""
    for name, make in GENERATED.items():
        if f"<!-- {name} -->\n" in text:
            made = make()
            text = part(name).sub(lambda found, made=made: f"{found[1]}{made}\n{found[2]}", text)
    return text


def write(paths: Iterable[Path] = DOCUMENTS) -> None:
    """Writes the generated parts of all documents."""
    for path in paths:
        before = path.read_text("utf-8")
        after = generated(before)
        if after != before:
            path.write_text(after, "utf-8")


if __name__ == "__main__":
    write()
