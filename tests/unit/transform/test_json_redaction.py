"""What of a JSON text names a person, and what does not; of any JSON at all."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from oneroster_source.transform.json_redaction import divided, readable, unmistakable

ID = "kanari-1"
"""Unmistakable; the other one is not."""
theirs = {ID, "12"}.__contains__


@pytest.mark.parametrize(
    ("text", "rest", "told"),
    [
        ('{"a": "kanari-1"}', None, {"a": ID}),
        (
            '{"a": {"b": [["kanari-1"], "y"]}, "c": 1}',
            '{"a": {"b": ["y"]}, "c": 1}',
            {"a": {"b": [[ID]]}},
        ),
        ('["kanari-1", "y", {"id": "kanari-1", "n": 1}]', '["y"]', [ID, {"id": ID, "n": 1}]),
        ('{"kanari-1": [1], "é":  1.10}', '{"é":  1.10}', {ID: [1]}),
        ('"kanari-1"', None, ID),
        (r'{"b": 1e999, "a": "\u006banari-1"}', '{"b": 1e999}', {"a": ID}),
        ('{"a":   "a kanari-1", "b": 1e999}', '{"a":   "a kanari-1", "b": 1e999}', None),
        (
            '[{"x": {"n": 1, "id": "kanari-1", "ids": ["p1"]}, "z": 2}]',
            '[{"z": 2}]',
            [{"x": {"n": 1, "id": ID, "ids": ["p1"]}}],
        ),
        # the outermost is the row's, or all that the provider adds to it
        ('{"id": "kanari-1", "n": 1}', '{"n": 1}', {"id": ID}),
        (
            '["/users/12", "/classes/12", "/classes/kanari%2D1"]',
            '["/classes/12"]',
            ["/users/12", "/classes/kanari%2D1"],
        ),
        (
            '[{"href": "https://a/students/12", "x": 1}]',
            None,
            [{"href": "https://a/students/12", "x": 1}],
        ),
    ],
)
def test_what_names_a_person_is_divided_from_the_rest(
    text: str, rest: str | None, told: Any
) -> None:
    found, about = divided(text, theirs)
    assert found == rest
    assert told == (about and json.loads(about))


@pytest.mark.parametrize(
    ("member", "counts"),
    [
        *[
            (f'"{name}": "12"', True)
            for name in (
                "sourcedId",
                "userSourcedId",
                "USER_IDS",
                "userid",
                "id",
                "user",
                "personID",
            )
        ],
        *[(f'"{name}": ["p1", "12"]', True) for name in ("agents", "siblingIds", "Member Ids")],
        ('"userId": 12', True),
        ('"a": {"sourcedId": "12", "type": "user"}', True),
        *[
            (f'"{name}": "12"', False)
            for name in ("yearGroup", "number", "classSourcedId", "tutorGroupId", "12", "ide")
        ],
        ('"course": {"sourcedId": "12"}', False),
        ('"terms": [{"id": "12"}]', False),
        ('"a": {"sourcedId": "12", "type": "class"}', False),
    ],
)
def test_a_short_id_counts_where_ids_of_people_stand(member: str, counts: bool) -> None:
    rest, _ = divided(f'{{"b": 1, {member}}}', theirs)
    assert ("12" not in str(rest)) == counts


def test_in_a_list_of_ids_any_counts() -> None:
    assert divided('["12", "13"]', theirs, ids=True) == ('["13"]', '["12"]')
    assert divided('["12", "13"]', theirs) == ('["12", "13"]', None)


def test_ids_that_can_be_anything_else_are_told_from_others() -> None:
    for text in (
        ID,
        "x4k2j9d0q",
        "0b7c1f5e-2a4d-4c8e-9f00-1234567890ab",
        "1" * 16,
        "ada.lovelace@school",
    ):
        assert unmistakable(text), text
    for text in (
        "12",
        "7A",
        "red",
        "1234567",
        "20261125",
        "2026-11-25",
        "Mathematics",
        "a 1 b 2 c 3 d 4 e 5",
    ):
        assert not unmistakable(text), text


def test_no_json_is_too_much() -> None:
    deep, long = "[" * 5000 + '"kanari-1",7' + "]" * 5000, "9" * 5000
    text = f'{{"a":{deep},"b":{long}}}'
    rest, about = divided(text, theirs)
    assert rest == text.replace('"kanari-1",', "")
    assert about == f'{{"a":{deep}}}'.replace(",7", "")
    assert divided(text, {"x"}.__contains__) == (text, None)
    assert readable(text) == text
    assert readable(f'{{"b":{long},"c":-1e999,"d":[1.5,"[["]}}') == {
        "b": long,
        "c": "-1e999",
        "d": [1.5, "[["],
    }
    fits = "[" * 100 + "]" * 100
    assert json.dumps(readable(fits), indent=2)


def test_both_parts_of_any_json_are_json_and_make_the_whole() -> None:
    rng = random.Random(1)

    def some(depth: int) -> Any:
        kind = rng.randrange(8) if depth else 7
        if kind < 3:
            return {rng.choice("abc,{") + str(i): some(depth - 1) for i in range(rng.randrange(5))}
        if kind < 6:
            return [some(depth - 1) for _ in range(rng.randrange(5))]
        return rng.choice([ID, 1, "x", '"]', "\\", None, 2.5])

    def leaves(value: Any) -> list[str]:
        values = value.values() if isinstance(value, dict) else value
        if isinstance(value, dict | list):
            return [leaf for v in values for leaf in leaves(v)]
        return [json.dumps(value)]

    for _ in range(2000):
        value = some(5)
        text = json.dumps(value, indent=rng.choice([None, 1]))
        rest, about = divided(text, theirs)
        others, own = (leaves(json.loads(part)) if part else [] for part in (rest, about))
        assert others == [leaf for leaf in leaves(value) if ID not in leaf]
        assert own == [leaf for leaf in leaves(value) if ID in leaf]
